"""DICE-Talk's files as what ComfyUI has: a MODEL, the networks around it, a VAE; and the priors and RIFE beside them.

Raises ``CheckpointError`` for files that are something else.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.ops
import torch
from torch import Tensor

from ..moee_core.audio.whisper import load_whisper
from ..moee_core.emotion.priors import Prior, prior_name, read_prior
from ..moee_core.emotion.vocabulary import LABELS
from ..moee_core.errors import CheckpointError
from ..moee_core.jobs import fingerprint
from ..moee_core.networks.frame_interpolation import FrameInterpolator
from ..moee_core.ops import Build
from ..moee_core.systems.dice_talk import DiceConfig, DiceTalkSystem
from ..moee_core.systems.moee import make_speech_encoder
from ..moee_core.weights.checkpoint import load_parts, state_hash
from ..moee_core.weights.dice_file import inspect_dice_file, load_dice_parts
from ..moee_core.weights.dice_talk import LICENCE, PUBLISHED, read_dice
from ..moee_core.weights.dice_talk import dice_files as published_files
from ..moee_core.weights.hub_folder import holds
from ..moee_core.weights.rife import WIDTH, read_rife
from . import host, models
from .dice_host import native_dice
from .dice_sockets import DiceEncoders

EMBEDDED_FILE = host.EMBEDDED_FILE.with_name("dice_talk.safetensors")
MANY = 1 << 27
"""Weights whose numbers take long to go through."""
PRIORS = "priors"
"""Folder within models/moee/dice_talk."""


def dice_files() -> dict[str, Path]:
    """Name to path of the model that ships, of converted files, and of folders with the four published files."""
    found = {host.EMBEDDED: EMBEDDED_FILE}
    for root in _folders(host.DICE):
        for path in sorted(root.iterdir()):
            published = path.is_dir() and all(one.is_file() for one in published_files(path).values())
            if published or (path.is_file() and path.suffix == ".safetensors"):
                found.setdefault(path.name, path)
    return found


def whisper_folders() -> dict[str, Path]:
    """Name to folder of every Whisper in models/moee/encoders."""
    return {name: path for name, path in host.encoder_folders().items() if holds(path, "whisper")}


def prior_files() -> dict[str, Path]:
    """Name to path of every file of a prior in models/moee/dice_talk/priors."""
    paths = [path for root in _folders(host.DICE, PRIORS) for path in sorted(root.iterdir())]
    return {path.name: path for path in paths if path.suffix in (".npy", ".safetensors")}


def rife_files() -> dict[str, Path]:
    """Name to path of every file in models/moee/rife."""
    paths = [path for root in _folders(host.RIFE) for path in sorted(root.iterdir())]
    return {path.name: path for path in paths if path.suffix in (".pkl", ".pth", ".safetensors")}


def _folders(*names: str) -> list[Path]:
    return [folder for root in host.roots() if (folder := root.joinpath(*names)).is_dir()]


def new_prior_path(name: str) -> Path:
    """Where a prior of this name is saved."""
    return host.roots()[0].joinpath(host.DICE, PRIORS, f"{name}.safetensors")


def chosen(files: dict[str, Path], name: str, where: str) -> Path:
    """The path of a choice. Raises ``CheckpointError`` for one that is not there any more."""
    path = files.get(name)
    if path is None or not path.exists():
        raise CheckpointError(f"{name} is not in {where}; put it there and choose it anew")
    return path


def _model_path(name: str) -> Path:
    if name == host.EMBEDDED and not EMBEDDED_FILE.exists():
        raise CheckpointError(
            f"this copy of the pack has no {EMBEDDED_FILE.name} among its assets; install it again, or choose a file "
            "in models/moee/dice_talk"
        )
    return chosen(dice_files(), name, "models/moee/dice_talk")


def inspect(name: str) -> None:
    """Raises ``CheckpointError`` for a choice that could not be loaded; nothing but headers is read."""
    path = _model_path(name)
    if path.is_file():
        inspect_dice_file(path)


def load(
    name: str, weight_dtype: str, ear: str | None = None, vae: Any = None, clip_vision: Any = None
) -> tuple[Any, DiceEncoders, Any]:
    """(MODEL, encoders, VAE). ``ear``: a folder with Whisper; the model that ships has an ear and a VAE of its own."""
    path = _model_path(name)
    parts, config, metadata = _read(path)
    unet = parts.pop("unet")
    content, licence = _content(path, unet, metadata), metadata.get("licence", LICENCE)
    model = native_dice(config, unet, weight_dtype, content)
    load_device, offload = mm.get_torch_device(), mm.text_encoder_offload_device()
    build = Build(operations=comfy.ops.manual_cast, attention=host.attention, dtype=torch.float32, device=offload)
    rest = {f"{part}.{key}": value.float() for part, one in parts.items() for key, value in one.items()}
    around = host.patcher_of(DiceTalkSystem(config, build, whole=False), rest, load_device, offload)
    size = 0
    hears: Any = None if ear is None else load_whisper(chosen(whisper_folders(), ear, "models/moee/encoders"))
    if config.ear == "embedded" or config.picture == "latent":
        shipped, info = load_parts(host.EMBEDDED_FILE)
        if config.ear == "embedded":
            if ear is not None:
                raise CheckpointError(f"{path.name} has a speech encoder of its own; set speech_encoder to none")
            speech = make_speech_encoder(info.config.audio, build)
            speech_state = host.cast(shipped["speech_encoder"], torch.float32)
            hears = host.patcher_of(speech, speech_state, mm.text_encoder_device(), offload)
        if config.picture == "latent":
            size = info.config.image_size
            own = host.cast(shipped["autoencoder"], torch.float32)
            vae = models.EmbeddedVAE(info.config, own) if vae is None else vae
            shown = model.model.latent_format
            shown.latent_rgb_factors, shown.latent_rgb_factors_bias = models.preview_colours(shipped["autoencoder"])
    encoders = DiceEncoders(
        config=config,
        key=content,
        around=around,
        ear=hears,
        vae=vae,
        clip_vision=clip_vision,
        licence=licence,
        known=known_priors(config, rest, licence),
        sampling=_numbers(metadata.get("sampling", "{}")),
        image_size=size,
    )
    return model, encoders, vae


def known_priors(config: DiceConfig, state: dict[str, Tensor], licence: str) -> dict[str, Prior]:
    """By name: the model's own, and those in models/moee/dice_talk/priors that are as wide, which go first."""
    found: dict[str, Prior] = {}
    if config.named_priors:
        rows = state["priors.weight"].numpy()
        pairs = zip(LABELS, rows, strict=True)
        found = {label: Prior(mean=row, about=f"{label} of this model", licence=licence) for label, row in pairs}
    for path in prior_files().values():
        prior = read_prior(path)
        if prior.width == config.bank.prior_width:
            found[prior_name(path.stem)] = prior
    return found


