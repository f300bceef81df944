"""Emotion names, blends, timelines and action units: the grammar, what it means, and what it refuses."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest

from moee_core.emotion.action_units import ACTION_UNITS, AU_INDEX, PROTOTYPES, action_unit_vector
from moee_core.emotion.condition import EMOTIONS, MAX_INTENSITY, EmotionCondition, parse_blend
from moee_core.emotion.timeline import EmotionTimeline, Keyframe, parse_emotion
from moee_core.emotion.vocabulary import ALIASES, COMPOUNDS, EXPERTS, LABELS, TRAINED_COMPOUNDS, quote, resolve_label
from moee_core.errors import EmotionError

FPS = 25.0
FINE_FPS = 1000.0  # fine enough to look at the shape of a transition


def random_condition(rng: np.random.Generator) -> EmotionCondition:
    """A few labels and compounds, weights of every size, intensity anywhere up to the limit."""
    names = rng.choice([*LABELS, *COMPOUNDS], size=rng.integers(0, 5), replace=False)
    weights = rng.random(len(names)) ** rng.integers(1, 12)
    weights *= rng.uniform(0, MAX_INTENSITY) / max(weights.sum(), 1e-30)
    return EmotionCondition(weights=tuple(zip(map(str, names), weights, strict=True)))


def random_timeline(rng: np.random.Generator) -> EmotionTimeline:
    start = rng.choice([0.0, rng.random()])
    times = start + np.concatenate([[0.0], np.cumsum(rng.random(rng.integers(0, 6)) + 1e-3)])
    eases = rng.choice([0.0, 0.5, rng.random(), 3.0], size=len(times))
    return EmotionTimeline(
        keys=tuple(
            Keyframe(seconds=seconds, condition=random_condition(rng), ease=ease)
            for seconds, ease in zip(times, eases, strict=True)
        )
    )


def refusal(call, value) -> str:
    """The message of the EmotionError that ``call(value)`` must raise; every message is short and a single line."""
    with pytest.raises(EmotionError) as caught:
        call(value)
    message = str(caught.value)
    assert len(message) <= 300
    assert len(message.splitlines()) == 1
    return message


# ---- vocabulary


def test_the_orders_that_weights_on_disk_depend_on():
    assert EXPERTS == ("angry", "disgusted", "fear", "happy", "sad", "surprised")
    assert (LABELS[0], LABELS[1:7], LABELS[7:]) == ("neutral", EXPERTS, ("contempt",))
    assert EMOTIONS[:6] == EXPERTS


def test_compounds_are_twelve_different_pairs_of_experts():
    assert set(TRAINED_COMPOUNDS) <= set(COMPOUNDS)
    assert all(set(pair) <= set(EXPERTS) for pair in COMPOUNDS.values())
    assert len({frozenset(pair) for pair in COMPOUNDS.values()}) == len(COMPOUNDS) == 12


def test_an_alias_never_hides_a_canonical_name():
    assert not set(ALIASES) & {*LABELS, *COMPOUNDS}
    assert set(ALIASES.values()) <= {*LABELS, *COMPOUNDS}


@pytest.mark.parametrize("name", [*LABELS, *COMPOUNDS, *ALIASES])
def test_case_and_separators_do_not_matter(name):
    expected = ALIASES.get(name, name)
    for written in (name, name.upper(), name.replace("_", " "), name.title().replace("_", "-"), f"  {name}\n"):
        assert resolve_label(written) == expected


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("joy", "happy"),
        ("Anger", "angry"),
        ("afraid", "fear"),
        ("scared", "fear"),
        ("disgust", "disgusted"),
        ("sadly_fearful", "sadly_fear"),
        ("Happily  Surprise", "happily_surprised"),
    ],
)
def test_other_words(written, name):
    assert resolve_label(written) == name


@pytest.mark.parametrize(("typo", "meant"), [("hapy", "happy"), ("suprised", "surprised"), ("joyfull", "happy")])
def test_a_misspelling_is_answered_with_the_nearest_name_and_the_choices(typo, meant):
    message = refusal(resolve_label, typo)
    assert f"did you mean '{meant}'" in message
    assert all(label in message for label in LABELS)


def test_something_unlike_any_name_gets_no_suggestion():
    assert "did you mean" not in refusal(resolve_label, "xyzzy")


@pytest.mark.parametrize("text", ["a" * 10_000, "\n" * 500, "\x00" * 500, "\U000e0001" * 500, "'\"" * 300, "happy"])
def test_quoted_text_is_short_and_printable(text):
    assert len(quote(text)) <= 42
    assert quote(text).isprintable()


# ---- action units


def test_forty_one_units_with_facs_names():
    sides = [unit.side for unit in ACTION_UNITS]
    assert (len(sides), sides.count(""), sides.count("left"), sides.count("right")) == (41, 27, 7, 7)
    assert len(AU_INDEX) == 41
    assert [unit.code for unit in ACTION_UNITS[27:31]] == ["L1", "R1", "L2", "R2"]
    for code in ("12", "L12", "R12"):
        assert ACTION_UNITS[AU_INDEX[code]].name == "lip corner puller"


def test_every_label_and_compound_has_a_prototype_of_known_units():
    assert set(PROTOTYPES) == {*LABELS, *COMPOUNDS}
    for name, strengths in PROTOTYPES.items():
        assert set(strengths) <= set(AU_INDEX), name
        assert all(0.2 <= strength <= 1.0 for strength in strengths.values()), name
        assert name == "neutral" or max(strengths.values()) == 1.0


def test_prototypes_look_different():
    """Cosine below 0.9 for every pair but the two fears, which share their core in the literature."""
    vectors = {name: action_unit_vector(strengths) for name, strengths in PROTOTYPES.items() if strengths}
    unit = {name: vector / np.linalg.norm(vector) for name, vector in vectors.items()}
    cosine = {frozenset(pair): float(unit[pair[0]] @ unit[pair[1]]) for pair in itertools.combinations(unit, 2)}
    the_fears = frozenset(("fear", "sadly_fear"))
    assert max(value for pair, value in cosine.items() if pair != the_fears) < 0.9
    assert cosine[the_fears] < 0.97
    assert max(cosine[frozenset(pair)] for pair in itertools.combinations(EXPERTS, 2)) < 0.65


def test_fear_is_told_from_surprise_by_brows_lips_and_jaw():
    fear, surprised = PROTOTYPES["fear"], PROTOTYPES["surprised"]
    assert {"4", "20"} <= set(fear)
    assert not {"4", "20"} & set(surprised)
    assert fear["26"] < surprised["26"] / 2


def test_contempt_shows_on_one_side_only():
    assert {ACTION_UNITS[AU_INDEX[code]].side for code in PROTOTYPES["contempt"]} == {"right"}


def test_speech_coupled_units_can_be_left_out():
    full = action_unit_vector(PROTOTYPES["surprised"])
    silent = action_unit_vector(PROTOTYPES["surprised"], exclude_speech_coupled=True)
    coupled = np.array([unit.speech_coupled for unit in ACTION_UNITS])
    assert full[coupled].sum() > 0
    assert silent[coupled].sum() == 0
    np.testing.assert_array_equal(silent[~coupled], full[~coupled])


@pytest.mark.parametrize("strengths", [{"99": 1.0}, {"12": 1.5}, {"12": -0.1}, {"12": float("nan")}, {"z" * 9999: 1.0}])
def test_bad_action_units_are_refused(strengths):
    refusal(action_unit_vector, strengths)


# ---- blends


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("happy", {"happy": 1.0}),
        ("neutral", {}),
        ("neutral:0.7", {}),
        ("happy:0", {}),
        ("happy:0.5", {"happy": 0.5}),
        ("happy 0.5", {"happy": 0.5}),
        (" HAPPY : .5 ", {"happy": 0.5}),
        ("happy + surprised", {"happy": 0.5, "surprised": 0.5}),
        ("happy+neutral", {"happy": 0.5}),
        ("happy:1 + neutral:0.5", {"happy": 1.0}),
        ("happy:0.6 + surprised:0.4", {"happy": 0.6, "surprised": 0.4}),
        ("happily surprised", {"happy": 0.5, "surprised": 0.5}),
        ("happily surprised 0.8", {"happy": 0.4, "surprised": 0.4}),
        ("happily-surprised:0.8 + happy 0.2", {"happy": 0.6, "surprised": 0.4}),
        ("sad + happily_surprised", {"sad": 0.5, "happy": 0.25, "surprised": 0.25}),
        ("surprised:0.3 + sad:0.6 + happy:0.6", {"surprised": 0.3, "sad": 0.6, "happy": 0.6}),
    ],
)
def test_what_a_blend_means(text, weights):
    condition = parse_blend(text)
    assert dict(condition.weights) == pytest.approx(weights)
    assert [label for label, _ in condition.weights] == [label for label in LABELS if label in weights]
    assert condition.intensity == pytest.approx(sum(weights.values()))
    total = sum(weights.values())
    assert dict(condition.mix) == pytest.approx({label: weight / total for label, weight in weights.items()})


def test_order_of_the_terms_does_not_matter():
    terms = ["happily_surprised:0.1", "sadly_surprised:0.2", "surprised:0.3", "happy:0.7"]
    conditions = {parse_blend(" + ".join(order)) for order in itertools.permutations(terms)}
    assert len(conditions) == 1


@pytest.mark.parametrize("seed", range(100))
def test_a_condition_survives_its_text(seed):
    condition = random_condition(np.random.default_rng(seed))
    assert parse_blend(condition.to_text()) == condition
    assert parse_emotion(condition.to_text()).keys[0].condition == condition


def test_canonical_text():
    assert parse_blend("Joy").to_text() == "happy"
    assert parse_blend("surprise 0.25 + joy 0.5").to_text() == "happy:0.5 + surprised:0.25"
    assert parse_blend("happy:0 + neutral:1").to_text() == "neutral"


@pytest.mark.parametrize("seed", range(50))
def test_vector_holds_the_weights_and_neutral_the_rest(seed):
    condition = random_condition(np.random.default_rng(seed))
    vector = condition.vector()
    assert vector.shape == (8,)
    assert vector.dtype == np.float32
    assert vector.sum() == pytest.approx(max(1.0, condition.intensity), abs=1e-6)
    assert vector[0] == pytest.approx(max(0.0, 1.0 - condition.intensity), abs=1e-6)
    for label, share in condition.mix:
        assert vector[LABELS.index(label)] == pytest.approx(condition.intensity * share, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "experts"),
    [
        ("neutral", ()),
        ("happy:0.001", ("happy",)),
        ("happy:0 + sad:0.5", ("sad",)),
        ("fearfully surprised", ("fear", "surprised")),
        ("contempt:0.2", EXPERTS),
    ],
)
def test_expert_mask_opens_what_has_weight(text, experts):
    mask = parse_blend(text).expert_mask()
    assert mask.dtype == bool
    assert [name for name, is_open in zip(EXPERTS, mask, strict=True) if is_open] == list(experts)


def test_scaling_keeps_the_mix_and_stops_at_the_limit():
    condition = parse_blend("happy:0.6 + sad:0.4")
    half = condition.scaled(0.5)
    assert half.intensity == pytest.approx(0.5)
    assert dict(half.mix) == pytest.approx(dict(condition.mix))
    assert condition.scaled(1.5).intensity == pytest.approx(1.5)
    assert condition.scaled(0.0) == EmotionCondition()
    assert "1.5" in refusal(condition.scaled, 1.6)
    refusal(condition.scaled, -1.0)
    refusal(condition.scaled, float("nan"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        (" \n ", "empty"),
        ("hapy:0.5", "unknown emotion 'hapy'; did you mean 'happy'"),
        ("happy:nan", "finite"),
        ("happy inf", "finite"),
        ("happy:1e999", "finite"),
        ("happy:-0.5", "finite number from 0"),
        ("happy -0.5", "finite number from 0"),
        ("happy:1.6", "add up to 1.6"),
        ("happy:1 + sad:0.6", "add up to 1.6"),
        ("happy:0,8", "'0,8' is not a number"),
        ("happy 80%", "'80%' is not a number"),
        ("happy:abc", "'abc' is not a number"),
        ("happy:1_0", "is not a number"),
        ("happy:0.1:0.2", "is not a number"),
        ("happy:", "nothing follows the ':'"),
        (":0.5", "no emotion"),
        ("0.5", "no emotion"),
        ("happy +", "'+'"),
        ("+ happy", "'+'"),
        ("happy + + sad", "'+'"),
        ("+", "'+'"),
        ("happy:0.2 + happy:0.3", "happy appears twice"),
        ("happy:0.2 + joy:0.3", "happy appears twice in one blend (here as"),
        ("happy:0.5 + sad", "such as sad; write a weight for all or for none"),
    ],
)
def test_blends_that_are_refused(text, complaint):
    assert complaint in refusal(parse_blend, text)


# ---- timelines: text and JSON


def test_a_blend_is_a_timeline_of_one_key_at_zero():
    timeline = parse_emotion("happy:0.8 + surprised:0.2")
    assert [key.seconds for key in timeline.keys] == [0.0]
    assert timeline.keys[0].condition == parse_blend("happy:0.8 + surprised:0.2")


@pytest.mark.parametrize("tail", ["", ";", " ; \n"])
def test_a_timeline_text(tail):
    timeline = parse_emotion("0 neutral; 1.5 happy EASE 0.4;\n3 surprised:1.2; 4.5 happily surprised 0.8 ease 0" + tail)
    assert [key.seconds for key in timeline.keys] == [0.0, 1.5, 3.0, 4.5]
    assert [key.ease for key in timeline.keys] == [0.5, 0.4, 0.5, 0.0]
    assert [key.condition.to_text() for key in timeline.keys] == [
        "neutral",
        "happy",
        "surprised:1.2",
        "happy:0.4 + surprised:0.4",
    ]


def test_json_says_the_same_as_text():
    expected = parse_emotion("0 neutral; 1.5 happy + sad ease 0.25")
    entries = [{"seconds": 0, "emotion": "neutral"}, {"seconds": 1.5, "emotion": "happy + sad", "ease": 0.25}]
    assert parse_emotion(json.dumps(entries)) == expected
    assert parse_emotion(f"\n {json.dumps({'timeline': entries}, indent=2)}") == expected


@pytest.mark.parametrize("seed", range(100))
def test_a_timeline_survives_its_text_and_its_json(seed):
    timeline = random_timeline(np.random.default_rng(seed))
    assert parse_emotion(timeline.to_text()) == timeline
    assert EmotionTimeline.from_json(timeline.to_json()) == timeline
    assert parse_emotion(timeline.to_json()) == timeline


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "empty"),
        (";", "empty"),
        ("0 happy; 0 sad", "key 2 of 2: its seconds, 0, do not come after"),
        ("0 happy; 2 sad; 1.5 fear", "key 3 of 3"),
        ("-1 happy", "key 1: seconds is -1"),
        ("nan happy", "key 1: seconds is nan"),
        ("inf happy", "key 1: seconds is inf"),
        ("0 happy; 1 sad ease -0.1", "key 2: ease is -0.1"),
        ("0 happy ease nan", "key 1: ease is nan"),
        ("0 happy; 1.5", "key 2: no emotion follows the time '1.5'"),
        ("0 happy; 1.5 ease 0.4", "key 2: no emotion"),
        ("0 happy;; 1 sad", "key 2 is empty: there is a stray ';'"),
        ("; 0 happy", "key 1 is empty"),
        ("0 happy;;", "stray ';'"),
        ("0 happy ease 0.4 sad", "'sad' follows the ease"),
        ("0 happy ease 0.4 ease 0.5", "follows the ease"),
        ("0 happy ease", "no number follows 'ease'"),
        ("0 happy ease soon", "the ease 'soon' is not a number"),
        ("happy; 1 sad", "key 1: the time 'happy' is not a number"),
        ("happy ease 0.4", "the time 'happy' is not a number"),
        ("1.5s happy", "the time '1.5s' is not a number"),
        ("0 happy; 1 hapy", "key 2: unknown emotion 'hapy'; did you mean 'happy'"),
        ("0 happy; 1 sad:2", "key 2: the weights"),
    ],
)
def test_timeline_texts_that_are_refused(text, complaint):
    assert complaint in refusal(parse_emotion, text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[", "cannot be read"),
        ("[" * 200_000, "cannot be read"),
        ('[{"seconds": ' + "9" * 5000 + ', "emotion": "sad"}]', "cannot be read"),
        ("[]", "no keys"),
        ("{}", "'timeline'"),
        ('{"keys": []}', "found 'keys'"),
        ('{"timeline": [], "fps": 25}', "'fps'"),
        ('{"timeline": "happy"}', "timeline must be a JSON list of keys, found the text 'happy'"),
        ("[3]", "timeline[0] must be an object"),
        ('[{"seconds": 0, "emotion": "sad"}, []]', "timeline[1] must be an object with seconds, emotion and ease"),
        ('[{"emotion": "sad"}]', "timeline[0].seconds is missing"),
        ('[{"seconds": 0}]', "timeline[0].emotion is missing"),
        ('[{"seconds": 0, "emotion": "sad", "speed": 1}]', "timeline[0].'speed': no such field"),
        ('[{"seconds": "0", "emotion": "sad"}]', "timeline[0].seconds must be a number of seconds, found the text"),
        ('[{"seconds": true, "emotion": "sad"}]', "timeline[0].seconds must be a number of seconds, found true"),
        ('[{"seconds": NaN, "emotion": "sad"}]', "timeline[0].seconds is nan"),
        ('[{"seconds": 1' + "0" * 400 + ', "emotion": "sad"}]', "timeline[0].seconds is too large"),
        (
            '[{"seconds": 0, "emotion": "sad", "ease": null}]',
            "timeline[0].ease must be a number of seconds, found null",
        ),
        ('[{"seconds": 0, "emotion": "sad", "ease": -1}]', "timeline[0].ease is -1"),
        ('[{"seconds": 0, "emotion": {"sad": 1}}]', "timeline[0].emotion must be a blend in quotes, found an object"),
        ('[{"seconds": 0, "emotion": ""}]', "timeline[0].emotion: the emotion is empty"),
        ('[{"seconds": 0, "emotion": "sda"}]', "timeline[0].emotion: unknown emotion 'sda'"),
        ('[{"seconds": 1, "emotion": "sad"}, {"seconds": 1, "emotion": "fear"}]', "key 2 of 2"),
    ],
)
def test_json_of_the_wrong_shape_names_index_and_field(text, complaint):
    assert complaint in refusal(parse_emotion, text)


@pytest.mark.parametrize("filler", ["x", "happily surprise ", "\n", "\x00", "'\"", "9", "💥", "\U000e0001"])
@pytest.mark.parametrize(
    "pattern",
    [
        "{}!",
        "happy:{}!",
        "happy:0.1 + {}!",
        "happy:0.1 + sad + {}",
        "happy + {} +",
        "0 happy; 1 {}!",
        "0 happy ease {}!",
        "0 happy ease 1 {}!",
        "{}! happy; 1 sad",
        '[{{"seconds": 0, "emotion": "{}!"}}]',
        '[{{"{}": 0}}]',
        '{{"{}": 0}}',
        '[{{"seconds": "{}!", "emotion": "sad"}}]',
        "[{}!]",
    ],
)
def test_long_and_odd_input_gets_a_short_answer(pattern, filler):
    refusal(parse_emotion, pattern.format(filler * 20_000))


# ---- timelines: frame by frame


def test_a_constant_emotion_is_the_same_vector_in_every_frame():
    samples = parse_emotion("happy:0.8").sample(7, FPS)
    assert samples.shape == (7, 8)
    assert samples.dtype == np.float32
    np.testing.assert_array_equal(samples, np.tile(parse_blend("happy:0.8").vector(), (7, 1)))


def test_neutral_until_a_first_key_that_is_not_at_zero():
    samples = parse_emotion("1 happy ease 0").sample(50, FPS)
    np.testing.assert_array_equal(samples[:25], np.tile(parse_blend("neutral").vector(), (25, 1)))
    np.testing.assert_array_equal(samples[25:], np.tile(parse_blend("happy").vector(), (25, 1)))


def test_frames_are_sampled_at_their_centres():
    """A cut at 0.5 s, at 1 frame a second: the centre of frame 0 is 0.5 s, which the key already governs."""
    assert parse_emotion("0 sad; 0.5 happy ease 0").sample(1, 1.0)[0, LABELS.index("happy")] == 1.0
    assert parse_emotion("0 sad; 0.501 happy ease 0").sample(1, 1.0)[0, LABELS.index("happy")] == 0.0


def test_a_transition_starts_at_its_key_rises_smoothly_and_ends_after_its_ease():
    happy = parse_emotion("0 neutral; 1 happy ease 0.5").sample(2000, FINE_FPS)[:, LABELS.index("happy")]
    assert np.all(happy[:1000] == 0.0)
    assert np.all(np.diff(happy[1000:1500]) > 0)
    assert np.all(happy[1500:] == 1.0)
    middle = (happy[1249] + happy[1250]) / 2  # the frames on both sides of the half-way time 1.25 s
    assert middle == pytest.approx(0.5, abs=1e-6)
    steps = np.diff(happy)
    assert steps[1000] < 0.05 * steps.max()
    assert steps[1498] < 0.05 * steps.max()


def test_an_interrupted_transition_goes_on_from_where_it_stands():
    samples = parse_emotion("0 neutral; 1 happy ease 1; 1.5 sad ease 1; 1.75 fear:1.5 ease 2").sample(4000, FINE_FPS)
    fastest = 1.5 * 1.5 / FINE_FPS  # smoothstep's steepest slope is 1.5 of the change, which is 1.5 at most
    assert np.abs(np.diff(samples, axis=0)).max() <= fastest * 1.01
    happy, sad = (samples[:, LABELS.index(label)] for label in ("happy", "sad"))
    assert happy[1499] == pytest.approx(0.5, abs=0.01)
    assert happy.max() < 0.51
    assert 0.1 < sad.max() < 0.2  # smoothstep(0.25) = 0.156: cut short by fear
    np.testing.assert_array_equal(samples[-1], parse_blend("fear:1.5").vector())


@pytest.mark.parametrize("seed", range(60))
def test_every_frame_is_a_valid_emotion_vector(seed):
    timeline = random_timeline(np.random.default_rng(seed))
    samples = timeline.sample(400, 60.0)
    weights = samples[:, 1:].sum(axis=1)
    assert np.isfinite(samples).all()
    assert samples.min() >= 0.0
    assert weights.max() <= MAX_INTENSITY + 1e-6
    np.testing.assert_allclose(samples[:, 0], np.maximum(0.0, 1.0 - weights), atol=1e-6)
    np.testing.assert_allclose(samples.sum(axis=1), np.maximum(1.0, weights), atol=1e-6)


@pytest.mark.parametrize("seed", range(30))
def test_without_cuts_the_curve_has_no_jumps(seed):
    rng = np.random.default_rng(seed)
    keys = tuple(Keyframe(seconds=float(i), condition=random_condition(rng), ease=0.5 + i) for i in range(5))
    samples = EmotionTimeline(keys=keys).sample(6000, FINE_FPS)
    steepest = 1.5 * MAX_INTENSITY / 0.5 / FINE_FPS
    assert np.abs(np.diff(samples, axis=0)).max() <= steepest * 1.01


def test_the_rate_does_not_change_the_curve():
    """Frames at 25 fps lie on the curve seen at 75 fps, whose every third centre is the same moment."""
    timeline = parse_emotion("0.1 happy; 0.7 contempt:1.3 ease 1; 1.2 sad + fear ease 0.2")
    np.testing.assert_allclose(timeline.sample(50, 25.0), timeline.sample(150, 75.0)[1::3], atol=1e-6)


def test_the_length_does_not_change_the_curve():
    timeline = parse_emotion("0 happy; 1 sad; 1.2 fear")
    np.testing.assert_array_equal(timeline.sample(100, FPS)[:40], timeline.sample(40, FPS))
    assert timeline.sample(0, FPS).shape == (0, 8)


@pytest.mark.parametrize("seed", range(30))
def test_the_mask_is_open_exactly_where_an_expert_has_weight(seed):
    timeline = random_timeline(np.random.default_rng(seed))
    samples, mask = timeline.sample(300, 60.0), timeline.expert_mask(300, 60.0)
    assert mask.shape == (300, 6)
    assert mask.dtype == bool
    contempt = samples[:, LABELS.index("contempt")] > 0
    np.testing.assert_array_equal(mask, (samples[:, 1:7] > 0) | contempt[:, None])


def test_experts_open_and_close_with_their_transition():
    mask = parse_emotion("0 neutral; 1 happy ease 0.4; 2 sad ease 0.4; 3 neutral ease 0").expert_mask(100, FPS)
    happy, sad = mask[:, EXPERTS.index("happy")], mask[:, EXPERTS.index("sad")]
    assert not mask[:25].any()
    assert not mask[75:].any()
    assert happy[25:60].all()
    assert not happy[60:].any()
    assert sad[50:75].all()
    assert not sad[:50].any()


def test_a_scaled_timeline_scales_every_frame():
    timeline = parse_emotion("0 happy:0.8; 1 sad + fear; 1.2 contempt:1.2 ease 1")
    np.testing.assert_allclose(
        timeline.scaled(0.5).sample(60, FPS)[:, 1:], 0.5 * timeline.sample(60, FPS)[:, 1:], atol=1e-6
    )
    assert "1.5" in refusal(timeline.scaled, 1.3)


@pytest.mark.parametrize(
    ("num_frames", "fps"), [(-1, 25.0), (5, 0.0), (5, -25.0), (5, float("nan")), (5, float("inf"))]
)
def test_sampling_refuses_impossible_frames(num_frames, fps):
    with pytest.raises(EmotionError):
        parse_emotion("happy").sample(num_frames, fps)
