"""The mouth that a recording asks for, as the speech encoder hears it.

Shapes (legend for this file): S samples at 16 kHz, T video frames at 25 a second, mouth (T, 4) in the order of
``coefficients.MOUTH``: open, width, teeth, press.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from ..audio.encoder import SpeechEncoder, mel_between
from ..audio.mel import SAMPLE_RATE, level_gain
from ..ops import Build
from ..weights.checkpoint import load_parts

EMBEDDED = Path(__file__).parents[1] / "assets" / "embedded.safetensors"

STRETCH = np.array([1.06, 1.12, 1.1], np.float32)
"""Opening, width and teeth: one over the encoder's correlation with them on training speech, where it is timid."""
FPS = 25.0
CHUNK_FRAMES = 250

QUIET_DB, SPEECH_DB = -34.0, -26.0
"""Below the recording's loud parts: silence under the first, speech over the second, in between a passage."""


def load_ear(path: str | Path = EMBEDDED) -> SpeechEncoder:
    """The speech encoder of a checkpoint, on the CPU. Raises ``CheckpointError``."""
    parts, info = load_parts(path)
    ear = SpeechEncoder(info.config.audio.width, info.config.audio.layers, Build())
    ear.load_state_dict({key: value.float() for key, value in parts["speech_encoder"].items()}, strict=True)
    return ear.eval().requires_grad_(False)


def shaped(guess_T4: np.ndarray) -> np.ndarray:
    """The encoder's guess stretched to the reach of true mouths; lips that are heard to close do close."""
    press = np.clip((guess_T4[:, 3:] - 0.25) / 0.5, 0.0, 1.0)
    press = press * press * (3.0 - 2.0 * press)
    stretched = np.clip(guess_T4[:, :3] * STRETCH, (0.0, -1.1, 0.0), 1.1) * (1.0 - press)
    return np.concatenate([stretched, press], axis=1).astype(np.float32)


@torch.no_grad()
def heard_mouth(ear: SpeechEncoder, samples_S: np.ndarray, frames: int) -> np.ndarray:
    """(frames, 4): the mouth in every frame, in stretches, so that only the result grows with the recording."""
    samples = torch.from_numpy(samples_S)
    context = 2 + 2 * len(ear.layers)  # as encode_speech: frames the convolutions look to either side
    gain = level_gain(samples)
    device = next(ear.parameters()).device
    parts = []
    for start in range(0, frames, CHUNK_FRAMES):
        stop = min(frames, start + CHUNK_FRAMES)
        mel = mel_between(samples, gain, start - context, stop + context)
        guess = ear.visemes(ear.hear(mel[None].to(device)))[0, context : context + stop - start]
        parts.append(shaped(guess.float().cpu().numpy()))
    return np.concatenate(parts)


def loudness(samples_S: np.ndarray, frames: int, fps: float = FPS) -> np.ndarray:
    """(frames,) root mean square of each frame's stretch of the recording."""
    out = np.zeros(frames, np.float32)
    bounds = np.minimum(np.round(np.arange(frames + 1) / fps * SAMPLE_RATE).astype(int), len(samples_S))
    for i in range(frames):
        piece = samples_S[bounds[i] : bounds[i + 1]]
        if len(piece):
            out[i] = np.sqrt(np.mean(np.square(piece, dtype=np.float64)))
    return out


def speaking(loudness_F: np.ndarray, fps: float = FPS) -> np.ndarray:
    """(F,) 0 in silence .. 1 in speech, measured against the recording's own loud parts.

    It opens one frame early and closes over 0.1 s, so that no consonant is lost; a recording without any sound is
    silence throughout.
    """
    loud = float(np.percentile(loudness_F, 95))
    if loud < 1e-4:
        return np.zeros_like(loudness_F)
    decibels = 20 * np.log10(np.maximum(loudness_F, 1e-7) / loud)
    voiced = np.clip((decibels - QUIET_DB) / (SPEECH_DB - QUIET_DB), 0.0, 1.0)
    reach = max(1, round(0.1 * fps))
    padded = np.pad(voiced, (reach, reach), mode="edge")
    held = np.stack([padded[i : i + len(voiced)] for i in range(2 * reach + 1)]).max(axis=0)
    window = np.hanning(reach + 4)[1:-1]
    return np.convolve(np.pad(held, len(window), mode="edge"), window / window.sum(), "same")[
        len(window) : -len(window)
    ].astype(np.float32)
