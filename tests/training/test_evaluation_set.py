"""The set that instruments are made from: the same people whether drawn large or not, with other voices or without."""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

import numpy as np
import pytest

from moee_core.errors import MediaError
from moee_core.metrics.evaluate import evaluate_folder
from moee_core.metrics.instrument import downsized
from training import evaluation_set
from training import evaluation_sources as sources
from training.data import other_voices, wide_speech
from training.data.vocal_mood import change_for, said_again
from training.evaluation_set import calibration, main
from training.face_world import performance as world
from training.face_world.build_speech import LOUDNESS
from training.face_world.build_speech import SPEAKERS as BANK_SPEAKERS
from training.face_world.speech import Utterance, load_speech
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


def test_somebodys_pictures_share_how_they_hold_their_head(monkeypatch):
    """Readers are calibrated at that pose: at another one they misread true renders, and a portrait decides the pose of
    what a model makes of it."""
    monkeypatch.setattr(evaluation_set, "calibration", functools.partial(calibration, count=7))
    monkeypatch.setattr(sources, "UNIT_PICTURES", 2)
    utterances = load_speech("tune")
    for number in (1, 6):
        made = evaluation_set.make_person("tune", number, utterances)
        neutral, emotional = made["portrait"].astype(int), made["portrait_emotional"].astype(int)
        moved = np.abs(emotional - neutral)
        around = np.ones(moved.shape[:2], bool)
        around[20:, 34:94] = False
        assert moved[around].mean() < 0.2, "hair, ears and shoulders stay; at another pose 0.5 to 7"
        assert moved[48:110, 40:88].mean() > 2, "the face does not"


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


# ---- voices of another synthesiser ----------------------------------------------------------------------------------

VOICES = sorted({speaker.voice for speakers in other_voices.SPEAKERS.values() for speaker in speakers})
missing = shutil.which("festival") is None or not all(
    list(Path("/usr/share/festival/voices").glob(f"*/{voice}_diphone")) for voice in VOICES
)
needs_festival = pytest.mark.skipif(missing, reason=f"needs festival and its voices: {other_voices.PACKAGES}")


def test_the_other_synthesiser_speaks_in_no_bank_and_its_speakers_in_one_split():
    assert not {"flite", "espeak-ng"} & set(other_voices.SYNTHESISERS), "training has heard these"
    in_banks = {speaker.flite_voice for speakers in BANK_SPEAKERS.values() for speaker in speakers}
    assert not set(VOICES) & (in_banks | set(wide_speech.FLITE_VOICES))
    names = [speaker.name for speakers in other_voices.SPEAKERS.values() for speaker in speakers]
    assert len(names) == len(set(names))


def test_other_voices_without_their_synthesiser_say_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([str(tmp_path / "set"), "--people", "1", "--other-voices", "festival"]) == 2
    assert "festival is not on PATH; install it (Debian, Ubuntu: apt-get install festival" in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


@pytest.fixture(scope="module")
def others() -> list[Utterance]:
    """Two sentences by every speaker."""
    bank = load_speech("tune")
    return other_voices.other_utterances("tune", [u for u in bank if u.sentence in {b.sentence for b in bank[:4]}])


@needs_festival
def test_other_voices_say_the_banks_sentences_as_loudly_with_the_times_of_their_phones(others: list[Utterance]):
    assert len(others) == 6
    assert {u.voice.split("-")[0] for u in others} == set(VOICES)
    for utterance in others:
        ends = [end for _, end in utterance.phonemes]
        assert ends == sorted(ends)
        assert ends[-1] == pytest.approx(utterance.duration, abs=0.01)
        assert utterance.samples.dtype == np.float32
        kind = np.array([name for name, _ in utterance.phonemes])
        place = np.minimum(
            np.searchsorted(ends, np.arange(len(utterance.samples)) / 16_000, side="right"), len(ends) - 1
        )
        loudness = {name: np.sqrt(np.mean(utterance.samples[kind[place] == name] ** 2)) for name in ("pau", "s", "ax")}
        assert np.sqrt(np.mean(utterance.samples[kind[place] != "pau"] ** 2)) == pytest.approx(LOUDNESS, rel=0.05)
        assert loudness["pau"] < 0.3 * loudness["s"] < 0.3 * loudness["ax"], "each phone is where its sound is"


@needs_festival
def test_a_mood_of_another_voice_is_made_as_the_banks_are(others: list[Utterance]):
    """By ``said_again`` from neutral, of two sentences of one speaker, every speaker in turn."""
    made = sources.other_voice("tune", 204, others)
    assert made["other_voice_samples"].dtype == np.float16
    np.testing.assert_array_equal(
        made["other_voice_samples"], sources.other_voice("tune", 204, others)["other_voice_samples"]
    )
    assert {str(sources.other_voice("tune", n, others)["other_voice"]) for n in range(3)} == {u.voice for u in others}
    mine = [u for u in others if u.voice == str(made["other_voice"])]
    rng = np.random.default_rng(0)
    lengths = {
        label: [len(said_again(u.samples, u.phonemes, change_for("neutral", label, 1.0), rng)[0]) for u in mine]
        for label in ("sad", "angry")
    }
    assert np.divide(lengths["sad"], lengths["angry"]) == pytest.approx(1.20 / 0.84, rel=0.01)
    pause = 0.2 * 16_000
    pairs = {round(a + b + pause) for a in lengths["sad"] for b in lengths["sad"]}
    sad = next(n for n in range(200, 400) if sources.source_label(n) == "sad" and n % 3 == 204 % 3)
    assert len(sources.other_voice("tune", sad, others)["other_voice_samples"]) in pairs


@needs_festival
def test_a_voice_that_is_not_installed_says_what_to_install():
    with pytest.raises(MediaError, match=r"failed with voice nobody.*install it .*festvox-kdlpc16k"):
        other_voices.speak(["Hello."], other_voices.Speaker(voice="nobody", tract=1.0))


@needs_festival
def test_a_set_made_before_is_given_the_other_voices_and_nothing_else(tmp_path):
    path = tmp_path / "person-000.npz"
    np.savez(path, portrait=np.arange(12, dtype=np.uint8))
    asked = [str(tmp_path), "--people", "1", "--split", "tune", "--other-voices", "festival"]
    assert main(asked) == 0
    with np.load(path) as data:
        assert set(data.files) == {"portrait", "other_voice_samples", "other_voice"}
        np.testing.assert_array_equal(data["portrait"], np.arange(12))
        assert len(data["other_voice_samples"]) > 16_000
    before = path.read_bytes()
    assert main(asked) == 0
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
