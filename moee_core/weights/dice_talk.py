"""DICE-Talk's published weights as ``systems.dice_talk.DiceTalkSystem``, loaded strictly.

Four pickles make one: ``unet.pth`` (1,556 tensors: Stable Video Diffusion's UNet, whole, with the adapters),
``audio_linear.pth``, ``emo_model.pth`` and ``pose_guider.pth``; any of them may be a safetensors of the same name. A
``unet.pth`` of the 128 adapter tensors alone is completed from Stable Video Diffusion (``stable_video.py``). Code and
weights are for non-commercial use only (``LICENCE``): nothing of them is shipped, and what is made of them says so.

Raises ``CheckpointError`` naming the file and one offending key; nothing is ever loaded partially.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from ..ops import DEFAULT_BUILD, Build
from ..systems.dice_talk import DiceConfig, DiceTalkSystem
from .checkpoint import check_keys
from .hallo import check_floating
from .key_map import EMOTION_BANK, VIDEO_UNET, KeyMap
from .stable_video import read_stable_video, stable_video_shapes
from .tables import read_table, shapes_of

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

ADAPTERS = ".attn2.adapters."
"""In the names of what DICE-Talk adds to Stable Video Diffusion's UNet."""
PLACE = "models/moee/dice_talk/dice_talk.safetensors"
"""Where a converted file goes within ComfyUI, so that its loader lists it."""
CONVERT = f"python -m moee_core convert FOLDER -o ComfyUI/{PLACE}"
CONVERT_ADAPTERS = f"python -m moee_core convert FOLDER svd_xt.safetensors -o ComfyUI/{PLACE}"
"""The command lines that make one file of the published ones."""

PUBLISHED = DiceConfig()

Shapes = dict[str, tuple[int, ...]]


def dice_shapes(config: DiceConfig) -> Shapes:
    """Our names and shapes of what the published files bring."""
    return {key: shape for key, shape in all_shapes(config).items() if key.split(".")[0] in FILES and key not in OURS}


def all_shapes(config: DiceConfig) -> Shapes:
    """Our names and shapes of everything that such a system has."""
    return dict(_shapes(config))


@functools.lru_cache(maxsize=2)
def _shapes(config: DiceConfig) -> tuple[tuple[str, tuple[int, ...]], ...]:
    state = DiceTalkSystem(config, Build(device="meta")).state_dict()
    return tuple((key, tuple(value.shape)) for key, value in state.items())


def dice_files(folder: str | Path) -> dict[str, Path]:
    """Part -> file of a folder, by the published names."""
    found = {}
    for part, (name, _) in FILES.items():
        path = Path(folder) / name
        safe = path.with_suffix(".safetensors")
        found[part] = safe if safe.is_file() and not path.is_file() else path
    return found


def read_part(part: str, path: str | Path, config: DiceConfig, base: str | Path | None = None) -> dict[str, Tensor]:
    """The weights of one published file by our names. ``base``: Stable Video Diffusion's UNet, a file or a folder; it
    is read where the UNet's file holds the adapters alone."""
    name, names = Path(path).name, FILES[part][1]
    ours = {key: shape for key, shape in dice_shapes(config).items() if key.startswith(f"{part}.")}
    theirs = {key: names.theirs(key.removeprefix(f"{part}.")) for key in ours}
    found = read_table(path)
    adapters = {key for key in ours if ADAPTERS in key}
    alone = bool(adapters) and bool(found) and found.keys() <= {theirs[key] for key in adapters}
    read = adapters if alone else ours.keys()
    # a mix factor is a number in their files and a table of one number here
    expected = {theirs[key]: (1,) if theirs[key].endswith("mix_factor") else ours[key] for key in read}
    check_keys(name, expected, {key: tuple(value.shape) for key, value in found.items()})
    check_floating(name, found)
    state = {key: found[theirs[key]].view(ours[key]) for key in read}
    if not alone:
        return state
    if base is None:
        raise CheckpointError(
            f"{name} holds the adapters alone ({len(found)} tensors); give the UNet of Stable Video Diffusion XT as "
            f"base, the folder that diffusers has it in or svd_xt.safetensors; for ComfyUI make one file of them: "
            f"{CONVERT_ADAPTERS}"
        )
    return state | {f"{part}.{key}": value for key, value in read_stable_video(base, config.unet).items()}


def needs_base(path: str | Path, config: DiceConfig = PUBLISHED) -> bool:
    """Whether a UNet's file lacks all that Stable Video Diffusion brings."""
    plain = {FILES["unet"][1].theirs(key) for key in stable_video_shapes(config.unet)}
    return not plain & shapes_of(path).keys()


def read_dice(
    files: Mapping[str, str | Path], config: DiceConfig = PUBLISHED, base: str | Path | None = None
) -> dict[str, Tensor]:
    """All that the files of the parts bring, and what training alone knows."""
    lacking = sorted(all_shapes(config).keys() - dice_shapes(config).keys() - set(OURS))
    if lacking:
        raise CheckpointError(
            f"DICE-Talk's published files bring no {quote(lacking[0], 60)}, nor {len(lacking) - 1} more tensors of "
            "this configuration; take the published one"
        )
    state = {key: value for part, path in files.items() for key, value in read_part(part, path, config, base).items()}
    return state | {key: torch.ones(all_shapes(config)[key]) for key in OURS}


def load_dice_talk(
    folder: str | Path,
    config: DiceConfig = PUBLISHED,
    build: Build = DEFAULT_BUILD,
    base: str | Path | None = None,
) -> DiceTalkSystem:
    """The four files of a folder, in eval mode, in float32 unless ``build.dtype`` says otherwise. ``base``: Stable
    Video Diffusion's UNet, which is read where unet.pth holds the adapters alone."""
    state = read_dice(dice_files(folder), config, base)
    system = DiceTalkSystem(config, build)
    system.load_state_dict(state, strict=True)  # casts tensor by tensor
    return system.eval().requires_grad_(False)
