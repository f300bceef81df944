"""How a voice moves and sounds, 50 times a second: pitch, periodicity by band, loudness and its balance.

Shapes (legend for this file):
    S samples (16 kHz mono), T frames, C = 12 descriptors, K = 16 contours
    descriptors(samples, first, last) -> (T, C); frame i is centred on sample 320 i + 160, outside is silence
    contours (B, T, C) -> (B, T, K)

These are the low-level descriptors by which emotion is heard across speakers (pitch, jitter, shimmer, harmonics to
noise, spectral balance: the families of GeMAPS, Eyben et al. 2016), computed from one short-time autocorrelation. They
know little of who is speaking, where a spectrogram knows little else.

A frame's descriptors depend on its own 80 ms, its contours on ``REACH`` frames to either side: a long recording may be
read in chunks.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from .mel import SAMPLE_RATE

HOP = 320
WINDOW = 1280
FFT = 4096
PITCH_RANGE = (60.0, 400.0)
BANDS = ((0.0, 900.0), (900.0, 2500.0), (2500.0, 7600.0))
"""Hz; periodicity and level are told apart by band, because breath fills the upper ones first."""
BLOCK = 512
FLOOR = 1e-7
PERIODIC = 0.5
"""Autocorrelation at the period from which a frame is voiced,"""
AUDIBLE = math.log(1e-4)
"""where its power (of a recording at level ``level_gain``) is above this."""

DESCRIPTORS = ("pitch", "voiced", "r1", "r2", "half", "low", "mid", "high", "power", "low_db", "mid_db", "high_db")
"""Octaves above 120 Hz, 0 or 1, autocorrelation at one, two and half a period, at the period within each band, log
power, and each band's log power less that. What has no meaning without voice is 0 there."""
CHANNELS = len(DESCRIPTORS)
VOICE = slice(2, 8)
"""The descriptors that are 0 where there is no voice."""
SILENCE = (0.0,) * 8 + (math.log(FLOOR),) + (0.0,) * 3
"""What digital silence reads."""

CONTOURS = 16
NEAR, FAR, FILL = 50, 75, 6
"""Frames to either side of the local means, and over which a short voiceless stretch is bridged."""
SLOPES = (35, 75)
OUTLIER = 0.7
"""Octaves off the local mean from which a pitch is a mistake of the autocorrelation."""
REACH = 2 * FAR + FILL


@lru_cache(maxsize=1)
def _window() -> tuple[Tensor, Tensor]:
    """The window, and its own autocorrelation scaled to 1 at lag 0: what a periodic sound loses to it."""
    window = torch.hann_window(WINDOW)
    likeness = torch.fft.irfft(torch.fft.rfft(window, FFT).abs() ** 2)[:WINDOW]
    return window, (likeness / likeness[0]).clamp_min(1e-2)


def descriptors(samples: Tensor, first: int, last: int, gain: float = 1.0) -> Tensor:
    """Frames ``first`` .. ``last - 1`` of (S,) samples times ``gain``: (last - first, C). Either may lie outside."""
    begin = first * HOP + HOP // 2 - WINDOW // 2
    end = (last - 1) * HOP + HOP // 2 + WINDOW // 2
    inside = samples[max(0, begin) : max(0, end)].float() * gain
    lead = min(max(0, -begin), end - begin)
    padded = F.pad(inside, (lead, end - begin - lead - inside.shape[0]))
    return torch.cat([_described(block) for block in padded.unfold(0, WINDOW, HOP).split(BLOCK)])


