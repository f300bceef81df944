"""Stable Video Diffusion's UNet as ``networks.video_unet.VideoUNet`` without adapters, from either public form.

The diffusers folder has it as ``unet/diffusion_pytorch_model(.fp16).safetensors``, 1,428 tensors; the single file
(``svd_xt.safetensors``) under ``model.diffusion_model.`` in the layout of Stability's own code, beside the autoencoder
and the image encoder, which are left aside. Both hold the same numbers in the same shapes under other names.

A single file counts its blocks through: 0 is conv_in, then one for every pair of residual block and transformer and
one for each downsampling; on the way up one for every pair, the upsampling inside the last of its level.

Raises ``CheckpointError`` naming the file and one offending key; nothing is ever loaded partially.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from ..networks.config import VideoUNetConfig
from ..networks.video_unet import VideoUNet
from ..ops import Build
from .checkpoint import check_keys
from .hallo import check_floating
from .key_map import VIDEO_UNET, KeyMap, Rows
from .tables import read_table

IN_A_SINGLE_FILE = "model.diffusion_model."
PLAIN = VideoUNetConfig(adapters=0)
"""The published size."""
LICENCE = "Stable Video Diffusion: Stability AI's licence"
STEM = "diffusion_pytorch_model"
IN_A_FOLDER = tuple(
    f"{place}{STEM}{form}"
    for place in ("unet/", "")
    for form in (".fp16.safetensors", ".safetensors", ".fp16.bin", ".bin")
)
"""Where a folder of diffusers has it; half precision first, which is what DICE-Talk was made with."""

Shapes = dict[str, tuple[int, ...]]

_RESNET: Rows = (
    ("norm1.", "in_layers.0."),
    ("conv1.", "in_layers.2."),
    ("time_emb_proj.", "emb_layers.1."),
    ("norm2.", "out_layers.0."),
    ("conv2.", "out_layers.3."),
)
_INSIDE: Rows = (
    *((f"spatial_res_block.{ours}", theirs) for ours, theirs in (*_RESNET, ("conv_shortcut.", "skip_connection."))),
    *((f"temporal_res_block.{ours}", f"time_stack.{theirs}") for ours, theirs in _RESNET),
    ("temporal_transformer_blocks.{}.", "time_stack.{}."),
    ("time_pos_embed.linear_1.", "time_pos_embed.0."),
    ("time_pos_embed.linear_2.", "time_pos_embed.2."),
    ("time_mixer.mix_factor.weight", "time_mixer.mix_factor"),
)
_AROUND: Rows = (
    ("time_embedding.linear_1.", "time_embed.0."),
    ("time_embedding.linear_2.", "time_embed.2."),
    ("add_embedding.linear_1.", "label_emb.0.0."),
    ("add_embedding.linear_2.", "label_emb.0.2."),
    ("conv_in.", "input_blocks.0.0."),
    ("conv_norm_out.", "out.0."),
    ("conv_out.", "out.2."),
    ("mid_block.resnets.0.", "middle_block.0."),
    ("mid_block.attentions.0.", "middle_block.1."),
    ("mid_block.resnets.1.", "middle_block.2."),
)


@functools.lru_cache(maxsize=4)
def single_file_names(config: VideoUNetConfig) -> KeyMap:
    """From our names to those of the single file."""
    rows = list(_AROUND)
    deepest = len(config.block_widths) - 1
    number = 1
    for level, count in enumerate(config.layers_per_block):
        for index in range(count):
            rows.append((f"down_blocks.{level}.resnets.{index}.", f"input_blocks.{number}.0."))
            rows.append((f"down_blocks.{level}.attentions.{index}.", f"input_blocks.{number}.1."))
            number += 1
        if level < deepest:
            rows.append((f"down_blocks.{level}.downsample.conv.", f"input_blocks.{number}.0.op."))
            number += 1
    number = 0
    for block, count in enumerate(reversed(config.layers_per_block)):
        level = deepest - block
        for index in range(count + 1):
            rows.append((f"up_blocks.{block}.resnets.{index}.", f"output_blocks.{number}.0."))
            rows.append((f"up_blocks.{block}.attentions.{index}.", f"output_blocks.{number}.1."))
            number += 1
        if level:
            behind = 2 if config.attention_levels[level] else 1
            rows.append((f"up_blocks.{block}.upsample.conv.", f"output_blocks.{number - 1}.{behind}.conv."))
    return KeyMap(rows=(*rows, *_INSIDE), prefix=IN_A_SINGLE_FILE)


@functools.lru_cache(maxsize=4)
def _shapes(config: VideoUNetConfig) -> tuple[tuple[str, tuple[int, ...]], ...]:
    state = VideoUNet(config, Build(device="meta")).state_dict()
    return tuple((key, tuple(value.shape)) for key, value in state.items())


def stable_video_shapes(config: VideoUNetConfig = PLAIN) -> Shapes:
    """Our names and shapes of what Stable Video Diffusion brings; ``config`` may have adapters."""
    return dict(_shapes(replace(config, adapters=0)))


def read_stable_video(path: str | Path, config: VideoUNetConfig = PLAIN) -> dict[str, Tensor]:
    """The UNet's weights by our names, without adapters. ``path``: either form's file, or a folder of diffusers."""
    file = stable_video_file(path)
    found = read_table(file)
    names = KeyMap(rows=VIDEO_UNET)
    if any(key.startswith(IN_A_SINGLE_FILE) for key in found):
        found = {key: value for key, value in found.items() if key.startswith(IN_A_SINGLE_FILE)}
        names = single_file_names(replace(config, adapters=0))
    shapes = stable_video_shapes(config)
    theirs = {key: names.theirs(key) for key in shapes}
    # a mix factor is a number in their files and a table of one number here
    expected = {theirs[key]: (1,) if theirs[key].endswith("mix_factor") else shape for key, shape in shapes.items()}
    check_keys(file.name, expected, {key: tuple(value.shape) for key, value in found.items()})
    check_floating(file.name, found)
    return {key: found[theirs[key]].view(shape) for key, shape in shapes.items()}


def stable_video_file(path: str | Path) -> Path:
    """The file with the UNet: itself, or the one in a folder of diffusers."""
    path = Path(path)
    if not path.is_dir():
        return path
    for name in IN_A_FOLDER:
        if (path / name).is_file():
            return path / name
    raise CheckpointError(
        f"{quote(path, 120)} holds no UNet of Stable Video Diffusion ({IN_A_FOLDER[1]}); give the folder that "
        "diffusers has it in, or a single file such as svd_xt.safetensors"
    )
