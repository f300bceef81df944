"""Speech with a mood and the face that goes with it, as coefficients: no picture is rendered.

A *take* is two utterances of one voice in one mood, one after the other, at one of three levels (``vocal_mood.py``);
somebody of the face world performs them with the same emotion at the same strength. Voices, sentences and people of
one split never appear in another. The eighth emotion, contempt, is made from neutral speech; neutral has one level.
With a wider local speech bank (``wide_speech.py``) training also has takes of one of its utterances each.

Shapes (legend for this file): F frames at 25 per second, T = 2 F at 50, C descriptors of a voice, M mel bands, P mel
frames at 80 per second
    motion (F, 34) in FACE, the head's pose relative to the portrait's; voice (T, C) descriptors, lip_mel (P, M)

Takes are made once and kept as ``motion-HASH/SPLIT.npz`` under the hash of everything that shapes them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from moee_core.audio import prosody
from moee_core.audio.mel import SAMPLE_RATE, level_gain
from moee_core.audio.spectrogram import LIP_MEL, LIP_STEPS, lip_window_start, lip_windows, spectrogram
from moee_core.emotion.vocabulary import LABELS
from training.data.clips import source_hash
from training.data.vocal_mood import LEVELS, Phonemes, change_for, said_again
from training.emotalker_config import MotionDataConfig

if TYPE_CHECKING:
    from training.face_world.speech import Utterance

log = logging.getLogger(__name__)

FRAME_SAMPLES = SAMPLE_RATE // 25
GAP_SECONDS = 0.2
LIP_OFFSET = lip_window_start(0)
"""Number of the first lip-mel frame that is kept."""
PURPOSE = 21


@dataclass(frozen=True, kw_only=True)
class Take:
    """One recording and its performance; ``emotion`` numbers ``LABELS``, ``level`` is 0 for neutral, else 1 to 3.

    ``key`` names the utterances, so that the same words at three levels can be compared; ``person`` numbers a person
    of the split.
    """

    key: str
    emotion: int
    level: int
    person: int
    motion: np.ndarray
    voice: np.ndarray
    lip_mel: np.ndarray

    def __len__(self) -> int:
        return len(self.motion)

    @property
    def strength(self) -> float:
        """0 neutral .. 1 full."""
        return LEVELS[self.level - 1] if self.level else 0.0

    def heard(self, first: int, frames: int, context: int) -> np.ndarray:
        """(2 frames + 2 context, C): what an ear needs for video frames ``first`` .. ``first + frames - 1``."""
        begin, end = 2 * first - context, 2 * (first + frames) + context
        inside = self.voice[max(0, begin) : end].astype(np.float32)
        quiet = np.array(prosody.SILENCE, np.float32)[None]
        before, after = max(0, -begin), max(0, end - len(self.voice))
        return np.concatenate([quiet.repeat(before, axis=0), inside, quiet.repeat(after, axis=0)])

    def windows(self, first: int, frames: int) -> torch.Tensor:
        """(frames, M, 16) lip windows."""
        mel = torch.from_numpy(self.lip_mel)
        return lip_windows(mel, first, first + frames, LIP_OFFSET).float()


def prepare_takes(config: MotionDataConfig, seed: int, cache: Path, split: str) -> list[Take]:
    """Make a split's takes, or read them where they were made before."""
    path = cache / f"motion-{_hash(config, seed)}" / f"{split}.npz"
    if not path.exists():
        log.info("making the motion and voices of %s …", split)
        path.parent.mkdir(parents=True, exist_ok=True)
        _write(path, list(make_takes(config, seed, split)))
    return _read(path)


def _hash(config: MotionDataConfig, seed: int) -> str:
    root = Path(__file__).resolve().parents[1]
    core = root.parent / "moee_core"
    digest = hashlib.sha256(source_hash().encode())
    for path in (
        core / "audio" / "spectrogram.py",
        core / "audio" / "prosody.py",
        core / "motion" / "coefficients.py",
        root / "data" / "motion_clips.py",
        root / "data" / "vocal_mood.py",
    ):
        digest.update(path.read_bytes())
    digest.update(json.dumps([config.frames, config.takes, seed]).encode())
    if config.wide_speech:
        index = Path(config.wide_speech, "index.json")
        digest.update(json.dumps([config.wide_takes]).encode() + (index.read_bytes() if index.exists() else b""))
    return digest.hexdigest()[:16]


Planned = tuple[tuple[int, ...], str, int]
"""Numbers of the utterances, emotion, level."""


