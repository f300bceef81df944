"""The small DICE-Talk that ships does what it ships for, on test people it has never seen (the full figures are in
benchmarks/)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.emotion.vocabulary import LABELS
from moee_core.metrics.definitions import correlation
from moee_core.metrics.evaluate import LABEL_ORDER
from moee_core.metrics.instrument import FaceReader
from moee_core.weights.dice_file import inspect_dice_file, load_dice_file
from training.dice_measure import maker, named_prior, video_prior
from training.dice_talk import load_embedded
from training.evaluation_set import make_person
from training.face_world.speech import load_speech

MODEL = Path(__file__).resolve().parents[2] / "moee_core" / "assets" / "dice_talk.safetensors"


@pytest.fixture(scope="module")
def system():
    return load_dice_file(MODEL)


@pytest.fixture(scope="module")
def around():
    return load_embedded()


@pytest.fixture(scope="module")
def somebody():
    """A test person whom no report has measured, with a reader of their own."""
    person = make_person("test", 61, load_speech("test"))
    return person, FaceReader(person["calibration"], person["mouth"], person["units"], person["label"])


def test_the_file_is_small_and_says_what_it_is():
    config, metadata = inspect_dice_file(MODEL)
    assert MODEL.stat().st_size <= 6_000_000
    assert (config.ear, config.picture, config.named_priors) == ("embedded", "latent", True)
    assert config.embedder is not None
    assert metadata["licence"] == "Apache-2.0"
    assert "procedural" in metadata["data_licence"]
    assert json.loads(metadata["sampling"])["num_inference_steps"] == 1


@torch.no_grad()
def test_the_bank_tells_emotions_apart(system):
    """The eight priors find codes of their own, but for a few that share one, and read other tokens."""
    found = system.bank.retrieved(system.priors.weight)
    assert len(set(found.indices.tolist())) >= 6
    tokens = system.bank(system.priors.weight).flatten(1)
    apart = torch.cdist(tokens, tokens)[~torch.eye(len(LABELS), dtype=torch.bool)]
    assert float(apart.min()) > 0.1 * float(tokens.norm(dim=1).mean())


def test_the_mouth_follows_the_speech_and_rests_in_silence(system, around, somebody):
    person, reader = somebody
    make = maker(system, around)
    frames = make(person, person["neutral_samples"].astype(np.float32), named_prior(system, "neutral"))
    opening, truth = reader.read(frames)[0][:, 0], person["neutral_viseme"][:, 0]
    assert correlation(opening[: len(truth)], truth) > 0.6
    silent = make(person, np.zeros(16000, np.float32), named_prior(system, "neutral"))
    rest = reader.read(silent)[0][:, 0]
    assert np.abs(rest).max() < 0.5 * opening.max()


@pytest.mark.parametrize("label", ["happy", "angry", "surprised", "sad"])
def test_a_prior_is_the_emotion_seen(system, around, somebody, label: str):
    person, reader = somebody
    frames = maker(system, around)(person, person["neutral_samples"][:16000], named_prior(system, label))
    assert LABEL_ORDER[int(reader.read(frames)[2].mean(axis=0).argmax())] == label


def test_videos_of_others_are_followed(system, around):
    """By two of three people at least: the reports have nine of ten."""
    make, right = maker(system, around), 0
    for number in (61, 62, 63):
        person = make_person("test", number, load_speech("test"))
        reader = FaceReader(person["calibration"], person["mouth"], person["units"], person["label"])
        prior = video_prior(system, around, person["reference_frames"], None).mean_BD
        frames = make(person, person["neutral_samples"][:16000], prior)
        right += LABEL_ORDER[int(reader.read(frames)[2].mean(axis=0).argmax())] == str(person["source_label"])
    assert right >= 2


def test_nothing_moves_in_the_corners(system, around, somebody):
    person, _ = somebody
    frames = maker(system, around)(person, person["neutral_samples"][:16000], named_prior(system, "angry"))
    corner = frames[:, :12, :12].astype(np.float32)
    assert np.abs(corner - corner[:1]).mean() < 2.0
