"""The cached clips of the face world: rendered once, kept under a hash of everything that shapes them.

A cache folder ``clips-HASH`` holds shards of ``shard`` clips as plain ``.npy`` files (N clips, L frames, S side):
    frames (N, L, S, S, 3) uint8         references (N, 3, S, S, 3) uint8: neutral, same emotion, another emotion
    mouths (N, 3, 4) float32             mouth box of each reference, in pixels x0 y0 x1 y1
    mel    (N, 4 (L + 2 PAD), MELS) float16   log-mel around the clip, PAD video frames either side
    viseme (N, L, 4), emotion (N, L, 8), units (N, L, 20) float32: action units beside the emotion
and ``regions.npy`` (2, S, S) float32: how often a pixel belongs to the mouth, to eyes and brows.

Rendering needs cv2 and the speech bank; reading needs numpy alone.
"""

from __future__ import annotations

import hashlib
import json
import logging
import multiprocessing
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from moee_core.audio.mel import HOP, MELS, log_mel, normalise_level, stretched
from moee_core.emotion.action_units import action_unit_vector
from moee_core.emotion.units import parse_units
from moee_core.emotion.vocabulary import LABELS
from moee_core.motion.coefficients import UNITS
from moee_core.motion.expression import face_units
from moee_core.motion.mouth import shaped
from training.config import DataConfig

if TYPE_CHECKING:
    from moee_core.audio.encoder import SpeechEncoder
    from training.face_world.speech import Utterance

log = logging.getLogger(__name__)

FRAME_SAMPLES = 4 * HOP
"""Audio samples of one video frame."""
PAD = 8
"""Video frames of context kept on either side of a clip's audio."""
FIELDS = ("frames", "references", "mouths", "mel", "viseme", "emotion", "units")
SOURCES = ("face_world", "data/clips.py")
UNITS_ALONE = 0.6
"""Part of the clips with action units that show no emotion beside them."""


@dataclass(frozen=True)
class ClipCache:
    """Memory-mapped shards of one cache, joined along clips."""

    folder: Path
    config: DataConfig

    def load(self, name: str, in_memory: bool = False) -> list[np.ndarray]:
        """The shards of one field, memory-mapped."""
        mode = None if in_memory else "r"
        return [np.load(self.folder / f"{name}-{i:04d}.npy", mmap_mode=mode) for i in range(shard_count(self.config))]

    def joined(self, name: str) -> np.ndarray:
        """One field in memory."""
        return np.concatenate(self.load(name))

    def regions(self) -> np.ndarray:
        return np.load(self.folder / "regions.npy")


