"""Clustering strength of labels that have little to go by; its values are tested beside the embedder."""

from __future__ import annotations

import numpy as np
import pytest

from moee_core.metrics.clusters import clustering_strength


def test_a_label_that_does_not_spread_has_no_strength_but_counts_as_another():
    vectors = np.array([[0.0, 0.0], [1.0, 0.0], [5.0, 0.0], [9.0, 1.0], [9.0, 1.0]])
    found = clustering_strength(vectors, np.array([0, 0, 1, 2, 2]))
    assert set(found) == {0}
    apart = (4.5 + np.hypot(8.5, 1.0)) / 2
    assert found[0] == pytest.approx(apart / 0.5)
