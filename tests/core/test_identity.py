"""Whose face it is, by an analyser of the user's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from moee_core.portrait.identity import identity_of, nobody
from moee_core.renderer.check import PointsError


class Analyser:
    """insightface's FaceAnalysis, as far as it is used."""

    def __init__(self, faces: list[dict[str, Any]]):
        self.faces, self.seen = faces, np.zeros(0)

    def get(self, picture: np.ndarray) -> list[dict[str, Any]]:
        self.seen = picture
        return self.faces


def face(side: int, value: float, width: int = 6) -> dict[str, Any]:
    return {"bbox": np.array([10, 10, 10 + side, 10 + side]), "embedding": np.full(width, value)}


def test_the_largest_face_is_taken_as_it_is():
    """Not normalised, and out of a picture whose blue comes first."""
    picture = np.arange(27, dtype=np.uint8).reshape(3, 3, 3)
    analyser = Analyser([face(5, 1.0), face(9, 30.0), face(7, 2.0)])
    assert torch.equal(identity_of(analyser, picture, 6), torch.full((1, 6), 30.0))
    assert np.array_equal(analyser.seen[..., 0], picture[..., 2])
    assert analyser.seen.flags.c_contiguous


def test_nobody_is_zeros():
    assert torch.equal(nobody(6), torch.zeros(1, 6))


@pytest.mark.parametrize(
    ("analyser", "error", "message"),
    [
        (Analyser([]), PointsError, "sees no face on this picture"),
        (Analyser([face(5, 1.0, 3)]), ValueError, r"gives \(3,\) numbers, this model needs 6; take antelopev2"),
        (Analyser([face(5, np.nan)]), ValueError, "take antelopev2"),
        ("no analyser", ValueError, r"what is connected \(str\) is no face analyser"),
    ],
)
def test_what_gives_no_embedding_is_refused(analyser: Any, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        identity_of(analyser, np.zeros((3, 3, 3), np.uint8), 6)
