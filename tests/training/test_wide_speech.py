"""The wider local speech bank and the examples the speech encoder is trained on."""

from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.audio.encoder import SpeechEncoder
from moee_core.audio.mel import MELS
from moee_core.errors import MediaError
from moee_core.ops import Build
from training.config import AudioStage, DataConfig
from training.data import wide_speech
from training.data.clips import PAD, SpeechBanks, another_throat, cache_folder, heard, speech_banks
from training.face_world.build_speech import SPEAKERS
from training.face_world.speech import SAMPLE_RATE, load_speech
from training.face_world.visemes import VISEME_OF
from training.stages import audio

from .test_stages import TINY, config_of


def bank_of(folder: Path, count: int = 3) -> Path:
    """A bank of tones, as ``build`` would have written it."""
    folder.mkdir(parents=True)
    entries = [
        {"text": f"tone {i}", "voice": "x", "mood": "neutral", "phonemes": [["aa", 0.5], ["pau", 1.0]], "length": 16000}
        for i in range(count)
    ]
    seconds = np.arange(16000) / SAMPLE_RATE
    tones = [np.round(9000 * np.sin(2 * np.pi * 200 * (i + 1) * seconds)).astype(np.int16) for i in range(count)]
    np.save(folder / "samples.npy", np.concatenate(tones))
    (folder / "index.json").write_text(json.dumps({"format": 1, "seed": 0, "utterances": entries}))
    return folder


def test_the_tests_voice_is_in_no_training_speech():
    heard_in_tests = {speaker.flite_voice for speaker in SPEAKERS["test"]}
    assert heard_in_tests
    assert not heard_in_tests & set(wide_speech.FLITE_VOICES)


def test_every_phoneme_of_espeak_has_a_mouth_shape():
    phones = {phone for value in wide_speech.ESPEAK_PHONES.values() for phone in value.split()}
    assert phones <= set(VISEME_OF)
    assert {"p", "b", "m", "f", "v", "uw", "iy", "aa"} <= phones


def test_events_become_phones_that_end_where_the_next_begins():
    events = [("m", 2205), ("aI@", 4410), ("t#", 8820), ("_:", 11025)]
    phones = wide_speech.phones_of(events, rate=22050, duration=0.6)
    assert phones == [("pau", 0.1), ("m", 0.2), ("ay", 0.3), ("ax", 0.4), ("d", 0.5), ("pau", 0.6)]


def test_events_of_no_length_are_left_out_and_unknown_ones_named():
    assert wide_speech.phones_of([("t", 0), ("j", 2205), ("u:", 2205)], 22050, 0.3) == [("t", 0.1), ("uw", 0.3)]
    with pytest.raises(MediaError, match="'qq' has no mouth shape"):
        wide_speech.phones_of([("qq", 0)], 22050, 0.1)


def test_sentences_are_random_and_repeatable():
    words = wide_speech.WORDS.read_text(encoding="utf-8").split()
    assert len(words) == len(set(words)) > 500
    made = [wide_speech.random_sentence(np.random.default_rng([1, i]), words) for i in range(50)]
    assert made == [wide_speech.random_sentence(np.random.default_rng([1, i]), words) for i in range(50)]
    assert len(set(made)) == 50
    assert {len(text.split()) for text in made} == {4, 5, 6, 7, 8, 9}
    assert 5 < sum("," in text for text in made) < 40


def test_a_bank_is_read_as_it_was_written(tmp_path: Path):
    bank = wide_speech.load(bank_of(tmp_path / "bank"))
    assert [u.text for u in bank] == ["tone 0", "tone 1", "tone 2"]
    assert {u.split for u in bank} == {"train"}
    for number, utterance in enumerate(bank):
        assert utterance.samples.shape == (16000,)
        strongest = np.abs(np.fft.rfft(utterance.samples)).argmax()
        assert strongest == 200 * (number + 1)
        assert utterance.phonemes == (("aa", 0.5), ("pau", 1.0))


@pytest.mark.parametrize("damage", ["missing", "short", "format", "json"])
def test_a_damaged_bank_says_what_to_do(tmp_path: Path, damage: str):
    folder = bank_of(tmp_path / "bank")
    if damage == "missing":
        (folder / "samples.npy").unlink()
    elif damage == "short":
        np.save(folder / "samples.npy", np.zeros(100, np.int16))
    elif damage == "format":
        (folder / "index.json").write_text('{"format": 99, "utterances": []}')
    else:
        (folder / "index.json").write_text("{")
    with pytest.raises(MediaError, match="make it with python -m training"):
        wide_speech.load(folder)


