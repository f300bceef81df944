"""The lip branch's log-mel spectrogram: 80 bands.

Shapes: samples (S,) 16 kHz mono in [-1, 1] -> (frames, mels) float32, natural log of mel power scaled to about unit
range. Frame i is centred on sample hop * i + hop / 2; what lies outside the recording is silence.

Only the stretch that is asked for is read, so that the samples may be in a file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .mel import BLOCK, FLOOR, SAMPLE_RATE


@dataclass(frozen=True, kw_only=True)
class MelShape:
    """``mels`` bands of ``window`` samples every ``hop``, transformed over ``fft`` points."""

    mels: int = 80
    hop: int = 200
    window: int = 800
    fft: int = 1024
    low: float = 55.0
    high: float = 7600.0

    @property
    def rate(self) -> float:
        """Frames per second."""
        return SAMPLE_RATE / self.hop


LIP_MEL = MelShape()
"""80 bands at 80 frames a second over 50 ms: SadTalker's and Wav2Lip's shape."""
LIP_STEPS = 16
"""Frames of ``LIP_MEL`` that one video frame's lips are made from: 0.2 s."""


@lru_cache(maxsize=4)
def filters(shape: MelShape) -> Tensor:
    """(fft / 2 + 1, mels) triangles, evenly spaced on the HTK mel scale, peak 1."""

    def to_mel(hertz: float) -> float:
        return 2595.0 * math.log10(1.0 + hertz / 700.0)

    edges = torch.linspace(to_mel(shape.low), to_mel(shape.high), shape.mels + 2)
    edges = 700.0 * (10.0 ** (edges / 2595.0) - 1.0)
    bins = torch.linspace(0.0, SAMPLE_RATE / 2, shape.fft // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0.0)


def spectrogram(samples: Tensor, shape: MelShape, first: int, last: int, gain: float = 1.0) -> Tensor:
    """Frames ``first`` .. ``last - 1`` of (S,) samples times ``gain``: (last - first, mels). Either may lie outside."""
    begin = first * shape.hop + shape.hop // 2 - shape.window // 2
    end = (last - 1) * shape.hop + shape.hop // 2 - shape.window // 2 + shape.window
    inside = samples[max(0, begin) : max(0, end)].float() * gain
    lead = min(max(0, -begin), end - begin)
    padded = F.pad(inside, (lead, end - begin - lead - inside.shape[0]))
    window, bank = torch.hann_window(shape.window), filters(shape)
    blocks = padded.unfold(0, shape.window, shape.hop).split(BLOCK)
    power = [torch.fft.rfft(block * window, shape.fft).abs() ** 2 @ bank for block in blocks]
    return ((torch.cat(power) + FLOOR).log() + 4.0) / 4.0


def lip_window_start(frame: int, fps: float = 25.0) -> int:
    """Number of the first ``LIP_MEL`` frame of a video frame's window, which is centred on the frame's middle."""
    return round((frame + 0.5) / fps * LIP_MEL.rate) - LIP_STEPS // 2


def lip_windows(mel_MK: Tensor, first: int, last: int, offset: int = 0, fps: float = 25.0) -> Tensor:
    """(last - first, mels, ``LIP_STEPS``) windows of video frames ``first`` .. ``last - 1``.

    ``mel`` (M, mels) begins at the ``LIP_MEL`` frame number ``offset`` and must hold all of them.
    """
    starts = torch.tensor([lip_window_start(frame, fps) - offset for frame in range(first, last)])
    return mel_MK[starts[:, None] + torch.arange(LIP_STEPS)].transpose(1, 2)
