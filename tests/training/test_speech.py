"""The speech bank and the visemes: sizes, splits, alignment, what moods change, what the mouth must do."""

from __future__ import annotations

import math
import shutil
from collections import Counter

import librosa
import numpy as np
import pytest

from moee_core.errors import MediaError
from training.face_world import build_speech, speech, visemes
from training.face_world.speech import MOODS, SAMPLE_RATE, SPLITS, Utterance, load_speech

OPEN, WIDTH, TEETH, PRESS = range(4)


@pytest.fixture(scope="module")
def bank() -> dict[str, list[Utterance]]:
    return {split: load_speech(split) for split in SPLITS}


@pytest.fixture(scope="module")
def everything(bank) -> list[Utterance]:
    return [utterance for split in SPLITS for utterance in bank[split]]


def _phone_levels(utterance: Utterance, names: frozenset[str]) -> np.ndarray:
    """RMS of the middle half of each phone called one of ``names``."""
    levels, begin = [], 0.0
    for name, end in utterance.phonemes:
        quarter = (end - begin) / 4
        part = utterance.samples[round((begin + quarter) * SAMPLE_RATE) : round((end - quarter) * SAMPLE_RATE)]
        if name in names and len(part) > 0:
            levels.append(float(np.sqrt(np.mean(np.square(part)))))
        begin = end
    return np.array(levels)


def _speaking_level(utterance: Utterance) -> float:
    return float(np.mean(_phone_levels(utterance, visemes.VOWELS)))


def _pitch(utterance: Utterance) -> np.ndarray:
    """Pitch in Hz where it is loud."""
    pitch = librosa.yin(utterance.samples, fmin=65, fmax=400, sr=SAMPLE_RATE, frame_length=1024, hop_length=320)
    level = librosa.feature.rms(y=utterance.samples, frame_length=1024, hop_length=320)[0]
    return pitch[level > 0.35 * level.max()]


def test_bank_is_small_and_of_the_planned_size(bank):
    total = sum(path.stat().st_size for path in speech.BANK_FOLDER.iterdir())
    assert total <= 3_000_000
    assert {split: len(bank[split]) for split in SPLITS} == {"train": 330, "tune": 24, "test": 111}
    assert {split: len({u.sentence for u in bank[split]}) for split in SPLITS} == {"train": 50, "tune": 8, "test": 17}


def test_no_sentence_and_no_voice_is_in_two_splits(bank):
    for field in ("text", "sentence", "voice", "key"):
        values = [{getattr(u, field) for u in bank[split]} for split in SPLITS]
        assert sum(len(part) for part in values) == len(set().union(*values)), field
    assert not any(u.voice.startswith("rms") for split in ("train", "tune") for u in bank[split])


def test_utterances_are_well_formed(everything):
    for utterance in everything:
        samples = utterance.samples
        assert samples.dtype == np.float32
        assert samples.ndim == 1
        assert np.abs(samples).max() <= 1.0
        assert 1.2 < utterance.duration < 5.0, utterance.key
        ends = [end for _, end in utterance.phonemes]
        assert ends[0] > 0, utterance.key
        assert np.all(np.diff(ends) > 0), utterance.key
        assert ends[-1] <= utterance.duration + 1e-3, utterance.key
        assert {name for name, _ in utterance.phonemes} <= set(visemes.VISEME_OF)
    assert len({u.key for u in everything}) == len(everything)


def test_train_sentences_use_every_phone_and_many_bilabials(bank):
    used = Counter(name for u in bank["train"] for name, _ in u.phonemes)
    assert set(visemes.VISEME_OF) == set(used)
    assert sum(used[name] for name in visemes.BILABIALS) > 0.08 * used.total()


def test_mood_says_nothing_about_sentence_or_speaker(bank):
    for field in ("voice", "sentence"):
        table = Counter((getattr(u, field), u.mood) for u in bank["train"])
        values = sorted({getattr(u, field) for u in bank["train"]})
        counts = np.array([[table[value, mood] for mood in MOODS] for value in values], dtype=float)
        expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
        association = np.sqrt(((counts - expected) ** 2 / expected).sum() / counts.sum() / (min(counts.shape) - 1))
        assert association < 0.12, (field, association)  # Cramer's V; one mood a sentence would give 1
    lively = Counter((u.voice, u.mood) for u in bank["test"])
    assert all(lively[voice, "neutral"] == 17 for voice in {u.voice for u in bank["test"]})
    assert min(lively.values()) >= 5
    assert len(lively) == 2 * len(MOODS)


