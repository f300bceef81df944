"""bf16 or fp32: what a run with ``precision = "auto"`` trains in.

A processor without bf16 instructions computes it in software, twenty and more times slower than fp32 and without a
word. So the machine is asked by measuring, and the answer is kept with the run: continued elsewhere, it stays the same.
"""

from __future__ import annotations

import time

import torch

SIDE = 384
"""Matrices large enough that the arithmetic counts and small enough to take milliseconds."""
REPEATS = 3


def faster_precision(device: str) -> str:
    """ "bf16" or "fp32", whichever multiplies matrices faster on ``device``; fp32 if they are as fast."""
    return "bf16" if _seconds(device, torch.bfloat16) < 0.8 * _seconds(device, torch.float32) else "fp32"


def _seconds(device: str, dtype: torch.dtype) -> float:
    """The best of a few products; the first one, which prepares kernels, is not counted."""
    a = torch.ones(SIDE, SIDE, device=device, dtype=dtype)
    best = float("inf")
    for repeat in range(REPEATS + 1):
        began = time.perf_counter()
        out = a @ a
        _ = out[0, 0].item()  # waits for an accelerator
        if repeat:
            best = min(best, time.perf_counter() - began)
    return best
