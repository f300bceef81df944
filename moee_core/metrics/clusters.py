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

LEAST_SPREAD = 1e-6
"""Of the distance to the others: what rounding makes of vectors that are alike."""


def clustering_strength(vectors_ND: np.ndarray, labels_N: np.ndarray) -> dict[int, float]:
    """Label -> strength. A label whose vectors do not spread (a single one, or all alike) has none and is left out; the
    others' distances to its centroid count. Raises ``ValueError`` for fewer than two labels, or rows and labels that do
    not agree."""
    if len(vectors_ND) != len(labels_N):
        raise ValueError(f"{len(vectors_ND)} vectors have {len(labels_N)} labels")
    known = [int(label) for label in np.unique(labels_N)]
    if len(known) < 2:
        raise ValueError(f"clustering strength compares labels with each other, got {len(known)} of them")
    centroids = np.stack([vectors_ND[labels_N == label].mean(axis=0) for label in known])
    apart = np.linalg.norm(centroids[:, None] - centroids[None], axis=2).sum(axis=1) / (len(known) - 1)
    out = {}
    for number, label in enumerate(known):
        spread = float(np.linalg.norm(vectors_ND[labels_N == label] - centroids[number], axis=1).mean())
        if spread > LEAST_SPREAD * apart[number]:
            out[label] = float(apart[number] / spread)
    return out