def _described(pieces: Tensor) -> Tensor:
    """(T, WINDOW) -> (T, C)."""
    window, own = _window()
    power = torch.fft.rfft((pieces - pieces.mean(1, keepdim=True)) * window, FFT).abs() ** 2
    hertz = torch.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)

    def likeness(power: Tensor) -> tuple[Tensor, Tensor]:
        """Autocorrelation (T, WINDOW), 1 at lag 0, and log power (T,)."""
        found = torch.fft.irfft(power)[:, :WINDOW]
        return found / found[:, :1].clamp_min(WINDOW * FLOOR) / own, (found[:, 0] / WINDOW + FLOOR).log()

    whole, level = likeness(power)
    low, high = round(SAMPLE_RATE / PITCH_RANGE[1]), round(SAMPLE_RATE / PITCH_RANGE[0])
    # two periods are as alike as one: the shorter is meant
    scored = whole[:, low:high] * torch.linspace(1.0, 0.85, high - low)
    peak = (scored[:, 1:-1] > scored[:, :-2]) & (scored[:, 1:-1] >= scored[:, 2:])
    lag = low + torch.where(F.pad(peak, (1, 1)), scored, torch.full_like(scored, -1.0)).argmax(1)

    def at(found: Tensor, lags: Tensor) -> Tensor:
        return found.gather(1, lags[:, None])[:, 0]

    def around(found: Tensor, lags: Tensor) -> Tensor:
        return torch.stack([at(found, lags + offset) for offset in (-1, 0, 1)]).amax(0).clamp(-1, 1)

    before, here, after = at(whole, lag - 1), at(whole, lag), at(whole, lag + 1)
    finer = (0.5 * (before - after) / (before - 2 * here + after).clamp(max=-1e-6)).clamp(-0.5, 0.5)
    voiced = (here > PERIODIC) & (level > AUDIBLE)
    columns = [(SAMPLE_RATE / (lag + finer) / 120.0).log2(), torch.ones_like(level)]
    columns += [here.clamp(-1, 1), at(whole, 2 * lag).clamp(-1, 1), around(whole, (lag / 2).round().long())]
    balance = []
    for bottom, top in BANDS:
        found, loud = likeness(power * ((hertz >= bottom) & (hertz < top)))
        columns.append(around(found, lag))
        balance.append(loud - level)
    voice = torch.stack(columns, dim=1) * voiced[:, None]
    return torch.cat([voice, level[:, None], torch.stack(balance, dim=1)], dim=1)


def contours(raw_BTC: Tensor) -> Tensor:
    """(B, T, C) -> (B, T, K): what stays of the descriptors once a voice's own pitch, level and balance are taken away.

    Pitch against its mean over a second (0) and over three (12) with short gaps bridged, voiced (1), periodicity
    (2-7), loudness (8, and bridged 15) and balance (9-11) against their means, the slope of the pitch in octaves per
    second over 0.7 and 1.5 seconds to either side (13, 14).
    """
    pitch, power, voiced = raw_BTC[..., 0], raw_BTC[..., 8], raw_BTC[..., 1]
    voiced = voiced * ((pitch - _mean(pitch, voiced, FAR)).abs() < OUTLIER)
    near, far = (_bridged(pitch - _mean(pitch, voiced, reach), voiced) for reach in (NEAR, FAR))
    loud = (power - _mean(power, voiced, NEAR)) / 4
    rows = [3 * near, voiced, *(raw_BTC[..., VOICE] * voiced[..., None]).unbind(-1), loud.clamp(-2, 1)]
    rows += [(band - _mean(band, voiced, NEAR)) / 4 for band in raw_BTC[..., 9:].unbind(-1)]
    rows += [3 * far, *(_slope(pitch, voiced, reach) for reach in SLOPES), _bridged(loud, voiced)]
    return torch.stack(rows, dim=-1)


def _sum(x_BT: Tensor, weights: Tensor) -> Tensor:
    return F.conv1d(x_BT[:, None], weights[None, None].to(x_BT), padding=len(weights) // 2)[:, 0]


def _mean(x_BT: Tensor, weight_BT: Tensor, reach: int) -> Tensor:
    """Weighted, over ``reach`` frames to either side; 0 where nothing has weight."""
    ones = torch.ones(2 * reach + 1)
    return _sum(x_BT * weight_BT, ones) / _sum(weight_BT, ones).clamp_min(1e-3)


def _bridged(x_BT: Tensor, voiced_BT: Tensor) -> Tensor:
    """Voiceless frames hold the mean of the voiced ones near by."""
    return torch.where(voiced_BT > 0, x_BT, _mean(x_BT, voiced_BT, FILL))


def _slope(x_BT: Tensor, weight_BT: Tensor, reach: int) -> Tensor:
    """Of the weighted straight line through ``reach`` frames to either side, per second; 0 for fewer than ten."""
    seconds = torch.arange(-reach, reach + 1) * (HOP / SAMPLE_RATE)
    ones = torch.ones(2 * reach + 1)
    total = _sum(weight_BT, ones)
    time, square = _sum(weight_BT, seconds), _sum(weight_BT, seconds**2)
    value, product = _sum(x_BT * weight_BT, ones), _sum(x_BT * weight_BT, seconds)
    spread = total * square - time**2
    return torch.where(total > 10, (total * product - time * value) / spread.clamp_min(1.0), torch.zeros_like(total))
