"""wav2vec 2.0 as Hallo hears with it, against its authors' numbers, in every form its files come in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from moee_core.audio.wav2vec2 import load_wav2vec2
from moee_core.errors import CheckpointError

from ..fixtures.hallo_parity import WAV2VEC2, manifest, stored, weight, write_wav2vec2

POSITIONS = "encoder.pos_conv_embed.conv."
NEW, OLD = ("parametrizations.weight.original0", "parametrizations.weight.original1"), ("weight_g", "weight_v")


def tiny_state() -> dict[str, Tensor]:
    """The tiny network's weights: the names of the full size, the shapes of the settings."""
    transformers = pytest.importorskip("transformers")
    config = transformers.Wav2Vec2Config(**{key: value for key, value in WAV2VEC2.items() if key != "model_type"})
    with torch.device("meta"):
        shapes = {key: tuple(x.shape) for key, x in transformers.Wav2Vec2Model(config).state_dict().items()}
    assert set(shapes) == set(manifest("wav2vec2"))
    return {key: weight(f"wav2vec2.{key}", shape).float() for key, shape in shapes.items()}


def saved_before_2023(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The positional convolution as PyTorch's first weight norm named it."""
    for new, old in zip(NEW, OLD, strict=True):
        state = {key.replace(POSITIONS + new, POSITIONS + old): value for key, value in state.items()}
    return state


def with_a_transcriber(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As facebook/wav2vec2-base-960h: a prefix, a head on top, the mask of training left out."""
    named = {f"wav2vec2.{key}": value for key, value in state.items() if key != "masked_spec_embed"}
    return {**named, "lm_head.weight": torch.zeros(32, 32), "lm_head.bias": torch.zeros(32)}


@pytest.mark.parametrize("form", ["bare", "old", "transcriber", "old transcriber"])
def test_features_are_the_authors(tmp_path: Path, form: str):
    state = tiny_state()
    state = saved_before_2023(state) if "old" in form else state
    state = with_a_transcriber(state) if "transcriber" in form else state
    encoder = load_wav2vec2(write_wav2vec2(tmp_path / "wav2vec2", state))
    assert (encoder.width, encoder.layers) == (32, 12)
    found = encoder.features(stored("speech")["waveform_16k"], 48)
    assert found.num_frames == 48
    torch.testing.assert_close(found.features_TLD, stored("speech")["hidden_states"], rtol=0, atol=1e-4)


def test_a_sound_is_normalised_as_the_authors_do(tmp_path: Path):
    """What is normalised already is left alone by a folder that says so."""
    folder = write_wav2vec2(tmp_path / "wav2vec2", tiny_state())
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}), encoding="utf-8")
    found = load_wav2vec2(folder).features(stored("speech")["normalized_input"], 48)
    torch.testing.assert_close(found.features_TLD, stored("speech")["hidden_states"], rtol=0, atol=1e-4)


def test_frames_are_counted_from_the_recording(tmp_path: Path):
    encoder = load_wav2vec2(write_wav2vec2(tmp_path / "wav2vec2", tiny_state()))
    samples = torch.randn(6401)
    assert encoder.features(samples).num_frames == 11
    with pytest.raises(ValueError, match="lasts 11 video frames, features for 10 were asked for"):
        encoder.features(samples, 10)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_type": "hubert"}, "holds a model of type 'hubert', wav2vec2 is needed"),
        ({"do_stable_layer_norm": True}, r"holds a large wav2vec 2\.0"),
    ],
)
def test_another_model_is_refused(tmp_path: Path, settings: dict, message: str):
    folder = write_wav2vec2(tmp_path / "wav2vec2", tiny_state())
    (folder / "config.json").write_text(json.dumps({**WAV2VEC2, **settings}), encoding="utf-8")
    with pytest.raises(CheckpointError, match=message):
        load_wav2vec2(folder)


def test_a_missing_weight_is_named(tmp_path: Path):
    state = tiny_state()
    del state["encoder.layers.3.attention.k_proj.weight"]
    folder = write_wav2vec2(tmp_path / "wav2vec2", state)
    with pytest.raises(CheckpointError, match=r"lacks weight 'encoder\.layers\.3\.attention\.k_proj\.weight'"):
        load_wav2vec2(folder)


def test_an_empty_folder_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"holds no wav2vec 2\.0"):
        load_wav2vec2(tmp_path)
