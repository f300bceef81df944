"""The measure of every way to say an emotion, on makers whose pictures are known: true renders, and none at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moee_core.audio.read import Waveform
from moee_core.emotion.source import EmotionSource
from moee_core.emotion.vocabulary import COMPOUNDS, LABELS, TRAINED_COMPOUNDS
from moee_core.errors import MediaError
from moee_core.metrics import sources as metrics
from moee_core.metrics.evaluate import LABEL_ORDER, mixed
from moee_core.metrics.sources import (
    UNIT_NUMBERS,
    format_sources,
    load_phrasings,
    measure_sources,
    signs_of,
    whole,
    wilson,
)
from moee_core.motion.coefficients import UNITS
from moee_core.motion.expression import prototype

# ---- figures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "count", "low", "high"),
    [
        (0, 10, 0.0, 0.2775),  # Brown, Cai and DasGupta 2001, and R's prop.test(correct = FALSE)
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (1, 1, 0.2065, 1.0),
        (81, 263, 0.2553, 0.3662),  # Newcombe 1998, table 1
        (15, 148, 0.0624, 0.1605),
    ],
)
def test_wilsons_interval_has_its_published_values(right: int, count: int, low: float, high: float):
    assert wilson(right, count) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@pytest.mark.parametrize("name", COMPOUNDS)
def test_a_compound_is_told_by_units_of_one_part_alone_that_it_has_itself(name: str):
    for own, label, other in zip(signs_of(name), COMPOUNDS[name], reversed(COMPOUNDS[name]), strict=True):
        for column in own:
            assert prototype(label)[column] >= 0.25 > prototype(other)[column], UNITS[column]
            assert prototype(name)[column] >= 0.25, UNITS[column]
    assert not set(signs_of(name)[0]) & set(signs_of(name)[1])


def test_every_trained_compound_has_signs_of_both_parts_or_is_judged_by_one():
    assert all(any(signs_of(name)) for name in TRAINED_COMPOUNDS)
    happy, surprised = signs_of("happily_surprised")
    assert {UNITS[i] for i in happy} == {"12L", "12R"}
    assert {UNITS[i] for i in surprised} == {"1", "2", "5", "26"}


def test_both_sides_of_a_unit_are_one():
    units = np.zeros((2, 20))
    units[0, [UNITS.index("12L"), UNITS.index("12R")]] = 1.0, 0.5
    units[1, UNITS.index("4")] = 0.3
    joined = whole(units)
    assert joined.shape == (2, len(UNIT_NUMBERS)) == (2, 18)
    assert joined[0, UNIT_NUMBERS.index("12")] == 0.75
    assert joined[1, UNIT_NUMBERS.index("4")] == 0.3
    assert joined.sum() == 1.05


def test_the_report_on_units_names_what_was_raised_instead():
    changes = 0.5 * np.eye(18)
    changes[3, 5] = 0.9  # the fourth raises the sixth more than itself
    report = metrics._units_report(changes, 7)
    assert report["people"] == 7
    assert report["raised_most"] == pytest.approx(17 / 18)
    assert report["own"] == [0.5] * 18
    assert report["strongest"][3] == UNIT_NUMBERS[5]
    assert report["strongest"][4] == UNIT_NUMBERS[4]
    text = format_sources({"people": 7, "units": report})
    assert "in 94 % of 18 units" in text
    assert f"AU{UNIT_NUMBERS[3]:4} raised by  0.50, less than AU{UNIT_NUMBERS[5]}" in text


def test_every_other_person_starts_from_an_emotional_portrait():
    person: dict[str, Any] = {"portrait": 1, "portrait_emotional": 2}
    assert [mixed(person, number)["portrait"] for number in range(4)] == [1, 2, 1, 2]
    with pytest.raises(MediaError, match="no emotional portraits; make a new one"):
        mixed({"portrait": person["portrait"]}, 1)


@pytest.mark.parametrize(
    "entry", [{"text": "glum"}, {"text": "", "label": "sad"}, {"text": "glum", "label": "glum"}, "glum"]
)
def test_a_phrasing_has_a_text_and_a_label(tmp_path: Path, entry: Any):
    path = tmp_path / "texts.json"
    good = {"text": "glum", "label": "sad"}
    path.write_text(json.dumps([good]))
    assert load_phrasings(path) == [good]
    path.write_text(json.dumps([good, entry]))
    with pytest.raises(MediaError, match=r"texts\.json\[1\]: a phrasing has a text and one of the labels neutral"):
        load_phrasings(path)


# ---- a set of two people, drawn by hand -----------------------------------------------------------------------------

FRAMES = 2
CALIBRATION, UNIT_PICTURES = 126, 200
SECONDS = 0.1


def person_of(number: int) -> dict[str, np.ndarray]:
    """What the measure needs of one person, with fewer calibration pictures than a real set has."""
    from training import evaluation_sources as drawn
    from training.evaluation_set import calibration
    from training.face_world import performance as world
    from training.face_world.render import render
    from training.face_world.splits import person, split_rng

    rng = split_rng("tune", number, purpose=7)
    identity, pose = person("tune", number), world.reference_pose(rng)
    label = LABEL_ORDER[3 * number + 1]
    out = calibration(rng, identity, pose, count=CALIBRATION) | drawn._units(rng, identity, pose)
    for name in ("happily_surprised", "angrily_surprised"):
        vector = world.vector(dict.fromkeys(COMPOUNDS[name], 0.5))
        state = world.portrait_state(pose, vector, identity.expressiveness)
        out[f"compound_{name}"] = render(identity, state, 64)[None].repeat(FRAMES, axis=0)
    silence = np.zeros(round(SECONDS * 16_000), np.float16)
    for condition, shown in (("neutral", "happy"), ("contradicting", "sad")):
        state = world.portrait_state(pose, world.vector({shown: 1.0}), identity.expressiveness)
        out[f"{condition}_frames"] = render(identity, state, 64)[None].repeat(FRAMES, axis=0)
        out[f"{condition}_label"] = np.array(shown)
    return out | {
        "portrait": render(identity, world.portrait_state(pose), 64),
        "portrait_emotional": render(identity, world.portrait_state(pose, world.vector({"fear": 1.0})), 64),
        "neutral_samples": silence,
        "compound_samples": silence,
        "voice_samples": silence,
        "other_voice_samples": silence + np.float16(0.5),
        "other_voice": np.array(f"voice {number}"),
        "source_label": np.array(label),
        "reference_picture": np.zeros((4, 4, 3), np.uint8),
        "reference_frames": np.zeros((3, 4, 4, 3), np.uint8),
        "number": np.array(number),
        "pose": pose,
    }


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from training import evaluation_sources as drawn

    made = tmp_path_factory.mktemp("people")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawn, "UNIT_PICTURES", UNIT_PICTURES)
        for number in range(2):
            np.savez(made / f"person-{number:03d}.npz", allow_pickle=False, **person_of(number))
    return made


def true_renders(person: dict[str, np.ndarray], _waveform: Waveform, source: EmotionSource) -> np.ndarray:
    """The face world's own picture of what was said; the voice is in the mood that the set says."""
    from training.face_world import performance as world
    from training.face_world.render import render
    from training.face_world.rig import AU_NAMES, FaceState
    from training.face_world.splits import person as identity_of

    heard = np.zeros((FRAMES, 16), np.float32)
    heard[:, [LABELS.index(str(person["source_label"])), 8 + LABELS.index(str(person["source_label"]))]] = 1.0
    rows = source.rows(FRAMES, 25.0, heard)
    identity = identity_of("tune", int(person["number"]))
    units = np.zeros(len(AU_NAMES), np.float32)
    units[:] = world.emotion_action_units(rows.vectors[:1])[0] * identity.expressiveness
    units[: len(UNITS)] += rows.units[0]
    state = FaceState(
        action_units=np.clip(units, 0, world.MAX_UNIT), viseme=np.zeros(4, np.float32), pose=person["pose"]
    )
    return render(identity, state, 64)[None].repeat(FRAMES, axis=0)


