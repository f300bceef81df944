"""A detector's 41 action units and a face's 20: what goes there and back, sides, and what is lost."""

from __future__ import annotations

import numpy as np
import pytest

from moee_core.emotion.action_units import ACTION_UNITS, AU_INDEX, PROTOTYPES, action_unit_vector
from moee_core.motion.coefficients import UNITS
from moee_core.motion.expression import NOT_ON_FACES, detector_units, face_units, prototype


def faces(seed: int, count: int = 40) -> np.ndarray:
    """(count, 20) sparse random units."""
    rng = np.random.default_rng(seed)
    return (rng.random((count, 20)) * (rng.random((count, 20)) < 0.4)).astype(np.float32)


def on_face(**strengths: float) -> dict[str, float]:
    """What ``face_units`` makes of detector codes (U12, L12 …), by the face's names."""
    given = {code.removeprefix("U"): value for code, value in strengths.items()}
    row = face_units(action_unit_vector(given)[None])[0]
    return {name: round(float(value), 4) for name, value in zip(UNITS, row, strict=True) if value}


@pytest.mark.parametrize("seed", range(5))
def test_a_face_reported_by_a_detector_is_the_same_face(seed: int):
    units = faces(seed)
    reported = detector_units(units)
    assert reported.shape == (40, len(ACTION_UNITS))
    assert reported.dtype == np.float32
    np.testing.assert_array_equal(face_units(reported), units)


def test_every_unit_of_a_face_is_reported_and_nothing_else():
    for column, name in enumerate(UNITS):
        units = np.zeros((1, 20), np.float32)
        units[0, column] = 0.6
        found = {unit.code for unit, value in zip(ACTION_UNITS, detector_units(units)[0], strict=True) if value}
        number = name.rstrip("LR")
        side = name.removeprefix(number)
        whole = {number, *(f"{s}{number}" for s in "LR" if f"{s}{number}" in AU_INDEX)}
        assert found == ({side + number} if side else whole)


def test_a_sided_unit_is_reported_as_a_whole_as_far_as_both_sides_show_it():
    units = np.zeros((1, 20), np.float32)
    units[0, [UNITS.index("12L"), UNITS.index("12R")]] = 0.8, 0.3
    row = detector_units(units)[0]
    np.testing.assert_allclose([row[AU_INDEX[code]] for code in ("12", "L12", "R12")], [0.3, 0.8, 0.3])


def test_smiles_and_dimples_have_sides():
    assert on_face(U12=0.5) == {"12L": 0.5, "12R": 0.5}
    assert on_face(L12=0.5) == {"12L": 0.5}
    assert on_face(R14=0.5) == {"14R": 0.5}
    assert on_face(U12=0.2, L12=0.5, R12=0.2) == {"12L": 0.5, "12R": 0.2}
    assert on_face(U12=0.5, L12=0.8) == {"12L": 0.8, "12R": 0.5}, "one side more than the whole"


def test_a_brow_raised_on_one_side_is_raised_as_a_whole():
    assert on_face(L1=0.5) == {"1": 0.5}
    assert on_face(U2=0.3, R2=0.7) == {"2": 0.7}
    assert on_face(U10=0.7, R10=0.3) == {"10": 0.7}


def test_what_is_lost_is_what_no_face_here_has():
    assert set(NOT_ON_FACES) == {"11", "13", "16", "18", "19", "22", "32", "38", "39"}
    for unit in ACTION_UNITS:
        kept = face_units(action_unit_vector({unit.code: 1.0})[None]).any()
        assert kept != (unit.code in NOT_ON_FACES), unit.code


@pytest.mark.parametrize("name", PROTOTYPES)
def test_a_prototype_is_the_same_face_by_either_way(name: str):
    np.testing.assert_allclose(face_units(action_unit_vector(PROTOTYPES[name])[None])[0], prototype(name))


def test_no_frames_convert_to_no_frames():
    assert face_units(np.zeros((0, 41))).shape == (0, 20)
    assert detector_units(np.zeros((0, 20))).shape == (0, 41)
