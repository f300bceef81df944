"""Who belongs to which split. People, sentences and voices of one split never appear in another.

People are numbered; a person is a pure function of (split, number).
"""

from __future__ import annotations

import numpy as np

from training.face_world.identity import Identity, sample_identity

SPLITS = ("train", "tune", "test")


def split_rng(split: str, number: int, purpose: int = 0) -> np.random.Generator:
    """An independent random stream for one person (or clip) of a split; ``purpose`` separates uses of a number."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}; choose one of {', '.join(SPLITS)}")
    return np.random.default_rng([SPLITS.index(split), purpose, number])


def person(split: str, number: int) -> Identity:
    """Person ``number`` of a split."""
    return sample_identity(split_rng(split, number))
