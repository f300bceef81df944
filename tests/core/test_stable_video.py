"""Stable Video Diffusion's UNet from both public forms, and DICE-Talk's adapters completed from it.

That the single file's names are Stability's is ``test_stable_video_host.py``'s to say, by ComfyUI's own network.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from moee_core.errors import CheckpointError
from moee_core.networks.config import VideoUNetConfig
from moee_core.selfcheck import ruled
from moee_core.weights.key_map import VIDEO_UNET, KeyMap
from moee_core.weights.stable_video import (
    IN_A_SINGLE_FILE,
    PLAIN,
    read_stable_video,
    single_file_names,
    stable_video_file,
    stable_video_shapes,
)

TINY = VideoUNetConfig(
    block_widths=(32, 32, 64, 64), layers_per_block=(2, 1, 1, 1), heads=(2, 4, 4, 8), context_width=24, id_width=16
)
DIFFUSERS = KeyMap(rows=VIDEO_UNET)


def diffusers_unet(config: VideoUNetConfig) -> Any:
    diffusers = pytest.importorskip("diffusers")
    attention = ["CrossAttn" if one else "" for one in config.attention_levels]
    return diffusers.UNetSpatioTemporalConditionModel(
        down_block_types=tuple(f"{one}DownBlockSpatioTemporal" for one in attention),
        up_block_types=tuple(f"{one}UpBlockSpatioTemporal" for one in reversed(attention)),
        block_out_channels=config.block_widths,
        addition_time_embed_dim=config.id_width,
        projection_class_embeddings_input_dim=config.ids * config.id_width,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.context_width,
        num_attention_heads=config.heads,
    )


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    """By diffusers' own class at the tiny size."""
    made = diffusers_unet(TINY).state_dict()
    return {key: ruled(key, tuple(value.shape)) for key, value in made.items()}


def single_file(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights as one file, with other networks beside them."""
    names = single_file_names(replace(TINY, adapters=0))
    found = {names.theirs(key): state[DIFFUSERS.theirs(key)] for key in stable_video_shapes(TINY)}
    assert len(found) == len(state)
    beside = ("first_stage_model.decoder.conv_in.weight", "conditioner.embedders.0.open_clip.model.visual.proj")
    return {**found, **{key: torch.zeros(2) for key in beside}}


def written(path: Path, state: dict[str, Tensor]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous().clone() for key, value in state.items()}, path)
    return path


def same(found: dict[str, Tensor], state: dict[str, Tensor]) -> None:
    assert {key: tuple(value.shape) for key, value in found.items()} == stable_video_shapes(TINY)
    for key, value in found.items():
        assert torch.equal(value.flatten(), state[DIFFUSERS.theirs(key)].flatten()), key


def test_every_name_at_full_size():
    """1,428 of them, both ways, and in diffusers' form those of its own class."""
    shapes = stable_video_shapes()
    with torch.device("meta"):
        theirs = {key: tuple(value.shape) for key, value in diffusers_unet(PLAIN).state_dict().items()}
    found = {DIFFUSERS.theirs(key): shape for key, shape in shapes.items()}
    assert len(shapes) == len(found) == len(theirs) == 1428
    assert {key: (1,) if key.endswith("mix_factor") else shape for key, shape in found.items()} == theirs
    names = single_file_names(PLAIN)
    single = {names.theirs(key): key for key in shapes}
    assert len(single) == 1428
    assert all(key.startswith(IN_A_SINGLE_FILE) for key in single)
    ours = ("down_blocks", "up_blocks", "resnets", "attentions", "sample", "res_block", "temporal", "linear_", "norm1_")
    assert [key for key in single if any(part in key for part in ours)] == []
    assert stable_video_shapes(VideoUNetConfig()) == shapes, "adapters are not of it"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("add_embedding.linear_2.bias", "label_emb.0.2.bias"),
        ("down_blocks.0.resnets.1.time_mixer.mix_factor.weight", "input_blocks.2.0.time_mixer.mix_factor"),
        ("down_blocks.0.downsample.conv.weight", "input_blocks.3.0.op.weight"),
        ("down_blocks.1.attentions.0.time_pos_embed.linear_2.bias", "input_blocks.4.1.time_pos_embed.2.bias"),
        ("down_blocks.3.resnets.1.temporal_res_block.conv2.weight", "input_blocks.11.0.time_stack.out_layers.3.weight"),
        ("mid_block.resnets.1.spatial_res_block.norm1.weight", "middle_block.2.in_layers.0.weight"),
        ("up_blocks.0.upsample.conv.bias", "output_blocks.2.1.conv.bias"),
        ("up_blocks.1.upsample.conv.bias", "output_blocks.5.2.conv.bias"),
        (
            "up_blocks.3.attentions.2.temporal_transformer_blocks.0.ff_in.net.0.proj.weight",
            "output_blocks.11.1.time_stack.0.ff_in.net.0.proj.weight",
        ),
        ("up_blocks.3.resnets.0.spatial_res_block.conv_shortcut.bias", "output_blocks.9.0.skip_connection.bias"),
    ],
)
def test_names_of_the_published_single_file(ours: str, theirs: str):
    assert single_file_names(PLAIN).theirs(ours) == IN_A_SINGLE_FILE + theirs


def test_both_forms_give_the_same_weights(tmp_path: Path, state: dict[str, Tensor]):
    same(read_stable_video(written(tmp_path / "a.safetensors", state), TINY), state)
    same(read_stable_video(written(tmp_path / "svd_xt.safetensors", single_file(state)), TINY), state)
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    same(read_stable_video(tmp_path / "diffusion_pytorch_model.bin", TINY), state)


def test_a_folder_of_diffusers(tmp_path: Path, state: dict[str, Tensor]):
    """The whole repository or the UNet's own folder; half precision where both are there."""
    with pytest.raises(CheckpointError, match=r"holds no UNet of Stable Video Diffusion \(unet/diffusion_pytorch"):
        stable_video_file(tmp_path)
    full = written(tmp_path / "unet" / "diffusion_pytorch_model.safetensors", state)
    for folder in (tmp_path, tmp_path / "unet"):
        assert stable_video_file(folder) == full
    same(read_stable_video(tmp_path, TINY), state)
    half = written(
        tmp_path / "unet" / "diffusion_pytorch_model.fp16.safetensors", {k: x.half() for k, x in state.items()}
    )
    assert stable_video_file(tmp_path) == half
    same(read_stable_video(tmp_path, TINY), {key: value.half() for key, value in state.items()})


@pytest.mark.parametrize("form", ["folder", "single"])
def test_what_does_not_fit_is_named(tmp_path: Path, state: dict[str, Tensor], form: str):
    whole = state if form == "folder" else single_file(state)
    first = sorted(key for key in whole if form == "folder" or key.startswith(IN_A_SINGLE_FILE))[0]
    more = "extra.weight" if form == "folder" else IN_A_SINGLE_FILE + "extra.weight"
    cases = {
        rf"{first}' is missing": {key: value for key, value in whole.items() if key != first},
        rf"{more}' is unknown": {**whole, more: torch.zeros(1)},
        r"has shape \(3,\)": {**whole, first: torch.zeros(3)},
        "of type int8": {key: value.to(torch.int8) if key == first else value for key, value in whole.items()},
    }
    for message, tensors in cases.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            read_stable_video(written(tmp_path / "some.safetensors", tensors), TINY)
        assert "some.safetensors" in str(caught.value)