def test_index_times_point_at_the_right_sound(everything):
    """Pauses are silent and vowels loud where the index says so; a shift of 50 ms at the start would break it."""
    ratios = [np.mean(_phone_levels(u, frozenset({"pau"}))) / _speaking_level(u) for u in everything]
    assert max(ratios) < 0.15, everything[int(np.argmax(ratios))].key
    for utterance in everything[::7]:
        first, last = utterance.phonemes[0][1], utterance.phonemes[-2][1]
        # nothing of a neighbour in the file may leak in, nothing of the sentence may be cut
        edges = np.concatenate(
            [
                utterance.samples[: round((first - 0.03) * SAMPLE_RATE)],
                utterance.samples[round((last + 0.09) * SAMPLE_RATE) :],
            ]
        )
        assert np.abs(edges).max() < 0.25 * np.abs(utterance.samples).max(), utterance.key


def test_codec_keeps_samples_where_they_were(bank, tmp_path):
    track = np.concatenate([utterance.samples for utterance in bank["tune"][:4]])
    path = tmp_path / "track.ogg"
    build_speech._write_recording(path, track, build_speech.BANK_BIT_RATE)
    decoded = speech.decode_recording(path)
    assert len(decoded) >= len(track)
    for begin in range(1000, len(track) - 21_000, 40_000):  # early and late: the delay must neither be nor grow
        piece = np.diff(track[begin : begin + 20_000])
        match = np.correlate(np.diff(decoded[begin - 500 : begin + 20_500]), piece, mode="valid")
        assert abs(int(match.argmax()) - 500) <= 0.002 * SAMPLE_RATE, begin
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")
def test_committed_bank_is_aligned_with_a_fresh_synthesis(bank):
    speakers = {speaker.name: speaker for split in SPLITS for speaker in build_speech.SPEAKERS[split]}
    for utterance in (bank["train"][3], bank["train"][-1], bank["tune"][5], bank["test"][-2]):
        mood = build_speech.MOOD_STYLES[utterance.mood]
        fresh, phonemes = build_speech.speak(utterance.text, speakers[utterance.voice], mood, flite="flite")
        assert len(fresh) == len(utterance.samples)
        assert [name for name, _ in phonemes] == [name for name, _ in utterance.phonemes]
        inner = np.diff(fresh)[400:-400]
        match = np.correlate(np.diff(utterance.samples), inner, mode="valid")
        assert abs(int(match.argmax()) - 400) <= 0.002 * SAMPLE_RATE, utterance.key


def test_moods_differ_in_loudness_and_tempo(everything):
    level = {mood: np.mean([_speaking_level(u) for u in everything if u.mood == mood]) for mood in MOODS}
    assert level["angry"] > 1.5 * level["neutral"] > 2.0 * level["sad"]
    rate = {mood: np.mean([len(u.phonemes) / u.duration for u in everything if u.mood == mood]) for mood in MOODS}
    assert rate["angry"] > 1.08 * rate["neutral"] > 1.15 * rate["sad"]


@pytest.mark.parametrize("voice", ["slt-1.00", "rms-1.00", "rms-1.10"])
def test_moods_differ_in_pitch_and_its_range(everything, voice):
    """Also for rms, whose pitch flite itself will not move."""
    pitch = {
        mood: [_pitch(u) for u in everything if u.voice == voice and u.mood == mood][:5]
        for mood in ("neutral", "sad", "surprised")
    }
    median = {mood: np.mean([np.median(track) for track in tracks]) for mood, tracks in pitch.items()}
    assert median["surprised"] > 1.12 * median["neutral"] > 1.18 * median["sad"], median
    spread = {
        mood: np.mean([np.subtract(*np.percentile(t, [80, 20])) for t in tracks]) for mood, tracks in pitch.items()
    }
    assert spread["surprised"] > 1.5 * spread["sad"], spread


def test_sample_recordings_are_there():
    for name, low, high in (("demo.ogg", 5.5, 6.5), ("hello.ogg", 2.2, 2.9), ("question.ogg", 2.6, 3.4)):
        samples = speech.decode_recording(build_speech.SAMPLES_FOLDER / name)
        assert low < len(samples) / SAMPLE_RATE < high, name
        assert np.sqrt(np.mean(np.square(samples))) > 0.02, name


def test_unknown_split_and_missing_bank_are_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"'dev'.*train, tune, test"):
        load_speech("dev")
    with pytest.raises(MediaError, match=r"absent\.ogg"):
        speech.decode_recording(tmp_path / "absent.ogg")
    damaged = tmp_path / "damaged.ogg"
    damaged.write_bytes(b"not a recording" * 9)
    with pytest.raises(MediaError, match=r"damaged\.ogg"):
        speech.decode_recording(damaged)
    monkeypatch.setattr(speech, "BANK_FOLDER", tmp_path)
    with pytest.raises(MediaError, match=r"build_speech"):
        load_speech("tune")


