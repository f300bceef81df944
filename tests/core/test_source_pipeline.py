"""Every source of an emotion through a whole model: what moves the frames, what a model without it says, files."""

from __future__ import annotations

import dataclasses
import json
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from moee_core.emotion.source import EmotionSource, as_source
from moee_core.emotion.timeline import parse_emotion
from moee_core.emotion.units import parse_units, unit_track
from moee_core.errors import CheckpointError, EmotionError
from moee_core.networks.config import SystemConfig
from moee_core.pipeline import SamplingSettings, animate
from moee_core.systems.moee import MoEESystem, network_inputs
from moee_core.weights.checkpoint import inspect_checkpoint, load_parts, load_system, save_system

from ..fixtures.tiny import EVERY_SOURCE, TINY, tiny_system
from .test_pipeline import FPS, FRAME, RATE, WINDOW, Waveform, recording
from .test_portrait_image import colourful

FRAMES = 2 * WINDOW + 1  # two windows and one that is filled up
HAPPY = as_source(parse_emotion("happy"))
UNITS = EmotionSource(units=unit_track(parse_units("4, 15, 17:0.5")))
TEXT = EmotionSource(text="furious")
VOICE = EmotionSource(voice=1.5)


@cache
def system(config: SystemConfig = EVERY_SOURCE) -> MoEESystem:
    return tiny_system(config=config)


def frames_of(source: EmotionSource, model: MoEESystem | None = None, waveform: Waveform | None = None) -> np.ndarray:
    """(F, S, S, 3) int, so that differences have a sign."""
    settings = SamplingSettings(num_inference_steps=1)
    made = animate(model or system(), colourful(80, 72), waveform or recording(FRAMES), source, settings)
    return np.stack(list(made)).astype(int)


def apart(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())


@pytest.fixture(scope="module")
def neutral() -> np.ndarray:
    return frames_of(as_source(parse_emotion("neutral")))


# ---- what moves the frames ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", [HAPPY, UNITS, TEXT, VOICE], ids=["label", "units", "text", "voice"])
def test_every_source_moves_the_face(source: EmotionSource, neutral: np.ndarray):
    made = frames_of(source)
    assert made.shape == neutral.shape == (FRAMES, 64, 64, 3)
    assert apart(made, neutral) > 0.1


def test_several_at_once_are_not_one_of_them(neutral: np.ndarray):
    joined = HAPPY.joined(TEXT).joined(UNITS).joined(VOICE)
    made = frames_of(joined)
    assert apart(made, neutral) > 0.1
    for alone in (HAPPY, TEXT, UNITS, VOICE):
        assert apart(made, frames_of(alone)) > 0.05, alone.parts


def test_labels_are_the_same_numbers_with_and_without_the_other_encoders():
    """The weights of the two models are the same but for the encoders that one lacks."""
    state = system().state_dict()
    plain = MoEESystem(TINY).eval().requires_grad_(False)
    plain.load_state_dict({key: state[key] for key in plain.state_dict()})
    np.testing.assert_array_equal(frames_of(HAPPY, plain), frames_of(HAPPY))


def test_no_strength_at_all_is_neutral_bit_for_bit(neutral: np.ndarray):
    np.testing.assert_array_equal(frames_of(EmotionSource(units=unit_track({"12": 0.0}))), neutral)
    np.testing.assert_array_equal(frames_of(as_source(parse_emotion("happy:0"))), neutral)


def test_contempt_is_shown_by_its_label_and_by_its_units(neutral: np.ndarray):
    for source in (as_source(parse_emotion("contempt")), EmotionSource(units=unit_track({"R14": 1.0, "R12": 0.8}))):
        assert apart(frames_of(source), neutral) > 0.1


def test_units_over_time_move_their_own_windows_only(neutral: np.ndarray):
    rows = np.zeros((FRAMES, 20), np.float32)
    rows[WINDOW:, 2] = 1.0
    later = EmotionSource(units=dataclasses.replace(UNITS.units, values=rows, fps=float(FPS)))  # type: ignore[type-var]
    made = frames_of(later)
    np.testing.assert_array_equal(made[:WINDOW], neutral[:WINDOW])
    assert apart(made[WINDOW:], neutral[WINDOW:]) > 0.1


def test_the_mood_is_that_of_the_recording():
    sound = np.sin(2 * np.pi * 200 * np.arange(FRAMES * FRAME) / RATE)[None].astype(np.float32)
    other = Waveform(samples=0.1 * sound, sample_rate=RATE)
    model = system()
    moods = [model.mood(torch.from_numpy(wave.samples[0]), FRAMES) for wave in (recording(FRAMES), other)]
    assert [mood.shape for mood in moods] == [(FRAMES, 16)] * 2
    assert np.abs(moods[0] - moods[1]).max() > 0.01


