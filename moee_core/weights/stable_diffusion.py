"""Stable Diffusion 1.5 and AnimateDiff as the start of a base of one's own.

The UNet is read in diffusers' naming (``diffusion_pytorch_model``) or out of a single file (``model.diffusion_model.``,
whose other networks are left aside); the motion modules from ``mm_sd_v15_v2``. Of a network made of them the parts that
neither brings (audio modules, projectors, face locator) are silent, so it says what those two say. With
``motion_levels="all"`` every motion module runs, as they were trained.

Raises ``CheckpointError`` naming the file and one offending key; nothing is ever loaded partially.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from ..networks.config import HalloConfig
from ..ops import DEFAULT_BUILD, Build
from ..systems.hallo import HalloSystem
from .checkpoint import check_keys
from .hallo import (
    HALLO,
    Shapes,
    assembled,
    base_shapes,
    check_floating,
    check_positions,
    checked_table,
    position_tables,
    read_autoencoder,
)
from .key_map import BACKBONE, KeyMap, single_file
from .tables import read_table

IN_A_SINGLE_FILE = "model.diffusion_model."
_NAMES = KeyMap(rows=BACKBONE)


def read_unet(path: str | Path, config: HalloConfig = HALLO) -> dict[str, Tensor]:
    """Stable Diffusion's UNet as reference net and denoiser, by our names."""
    shapes = _denoiser(config, motion=False)
    found = read_table(path)
    theirs = {key: _NAMES.theirs(key) for key in shapes}
    if any(key.startswith(IN_A_SINGLE_FILE) for key in found):
        found = {key: value for key, value in found.items() if key.startswith(IN_A_SINGLE_FILE)}
        levels, layers = config.unet.attention_levels, config.unet.layers_per_block
        theirs = {key: IN_A_SINGLE_FILE + single_file(name, levels, layers) for key, name in theirs.items()}
    expected = {theirs[key]: shape for key, shape in shapes.items()}
    check_keys(Path(path).name, expected, {key: tuple(value.shape) for key, value in found.items()})
    check_floating(Path(path).name, found)
    unet = {key: found[theirs[key]] for key in shapes}
    # a site of the reference net is the spatial transformer alone, and it ends before the output layers
    reference = {key.replace(".spatial.", "."): value for key, value in unet.items()}
    read = [key for key in base_shapes(config)[0] if key.startswith("reference_net.")]
    return {f"denoiser.{key}": value for key, value in unet.items()} | {
        key: reference[key.removeprefix("reference_net.")] for key in read
    }


def read_motion(path: str | Path, config: HalloConfig = HALLO) -> dict[str, Tensor]:
    """AnimateDiff's motion modules of the second version, by our names."""
    shapes = _denoiser(config, motion=True)
    theirs = {key: _NAMES.theirs(key) for key in shapes}
    expected = {theirs[key]: shape for key, shape in shapes.items()}
    tables = position_tables(expected)
    found = checked_table(path, expected | tables)
    check_positions(Path(path).name, {key: found[key] for key in tables})
    return {f"denoiser.{key}": found[theirs[key]] for key in shapes}


def start_base(
    unet: str | Path,
    motion: str | Path | None,
    autoencoder: str | Path,
    config: HalloConfig = HALLO,
    build: Build = DEFAULT_BUILD,
) -> HalloSystem:
    """A base that says what the UNet says, along time what the motion modules say, and hears nothing yet. Without
    ``motion`` the modules are silent too."""
    state = read_unet(unet, config) | read_autoencoder(autoencoder, config)
    if motion is not None:
        state |= read_motion(motion, config)
    return assembled(config, build, state)


def _denoiser(config: HalloConfig, *, motion: bool) -> Shapes:
    """The denoiser's names and shapes that belong to the motion modules, or to Stable Diffusion."""
    inside = {
        key.removeprefix("denoiser."): shape
        for key, shape in base_shapes(config)[0].items()
        if key.startswith("denoiser.")
    }
    return {
        key: shape
        for key, shape in inside.items()
        if (".motion." in key) == motion and (motion or ".audio." not in key)
    }
