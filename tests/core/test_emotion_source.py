"""One emotion from several sources: what each part says of every frame, how parts join, and what a model is given."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch

from moee_core.emotion.action_units import AU_INDEX
from moee_core.emotion.condition import parse_blend
from moee_core.emotion.signals import EmotionRows, EmotionSignals
from moee_core.emotion.source import EmotionSource, UnitTrack, as_source, mood_vectors, stronger
from moee_core.emotion.stand_ins import MOOD_WIDTH, TEXT_FEATURES
from moee_core.emotion.timeline import parse_emotion
from moee_core.emotion.units import parse_units, unit_track
from moee_core.emotion.vocabulary import EXPERTS, LABELS
from moee_core.errors import EmotionError
from moee_core.motion.coefficients import UNITS
from moee_core.motion.expression import detector_units, expression, prototype
from moee_core.systems.moee import expert_shares

FPS = 25.0
BROWS = "raised eyebrows"  # units, and some surprise
EVERY_MODALITY = ("label", "action_units", "text", "audio")


def units_of(**strengths: float) -> np.ndarray:
    """(20,) with AU12L=0.5 and the like."""
    row = np.zeros(len(UNITS), np.float32)
    for name, value in strengths.items():
        row[UNITS.index(name.removeprefix("AU"))] = value
    return row


def track(*rows: np.ndarray, fps: float = FPS) -> UnitTrack:
    return UnitTrack(values=np.stack(rows), fps=fps)


def mood_row(label: str, probability: float, level: float) -> np.ndarray:
    """(1, 16) one frame in which ``label`` is heard and the rest is neutral."""
    heard = np.zeros(len(LABELS), np.float32)
    heard[LABELS.index(label)] = probability
    heard[0] += 1 - probability
    return np.concatenate([heard, heard * level])[None].astype(np.float32)


# ---- action units over time -----------------------------------------------------------------------------------------


def test_one_row_of_units_holds_for_ever():
    held = track(units_of(AU4=0.7), fps=1.0).sample(5, 60.0)
    assert held.dtype == np.float32
    np.testing.assert_array_equal(held, np.tile(units_of(AU4=0.7), (5, 1)))


def test_rows_of_units_are_read_at_the_middle_of_each_frame_and_the_last_holds():
    ramp = track(*(units_of(AU4=step / 10) for step in range(5)), fps=10.0)
    column = UNITS.index("4")
    np.testing.assert_allclose(ramp.sample(5, 10.0)[:, column], [0.0, 0.1, 0.2, 0.3, 0.4], atol=1e-6)
    # rows are centred at 0.05, 0.15 … s; frames at 20 a second at 0.025, 0.075 … s
    twice = ramp.sample(14, 20.0)[:, column]
    np.testing.assert_allclose(twice[:10], [0, 0.025, 0.075, 0.125, 0.175, 0.225, 0.275, 0.325, 0.375, 0.4], atol=1e-6)
    np.testing.assert_allclose(twice[10:], 0.4, atol=1e-6)


@pytest.mark.parametrize("rows", [1, 4])
def test_no_frames_have_no_units(rows: int):
    assert track(*[units_of(AU4=0.7)] * rows).sample(0, FPS).shape == (0, 20)


def test_a_track_does_not_change_with_the_array_it_was_made_from():
    values = units_of(AU4=0.7)[None]
    made = UnitTrack(values=values)
    values[:] = 0
    assert made.sample(1, FPS)[0, UNITS.index("4")] == np.float32(0.7)


@pytest.mark.parametrize(
    ("values", "fps", "complaint"),
    [
        (np.zeros(20), FPS, r"are \(T, 20\) numbers, got \(20,\)"),
        (np.zeros((2, 41)), FPS, r"got \(2, 41\)"),
        (np.zeros((0, 20)), FPS, r"got \(0, 20\)"),
        (np.full((1, 20), np.nan), FPS, "from 0 to 1.5, got nan"),
        (np.full((1, 20), np.inf), FPS, "got inf"),
        (np.full((1, 20), -0.1), FPS, "got -0.1"),
        (np.full((1, 20), 1.6), FPS, "to 1.6"),
        (np.zeros((2, 20)), 0.5, "1 to 240 a second, got 0.5"),
        (np.zeros((2, 20)), float("nan"), "got nan"),
    ],
)
def test_units_that_no_face_has_are_refused(values: np.ndarray, fps: float, complaint: str):
    with pytest.raises(EmotionError, match=complaint):
        UnitTrack(values=values, fps=fps)


# ---- one source -----------------------------------------------------------------------------------------------------


def test_labels_say_what_their_timeline_says():
    timeline = parse_emotion("0 neutral; 0.1 happy ease 0.1")
    for source in (as_source(timeline), EmotionSource(timeline=timeline), as_source(as_source(timeline))):
        rows = source.rows(9, FPS)
        np.testing.assert_array_equal(rows.vectors, timeline.sample(9, FPS))
        np.testing.assert_array_equal(rows.labels, rows.vectors)
        assert rows.said == ("label",)
        assert not rows.units.any()
        assert (rows.text, rows.mood, len(rows)) == (None, None, 9)
    np.testing.assert_array_equal(
        as_source(parse_blend("sad:0.4")).rows(2, FPS).vectors[1], parse_blend("sad:0.4").vector()
    )


def test_action_units_alone_leave_the_emotion_neutral():
    rows = EmotionSource(units=unit_track(parse_units("4:0.5"))).rows(3, FPS)
    assert rows.said == ("action_units",)
    np.testing.assert_array_equal(rows.vectors, np.tile(parse_blend("neutral").vector(), (3, 1)))
    np.testing.assert_allclose(rows.units, np.tile(units_of(AU4=0.5), (3, 1)))


def test_a_text_says_its_emotion_and_the_units_it_names():
    source = EmotionSource(text=f"sad, {BROWS}")
    rows = source.rows(2, FPS)
    assert rows.said == ("text",)
    assert rows.vectors[0].argmax() == LABELS.index("sad")
    assert rows.units[0, UNITS.index("1")] == pytest.approx(0.3)  # sadness shows the other half by itself
    assert rows.text is not None
    assert rows.text.shape == (2, TEXT_FEATURES)
    np.testing.assert_array_equal(rows.text[:, :8], rows.vectors)
    np.testing.assert_allclose(rows.text[:, 8:], detector_units(rows.units), atol=1e-6)


@pytest.mark.parametrize("text", ["smirking on the right side", "extremely, extremely raised eyebrows", "a dimple"])
def test_any_text_stays_within_what_units_may_be(text: str):
    rows = EmotionSource(text=text).rows(1, FPS)
    assert 0 <= rows.units.min() <= rows.units.max() <= 1.0


def test_a_voice_says_its_mood_times_the_strength():
    mood = np.concatenate([mood_row("sad", 0.8, 1.0), mood_row("contempt", 0.5, 0.4)])
    rows = EmotionSource(voice=0.5).rows(2, FPS, mood)
    assert rows.said == ("audio",)
    np.testing.assert_allclose(rows.vectors[0], parse_blend("sad:0.4").vector(), atol=1e-6)
    np.testing.assert_allclose(rows.vectors[1], parse_blend("contempt:0.1").vector(), atol=1e-6)
    assert rows.mood is not None
    np.testing.assert_array_equal(rows.mood[:, :8], mood[:, :8])
    np.testing.assert_allclose(rows.mood[:, 8:], mood[:, 8:] / 2)
    assert mood[0, 8 + LABELS.index("sad")] == np.float32(0.8), "what was heard is left as it was"


@pytest.mark.parametrize("seed", range(20))
def test_the_vectors_of_a_mood_are_emotion_vectors(seed: int):
    rng = np.random.default_rng(seed)
    heard = rng.dirichlet(np.full(8, 0.3), 50)
    mood = np.concatenate([heard, heard * rng.random((50, 1))], axis=1).astype(np.float32)
    vectors = mood_vectors(mood, float(rng.uniform(0, 1.5)))
    assert vectors.min() >= 0
    weights = vectors[:, 1:].sum(axis=1)
    assert weights.max() <= 1.5 + 1e-5
    np.testing.assert_allclose(vectors[:, 0], np.maximum(0, 1 - weights), atol=1e-6)
    np.testing.assert_array_equal(mood_vectors(mood, 0.0)[:, 1:], 0)
    assert stronger(mood, 0.0)[:, :8].sum() == pytest.approx(50, abs=1e-3)


def test_a_voice_that_nobody_heard_is_an_error():
    with pytest.raises(EmotionError, match="nothing here can hear it"):
        EmotionSource(voice=1.0).rows(3, FPS)


@pytest.mark.parametrize(
    "source",
    [
        as_source(parse_emotion("happy")),
        EmotionSource(text="sad"),
        EmotionSource(units=track(units_of(AU4=1.0), units_of())),
        EmotionSource(voice=1.0),
    ],
    ids=lambda source: source.parts[0],
)
def test_no_frames_are_no_rows(source: EmotionSource):
    rows = source.rows(0, FPS, np.zeros((0, MOOD_WIDTH), np.float32))
    assert len(rows) == 0
    assert (rows.vectors.shape, rows.units.shape) == ((0, 8), (0, 20))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({}, "has no source"),
        ({"voice": 0.0}, "has no source"),
        ({"voice": 1.6}, "counts 0 to 1.5 times, got 1.6"),
        ({"voice": -1.0}, "got -1"),
        ({"voice": float("nan")}, "got nan"),
        ({"text": " \n"}, "empty"),
    ],
)
def test_sources_that_are_refused(given: dict, complaint: str):
    with pytest.raises(EmotionError, match=complaint):
        EmotionSource(**given)


# ---- several at once ------------------------------------------------------------------------------------------------


def parts() -> list[EmotionSource]:
    return [
        as_source(parse_emotion("happy")),
        EmotionSource(text="furious"),
        EmotionSource(units=track(units_of(AU5=0.5))),
        EmotionSource(voice=1.0),
    ]


def test_joining_is_the_same_in_any_order():
    mood = mood_row("fear", 1.0, 1.0).repeat(2, axis=0)
    for order in permutations(parts()):
        joined = order[0]
        for one in order[1:]:
            joined = joined.joined(one)
        assert joined.parts == ("timeline", "text", "units", "voice")
        rows = joined.rows(2, FPS, mood)
        assert rows.said == EVERY_MODALITY
        np.testing.assert_allclose(rows.units, np.tile(units_of(AU5=0.5), (2, 1)))
        labels = parse_blend("happy").vector() + EmotionSource(text="furious").vectors(1, FPS)[0]
        np.testing.assert_allclose(rows.vectors[0], (labels + parse_blend("fear").vector()) / 3, atol=1e-6)


@pytest.mark.parametrize("number", [0, 1, 3])
def test_two_parts_of_one_kind_do_not_join(number: int):
    one = parts()[number]
    with pytest.raises(EmotionError, match=f"both emotions have a {one.parts[0]}"):
        one.joined(one)


def test_action_units_of_both_are_added_up_and_stop_at_the_limit():
    held = EmotionSource(units=UnitTrack(values=units_of(AU4=0.9, AU5=0.4)[None], about="a frown"))
    moving = EmotionSource(
        units=UnitTrack(values=np.stack([units_of(), units_of(AU4=1.0)]), fps=10.0, about="a movement")
    )
    for joined in (held.joined(moving), moving.joined(held)):
        rows = joined.unit_rows(25, FPS)
        np.testing.assert_allclose(rows[:, UNITS.index("5")], 0.4, atol=1e-6)
        column = rows[:, UNITS.index("4")]
        assert (column[0], column[-1]) == (pytest.approx(0.9), pytest.approx(1.5))
        assert (np.diff(column) >= 0).all()
        assert "a frown" in joined.explain()
        assert "a movement" in joined.explain()


def test_a_text_about_the_face_alone_leaves_the_emotion_to_the_labels():
    beside = as_source(parse_emotion("happy")).joined(EmotionSource(text="dimples"))
    rows = beside.rows(1, FPS)
    np.testing.assert_array_equal(rows.vectors[0], parse_blend("happy").vector())
    assert rows.units[0, UNITS.index("14L")] > 0.3
    mixed = as_source(parse_emotion("happy")).joined(EmotionSource(text="neutral")).rows(1, FPS)
    np.testing.assert_allclose(mixed.vectors[0], parse_blend("happy:0.5").vector(), atol=1e-6)


def test_units_that_a_text_names_and_units_given_are_not_added_up():
    """Both say what a unit should be: the stronger counts."""
    text = EmotionSource(text=BROWS)
    named = text.unit_rows(1, FPS)
    both = text.joined(EmotionSource(units=UnitTrack(values=named * 0.5))).unit_rows(1, FPS)
    np.testing.assert_array_equal(both, named)


def test_an_explanation_names_every_part_in_one_line():
    joined = as_source(parse_emotion("happy:0.5")).joined(EmotionSource(text=f"sad, {BROWS}, zorgle"))
    joined = joined.joined(EmotionSource(units=unit_track(parse_units("R14:0.5, 18")))).joined(EmotionSource(voice=0.7))
    said = joined.explain()
    assert "\n" not in said
    for part in ("happy:0.5", "sad", "zorgle", "AUR14 0.5", "not shown: AU18", "mood of the voice x 0.7"):
        assert part in said
    assert EmotionSource(voice=1.0).explain() == "the mood of the voice"


# ---- what a model is given ------------------------------------------------------------------------------------------


def everything(frames: int = 4) -> EmotionRows:
    joined, *others = parts()
    for one in others:
        joined = joined.joined(one)
    mood = np.concatenate([mood_row("fear", i / frames, 1.0) for i in range(frames)])
    return joined.rows(frames, FPS, mood)


def test_frames_can_be_taken_again_and_in_any_order():
    rows = everything()
    some = rows.take(np.array([3, 0, 3, 3]))
    assert len(some) == 4
    assert some.said == rows.said
    for name in ("vectors", "units", "labels", "text", "mood"):
        np.testing.assert_array_equal(getattr(some, name), getattr(rows, name)[[3, 0, 3, 3]])
    plain = as_source(parse_emotion("happy")).rows(4, FPS).take([1])
    assert (len(plain), plain.text, plain.mood) == (1, None, None)


def test_a_model_that_knows_everything_is_given_everything():
    inputs, words = everything().inputs(EVERY_MODALITY)
    assert words
    assert {name: tuple(value.shape) for name, value in inputs.items()} == {
        "label": (4, 8),
        "action_units": (4, len(AU_INDEX)),
        "text": (4, TEXT_FEATURES),
        "audio": (4, MOOD_WIDTH),
    }
    assert all(value.dtype == torch.float32 for value in inputs.values())
    np.testing.assert_array_equal(inputs["label"], everything().labels)
    assert inputs["action_units"][0, AU_INDEX["5"]] == 0.5


def test_a_model_without_text_is_given_labels_and_units_for_it():
    rows = EmotionSource(text=f"sad, {BROWS}").rows(3, FPS)
    inputs, words = rows.inputs(("label", "action_units"))
    assert not words
    np.testing.assert_array_equal(inputs["label"], rows.vectors)
    np.testing.assert_allclose(inputs["action_units"], detector_units(rows.units))
    plain, _ = EmotionSource(text="sad").rows(3, FPS).inputs(("label",))
    assert list(plain) == ["label"]


def test_a_text_keeps_its_say_beside_labels_where_a_model_takes_labels_alone():
    rows = as_source(parse_emotion("happy")).joined(EmotionSource(text="sad")).rows(1, FPS)
    inputs, _ = rows.inputs(("label",))
    sad = EmotionSource(text="sad").vectors(1, FPS)[0]
    np.testing.assert_allclose(inputs["label"][0], (parse_blend("happy").vector() + sad) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "known", "complaint"),
    [
        (EmotionSource(units=track(units_of(AU4=1.0))), ("label",), "was not trained on action units; it takes"),
        (EmotionSource(voice=1.0), ("label", "text"), "was not trained on audio; it takes emotion as label, text"),
        (EmotionSource(text=BROWS), ("label",), "the text tells parts of the face to move"),
    ],
)
def test_what_a_model_does_not_know_is_refused(source: EmotionSource, known: tuple[str, ...], complaint: str):
    with pytest.raises(EmotionError, match=complaint):
        source.rows(1, FPS, np.zeros((1, MOOD_WIDTH), np.float32)).inputs(known)


def test_signals_have_a_row_per_frame_in_every_part():
    vectors = torch.zeros(3, 8)
    assert EmotionSignals.of_labels(vectors).inputs["label"] is vectors
    with pytest.raises(ValueError, match="a row per frame, got"):
        EmotionSignals(inputs={"label": torch.zeros(2, 8)}, vectors_N8=vectors)
    with pytest.raises(ValueError, match="a row per frame, got"):
        EmotionSignals(inputs={"label": vectors}, vectors_N8=vectors, units_N20=torch.zeros(1, 20))


# ---- which experts are called ---------------------------------------------------------------------------------------


def shares_of(text: str, experts: int = 6, **units: float) -> torch.Tensor:
    vector = torch.from_numpy(parse_blend(text).vector())[None]
    return expert_shares(vector, experts, torch.from_numpy(units_of(**units))[None])[0]


def test_units_call_the_experts_whose_prototypes_have_them():
    smile = shares_of("neutral", AU12L=0.6, AU12R=0.6)
    assert smile.argmax() == EXPERTS.index("happy")
    assert smile.sum() == pytest.approx(1.0, abs=1e-6)
    assert smile.min() > 0, "no unit is without an expert, and none has just one"
    torch.testing.assert_close(shares_of("neutral", AU12L=0.1, AU12R=0.1), smile)
    foreign = shares_of("neutral", AU27=1.0)
    torch.testing.assert_close(foreign, torch.full((6,), 1 / 6))
    weak, strong = (shares_of("happy", AU15=strength) for strength in (0.2, 1.0))
    sad = EXPERTS.index("sad")
    assert shares_of("happy")[sad] == 0 < weak[sad] < strong[sad]


@pytest.mark.parametrize("experts", [1, 6])
def test_without_emotion_and_without_units_no_expert_is_called(experts: int):
    assert not shares_of("neutral", experts).any()
    torch.testing.assert_close(shares_of("sad:0.3", experts).sum(), torch.tensor(1.0))
    torch.testing.assert_close(shares_of("neutral", experts, AU4=0.2).sum(), torch.tensor(1.0))
    plain = expert_shares(torch.from_numpy(parse_blend("sad:0.3").vector())[None], experts)
    assert torch.equal(plain[0], shares_of("sad:0.3", experts))


def test_a_movement_that_the_texts_emotion_shows_anyway_is_not_added_to_it():
    beaming = EmotionSource(text="beaming with joy")
    asked = expression(beaming.vectors(1, 25.0)) + beaming.unit_rows(1, 25.0)
    named = dict(beaming.understood.units)
    assert named["12"] > 0.5
    assert asked[0, UNITS.index("12L")] == pytest.approx(max(named["12"], prototype("happy")[UNITS.index("12L")]))
    raised = EmotionSource(text="happy, eyebrows raised").unit_rows(1, 25.0)[0]
    assert raised[UNITS.index("1")] > 0.3
