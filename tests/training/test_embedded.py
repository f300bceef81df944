"""The embedded model does what it ships for, on test people it has never seen (the full figures are in benchmarks/)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.audio.read import Waveform, read_audio
from moee_core.emotion.timeline import parse_emotion
from moee_core.metrics.definitions import correlation
from moee_core.metrics.evaluate import LABEL_ORDER
from moee_core.metrics.instrument import FaceReader
from moee_core.pipeline import SamplingSettings, animate, reconstruction_error
from moee_core.portrait.image import read_portrait
from moee_core.weights.checkpoint import load_system
from training.evaluation_set import make_person
from training.face_world.speech import load_speech

ASSETS = Path(__file__).resolve().parents[2] / "moee_core" / "assets"
MODEL = ASSETS / "embedded.safetensors"


@pytest.fixture(scope="module")
def model():
    system, info = load_system(MODEL)
    sampling = {**info.sampling, "num_inference_steps": int(info.sampling["num_inference_steps"])}
    return system, info, SamplingSettings(**sampling)


@pytest.fixture(scope="module", params=[60, 64])
def somebody(request):
    """A test person who is not among the fifty of the reported figures, with a reader of their own."""
    person = make_person("test", request.param, load_speech("test"))
    return person, FaceReader(person["calibration"], person["mouth"], person["units"], person["label"])


def generate(model, portrait: np.ndarray, samples: np.ndarray, emotion: str) -> np.ndarray:
    system, _, settings = model
    waveform = Waveform(samples=samples[None].astype(np.float32), sample_rate=16000)
    return np.stack(list(animate(system, portrait, waveform, parse_emotion(emotion), settings)))


def test_the_file_is_small_and_says_what_it_is(model):
    _, info, _ = model
    assert MODEL.stat().st_size <= 12_500_000
    assert info.config.unet.experts == 6
    assert info.config.unet.prediction_type == "v_prediction"
    assert info.config.unet.zero_snr
    assert info.metadata["licence"] == "Apache-2.0"
    assert json.loads(info.metadata["trained"])["name"] == "embedded"


def test_the_sample_portraits_are_in_its_domain_and_noise_is_not(model):
    system, info, _ = model
    limit = info.domain["reconstruction_error"]
    for path in sorted((ASSETS / "portraits").glob("*.png")):
        assert reconstruction_error(system, read_portrait(path)) < limit, path.name
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(0, 256, (128, 128, 3), generator=generator, dtype=torch.uint8).numpy()
    assert reconstruction_error(system, noise) > limit


def test_the_mouth_follows_the_speech_and_rests_in_silence(model, somebody):
    person, reader = somebody
    frames = generate(model, person["portrait"], person["neutral_samples"], "neutral")
    opening = reader.read(frames)[0][:, 0]
    truth = person["neutral_viseme"][:, 0]
    assert correlation(opening[: len(truth)], truth) > 0.6
    silent = generate(model, person["portrait"], np.zeros(16000, np.float32), "neutral")
    rest = reader.read(silent)[0][:, 0]
    assert np.abs(rest).max() < 0.35 * opening.max(), (rest.max(), opening.max())


@pytest.mark.parametrize("label", ["happy", "angry", "surprised"])
def test_the_emotion_asked_for_is_the_emotion_seen(model, somebody, label):
    person, reader = somebody
    frames = generate(model, person["portrait"], person["neutral_samples"][:24000], label)
    scores = reader.read(frames)[2].mean(axis=0)
    assert LABEL_ORDER[int(scores.argmax())] == label


def test_nothing_moves_in_the_corners(model):
    """The background comes out of the portrait untouched."""
    portrait = read_portrait(ASSETS / "portraits" / "mira.png")
    samples = read_audio(ASSETS / "speech" / "hello.ogg").samples.mean(axis=0)[:48000]
    frames = generate(model, portrait, samples[::3], "happy").astype(np.float32)
    corner = frames[:, :12, :12]
    assert np.abs(corner - corner[:1]).mean() < 2.0
