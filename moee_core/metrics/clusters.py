"""How well groups of vectors stand apart: clustering strength.

Shapes: N vectors of width D, each with a label.

DICE-Talk's Table 5 states d_inter / d_intra without saying between what. Here, for every label c:
    d_inter(c)  mean distance of c's centroid to the other centroids
    d_intra(c)  mean distance of c's vectors to their centroid
    strength(c) = d_inter(c) / d_intra(c)
with Euclidean distances. Scaling or turning all vectors changes nothing.
"""

from __future__ import annotations

import numpy as np


def clustering_strength(vectors_ND: np.ndarray, labels_N: np.ndarray) -> dict[int, float]:
    """Label -> strength. Raises ``ValueError`` for fewer than two labels, or rows and labels that do not agree."""
    if len(vectors_ND) != len(labels_N):
        raise ValueError(f"{len(vectors_ND)} vectors have {len(labels_N)} labels")
    known = [int(label) for label in np.unique(labels_N)]
    if len(known) < 2:
        raise ValueError(f"clustering strength compares labels with each other, got {len(known)} of them")
    centroids = np.stack([vectors_ND[labels_N == label].mean(axis=0) for label in known])
    apart = np.linalg.norm(centroids[:, None] - centroids[None], axis=2).sum(axis=1) / (len(known) - 1)
    out = {}
    for number, label in enumerate(known):
        own = vectors_ND[labels_N == label] - centroids[number]
        out[label] = float(apart[number] / max(float(np.linalg.norm(own, axis=1).mean()), 1e-12))
    return out
