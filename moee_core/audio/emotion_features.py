"""Features that carry a voice's emotion, 50 a second: what gives them, and how a long recording is read.

Shapes (legend for this file):
    S samples (16 kHz mono), n frames, A width
    source.frames(samples, first, last, gain) -> (last - first, A); frame i is centred on sample 320 i + 160

Two sources exist: ``hubert.HubertFeatures`` (public weights in a local folder, EmoTalker's choice) and
``emotion_ear.EmotionEar`` (small, trained with the rest, inside the checkpoint).
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from .mel import SAMPLE_RATE, level_gain

RATE = 50
"""Frames per second of every source."""
FRAME_SAMPLES = SAMPLE_RATE // RATE
CHUNK_FRAMES = 1000
"""Frames read at once: 20 seconds."""


class EmotionFeatures(Protocol):
    """A source. Frames that lie outside the recording are those of silence."""

    @property
    def width(self) -> int: ...

    def frames(self, samples: Tensor, first: int, last: int, gain: float) -> Tensor: ...


def frame_count(num_samples: int) -> int:
    """Frames that cover a recording, at least one."""
    return max(1, -(-num_samples // FRAME_SAMPLES))


class FeatureReader:
    """Any stretch of a recording's features, read in chunks of which only the last two are kept.

    ``read`` may be asked for stretches that move forward, each at most a chunk long.
    """

    def __init__(self, source: EmotionFeatures, samples: Tensor, chunk: int = CHUNK_FRAMES):
        self.source, self.samples, self.chunk = source, samples, chunk
        self.total = frame_count(samples.shape[0])
        self.gain = level_gain(samples)
        self._chunks: dict[int, Tensor] = {}

    @torch.no_grad()
    def read(self, first: int, last: int) -> Tensor:
        """(last - first, A), 0 <= first < last <= ``total``."""
        if not 0 <= first < last <= self.total:
            raise ValueError(f"frames {first}..{last} are not within the recording's {self.total}")
        wanted = range(first // self.chunk, (last - 1) // self.chunk + 1)
        for number in wanted:
            if number not in self._chunks:
                begin = number * self.chunk
                end = min(begin + self.chunk, self.total)
                self._chunks[number] = self.source.frames(self.samples, begin, end, self.gain)
        for number in [number for number in self._chunks if number < wanted[0]]:
            del self._chunks[number]
        joined = torch.cat([self._chunks[number] for number in wanted])
        offset = wanted[0] * self.chunk
        return joined[first - offset : last - offset]
