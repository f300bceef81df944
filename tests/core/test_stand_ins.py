"""The small encoders inside a checkpoint: words as an embedding, and the mood of a voice over time."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from moee_core.audio.emotion_ear import EmotionEar
from moee_core.audio.emotion_features import CHUNK_FRAMES, FRAME_SAMPLES, RATE, frame_count
from moee_core.audio.mel import level_gain
from moee_core.emotion.latents import EmotionToLatents, EmotionToLatentsConfig
from moee_core.emotion.stand_ins import MOOD_SECONDS, MOOD_WIDTH, TEXT_FEATURES, WordsEncoder, mood, mood_of
from moee_core.ops import DEFAULT_BUILD, Build
from moee_core.systems.moee import EAR, make_ear, make_text_encoder
from moee_core.weights.emo_talker import EMBEDDED, load_emo_talker

REACH = round(MOOD_SECONDS * RATE)


@pytest.fixture(scope="module")
def ear() -> EmotionEar:
    """The listener that ships."""
    system, _ = load_emo_talker(EMBEDDED)
    assert system.ear is not None
    assert system.ear.config == EAR, "a checkpoint's ear is taken over from this one"
    return system.ear


def voice(seconds: float, seed: int = 0) -> torch.Tensor:
    """A hum whose pitch and loudness wander, so that its mood does."""
    time = np.arange(round(seconds * 16_000)) / 16_000
    pitch = 150 + 60 * np.sin(2 * np.pi * time / 7.0 + seed)
    loud = 0.1 * (1.2 + np.sin(2 * np.pi * 4 * time) * np.sin(2 * np.pi * time / 11.0))
    sound = loud * np.sin(2 * np.pi * np.cumsum(pitch) / 16_000)
    sound += 0.002 * np.random.default_rng(seed).standard_normal(len(time))
    return torch.from_numpy(sound.astype(np.float32))


# ---- words ----------------------------------------------------------------------------------------------------------


def test_words_are_embedded_row_by_row():
    encoder = WordsEncoder(12, DEFAULT_BUILD)
    features = torch.randn(5, TEXT_FEATURES)
    out = encoder(features)
    assert out.shape == (5, 12)
    torch.testing.assert_close(encoder(features[3:4]), out[3:4])
    assert not torch.allclose(out[0], out[1])


def test_features_of_another_width_are_named():
    with pytest.raises(ValueError, match=r"a text's features are 49 numbers, got \(2, 8\)"):
        WordsEncoder(12, DEFAULT_BUILD)(torch.zeros(2, 8))


def test_every_weight_of_the_words_comes_from_the_build():
    linear = [module for module in WordsEncoder(8, Build(device="meta")).modules() if isinstance(module, nn.Linear)]
    assert len(linear) == 2
    assert all(layer.weight.is_meta for layer in linear)


@pytest.mark.parametrize(
    ("given", "has_text", "has_ear"),
    [
        ({}, False, False),
        ({"text": "words", "text_width": 0}, False, False),
        ({"text": "words", "text_width": 8}, True, False),
        ({"audio": "ear", "audio_width": MOOD_WIDTH}, False, True),
        ({"audio": "ear", "audio_width": 0}, False, False),
    ],
)
def test_a_model_has_the_encoders_that_its_configuration_names(given: dict, has_text: bool, has_ear: bool):
    config = EmotionToLatentsConfig(**given)
    build = Build(device="meta")
    assert (make_text_encoder(config, build) is not None, make_ear(config, build) is not None) == (has_text, has_ear)
    assert ("text" in EmotionToLatents(config, build).encoders) == (config.text_width > 0)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"text": "bert"}, "text must be one of sentence-t5, words; got 'bert'"),
        ({"audio": "eyes"}, "audio must be one of emotion2vec, hubert, ear"),
        ({"audio": "ear", "audio_width": 768}, "audio_width of an ear is 16, got 768"),
    ],
)
def test_encoders_that_do_not_exist_are_refused(given: dict, complaint: str):
    with pytest.raises(ValueError, match=complaint):
        EmotionToLatentsConfig(**given)


# ---- the mood of a voice --------------------------------------------------------------------------------------------


def test_a_mood_is_the_mean_over_the_seconds_around_a_frame_and_fewer_at_the_ends():
    logits, level = torch.randn(600, 8), torch.rand(600)
    moods = mood_of(logits, level)
    assert moods.shape == (600, MOOD_WIDTH)
    for frame in (0, 1, REACH, 300, 598, 599):
        around = slice(max(0, frame - REACH), frame + REACH + 1)
        probability = logits[around].mean(0).softmax(-1)
        expected = torch.cat([probability, probability * level[around].mean()])
        torch.testing.assert_close(moods[frame], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("frames", [1, 2, 100])
def test_a_mood_of_a_moment_is_a_mood(frames: int):
    moods = mood_of(torch.randn(frames, 8), torch.rand(frames))
    assert moods.shape == (frames, MOOD_WIDTH)
    torch.testing.assert_close(moods[:, :8].sum(1), torch.ones(frames))


def test_a_level_out_of_range_is_clipped():
    quiet, loud = (mood_of(torch.zeros(3, 8), torch.full((3,), level)) for level in (-2.0, 4.0))
    assert not quiet[:, 8:].any()
    torch.testing.assert_close(loud[:, 8:], loud[:, :8])


def test_a_long_recording_in_chunks_has_the_mood_of_one_piece(ear: EmotionEar):
    samples = voice(CHUNK_FRAMES / RATE * 1.3)
    frames = len(samples) * 25 // 16_000
    found = mood(ear, samples, frames, 25.0)
    total = frame_count(len(samples))
    assert total > CHUNK_FRAMES
    with torch.no_grad():
        heard = ear.frames(samples, 0, total, level_gain(samples))
        whole = mood_of(ear.emotion(heard), ear.level(heard))
    middles = torch.arange(frames) * 2 + 1  # of frames at 25 a second, at 50
    torch.testing.assert_close(found, whole[middles], atol=1e-6, rtol=0)
    assert found[:, :8].std(dim=0).max() > 0.01, "it changes in time, or the comparison says nothing"


def test_a_mood_belongs_to_its_moment_at_any_rate(ear: EmotionEar):
    samples = voice(4.0)
    slow, fast = mood(ear, samples, 40, 10.0), mood(ear, samples, 120, 30.0)
    torch.testing.assert_close(slow, fast[1::3])


@pytest.mark.parametrize("count", [1, FRAME_SAMPLES, FRAME_SAMPLES + 1])
def test_the_shortest_recordings_and_silence_have_a_mood(ear: EmotionEar, count: int):
    for samples in (torch.zeros(count), torch.full((count,), 0.5)):
        found = mood(ear, samples, 1, 25.0)
        assert found.shape == (1, MOOD_WIDTH)
        assert torch.isfinite(found).all()


def test_frames_beyond_the_recording_have_its_last_mood_and_none_have_none(ear: EmotionEar):
    samples = voice(0.4)
    found = mood(ear, samples, 100, 25.0)
    assert torch.equal(found[10:], found[9:10].expand(90, -1))
    assert mood(ear, samples, 0, 25.0).shape == (0, MOOD_WIDTH)