def test_the_share_of_the_wide_bank_is_kept(tmp_path: Path):
    config = DataConfig(wide_speech=str(bank_of(tmp_path / "bank")), wide_share=0.25)
    banks = speech_banks(config)
    rng = np.random.default_rng(0)
    drawn = [banks.draw(rng).key.startswith("wide") for _ in range(1000)]
    assert np.mean(drawn) == pytest.approx(0.25, abs=0.04)
    assert len(speech_banks(DataConfig()).wide) == 0
    shipped_only = SpeechBanks(banks.shipped, [], 1.0)
    assert shipped_only.draw(rng).key.startswith("train")


def test_another_bank_makes_another_cache(tmp_path: Path):
    config = DataConfig(wide_speech=str(bank_of(tmp_path / "bank")))
    first = cache_folder(config, 0, tmp_path)
    moved = dataclasses.replace(config, wide_speech=str(bank_of(tmp_path / "copy")))
    assert cache_folder(moved, 0, tmp_path) == first, "the same bank elsewhere is the same data"
    shutil.rmtree(tmp_path / "bank")
    bank_of(tmp_path / "bank", count=2)
    assert cache_folder(config, 0, tmp_path) != first
    assert cache_folder(DataConfig(), 0, tmp_path) != first


def test_an_example_is_heard_where_its_mouth_shapes_are():
    """Silence, then a loud sound: the spectrogram must rise in the video frame in which the sound begins."""
    onset = 15 * 640
    samples = np.zeros(40 * 640, np.float32)
    samples[onset:] = 0.3 * np.random.default_rng(0).normal(size=len(samples) - onset).clip(-2, 2)
    found = 0
    for seed in range(12):
        mel, start = heard(np.random.default_rng(seed), samples, 20)
        assert mel.shape == (4 * (20 + 2 * PAD), MELS)
        level = mel.mean(axis=1)
        rise = int(np.diff(level).argmax()) + 1
        inside = 4 * (15 - start + PAD)
        if 4 <= inside < len(level) - 4:
            found += 1
            assert abs(rise - inside) <= 2
    assert found > 4


def test_another_throat_moves_formants_and_keeps_time():
    mel = np.zeros((30, MELS), np.float32)
    mel[10:20, 20] = 3.0
    peaks = set()
    for seed in range(40):
        out = another_throat(np.random.default_rng(seed), mel)
        assert out.shape == mel.shape
        assert out.dtype == np.float32
        change = out[15] - out[0]
        np.testing.assert_allclose(out[11:19], out[11:12].repeat(8, 0), atol=1e-6)
        peaks.add(int(change.argmax()))
    assert min(peaks) < 20 < max(peaks)
    assert min(peaks) >= 14
    assert max(peaks) <= 26


def test_silent_examples_have_a_shut_mouth_and_the_batch_depends_on_the_step_only(tmp_path: Path):
    data = DataConfig(silent=1.0)
    config = dataclasses.replace(config_of(TINY, audio=AudioStage(batch_size=2, iterations=4)), data=data)
    encoder = SpeechEncoder(TINY.audio.width, TINY.audio.layers, Build())
    stage = audio.make_stage(config, encoder)
    with torch.no_grad():
        encoder.viseme_head.weight.zero_()
        encoder.viseme_head.bias.zero_()
        assert float(stage.loss(0)[0]) == 0.0, "what is said in silence is nothing"
    config = dataclasses.replace(config, data=DataConfig(silent=0.0))
    first, second = (audio.make_stage(config, encoder) for _ in range(2))
    with torch.no_grad():
        assert float(first.loss(2)[0]) == float(second.loss(2)[0]) > 0
        assert float(first.loss(1)[0]) != float(second.loss(2)[0])
        figures = first.loss(3)[1]
    assert set(figures) == {"open", "width", "teeth", "press"}


def test_mouth_shapes_start_where_the_example_does():
    utterance = load_speech("tune")[0]
    whole = audio.mouth_shapes(utterance, 0, 40)
    np.testing.assert_allclose(audio.mouth_shapes(utterance, 12, 20), whole[12:32], atol=1e-6)


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs flite")
def test_build_writes_what_load_reads(tmp_path: Path):
    pytest.importorskip("scipy")
    try:
        wide_speech.Espeak()
    except MediaError:
        pytest.skip("needs espeak-ng")
    wide_speech.build(tmp_path / "a", 6, seed=3, workers=1)
    bank = wide_speech.load(tmp_path / "a")
    assert len(bank) == 6
    assert {"+" in u.voice for u in bank} == {True, False}, "both synthesisers speak"
    for utterance in bank:
        ends = [end for _, end in utterance.phonemes]
        assert all(b > a for a, b in itertools.pairwise(ends))
        assert abs(ends[-1] - utterance.duration) < 0.2
        assert {name for name, _ in utterance.phonemes} <= set(VISEME_OF)
        assert np.sqrt(np.mean(utterance.samples**2)) == pytest.approx(0.06, rel=0.1)
