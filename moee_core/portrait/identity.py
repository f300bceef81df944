"""Whose face it is, as 512 numbers: by a face recogniser that the user has installed; none is part of the project.

Hallo's identity tokens were trained on embeddings of insightface's ``antelopev2`` (its recogniser is called glintr100),
not normalised. Those models may be used for research only, so none is shipped or downloaded here. Without one the
embedding is zeros, which is what the network was also trained with, a tenth of the time, and what its authors take for
a picture without a face: the person is then known from the picture alone.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..renderer.check import PointsError


def nobody(width: int) -> Tensor:
    """(1, ``width``) of nobody in particular."""
    return torch.zeros(1, width)


def identity_of(analyser: Any, picture_HW3: np.ndarray, width: int) -> Tensor:
    """(1, ``width``) of the largest face on a picture, uint8 RGB.

    ``analyser`` is insightface's FaceAnalysis: ``get`` takes BGR and gives faces with ``bbox`` and ``embedding``.
    Raises ``PointsError`` where it sees no face, ``ValueError`` for what gives no such faces.
    """
    if not callable(getattr(analyser, "get", None)):
        raise ValueError(
            f"what is connected ({type(analyser).__name__}) is no face analyser; connect insightface's FaceAnalysis"
        )
    faces = analyser.get(np.ascontiguousarray(picture_HW3[..., ::-1]))
    if not faces:
        raise PointsError("insightface sees no face on this picture; choose a clearer one, or leave insightface away")

    def area(face: Any) -> float:
        x0, y0, x1, y1 = (float(v) for v in face["bbox"])
        return (x1 - x0) * (y1 - y0)

    found = np.asarray(max(faces, key=area)["embedding"], np.float32).reshape(-1)
    if found.shape != (width,) or not np.isfinite(found).all():
        raise ValueError(f"the face analyser gives {found.shape} numbers, this model needs {width}; take antelopev2")
    return torch.from_numpy(found)[None]
