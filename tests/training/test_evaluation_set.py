"""The set that instruments are made from: the same people whether drawn large or not."""

from __future__ import annotations

import numpy as np
import pytest

from moee_core.errors import MediaError
from moee_core.metrics.evaluate import evaluate_folder
from moee_core.metrics.instrument import downsized
from training.evaluation_set import calibration
from training.face_world import performance as world
from training.face_world.splits import person


def test_drawn_large_the_faces_are_the_same_with_thinner_lines():
    rng = np.random.default_rng(3)
    pose = world.reference_pose(rng)
    plain, both = (
        calibration(np.random.default_rng(5), person("tune", 4), pose, large=large, count=8) for large in (False, True)
    )
    for name, values in plain.items():
        np.testing.assert_array_equal(both[name], values)
    small, large = both["calibration"].astype(int), both["calibration_large"].astype(int)
    assert large.shape == small.shape == (8, 64, 64, 3)
    apart = [[np.abs(a - b).mean() for b in large] for a in small]
    assert (np.argmin(apart, axis=1) == np.arange(8)).all(), "each is nearest to itself drawn large"
    assert 0.5 < np.diag(apart).mean() < 8


def test_a_picture_is_reduced_by_averaging():
    picture = np.zeros((4, 4, 3), np.uint8)
    picture[:2, :2] = 200
    picture[2, 2] = 100
    np.testing.assert_array_equal(downsized(picture, 2)[..., 0], [[200, 0], [0, 25]])
    assert downsized(picture, 4) is picture


def test_a_set_that_was_not_drawn_large_says_what_to_do(tmp_path):
    np.savez(tmp_path / "person-000.npz", calibration=np.zeros((2, 64, 64, 3), np.uint8))
    with pytest.raises(MediaError, match=r"no renders drawn large.*evaluation_set\.py OUT --large"):
        evaluate_folder(lambda *_: np.zeros((1, 64, 64, 3), np.uint8), tmp_path, {}, large=True)
