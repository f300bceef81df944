"""The speech bank of the face world: short spoken sentences with the times of their phonemes.

The bank is committed (``speech/``), so that neither training nor the tests need a synthesiser; `build_speech` makes it
again. Each split is one Ogg/Opus file of utterances laid end to end with silence between them; ``index.json`` says
where each one begins. No sentence and no voice is in two splits; moods are spread evenly over sentences and voices.

Shapes (legend for this file):
    S samples of one utterance (16 kHz mono, float32 in [-1, 1])

Raises ``ValueError`` for an unknown split and ``MediaError`` for a bank that is missing or damaged.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from moee_core.errors import MediaError

SAMPLE_RATE = 16000
"""Samples a second of everything in the bank."""

SPLITS: tuple[str, ...] = ("train", "tune", "test")

MOODS: tuple[str, ...] = ("neutral", "happy", "sad", "angry", "disgusted", "fear", "surprised")
"""How a sentence is said: pitch, liveliness, tempo and loudness; the words never depend on it."""

BANK_FOLDER = Path(__file__).parent / "speech"
INDEX_NAME = "index.json"
INDEX_FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class Utterance:
    """One sentence said once.

    ``sentence`` numbers the texts over all splits; ``voice`` is ``<synthesiser voice>-<vocal-tract factor>``;
    ``samples`` is (S,) float32; ``phonemes`` holds (name, end in seconds), each beginning where the one before ends and
    the first at 0; ``pau`` is silence.
    """

    key: str
    text: str
    sentence: int
    voice: str
    mood: str
    split: str
    samples: np.ndarray
    phonemes: tuple[tuple[str, float], ...]

    @property
    def duration(self) -> float:
        """Length of the recording in seconds."""
        return len(self.samples) / SAMPLE_RATE


def load_speech(split: str) -> list[Utterance]:
    """Decode all utterances of ``split`` (train, tune or test), in the order of the index.

    Raises ``ValueError`` for another split and ``MediaError`` when the bank is missing, damaged or of another format.
    """
    if split not in SPLITS:
        raise ValueError(f"unknown speech split {split[:40]!r}; choose one of: {', '.join(SPLITS)}")
    index = _read_index(BANK_FOLDER / INDEX_NAME)
    recording = index["splits"][split]
    path = BANK_FOLDER / recording["file"]
    track = decode_recording(path)
    if len(track) < recording["length"]:
        raise MediaError(
            f"{path.name}: {len(track)} samples where {INDEX_NAME} expects {recording['length']}; "
            "run python -m training.face_world.build_speech"
        )
    return [_utterance(entry, index["sentences"], split, track) for entry in recording["utterances"]]


def decode_recording(path: Path) -> np.ndarray:
    """Read a recording as (S,) float32 mono at `SAMPLE_RATE`, codec delay removed.

    Raises ``MediaError`` when the file is missing or holds no sound that can be decoded.
    """
    resampler = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE)
    try:
        with av.open(str(path)) as container:
            frames = [part for frame in container.decode(audio=0) for part in resampler.resample(frame)]
        frames += resampler.resample(None)
    except (FFmpegError, OSError, IndexError) as error:
        raise MediaError(
            f"cannot read the recording {path.name[:80]}: {str(error)[:120]}; restore it or rebuild the speech bank"
        ) from error
    if not frames:
        raise MediaError(f"the recording {path.name[:80]} holds no sound; restore it or rebuild the speech bank")
    return np.clip(np.concatenate([frame.to_ndarray()[0] for frame in frames]), -1.0, 1.0)


def _read_index(path: Path) -> dict[str, Any]:
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise MediaError(
            f"cannot read the speech index {path.name}: {str(error)[:120]}; "
            "run python -m training.face_world.build_speech"
        ) from error
    if index.get("format") != INDEX_FORMAT:
        raise MediaError(
            f"{path.name} has format {index.get('format')!r}, expected {INDEX_FORMAT}; "
            "run python -m training.face_world.build_speech"
        )
    return index


def _utterance(entry: dict[str, Any], sentences: list[str], split: str, track: np.ndarray) -> Utterance:
    begin = entry["start"]
    return Utterance(
        key=entry["key"],
        text=sentences[entry["sentence"]],
        sentence=entry["sentence"],
        voice=entry["voice"],
        mood=entry["mood"],
        split=split,
        samples=track[begin : begin + entry["length"]].copy(),  # or one would keep the whole track alive
        phonemes=tuple((name, float(end)) for name, end in entry["phonemes"]),
    )