def stills(person: dict[str, np.ndarray], _waveform: Waveform, _source: EmotionSource) -> np.ndarray:
    """Nothing moves."""
    return person["portrait"][None].repeat(FRAMES, axis=0)


PHRASINGS = [{"text": "very sad", "label": "sad"}]


def test_true_renders_are_named_right_by_every_source(folder: Path):
    asked: list[EmotionSource] = []
    shown = np.zeros((1, 20), np.float32)
    shown[0] = prototype("sad")

    def make(person: dict[str, np.ndarray], waveform: Waveform, source: EmotionSource) -> np.ndarray:
        asked.append(source)
        assert waveform.samples.shape[1] <= 16_000
        return true_renders(person, waveform, source)

    progress: list[tuple[int, int]] = []
    report = measure_sources(
        make, folder, phrasings=PHRASINGS, unit_people=1, on_progress=lambda *done: progress.append(done)
    )
    assert report["people"] == 2
    assert progress == [(1, 2), (2, 2)]
    for name in ("label", "action units", "voice", "voice, other synthesiser"):
        row = report["sources"][name]
        assert (row["clips"], row["right"]) == (2, 1.0), name
        assert (row["low"], row["high"]) == wilson(2, 2)
    assert report["sources"]["text"]["clips"] == 1, "one phrasing for the first person"
    assert report["sources"]["text"]["right"] == 1.0
    assert "picture" not in report["sources"]
    both = report["compounds"]["happily_surprised"]
    assert (both["people"], both["both_at_half"], both["trained"]) == (2, 1.0, True)
    assert both["weaker_part"] == pytest.approx(1.0, abs=0.3)
    assert not report["compounds"]["angrily_surprised"]["trained"]
    assert report["units"]["people"] == 1
    assert report["units"]["raised_most"] >= 15 / 18
    assert np.median(report["units"]["own"]) > 0.4
    assert {source.parts for source in asked} == {("timeline",), ("units",), ("text",), ("voice",)}
    text = format_sources(json.loads(json.dumps(report)))
    assert "label                         100.0 %" in text
    assert "(not trained)" in text
    assert (report["truth"]["clips"], report["truth"]["right"]) == (4, 1.0), "two true clips of each"
    assert "true renders                  100.0 %" in text
    assert "ear" not in report, "nobody said how the model hears"