def test_without_flite_the_builder_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MediaError, match="apt-get install flite"):
        build_speech.build(tmp_path, tmp_path)


@pytest.mark.parametrize("fps", [25.0, 30.0])
def test_viseme_track_of_real_speech(bank, fps):
    for utterance in bank["tune"]:
        track = visemes.viseme_track(utterance.phonemes, utterance.duration, fps)
        assert track.shape == (math.ceil(utterance.duration * fps), 4)
        assert track.dtype == np.float32
        assert np.all(np.isfinite(track))
        assert track.min() >= -1.0
        assert track.max() <= 1.0
        assert track[:, [OPEN, TEETH, PRESS]].min() >= 0.0
        np.testing.assert_allclose(track[0], 0.0, atol=0.02)  # begins in a pause
        begin = 0.0
        for name, end in utterance.phonemes:
            if name in visemes.BILABIALS:
                frame = min(int((begin + end) / 2 * fps), len(track) - 1)
                assert track[frame, PRESS] >= 0.8, (utterance.key, name, begin)
                assert track[frame, OPEN] <= 0.05, (utterance.key, name, begin)
            begin = end


@pytest.mark.parametrize("length", [0.02, 0.03, 0.05, 0.2])
@pytest.mark.parametrize("offset", [0.0, 0.007, 0.013])
def test_a_bilabial_closes_however_short(length, offset):
    phonemes = [("aa", 0.3 + offset), ("m", 0.3 + offset + length), ("aa", 0.8)]
    curves = visemes.viseme_curves(phonemes, 0.8)
    closed = (curves[:, PRESS] >= 0.8) & (curves[:, OPEN] <= 0.05)
    assert closed.any()
    assert curves[10:40, OPEN].max() > 0.8  # the vowel before it still opens


def test_silence_is_the_closed_resting_mouth():
    assert not visemes.viseme_track([("pau", 1.0)], 1.2).any()
    assert visemes.viseme_track([], 1.2).shape == (30, 4)


def test_frames_sample_their_centres():
    phonemes = [("pau", 0.5), ("aa", 1.0)]
    track = visemes.viseme_track(phonemes, 1.0, 50.0)
    edge = np.interp(0.5, (np.arange(50) + 0.5) / 50, track[:, OPEN])
    assert edge == pytest.approx(0.5, abs=0.05)


def test_vowels_open_more_than_consonants_and_rounding_has_its_sign():
    opening = {
        name: np.mean([shape[OPEN] for shape in shapes]) for name, shapes in visemes.VISEME_OF.items() if name != "pau"
    }
    consonants = [value for name, value in opening.items() if name not in visemes.VOWELS]
    assert np.mean([opening[name] for name in visemes.VOWELS]) > 1.8 * np.mean(consonants)
    steady = {name: visemes.viseme_track([(name, 1.0)], 1.0)[12] for name in ("aa", "uw", "iy", "s")}
    assert steady["uw"][WIDTH] < -0.9
    assert steady["iy"][WIDTH] > 0.7
    assert steady["aa"][OPEN] > 0.95
    assert steady["s"][TEETH] > 0.95


def test_energy_follows_the_opening_of_the_mouth(bank):
    correlations = []
    for utterance in bank["test"]:
        track = visemes.viseme_track(utterance.phonemes, utterance.duration)
        energy = visemes.energy_track(utterance.samples, SAMPLE_RATE, len(track), 25.0)
        correlations.append(np.corrcoef(energy, track[:, OPEN])[0, 1])
    assert np.mean(correlations) > 0.3


def test_energy_track_is_where_the_sound_is():
    samples = np.zeros(SAMPLE_RATE, dtype=np.float32)
    samples[SAMPLE_RATE // 2 :] = 0.01
    energy = visemes.energy_track(samples, SAMPLE_RATE, 40, 25.0)
    assert energy.shape == (40,)
    assert energy.dtype == np.float32
    assert energy[:11].max() == 0.0
    assert energy[14:24].min() == pytest.approx(1.0)
    assert energy[27:].max() == 0.0
    assert not visemes.energy_track(np.zeros(100, dtype=np.float32), SAMPLE_RATE, 5, 25.0).any()


@pytest.mark.parametrize(
    ("phonemes", "duration", "fps", "words"),
    [
        ([("qq", 0.5)], 1.0, 25.0, "unknown phone 'qq'"),
        ([("aa", 0.5), ("m", 0.5)], 1.0, 25.0, "must rise"),
        ([("aa", 0.5)], 0.0, 25.0, "duration"),
        ([("aa", 0.5)], 1.0, float("nan"), "fps"),
    ],
)
def test_wrong_input_is_named(phonemes, duration, fps, words):
    with pytest.raises(ValueError, match=words):
        visemes.viseme_track(phonemes, duration, fps)