def _content(path: Path, unet: dict[str, Tensor], metadata: dict[str, str]) -> str:
    """What the weights are: by their numbers, or, where these are many, by what the files say of themselves."""
    if sum(value.numel() for value in unet.values()) < MANY:
        return state_hash(unet)
    files = [path] if path.is_file() else sorted(path.iterdir())
    stats = [(one.name, one.stat().st_size, one.stat().st_mtime_ns) for one in files]
    return fingerprint([metadata.get("sources", stats)])


def _numbers(text: str) -> dict[str, float]:
    return {key: float(value) for key, value in json.loads(text).items()}


def _read(path: Path) -> tuple[dict[str, dict[str, Tensor]], DiceConfig, dict[str, str]]:
    """Weights by network, sizes and metadata, of a file of ours or of a folder with the four published ones."""
    if path.is_file():
        return load_dice_parts(path)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in read_dice(published_files(path), PUBLISHED).items():
        part, inside = key.split(".", 1)
        parts.setdefault(part, {})[inside] = value
    return parts, PUBLISHED, {"licence": LICENCE}


def load_rife_patcher(name: str) -> Any:
    """A patcher of the network that draws frames between frames."""
    path = chosen(rife_files(), name, "models/moee/rife")
    load_device, offload = mm.get_torch_device(), mm.unet_offload_device()
    build = Build(operations=comfy.ops.manual_cast, attention=host.attention, dtype=torch.float32, device=offload)
    state = host.cast(read_rife(path), torch.float32)
    return host.patcher_of(FrameInterpolator(WIDTH, build), state, load_device, offload)
