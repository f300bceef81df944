"""DICE-Talk's published weights as ``systems.dice_talk.DiceTalkSystem``, loaded strictly.

Four pickles make one: ``unet.pth`` (1,556 tensors: Stable Video Diffusion's UNet, whole, with the adapters),
``audio_linear.pth``, ``emo_model.pth`` and ``pose_guider.pth``. Code and weights are for non-commercial use only
(``LICENCE``): nothing of them is shipped, and what is made of them says so.

Raises ``CheckpointError`` naming the file and one offending key; nothing is ever loaded partially.
"""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch import Tensor

from ..ops import DEFAULT_BUILD, Build
from ..systems.dice_talk import DiceConfig, DiceTalkSystem
from .checkpoint import check_keys
from .hallo import check_floating
from .key_map import EMOTION_BANK, VIDEO_UNET, KeyMap
from .tables import read_table

LICENCE = "DICE-Talk: CC BY-NC-SA 4.0, non-commercial; Stable Video Diffusion: Stability AI's licence"
FILES = {
    "unet": ("unet.pth", KeyMap(rows=VIDEO_UNET)),
    "audio_projector": ("audio_linear.pth", KeyMap()),
    "bank": ("emo_model.pth", KeyMap(rows=EMOTION_BANK)),
    "face_locator": ("pose_guider.pth", KeyMap()),
}
"""Our networks, the files they are in, and their names there."""
OURS = ("bank.dictionary.counts", "bank.dictionary.started")
"""What training alone knows and no published file brings: codes are all equally used, and there."""

PUBLISHED = DiceConfig()

Shapes = dict[str, tuple[int, ...]]


def dice_shapes(config: DiceConfig) -> Shapes:
    """Our names and shapes of what the published files bring."""
    return {key: shape for key, shape in _shapes(config) if key not in OURS}


@functools.lru_cache(maxsize=2)
def _shapes(config: DiceConfig) -> tuple[tuple[str, tuple[int, ...]], ...]:
    state = DiceTalkSystem(config, Build(device="meta")).state_dict()
    return tuple((key, tuple(value.shape)) for key, value in state.items())


def read_part(part: str, path: str | Path, config: DiceConfig) -> dict[str, Tensor]:
    """The weights of one published file by our names."""
    names = FILES[part][1]
    ours = {key: shape for key, shape in dice_shapes(config).items() if key.startswith(f"{part}.")}
    theirs = {key: names.theirs(key.removeprefix(f"{part}.")) for key in ours}
    # a mix factor is a number in their files and a table of one number here
    expected = {theirs[key]: (1,) if theirs[key].endswith("mix_factor") else shape for key, shape in ours.items()}
    found = read_table(path)
    check_keys(Path(path).name, expected, {key: tuple(value.shape) for key, value in found.items()})
    check_floating(Path(path).name, found)
    return {key: found[theirs[key]].view(shape) for key, shape in ours.items()}


def load_dice_talk(folder: str | Path, config: DiceConfig = PUBLISHED, build: Build = DEFAULT_BUILD) -> DiceTalkSystem:
    """The four files of a folder, in eval mode, in float32 unless ``build.dtype`` says otherwise."""
    state = {
        key: value
        for part, (name, _) in FILES.items()
        for key, value in read_part(part, Path(folder) / name, config).items()
    }
    system = DiceTalkSystem(config, build)
    places = system.state_dict()
    for key in OURS:
        state[key] = torch.ones_like(places[key])
    system.load_state_dict(state, strict=True)
    return system.eval().requires_grad_(False)
