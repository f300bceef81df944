"""DICE-Talk's files as what ComfyUI has: a MODEL, the networks around it, a VAE; and the priors and RIFE beside them.

Raises ``CheckpointError`` for files that are something else.
"""

from __future__ import annotations

import functools
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.ops
import torch
from torch import Tensor

from ..moee_core.audio.whisper import load_whisper
from ..moee_core.emotion.priors import Prior, is_prior, named_prior, read_prior
from ..moee_core.emotion.vocabulary import LABELS
from ..moee_core.errors import CheckpointError
from ..moee_core.jobs import fingerprint
from ..moee_core.networks.frame_interpolation import FrameInterpolator
from ..moee_core.ops import Build
from ..moee_core.systems.dice_talk import DiceConfig, DiceTalkSystem
from ..moee_core.systems.moee import make_speech_encoder
from ..moee_core.weights.checkpoint import load_parts, state_hash
from ..moee_core.weights.dice_file import inspect_dice_file, load_dice_parts
from ..moee_core.weights.dice_talk import CONVERT_ADAPTERS, LICENCE, PUBLISHED, needs_base, read_dice
from ..moee_core.weights.dice_talk import dice_files as published_files
from ..moee_core.weights.hub_folder import holds
from ..moee_core.weights.rife import WIDTH, read_rife
from . import host, models
from .dice_host import native_dice
from .dice_sockets import DiceEncoders

log = logging.getLogger(__name__)

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
    found: dict[str, Path] = {}
    for path in _prior_paths():
        found.setdefault(path.name, path)
    return dict(sorted(found.items()))


def _prior_paths() -> Iterator[Path]:
    """In the order in which they count: by folder, and in each ours before the authors' of the same name."""
    for folder in _folders(host.DICE, PRIORS):
        yield from filter(is_prior, sorted(folder.iterdir(), key=lambda one: (one.suffix != ".safetensors", one.name)))


def priors_stamp() -> str:
    """Changes with what the files of priors say, so that the host asks again. It is not when they were written that
    counts: a graph that saves a prior would draw its video anew with every run."""
    said: list[object] = []
    for path in _prior_paths():
        try:
            prior = read_prior(path)
            said += [str(path), prior.mean, prior.deviation, prior.about, prior.licence]
        except CheckpointError as error:
            said += [str(path), str(error)]
    return fingerprint(said)


def rife_files() -> dict[str, Path]:
    """Name to path of every file in models/moee/rife."""
    found: dict[str, Path] = {}
    for path in (path for root in _folders(host.RIFE) for path in sorted(root.iterdir())):
        if path.suffix in (".pkl", ".pth", ".safetensors"):
            found.setdefault(path.name, path)
    return found


def _folders(*names: str) -> list[Path]:
    return [folder for root in host.roots() if (folder := root.joinpath(*names)).is_dir()]


def new_prior_path(name: str) -> Path:
    """Where a prior of this name is saved."""
    return host.roots()[0].joinpath(host.DICE, PRIORS, f"{name}.safetensors")


def chosen(files: dict[str, Path], name: str, where: str) -> Path:
    """The path of a choice. Raises ``CheckpointError`` for one that is not there any more, and where there is none to
    choose, which the entry "none (put … into …)" of a list says."""
    if name not in files and name.startswith("none ("):
        said = name.removeprefix("none (").removesuffix(")")
        raise CheckpointError(f"no file is chosen: {said}, refresh ComfyUI's lists (R), and choose it")
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
        return
    unet = published_files(path)["unet"]
    if _lacks_base(unet, unet.stat().st_size, unet.stat().st_mtime_ns):
        raise CheckpointError(
            f"{path.name}/{unet.name} holds the adapters alone, without Stable Video Diffusion's UNet; make one file "
            f"of both, and choose that: {CONVERT_ADAPTERS}"
        )


@functools.lru_cache(maxsize=8)
def _lacks_base(path: Path, _size: int, _written: int) -> bool:
    """Kept, because the host asks every time that something is queued."""
    return needs_base(path)


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
        own_priors=_own_priors(config, rest, licence),
        sampling=_numbers(metadata.get("sampling", "{}")),
        image_size=size,
    )
    return model, encoders, vae


def _own_priors(config: DiceConfig, state: dict[str, Tensor], licence: str) -> dict[str, Prior]:
    """By name: those in the model's file."""
    if not config.named_priors:
        return {}
    pairs = zip(LABELS, state["priors.weight"].numpy(), strict=True)
    return {label: Prior(mean=row, about=f"{label} of this model", licence=licence) for label, row in pairs}


def known_priors(encoders: DiceEncoders) -> dict[str, Prior]:
    """By name: the model's own, and those in models/moee/dice_talk/priors that are as wide, which go first.

    Files are read whenever this is asked, for one is put there after an error has said that it is missing. One that
    cannot be read is left out, and the log says why: it must not keep the others from being used.
    """
    width = encoders.config.bank.prior_width
    found, paths = dict(encoders.own_priors), {}
    for path in _prior_paths():
        try:
            name, prior = named_prior(path), read_prior(path)
        except CheckpointError as error:
            log.warning("talking portrait: the prior %s is left out: %s", path, error)
            continue
        if prior.width != width:
            log.info("talking portrait: %s has %d numbers, this model's priors %d; left out", path, prior.width, width)
        elif name in paths:
            log.info("talking portrait: %s is left out, %s is the prior of %s already", path, paths[name], name)
        else:
            found[name], paths[name] = prior, path
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