def shard_count(config: DataConfig) -> int:
    return -(-config.clips // config.shard)


def source_hash() -> str:
    """Hash of the code and data that shape the clips, so that a change makes a new cache."""
    root = Path(__file__).resolve().parents[1]
    core = root.parent / "moee_core"
    digest = hashlib.sha256()
    files = [core / "emotion" / "action_units.py", core / "audio" / "mel.py", root / "data" / "clips.py"]
    files += [core / "motion" / "expression.py", core / "motion" / "mouth.py"]
    files += sorted(p for p in (root / "face_world").rglob("*") if p.is_file() and p.suffix in (".py", ".json", ".ogg"))
    for path in files:
        digest.update(path.name.encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def cache_folder(config: DataConfig, seed: int, cache: Path) -> Path:
    settings = {k: v for k, v in asdict(config).items() if k != "workers" and (k != "shown" or v)}
    wide = Path(config.wide_speech, "index.json") if config.wide_speech else None
    if config.heard_by and Path(config.heard_by).exists():
        settings["heard_by"] = hashlib.sha256(Path(config.heard_by).read_bytes()).hexdigest()
    if wide is not None and wide.exists():  # the same folder may hold another bank tomorrow
        settings["wide_speech"] = hashlib.sha256(wide.read_bytes()).hexdigest()
    text = json.dumps([settings, seed, source_hash()], sort_keys=True)
    return cache / f"clips-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def prepare_clips(config: DataConfig, seed: int, cache: Path) -> ClipCache:
    """Render whatever shards are missing, with ``workers`` processes and a progress line; return the cache."""
    folder = cache_folder(config, seed, cache)
    folder.mkdir(parents=True, exist_ok=True)
    missing = [i for i in range(shard_count(config)) if not (folder / f"done-{i:04d}").exists()]
    if missing:
        log.info(
            "rendering %d of %d shards of %d clips into %s", len(missing), shard_count(config), config.shard, folder
        )
        began = time.monotonic()
        jobs = [(config, seed, index, str(folder)) for index in missing]
        if config.workers > 1:
            with multiprocessing.get_context("spawn").Pool(config.workers) as pool:
                for done, _ in enumerate(pool.imap_unordered(_render_shard, jobs), 1):
                    _report(done, len(jobs), began)
        else:
            for done, job in enumerate(jobs, 1):
                _render_shard(job)
                _report(done, len(jobs), began)
    if not (folder / "regions.npy").exists():
        _save(folder / "regions.npy", _regions(config.image_size))
    return ClipCache(folder, config)


def _report(done: int, total: int, began: float) -> None:
    spent = time.monotonic() - began
    log.info("  shard %d/%d, %.0f s left", done, total, spent / done * (total - done))


def _render_shard(job: tuple[DataConfig, int, int, str]) -> int:
    import cv2

    config, seed, index, folder = job
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    utterances = speech_banks(config)
    ear = load_ear(config.heard_by) if config.heard_by else None
    first = index * config.shard
    count = min(config.shard, config.clips - first)
    clips = [_render_clip(config, seed, first + i, utterances, ear) for i in range(count)]
    for name in FIELDS:
        _save(Path(folder) / f"{name}-{index:04d}.npy", np.stack([clip[name] for clip in clips]))
    (Path(folder) / f"done-{index:04d}").touch()
    return index


def _render_clip(
    config: DataConfig, seed: int, number: int, utterances: SpeechBanks, ear: SpeechEncoder | None = None
) -> dict[str, np.ndarray]:
    from training.face_world import performance as world
    from training.face_world.render import face_regions, render
    from training.face_world.splits import person, split_rng

    rng = split_rng("train", number, purpose=1 + seed)
    identity = person("train", number)
    kinds = ("neutral", "compound", "blend", "contempt")
    odds = [getattr(config, kind) for kind in kinds]
    kind = str(rng.choice([*kinds, "single"], p=[*odds, 1 - sum(odds)]))
    frames = config.frames
    if rng.random() < config.silent:
        quiet = rng.normal(0.0, 10 ** rng.uniform(-5, -3), (frames + 2 * PAD) * FRAME_SAMPLES).astype(np.float32)
        samples, mel, start, phonemes = None, log_mel(torch.from_numpy(quiet)).numpy(), 0, ()
    else:
        utterance = utterances.draw(rng)
        mel, start = heard(rng, utterance.samples, frames)
        samples, phonemes = utterance.samples, utterance.phonemes
    total = start + frames
    emotion = np.zeros((total, 8), np.float32)
    emotion[start:] = world.random_timeline(rng, frames, kind)
    emotion[:start] = emotion[start]
    pose = world.reference_pose(rng)
    known = {} if ear is None else {"blinking": False, "sway": 0.0}
    extra = np.zeros((total, len(UNITS)), np.float32)
    if config.shown:
        strength = world.random_timeline(rng, frames, "contempt")[:, LABELS.index("contempt")]
        extra[start:] = strength[:, None] * shown_units(config)
        extra[:start] = extra[start]
    elif rng.random() < config.units:
        extra[:] = world.random_units(rng)
        if rng.random() < UNITS_ALONE:
            emotion[:] = world.vector({})
    clip = world.perform(
        rng, identity, emotion, samples=samples, phonemes=phonemes, base_pose=pose, extra=extra, **known
    )
    if ear is not None:
        clip.viseme[start:] = heard_mouth(ear, mel)
    size = config.image_size
    own = emotion[start + frames // 2]
    other = world.random_emotion(rng, "single")
    states = [
        world.portrait_state(pose),
        world.portrait_state(pose, own, identity.expressiveness, float(rng.choice([0.0, 0.3]))),
        world.portrait_state(pose, other, identity.expressiveness, float(rng.choice([0.0, 0.3]))),
    ]
    return {
        "frames": clip.render(identity, size, start, total),
        "references": np.stack([render(identity, state, size) for state in states]),
        "mouths": np.array([face_regions(identity, state, size)["mouth"] for state in states], np.float32),
        "mel": mel.astype(np.float16),
        "viseme": clip.viseme[start:],
        "emotion": emotion[start:],
        "units": extra[start:],
    }


def shown_units(config: DataConfig) -> np.ndarray:
    """(20,) the action units of ``config.shown`` at strength 1."""
    return face_units(action_unit_vector(parse_units(config.shown))[None])[0]


def load_ear(path: str) -> SpeechEncoder:
    """The speech encoder of a checkpoint."""
    from moee_core.weights.checkpoint import load_system

    return load_system(path)[0].speech_encoder


@torch.no_grad()
def heard_mouth(ear: SpeechEncoder, mel: np.ndarray) -> np.ndarray:
    """(L, 4): the mouth as the encoder hears it."""
    return shaped(ear.visemes(ear.hear(torch.from_numpy(mel)[None].float()))[0, PAD:-PAD].numpy())


@dataclass(frozen=True)
class SpeechBanks:
    """The training speech: what ships and, where it was made, a wider bank."""

    shipped: list[Utterance]
    wide: list[Utterance]
    wide_share: float

    def draw(self, rng: np.random.Generator) -> Utterance:
        bank = self.wide if self.wide and rng.random() < self.wide_share else self.shipped
        return bank[rng.integers(len(bank))]


def speech_banks(config: DataConfig) -> SpeechBanks:
    """Decode the training speech once."""
    from training.data import wide_speech
    from training.face_world.speech import load_speech

    wide = wide_speech.load(Path(config.wide_speech)) if config.wide_speech else []
    return SpeechBanks(load_speech("train"), wide, config.wide_share)


def heard(rng: np.random.Generator, samples: np.ndarray, frames: int) -> tuple[np.ndarray, int]:
    """(log-mel (4 (frames + 2 PAD), MELS), first video frame) of a random place in a recording, made to sound as if
    another speaker said it into another microphone."""
    length = int(np.ceil(len(samples) / FRAME_SAMPLES))
    start = int(rng.integers(0, max(1, length - frames + 6)))
    wave = augment(rng, normalise_level(torch.from_numpy(samples)))
    wave = torch.nn.functional.pad(wave, (PAD * FRAME_SAMPLES, (frames + 2 * PAD) * FRAME_SAMPLES))
    begin = start * FRAME_SAMPLES
    mel = log_mel(wave[begin : begin + (frames + 2 * PAD) * FRAME_SAMPLES])
    return another_throat(rng, mel.numpy()), start


def another_throat(rng: np.random.Generator, mel: np.ndarray) -> np.ndarray:
    """Stretch the mel axis (vocal tract length) and bend the spectrum smoothly (microphone, timbre)."""
    other = stretched(torch.from_numpy(mel), float(np.exp(rng.uniform(-0.16, 0.16)))).numpy()
    knots = rng.normal(0.0, 0.2, 6)
    bend = np.interp(np.arange(MELS), np.linspace(0, MELS - 1, len(knots)), knots)
    return (other + bend).astype(np.float32)


def augment(rng: np.random.Generator, wave: torch.Tensor) -> torch.Tensor:
    """Another microphone and room: gain, spectral tilt, background noise."""
    wave = wave * float(10 ** rng.uniform(-0.25, 0.25))
    tilt = float(rng.uniform(-0.4, 0.4))
    tilted = wave.clone()
    tilted[1:] = wave[1:] + tilt * wave[:-1]
    noise = torch.from_numpy(rng.normal(0.0, 10 ** rng.uniform(-4.5, -2.2), wave.shape[0]).astype(np.float32))
    return tilted + noise


def _regions(size: int) -> np.ndarray:
    from training.face_world import performance as world
    from training.face_world.render import face_regions
    from training.face_world.splits import person, split_rng

    out = np.zeros((2, size, size), np.float32)
    people = 64
    for number in range(people):
        rng = split_rng("train", number, purpose=0)
        boxes = face_regions(person("train", number), world.portrait_state(world.reference_pose(rng)), size)
        for channel, names in enumerate((("mouth",), ("left_eye", "right_eye", "brows"))):
            mask = np.zeros((size, size), bool)
            for name in names:
                x0, y0, x1, y1 = (round(v) for v in boxes[name])
                mask[max(0, y0) : y1, max(0, x0) : x1] = True
            out[channel] += mask / people
    return out


def _save(path: Path, array: np.ndarray) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp.npy")
    np.save(temporary, array)
    os.replace(temporary, path)