def test_pictures_that_do_not_move_are_named_by_chance_and_show_no_compound(folder: Path):
    report = measure_sources(stills, folder, parts=("sources", "compounds", "units"), people=1, unit_people=1)
    assert report["sources"]["label"]["right"] == 0.0
    assert {clip["read"] for clip in report["clips"]} == {"neutral"}
    assert all(row["both_at_half"] == 0.0 for row in report["compounds"].values())
    np.testing.assert_array_equal(report["units"]["changes"], 0)


def test_only_what_is_asked_for_is_measured(folder: Path):
    assert set(measure_sources(stills, folder, parts=("compounds",), people=1)) == {"people", "compounds"}
    assert set(measure_sources(stills, folder, parts=("units",), people=1, unit_people=0)) == {"people"}


def test_the_ear_alone_is_told_by_its_mean_mood_for_both_kinds_of_voices(folder: Path):
    """It hears the shipped voices right, and in the other ones always anger, whom one of the two people means."""
    said = iter((LABEL_ORDER[1], LABEL_ORDER[4]))

    def hear(samples: np.ndarray) -> np.ndarray:
        assert samples.dtype == np.float32
        mood = np.zeros((4, 16), np.float32)
        mood[0, LABELS.index("contempt")] = 1.0  # for one frame of four
        mood[1:, LABELS.index("angry" if samples[0] else next(said))] = 0.6
        mood[:, 8:] = 9.0  # the moods times their level are not asked
        return mood

    report = measure_sources(stills, folder, hear=hear, parts=("ear",))
    assert set(report) == {"people", "ear", "heard"}
    shipped, other = report["ear"]["voice"], report["ear"]["voice, other synthesiser"]
    assert (shipped["clips"], shipped["right"]) == (2, 1.0)
    assert (other["clips"], other["right"]) == (2, 0.5)
    assert (other["low"], other["high"]) == wilson(1, 2)
    assert {label: row["right"] for label, row in other["by_emotion"].items()} == {"angry": 1.0, "happy": 0.0}
    assert {voice: row["right"] for voice, row in other["by_voice"].items()} == {"voice 0": 1.0, "voice 1": 0.0}
    assert not shipped["by_voice"], "the set does not say whose voices they are"
    text = format_sources(json.loads(json.dumps(report)))
    assert "ear, voice                    100.0 %" in text
    assert "angry 100, happy 0\n  voice 0 100, voice 1 0" in text


def test_a_set_without_other_voices_has_no_row_of_them(tmp_path: Path):
    person = person_of(0)
    del person["other_voice_samples"], person["other_voice"]
    np.savez(tmp_path / "person-000.npz", allow_pickle=False, **person)
    report = measure_sources(stills, tmp_path, hear=lambda _: np.eye(16)[:1], parts=("sources", "ear"))
    assert set(report["ear"]) == {"voice"}
    assert "voice, other synthesiser" not in report["sources"]


def test_an_unknown_part_is_refused_by_name(folder: Path):
    with pytest.raises(ValueError, match="unknown part 'ears'; choose from: sources, truth, ear, compounds, units"):
        measure_sources(stills, folder, parts=("ears",))


def test_a_picture_and_a_video_are_said_by_the_units_read_from_them(folder: Path):
    """The reader is given the references alone; what it reads is what the face shows."""
    seen: list[tuple[int, ...]] = []

    def read_units(pictures: np.ndarray) -> np.ndarray:
        seen.append(pictures.shape)
        return prototype("angry")[None].repeat(len(pictures), axis=0)

    report = measure_sources(true_renders, folder, people=1, read_units=read_units, parts=("sources",))
    assert seen == [(1, 4, 4, 3), (3, 4, 4, 3)]
    clips = {clip["source"]: clip for clip in report["clips"]}
    for name in ("picture", "video"):
        assert (clips[name]["said"], clips[name]["read"]) == ("angry", "angry")


def test_a_set_from_before_there_were_sources_says_what_to_do(tmp_path: Path):
    np.savez(tmp_path / "person-000.npz", portrait=np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(MediaError, match="was made before emotions had other sources; make a new set"):
        measure_sources(stills, tmp_path)