def test_signals_go_where_the_weights_are_and_the_routing_is_known_before():
    rows = HAPPY.joined(TEXT).joined(UNITS).rows(4, 25.0)
    signals = system().signals(rows)
    assert list(signals.inputs) == ["label", "action_units", "text"]
    assert signals.inputs["text"].shape == (4, EVERY_SOURCE.emotion.text_width)
    assert signals.vectors_N8.device.type == "cpu"
    context = system().emotion_context(signals)
    tokens = EVERY_SOURCE.emotion.query_tokens
    assert context.latents_NMD.shape == (4, 3 * tokens, EVERY_SOURCE.emotion.width)
    torch.testing.assert_close(context.routing.prior_NE.sum(1), torch.ones(4))


# ---- a model that lacks a source ------------------------------------------------------------------------------------


def without(**emotion: object) -> SystemConfig:
    return dataclasses.replace(TINY, emotion=dataclasses.replace(TINY.emotion, **emotion))  # type: ignore[arg-type]


def test_a_model_without_text_shows_what_its_words_mean_as_labels():
    model = system(TINY)
    vector = TEXT.understood.condition
    np.testing.assert_array_equal(frames_of(TEXT, model), frames_of(as_source(vector), model))


@pytest.mark.parametrize(
    ("source", "config", "complaint"),
    [
        (VOICE, TINY, "cannot hear the mood of a voice; it has no ear"),
        (VOICE, without(audio_width=16), "cannot hear the mood of a voice"),
        (UNITS, without(action_units=0), "not trained on action units; it takes emotion as label"),
        (EmotionSource(text="smiling, dimples"), without(action_units=0), "the text tells parts of the face to move"),
        (TEXT, without(text_width=16), "this model reads text by sentence-t5, which is not at hand"),
    ],
    ids=["voice", "voice by another encoder", "units", "units in a text", "text by another encoder"],
)
def test_a_model_says_what_it_was_not_trained_on(source: EmotionSource, config: SystemConfig, complaint: str):
    with pytest.raises(EmotionError, match=complaint) as caught:
        frames_of(source, system(config))
    assert "\n" not in str(caught.value)


def test_network_inputs_are_those_of_the_modalities_said_alone():
    model = system()
    inputs = network_inputs(UNITS.rows(2, 25.0), model.emotion_to_latents, model.text_encoder, torch.device("cpu"))
    assert list(inputs) == ["action_units"]


# ---- checkpoints ----------------------------------------------------------------------------------------------------


def test_a_checkpoint_keeps_text_encoder_and_ear(tmp_path: Path):
    path = tmp_path / "every.safetensors"
    save_system(path, system())
    loaded, info = load_system(path)
    assert info.config == EVERY_SOURCE
    assert {key.split(".")[0] for key in info.shapes} >= {"text_encoder", "ear"}
    for key, value in system().state_dict().items():
        torch.testing.assert_close(loaded.state_dict()[key], value.half().float(), rtol=0, atol=0)
    parts, _ = load_parts(path)
    assert set(parts["ear"]) == set(system().ear.state_dict())  # type: ignore[union-attr]
    assert set(parts["text_encoder"]) == set(system().text_encoder.state_dict())  # type: ignore[union-attr]
    assert apart(frames_of(VOICE.joined(TEXT), loaded), frames_of(VOICE.joined(TEXT))) < 1


@pytest.mark.parametrize("part", ["text_encoder.", "ear."])
def test_a_checkpoint_that_lacks_one_of_them_is_refused(tmp_path: Path, part: str):
    save_system(tmp_path / "whole.safetensors", system())
    metadata = inspect_checkpoint(tmp_path / "whole.safetensors").metadata
    state = {k: v for k, v in load_file(tmp_path / "whole.safetensors").items() if not k.startswith(part)}
    save_file(state, tmp_path / "cut.safetensors", metadata=metadata)
    with pytest.raises(CheckpointError, match=rf"'{part}[a-z_]+.*' is missing"):
        load_system(tmp_path / "cut.safetensors")


def test_a_checkpoint_from_before_there_were_sources_still_loads(tmp_path: Path):
    save_system(tmp_path / "new.safetensors", system(TINY))
    info = inspect_checkpoint(tmp_path / "new.safetensors")
    config = json.loads(info.metadata["config"])
    for name in ("text", "audio"):
        del config["emotion"][name]
    old = {**info.metadata, "config": json.dumps(config)}
    save_file(load_file(tmp_path / "new.safetensors"), tmp_path / "old.safetensors", metadata=old)
    loaded, read = load_system(tmp_path / "old.safetensors")
    assert (loaded.text_encoder, loaded.ear) == (None, None)
    assert read.config == TINY
