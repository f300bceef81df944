"""Clips that show only what portrait, speech and emotion tell."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.audio.encoder import mel_between
from moee_core.audio.mel import level_gain
from moee_core.weights.checkpoint import load_system
from training.config import DataConfig
from training.data import clips
from training.data.latents import prepare_latents
from training.face_world import performance as world
from training.face_world.speech import load_speech
from training.face_world.splits import person, split_rng
from training.face_world.visemes import viseme_track

EMBEDDED = Path(__file__).resolve().parents[2] / "moee_core" / "assets" / "embedded.safetensors"
CONFIG = DataConfig(clips=4, frames=12, image_size=64, shard=4, workers=1, silent=0.0, heard_by=str(EMBEDDED))


@pytest.fixture(scope="module")
def ear():
    return clips.load_ear(str(EMBEDDED))


@pytest.fixture(scope="module")
def banks() -> clips.SpeechBanks:
    return clips.speech_banks(CONFIG)


def test_the_mouth_is_the_one_that_is_heard(ear, banks: clips.SpeechBanks):
    clip = clips._render_clip(CONFIG, 3, 1, banks, ear)
    again = clips._render_clip(CONFIG, 3, 1, banks, ear)
    assert all(np.array_equal(clip[name], again[name]) for name in clips.FIELDS)
    plain = clips._render_clip(CONFIG, 3, 1, banks)
    assert np.array_equal(clip["mel"], plain["mel"]), "the sound is the same"
    assert np.array_equal(clip["emotion"], plain["emotion"])
    assert not np.array_equal(clip["viseme"], plain["viseme"])
    assert not np.array_equal(clip["frames"], plain["frames"])


def test_what_is_heard_follows_true_mouths_at_their_reach(ear, banks: clips.SpeechBanks):
    heard, true = [], []
    config = dataclasses.replace(CONFIG, frames=20, image_size=48)
    for number in range(12):
        heard.append(clips._render_clip(config, 0, number, banks, ear)["viseme"])
        true.append(clips._render_clip(config, 0, number, banks)["viseme"])
    guess, truth = np.concatenate(heard), np.concatenate(true)
    assert guess.min() >= -1.1
    assert guess[:, [0, 2, 3]].min() >= 0
    assert guess.max() <= 1.1
    for axis, (r, low, high) in {0: (0.85, 0.8, 1.2), 1: (0.7, 0.75, 1.25), 3: (0.75, 0.8, 1.3)}.items():
        assert np.corrcoef(guess[:, axis], truth[:, axis])[0, 1] > r, axis
        assert low < guess[:, axis].std() / truth[:, axis].std() < high, axis
    shut = guess[:, 3] > 0.99
    assert shut.any(), "lips close"
    assert np.abs(guess[shut, :3]).max() < 0.02, "and closed lips are not open"


def test_a_voice_never_heard_is_heard_better_in_several_throats(ear):
    """Sentences and the voice that training leaves for tuning: the opening of the mouth follows the true one closer."""
    plain, several = [], []
    for utterance in load_speech("tune")[:24]:
        frames = int(utterance.duration * 25)
        truth = viseme_track(utterance.phonemes, utterance.duration)[:frames, 0]
        mel = mel_between(
            torch.from_numpy(utterance.samples), level_gain(torch.from_numpy(utterance.samples)), -8, 8 + frames
        )
        with torch.no_grad():
            for hear, found in ((ear, plain), (ear.hear, several)):
                guess = ear.visemes(hear(mel[None]))[0, 8:-8, 0].numpy()
                found.append(np.corrcoef(guess, truth)[0, 1])
    assert np.mean(plain) > 0.85
    assert np.mean(several) > np.mean(plain) + 0.002


def test_nothing_sways_or_blinks_that_no_input_tells():
    emotion = np.tile(world.vector({"happy": 1.0}), (40, 1))
    pose = world.reference_pose(split_rng("train", 0, purpose=0))
    one = person("train", 0)
    still = world.perform(
        np.random.default_rng(0), one, emotion, samples=None, base_pose=pose, blinking=False, sway=0.0
    )
    assert np.array_equal(still.pose, np.tile(pose, (40, 1)))
    assert not still.blink.any()
    swaying = world.perform(np.random.default_rng(0), one, emotion, samples=None, base_pose=pose)
    assert swaying.pose.std(axis=0)[1] > 0.002


def test_clips_heard_by_another_model_are_other_clips(tmp_path: Path):
    folders = set()
    for content in (b"a", b"b"):
        (tmp_path / "m.safetensors").write_bytes(content)
        config = dataclasses.replace(CONFIG, heard_by=str(tmp_path / "m.safetensors"))
        folders.add(clips.cache_folder(config, 0, tmp_path))
    folders.add(clips.cache_folder(dataclasses.replace(CONFIG, heard_by=""), 0, tmp_path))
    assert len(folders) == 3


def test_the_networks_learn_from_features_heard_as_in_use(tmp_path: Path, ear):
    """In all throats, as ``encode_speech`` gives them."""
    config = dataclasses.replace(CONFIG, clips=2, shard=2, image_size=128)
    cache = clips.prepare_clips(config, 0, tmp_path)
    system, _ = load_system(EMBEDDED)
    made = prepare_latents(cache, system.autoencoder, ear).speech
    mels = torch.from_numpy(cache.joined("mel")).float()
    with torch.no_grad():
        torch.testing.assert_close(made.float(), ear.hear(mels), rtol=0, atol=5e-3)
        assert float((made.float() - ear(mels)).abs().max()) > 0.05, "and not in one"