def plan(utterances: Sequence[Utterance], takes: int = 0) -> list[Planned]:
    """Every take of a split: pairs of utterances; ``takes`` above 0 chooses so many."""
    alike: dict[tuple[str, str], list[int]] = {}
    for number, utterance in enumerate(utterances):
        alike.setdefault((utterance.voice, utterance.mood), []).append(number)
    everything: list[Planned] = []
    for numbers in alike.values():
        for place, first in enumerate(numbers):
            pair = (first, numbers[(place + 1) % len(numbers)])
            mood = utterances[first].mood
            if mood == "neutral":
                everything.append((pair, "neutral", 0))
            emotion = "contempt" if mood == "neutral" else mood
            everything += [(pair, emotion, level) for level in (1, 2, 3)]
    if takes:  # as many of every emotion as can be, full levels first
        cells: dict[tuple[int, str], list[int]] = {}
        for number, (_, emotion, level) in enumerate(everything):
            cells.setdefault(((3, 0, 1, 2).index(level) // 2, emotion), []).append(number)
        ordered = [cells[key] for key in sorted(cells)]
        rounds = [cell[turn] for turn in range(max(map(len, ordered))) for cell in ordered if turn < len(cell)]
        everything = [everything[number] for number in rounds[:takes]]
    return everything


def plan_wide(first: int, count: int) -> list[Planned]:
    """``count`` takes of one utterance each, from number ``first`` on, with every emotion and level in turn."""
    places = ((turn % len(LABELS), turn // len(LABELS) % len(LEVELS)) for turn in range(count))
    return [((first + turn,), LABELS[e], 1 + level if e else 0) for turn, (e, level) in enumerate(places)]


def make_takes(config: MotionDataConfig, seed: int, split: str) -> Iterator[Take]:
    """The takes of a split, one by one."""
    from training.face_world import performance as world
    from training.face_world.motion import face_motion
    from training.face_world.speech import load_speech
    from training.face_world.splits import person, split_rng

    utterances = load_speech(split)
    planned = plan(utterances, config.takes)
    if config.wide_speech and split == "train":
        from training.data import wide_speech

        wide = wide_speech.load(Path(config.wide_speech))[: config.wide_takes]
        planned += plan_wide(len(utterances), len(wide))
        utterances = [*utterances, *wide]
    for number, (pair, emotion, level) in enumerate(planned):
        strength = LEVELS[level - 1] if level else 0.0
        rng = split_rng(split, number, purpose=PURPOSE + seed)
        parts = []
        for index in pair:
            utterance = utterances[index]
            change = change_for(utterance.mood, emotion, strength if level else 1.0)
            parts.append(said_again(utterance.samples, utterance.phonemes, change, rng))
        samples, phonemes = joined_parts(parts)
        frames = max(config.frames, -(-len(samples) // FRAME_SAMPLES))
        frames += -frames % 4
        samples = np.pad(samples, (0, frames * FRAME_SAMPLES - len(samples)))
        vectors = np.tile(world.vector({} if emotion == "neutral" else {emotion: strength}), (frames, 1))
        act = world.perform(
            rng, person(split, number), vectors, samples=samples, phonemes=phonemes, base_pose=np.zeros(5, np.float32)
        )
        sound = torch.from_numpy(samples)
        gain = level_gain(sound)
        last = lip_window_start(frames - 1) + LIP_STEPS
        yield Take(
            key="+".join(utterances[index].key for index in pair),
            emotion=LABELS.index(emotion),
            level=level,
            person=number,
            motion=face_motion(act).values,
            voice=prosody.descriptors(sound, 0, 2 * frames, gain).numpy().astype(np.float16),
            lip_mel=spectrogram(sound, LIP_MEL, LIP_OFFSET, last, gain).numpy().astype(np.float16),
        )


def joined_parts(parts: list[tuple[np.ndarray, Phonemes]]) -> tuple[np.ndarray, Phonemes]:
    """One after the other with a pause between."""
    pieces: list[np.ndarray] = []
    phonemes: list[tuple[str, float]] = []
    seconds = 0.0
    for number, (samples, ends) in enumerate(parts):
        if number:
            pieces.append(np.zeros(round(GAP_SECONDS * SAMPLE_RATE), np.float32))
            seconds += GAP_SECONDS
            phonemes.append(("pau", seconds))
        phonemes += [(name, seconds + end) for name, end in ends]
        pieces.append(samples)
        seconds += len(samples) / SAMPLE_RATE
    return np.concatenate(pieces), tuple(phonemes)


ARRAYS = ("motion", "voice", "lip_mel")


def _write(path: Path, takes: list[Take]) -> None:
    about = [[take.key, take.emotion, take.level, take.person] for take in takes]
    arrays: dict[str, np.ndarray] = {"about": np.array(json.dumps(about))}
    for name in ARRAYS:
        parts = [getattr(take, name) for take in takes]
        arrays[name] = np.concatenate(parts)
        arrays[f"{name}_ends"] = np.cumsum([len(part) for part in parts])
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp.npz")
    np.savez(temporary, allow_pickle=False, **arrays)
    os.replace(temporary, path)


def _read(path: Path) -> list[Take]:
    with np.load(path) as data:
        about = json.loads(str(data["about"]))
        parts = {name: np.split(data[name], data[f"{name}_ends"][:-1]) for name in ARRAYS}
    return [
        Take(
            key=key,
            emotion=emotion,
            level=level,
            person=person,
            motion=parts["motion"][number],
            voice=parts["voice"][number],
            lip_mel=parts["lip_mel"][number],
        )
        for number, (key, emotion, level, person) in enumerate(about)
    ]


class TakeDraw:
    """Draws places in takes, every emotion as often as any other and within it every level."""

    def __init__(self, takes: list[Take], frames: int):
        self.takes, self.frames = takes, frames
        cells: dict[int, dict[int, list[int]]] = {}
        for number, take in enumerate(takes):
            cells.setdefault(take.emotion, {}).setdefault(take.level, []).append(number)
        self._cells = [[levels[level] for level in sorted(levels)] for _, levels in sorted(cells.items())]

    def draw(self, rng: np.random.Generator) -> tuple[Take, int]:
        """A take and the first frame of a clip in it."""
        levels = self._cells[rng.integers(len(self._cells))]
        cell = levels[rng.integers(len(levels))]
        take = self.takes[cell[rng.integers(len(cell))]]
        return take, int(rng.integers(0, len(take) - self.frames + 1))
