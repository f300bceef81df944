"""Instructions: what is written comes back, for every unit, side, pair, step and seed; and what is refused."""

from __future__ import annotations

import itertools
import re

import numpy as np
import pytest

from moee_core.emotion.action_units import ACTION_UNITS, AU_INDEX, PROTOTYPES
from moee_core.emotion.condition import EMOTIONS, EmotionCondition
from moee_core.emotion.instructions import (
    STEP_STRENGTHS,
    instruction,
    level_of,
    parse_instruction,
    read_instruction,
    step_of,
)
from moee_core.errors import EmotionError

CODES = tuple(AU_INDEX)
SEEDS = range(24)
PAIRS = (("1", "2"), ("L1", "L2"), ("R1", "R2"), ("4", "7"), ("6", "12"), ("L6", "L12"), ("R6", "R12"))


def random_units(rng: np.random.Generator) -> dict[str, float]:
    """Any number of units, strengths drawn so that every step is as likely; some exactly 0 or 1."""
    codes = rng.choice(CODES, size=rng.integers(0, len(CODES) + 1), replace=False)
    return {str(code): float(rng.choice([0.0, 1.0, rng.random(), rng.random()])) for code in codes}


def steps(units: dict[str, float]) -> dict[str, int]:
    return {code: step_of(strength) for code, strength in units.items() if strength > 0}


@pytest.mark.parametrize("code", CODES)
def test_every_unit_comes_back_at_every_step_and_seed(code: str):
    for step, seed in itertools.product(range(5), SEEDS):
        text = instruction({code: STEP_STRENGTHS[step]}, seed=seed)
        assert parse_instruction(text) == {code: STEP_STRENGTHS[step]}, text


@pytest.mark.parametrize("seed", range(8))
def test_any_set_comes_back(seed: int):
    rng = np.random.default_rng(seed)
    for trial in range(40):
        units = random_units(rng)
        text = instruction(units, seed=1000 * seed + trial)
        found = parse_instruction(text)
        assert steps(found) == steps(units), text
        assert all(abs(found[code] - units[code]) <= 0.1 + 1e-9 for code in found)
        assert list(found) == [unit.code for unit in ACTION_UNITS if unit.code in found]
        assert all(parse_instruction(written) == found for written in (text.upper(), f"  {text}\n"))


def test_all_units_at_once_fit_one_instruction():
    everything = {code: 0.05 + 0.9 * index / len(CODES) for index, code in enumerate(CODES)}
    for seed in SEEDS:
        assert steps(parse_instruction(instruction(everything, seed=seed))) == steps(everything)


@pytest.mark.parametrize("name", sorted(PROTOTYPES))
def test_prototypes_come_back(name: str):
    for seed in SEEDS:
        assert steps(parse_instruction(instruction(PROTOTYPES[name], seed=seed))) == steps(dict(PROTOTYPES[name]))


@pytest.mark.parametrize("pair", PAIRS)
def test_a_pair_is_one_movement_when_the_steps_agree_and_two_otherwise(pair: tuple[str, str]):
    for seed in SEEDS:
        together = instruction({pair[0]: 0.7, pair[1]: 0.65}, seed=seed)
        apart = instruction({pair[0]: 0.7, pair[1]: 0.3}, seed=seed)
        assert not re.search(r"[,;]|\band\b", together.replace("While talking,", ""))
        assert re.search(r"[,;]|\band\b", apart.replace("While talking,", ""))
        assert parse_instruction(together) == {code: 0.7 for code in pair}
        assert parse_instruction(apart) == {pair[0]: 0.7, pair[1]: 0.3}


def test_a_unit_and_its_halves_are_three_different_things():
    units = {"12": 0.9, "L12": 0.5, "R12": 0.1}
    for seed in SEEDS:
        assert parse_instruction(instruction(units, seed=seed)) == units


@pytest.mark.parametrize(("code", "here", "there"), [("L10", "left", "right"), ("R10", "right", "left")])
def test_the_side_is_said(code: str, here: str, there: str):
    for seed in SEEDS:
        text = instruction({code: 0.5}, seed=seed)
        assert here in text
        assert there not in text
        assert here not in instruction({"10": 0.5}, seed=seed)


