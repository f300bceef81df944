"""Action units as text: the grammar, what becomes of it on a face, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from moee_core.emotion.action_units import ACTION_UNITS, action_unit_vector
from moee_core.emotion.units import parse_units, unit_track
from moee_core.errors import EmotionError
from moee_core.motion.coefficients import UNITS
from moee_core.motion.expression import NOT_ON_FACES


def refusal(call, value) -> str:
    """The message of the EmotionError that ``call(value)`` must raise; every message is short and a single line."""
    with pytest.raises(EmotionError) as caught:
        call(value)
    message = str(caught.value)
    assert len(message) <= 300
    assert len(message.splitlines()) == 1
    return message


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("12", {"12": 1.0}),
        ("AU12", {"12": 1.0}),
        ("au12:0.5", {"12": 0.5}),
        ("12:0.8, 6:0.5", {"12": 0.8, "6": 0.5}),
        ("12:0.8,6:0.5", {"12": 0.8, "6": 0.5}),
        ("12 = .8; AU6 = 0.5", {"12": 0.8, "6": 0.5}),
        ("12 0.8 6 0.5", {"12": 0.8, "6": 0.5}),
        ("AU1 AU2 0.6", {"1": 1.0, "2": 0.6}),
        ("1+2+5", {"1": 1.0, "2": 1.0, "5": 1.0}),
        ("R14:0.5 l12", {"R14": 0.5, "L12": 1.0}),
        ("14R:0.5, AU12L", {"R14": 0.5, "L12": 1.0}),
        ("12 1", {"12": 1.0, "1": 1.0}),
        ("12 1.0", {"12": 1.0}),
        ("06:0", {"6": 0.0}),
        ("12:1.", {"12": 1.0}),
        (" \n12:1 ,, ", {"12": 1.0}),
    ],
)
def test_what_a_text_means(text: str, units: dict[str, float]):
    parsed = parse_units(text)
    assert parsed == units
    assert list(parsed) == list(units)


@pytest.mark.parametrize("unit", ACTION_UNITS, ids=lambda unit: unit.code)
def test_every_unit_can_be_written(unit):
    assert parse_units(f"AU{unit.code}:0.25") == {unit.code: 0.25}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "there are no action units"),
        (" , ", "there are no action units"),
        ("smile", "'smile' is no action unit"),
        ("12:0.5, smile", "'smile' is no action unit"),
        ("123", "'123' is no action unit"),
        ("12:", "'12:' is no action unit"),
        ("12:-0.5", "'12:-0.5' is no action unit"),
        ("12:nan", "'12:nan' is no action unit"),
        ("12:80%", "'12:80%' is no action unit"),
        ("12:1.5", "action unit 12 has strength 1.5; give a number from 0 to 1"),
        ("12 1.01", "action unit 12 has strength 1.01"),
        ("R12L", "'R12L' is no action unit; a side is written once"),
        ("3", "there is no action unit '3'; known are 1, 2, 4"),
        ("R5", "action unit 5 has no sides here; write 5"),
        ("12, AU12:0.5", "action unit 12 is named twice"),
        ("R12, 12R", "action unit R12 is named twice"),
    ],
)
def test_texts_that_are_refused(text: str, complaint: str):
    assert complaint in refusal(parse_units, text)


@pytest.mark.parametrize("pattern", ["{}!", "12:0.5, {}!", "12:{}!", "{}"])
@pytest.mark.parametrize("filler", ["x", "9", "\x00", "AU", "💥", "L", "9."])
def test_long_and_odd_input_gets_a_short_answer(pattern: str, filler: str):
    refusal(parse_units, pattern.format(filler * 20_000))


def test_a_track_holds_the_units_on_a_face():
    track = unit_track({"4": 0.5, "R14": 0.25})
    expected = np.zeros((1, len(UNITS)), np.float32)
    expected[0, UNITS.index("4")], expected[0, UNITS.index("14R")] = 0.5, 0.25
    np.testing.assert_array_equal(track.values, expected)
    assert track.about == "AU4 0.5, AUR14 0.25"
    assert not unit_track({"12": 0.0}).values.any()


@pytest.mark.parametrize("code", NOT_ON_FACES)
def test_a_unit_that_no_face_here_has_is_told(code: str):
    name = next(unit.name for unit in ACTION_UNITS if unit.code == code)
    assert f"the faces here cannot show action unit {code} ({name})" in refusal(unit_track, {code: 1.0})
    assert unit_track({"4": 1.0, code: 0.5}).about.endswith(f"(not shown: AU{code})")


def test_a_track_refuses_what_an_action_unit_vector_refuses():
    for units in ({"99": 1.0}, {"12": 1.5}, {"12": float("nan")}):
        assert refusal(unit_track, units) == refusal(action_unit_vector, units)
