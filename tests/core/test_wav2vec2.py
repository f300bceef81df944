"""wav2vec 2.0 as Hallo hears with it, against its authors' numbers, in every form its files come in."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moee_core.audio.wav2vec2 import (
    CONTEXT,
    WHOLE,
    Wav2Vec2Features,
    features_of_layers,
    load_wav2vec2,
    stretches,
)
from moee_core.errors import CheckpointError

from ..fixtures.hallo_parity import WAV2VEC2, manifest, stored, weight, write_wav2vec2
from ..fixtures.parity import equals

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
    equals(found.features_TLD, stored("speech")["hidden_states"], 1e-4, "hallo speech hidden_states")


def test_a_sound_is_normalised_as_the_authors_do(tmp_path: Path):
    """What is normalised already is left alone by a folder that says so."""
    folder = write_wav2vec2(tmp_path / "wav2vec2", tiny_state())
    (folder / "preprocessor_config.json").write_text(json.dumps({"do_normalize": False}), encoding="utf-8")
    found = load_wav2vec2(folder).features(stored("speech")["normalized_input"], 48)
    equals(found.features_TLD, stored("speech")["hidden_states"], 1e-4, "hallo speech hidden_states")


def test_frames_are_counted_from_the_recording(tmp_path: Path):
    encoder = load_wav2vec2(write_wav2vec2(tmp_path / "wav2vec2", tiny_state()))
    samples = torch.randn(6401)
    assert encoder.features(samples).num_frames == 11
    with pytest.raises(ValueError, match="lasts 11 video frames, features for 10 were asked for"):
        encoder.features(samples, 10)


# ---- long recordings ------------------------------------------------------------------------------------------------


def test_a_minute_is_heard_at_once_and_more_in_stretches():
    assert (WHOLE, CONTEXT) == (1500, 250)
    assert stretches(1500, WHOLE, CONTEXT) == [(0, 1500, 0, 1500)]
    for frames in (1501, 1750, 2500, 2501, 90000):
        found = stretches(frames, WHOLE, CONTEXT)
        assert [one[2] for one in found] == [0, *(one[3] for one in found[:-1])], "each begins where the last ended"
        assert found[-1][3] == frames
        assert all(stop - start <= WHOLE for start, stop, _, _ in found)
        assert all(first - start == CONTEXT for start, _, first, _ in found[1:])
        assert all(stop - last == CONTEXT for _, stop, _, last in found[:-1])
        assert all(last > first for _, _, first, last in found)


def test_stretches_give_nearly_what_one_pass_gives(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """What enters the transformer is the same; how far it looks is what differs, and longer stretches make it smaller.

    The difference, relative, is printed. The made-up network looks everywhere alike, far more than a trained one, so
    this says how the cutting behaves and is no claim about the public weights.
    """
    encoder = load_wav2vec2(write_wav2vec2(tmp_path / "wav2vec2", tiny_state()))
    generator = torch.Generator().manual_seed(1)
    loudness = 1 + 0.5 * torch.sin(torch.arange(640 * 400 - 123) / 9000)
    samples = torch.randn(len(loudness), generator=generator) * loudness
    entering: list[Tensor] = []
    hook = encoder.model.feature_projection.register_forward_hook(
        lambda _module, given, _out: entering.append(given[0])
    )
    whole = encoder.features(samples).features_TLD
    difference = {}
    for length in (100, 200, 300):
        del entering[1:]
        found = encoder.features(samples, whole=length, context=20)
        assert found.num_frames == 400
        cut = stretches(400, length, 20)
        joined = [
            one[0, first - start : last - start] for one, (start, _, first, last) in zip(entering[1:], cut, strict=True)
        ]
        torch.testing.assert_close(torch.cat(joined), entering[0][0], rtol=0, atol=1e-4)
        difference[length] = float((found.features_TLD - whole).norm() / whole.norm())
    hook.remove()
    with capsys.disabled():
        sys.stdout.write(f"\nwav2vec 2.0 in stretches of N of 400 frames, relative difference: {difference}\n")
    assert 0 < difference[300] < difference[200] < difference[100] < 0.2
    assert torch.equal(encoder.features(samples, whole=400, context=20).features_TLD, whole)


def test_silence_behind_a_recording_that_is_heard_in_stretches(tmp_path: Path):
    encoder = load_wav2vec2(write_wav2vec2(tmp_path / "wav2vec2", tiny_state()))
    samples = torch.randn(640 * 20 - 5)
    for frames in (20, 31, 64):  # the padding begins in the last stretch, or fills whole ones
        found = encoder.features(samples, frames, whole=16, context=4)
        assert found.num_frames == frames
        assert found.features_TLD.isfinite().all()
    with pytest.raises(ValueError, match="a stretch of 16 frames cannot have 8 frames of context at either end"):
        encoder.features(samples, whole=16, context=8)


# ---- the same network elsewhere -------------------------------------------------------------------------------------


class Elsewhere(nn.Module):
    """The same layers under the interface of ComfyUI's audio encoder: time before channels, and no tuples."""

    def __init__(self, model: Any):
        super().__init__()
        self.inner, self.encoder = model, model.encoder

    def feature_extractor(self, wave: Tensor) -> Tensor:
        return self.inner.feature_extractor(wave).transpose(1, 2)

    def feature_projection(self, sound: Tensor) -> Tensor:
        return self.inner.feature_projection(sound)[0]


def test_a_network_of_another_program_gives_the_same_numbers(tmp_path: Path):
    encoder = load_wav2vec2(write_wav2vec2(tmp_path / "wav2vec2", tiny_state()))
    samples = stored("speech")["waveform_16k"]
    other = Wav2Vec2Features(Elsewhere(encoder.model), time_last=False, dtype=torch.float32)
    assert (other.width, other.layers) == (32, 12)
    assert torch.equal(other.features(samples).features_TLD, encoder.features(samples).features_TLD)


def test_finished_layers_are_brought_to_the_videos_frames():
    layers = [torch.full((1, 9, 2), float(number)) for number in range(4)]
    layers[2] = torch.arange(9.0)[None, :, None].expand(1, 9, 2)
    found = features_of_layers(layers, 5).features_TLD
    assert found.shape == (5, 3, 2)
    assert found[:, 0].eq(1).all()
    assert found[:, 2].eq(3).all(), "the input is left out"
    torch.testing.assert_close(found[:, 1, 0], torch.tensor([0.0, 2.0, 4.0, 6.0, 8.0]))
    with pytest.raises(ValueError, match="layers of an audio encoder are"):
        features_of_layers([layers[0], layers[1][:, :4]], 5)


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