def test_regions_follow_each_other_from_the_brow_to_the_mouth():
    words = ("brow", "nostril", "cheek", "tongue")
    for seed in SEEDS:
        text = instruction({"19": 1.0, "6": 0.9, "38": 0.1, "4": 0.3}, seed=seed)
        places = [text.lower().index(word) for word in words]
        assert places == sorted(places), text


def test_seeds_choose_frames_and_synonyms_and_nothing_else_changes_the_text():
    units = {"15": 0.7, "38": 0.3}
    texts = [instruction(units, seed=seed) for seed in range(200)]
    assert texts == [instruction(dict(reversed(units.items())), seed=seed) for seed in range(200)]
    assert len(set(texts)) > 100
    frames = {"The person", "A face", "Picture someone", "While talking", "Please", "Facial expression", "Speak while"}
    assert all(any(text.startswith(frame) for text in texts) for frame in frames)
    assert any(not any(text.startswith(frame) for frame in frames) for text in texts)


@pytest.mark.parametrize("step", range(5))
def test_each_step_has_words_of_its_own(step: int):
    texts = {
        instruction({"9": strength}, seed=3) for strength in np.linspace(step / 5 + 1e-6, (step + 1) / 5 - 1e-6, 7)
    }
    assert len(texts) == 1
    others = {instruction({"9": strength}, seed=3) for strength in STEP_STRENGTHS}
    assert len(others) == 5


def test_no_units_is_a_relaxed_face():
    for seed in SEEDS:
        for units in ({}, {"12": 0.0}):
            text = instruction(units, seed=seed)
            assert "relaxed" in text or "neutral" in text
            assert parse_instruction(text) == {}


@pytest.mark.parametrize("seed", range(6))
def test_the_emotion_in_front_comes_back_to_within_its_level(seed: int):
    rng = np.random.default_rng(seed)
    for trial in range(40):
        labels = rng.choice(EMOTIONS, size=rng.integers(0, 4), replace=False)
        weights = rng.dirichlet(np.ones(len(labels))) * rng.uniform(0.05, 1.5) if len(labels) else []
        emotion = EmotionCondition(
            weights=tuple((str(name), float(w)) for name, w in zip(labels, weights, strict=True))
        )
        units = random_units(rng)
        text = instruction(units, emotion=emotion, seed=trial)
        found = read_instruction(text)
        assert steps(found.units) == steps(units), text
        if not emotion.weights:
            assert "neutral" in text.lower()
            continue
        assert found.emotion is not None
        assert {label for label, _ in found.emotion.weights} == {label for label, _ in emotion.weights}, text
        assert level_of(found.emotion.intensity) == level_of(emotion.intensity), text


def test_an_emotion_alone_names_no_movement():
    text = instruction({}, emotion=EmotionCondition(weights=(("happy", 1.0),)), seed=1)
    assert parse_instruction(text) == {}
    assert read_instruction(text).emotion == EmotionCondition(weights=(("happy", 1.0),))


def test_hand_written_instructions_are_read():
    assert parse_instruction("raise the eyebrows") == {"1": 0.5, "2": 0.5}
    assert parse_instruction("Strongly wrinkle the nose and part the lips a little.") == {"9": 0.7, "25": 0.3}
    assert not read_instruction("raise the eyebrows").explicit


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "empty"),
        (" \n", "empty"),
        ("wiggle the ears", "wiggle the ears"),
        ("slightly raise the eyebrows and juggle", "juggle"),
        ("slightly", "names no movement"),
        ("slightly on the left", "names no movement"),
        ("slightly strongly raise the chin", "more than one"),
        ("raise the chin part the lips", "more than one"),
        ("wrinkle the nose on the left", "one side"),
        ("part the lips, open the lips", "25"),
        ("the person", "names no movement"),
        ("moderately, happy", "names no emotion"),
        ("🙂", "names no movement"),
    ],
)
def test_what_is_not_understood_is_named(text: str, named: str):
    with pytest.raises(EmotionError, match=re.escape(named)) as caught:
        parse_instruction(text)
    assert len(str(caught.value)) <= 300
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("units", [{"99": 0.5}, {"12": 1.01}, {"12": -0.1}, {"12": float("nan")}, {"L9": 0.5}])
def test_wrong_units_are_refused(units: dict[str, float]):
    with pytest.raises(EmotionError):
        instruction(units)
