"""Log-mel spectrogram at 100 frames a second, from 16 kHz mono.

Shapes: samples (S,) in [-1, 1] -> (ceil(S / 160), MELS) float32, natural log of mel power over 25 ms Hann windows,
scaled to about unit range. Frame i is centred on sample 160 i + 80.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE = 16000
HOP = 160
WINDOW = 400
FFT = 512
MELS = 40
FLOOR = 1e-5
BLOCK = 4096
STRETCH_ORIGIN = 8.0
"""Bands below the first at which a stretched mel axis stands still: there the mel scale is nearly linear in hertz."""


@lru_cache(maxsize=2)
def mel_filters(mels: int = MELS, low: float = 60.0, high: float = 7600.0) -> Tensor:
    """(FFT / 2 + 1, mels) triangular filters, evenly spaced on the HTK mel scale, peak 1."""

    def to_mel(hertz: Tensor) -> Tensor:
        return 2595.0 * torch.log10(1.0 + hertz / 700.0)

    edges = torch.linspace(float(to_mel(torch.tensor(low))), float(to_mel(torch.tensor(high))), mels + 2)
    edges = 700.0 * (10.0 ** (edges / 2595.0) - 1.0)
    bins = torch.linspace(0.0, SAMPLE_RATE / 2, FFT // 2 + 1)[:, None]
    rising = (bins - edges[:-2]) / (edges[1:-1] - edges[:-2])
    falling = (edges[2:] - bins) / (edges[2:] - edges[1:-1])
    return torch.minimum(rising, falling).clamp_min(0.0)


def log_mel(samples: Tensor) -> Tensor:
    """(S,) -> (ceil(S / HOP), MELS)."""
    frames = -(-samples.shape[0] // HOP)
    lead = WINDOW // 2 - HOP // 2
    total = (frames - 1) * HOP + WINDOW
    padded = F.pad(samples.float(), (lead, max(0, total - lead - samples.shape[0])))
    window, filters = torch.hann_window(WINDOW), mel_filters()
    # in blocks: the overlapping windows of a long recording are several times its size
    blocks = padded.unfold(0, WINDOW, HOP)[:frames].split(BLOCK)
    power = [torch.fft.rfft(block * window, FFT).abs() ** 2 @ filters for block in blocks]
    return ((torch.cat(power) + FLOOR).log() + 4.0) / 4.0


def level_gain(samples: Tensor, target: float = 0.1, quiet: float = 0.003) -> float:
    """What brings the loud parts of a recording (95th percentile of 25 ms RMS) to ``target``; (S,) is read in blocks.

    Recordings quieter than ``quiet`` (-50 dBFS) are silence: they are left alone, not turned into loud noise.
    """
    if samples.numel() == 0:
        return 1.0
    rms = []
    for block in samples.split(WINDOW * BLOCK):
        pieces = F.pad(block, (0, -block.numel() % WINDOW)).view(-1, WINDOW)
        rms.append(pieces.square().mean(dim=1).sqrt())
    joined = torch.cat(rms)
    level = float(joined.quantile(0.95)) if joined.numel() < 1_000_000 else target
    return 1.0 if level < quiet else target / level


def normalise_level(samples: Tensor, target: float = 0.1, quiet: float = 0.003) -> Tensor:
    """The recording times its ``level_gain``."""
    return samples * level_gain(samples, target, quiet)


def stretched(mel_TK: Tensor, factor: float) -> Tensor:
    """Log-mel (..., T, MELS) as a throat shorter by ``factor`` would have given it: the mel axis stretched, linearly
    between its bands. A factor of 1 changes nothing."""
    bands = torch.arange(MELS, dtype=torch.float64)
    source = ((bands + STRETCH_ORIGIN) * factor - STRETCH_ORIGIN).clamp(0, MELS - 1)
    low = source.long().clamp_max(MELS - 2)
    part = (source - low).to(mel_TK)
    low = low.to(mel_TK.device)
    return mel_TK[..., low] * (1 - part) + mel_TK[..., low + 1] * part
