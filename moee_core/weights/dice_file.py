"""DICE-Talk as one file of ours: made of the published ones, or trained here; loaded strictly.

Metadata keys: ``architecture`` ("dice_talk"), ``format``, ``config`` (JSON of DiceConfig), ``licence``,
``data_licence``, and ``trained`` where it was trained here, or ``sources`` (JSON: ``name`` and content ``hash`` of the
files it was made of, by their part; ``base`` where Stable Video Diffusion completed the UNet, ``priors`` where the
eight priors are in the file).

Converting goes tensor by tensor: what is read stays in its file until it is written, so it takes the memory of a few
tensors, 0.4 GB at the published size, where a file in half precision has 3.51 GB.

Raises ``CheckpointError`` naming the file and one offending key; nothing is ever loaded partially.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import struct
import types
import typing
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..emotion.priors import priors_in
from ..emotion.vocabulary import LABELS, quote
from ..errors import CheckpointError
from ..ops import DEFAULT_BUILD, Build
from ..systems.dice_talk import DiceConfig, DiceTalkSystem
from .checkpoint import check_keys, config_to_dict, read_header, read_tensors, state_hash
from .dice_talk import ADAPTERS, LICENCE, OURS, PUBLISHED, all_shapes, dice_files, needs_base, read_dice
from .stable_video import stable_video_file

ARCHITECTURE = "dice_talk"
FORMAT = "1"
EMBEDDED_AROUND = Path(__file__).parents[1] / "assets" / "embedded.safetensors"
"""The model that ships, with whose autoencoder and encoders a small DICE-Talk of our own works."""
DATA_LICENCE = "by its authors' paper: MEAD, HDTF, VoxCeleb2 and videos of the web, each under terms of its own"
PRIORS = "priors.weight"
_STORED = {torch.float16: "F16", torch.bfloat16: "BF16", torch.float32: "F32"}
_SAID = {bool: "true or false", int: "a whole number", float: "a finite number", str: "a text"}
_READ = (*_STORED.values(), "F64")
"""Types of weights that mean something without scales, as a header names them."""


# files


def save_dice_file(
    path: str | Path,
    system: DiceTalkSystem,
    *,
    metadata: Mapping[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write atomically: a reader sees the old file or the whole new one."""
    _write(Path(path), system.state_dict(), system.config, {"licence": "Apache-2.0", **(metadata or {})}, dtype)


def convert_dice_talk(
    source: str | Path | Mapping[str, str | Path],
    path: str | Path,
    *,
    base: str | Path | None = None,
    priors: str | Path | None = None,
    config: DiceConfig = PUBLISHED,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write the published files as one of ours, atomically.

    ``source``: the folder they lie in, or a path for each part of ``FILES``. ``base``: Stable Video Diffusion's UNet, a
    file or a folder, where unet.pth holds the adapters alone. ``priors``: a folder with a prior of every label, to be
    stored with the rest; ``named_priors`` of the configuration follows from it.
    """
    config = replace(config, named_priors=False)
    files: dict[str, Path] = (
        {part: Path(one) for part, one in source.items()} if isinstance(source, Mapping) else dice_files(source)
    )
    state = read_dice(files, config, base)
    brought = {part: {key: value for key, value in state.items() if _part(key) == part} for part in files}
    names = {part: file.name for part, file in files.items()}
    if base is not None and needs_base(files["unet"], config):
        brought["base"] = {key: value for key, value in brought["unet"].items() if ADAPTERS not in key}
        brought["unet"] = {key: value for key, value in brought["unet"].items() if ADAPTERS in key}
        names["base"] = stable_video_file(base).name
    if priors is not None:
        config = replace(config, named_priors=True)
        state[PRIORS] = _priors(priors, config)
        brought["priors"], names["priors"] = {PRIORS: state[PRIORS]}, Path(priors).name
    # what each reader checked is a part; that the parts are the whole is this function's own promise
    check_keys(Path(path).name, all_shapes(config), {key: tuple(value.shape) for key, value in state.items()})
    sources = {part: {"name": names[part], "hash": state_hash(one)} for part, one in brought.items()}
    metadata = {"licence": LICENCE, "data_licence": DATA_LICENCE, "sources": json.dumps(sources)}
    _write(Path(path), state, config, metadata, dtype)


def inspect_dice_file(path: str | Path) -> tuple[DiceConfig, dict[str, str]]:
    """Configuration and metadata of such a file, whose tensors are those of its configuration."""
    path = Path(path)
    header, metadata = read_header(path)
    if metadata.get("architecture") != ARCHITECTURE or metadata.get("format") != FORMAT:
        found = f"{metadata.get('architecture', 'none stated')}, format {metadata.get('format', 'none')}"
        raise CheckpointError(f"{path.name} is not a DICE-Talk of format {FORMAT} (found {quote(found, 60)})")
    try:
        config = dice_config(json.loads(metadata["config"]))
        found = {key: tuple(entry["shape"]) for key, entry in header.items()}
        kinds = {key: str(entry["dtype"]) for key, entry in header.items()}
        expected = all_shapes(config)
    except (ArithmeticError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name}: its metadata cannot be used: {quote(error, 160)}") from error
    check_keys(path.name, expected, found)
    for key, kind in kinds.items():
        if kind not in _READ:  # as ``check_floating``, which wants the tensors themselves
            raise CheckpointError(
                f"{path.name}: {key!r} is of type {quote(kind, 20)}, a weight has to be of {', '.join(_READ)}; take "
                "the file that was not quantised"
            )
    return config, metadata


def load_dice_file(path: str | Path, build: Build = DEFAULT_BUILD) -> DiceTalkSystem:
    """The networks, in float32 unless ``build.dtype`` says otherwise, in eval mode."""
    config, _ = inspect_dice_file(path)
    system = DiceTalkSystem(config, build)
    system.load_state_dict(read_tensors(path), strict=True)  # casts tensor by tensor
    return system.eval().requires_grad_(False)


def load_dice_parts(path: str | Path) -> tuple[dict[str, dict[str, Tensor]], DiceConfig, dict[str, str]]:
    """The weights by network, for a host that builds and places each network itself, {"unet": {key: tensor}, ...}; the
    configuration; and the metadata."""
    config, metadata = inspect_dice_file(path)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in read_tensors(path).items():
        part, inside = key.split(".", 1)
        parts.setdefault(part, {})[inside] = value
    return parts, config, metadata


def dice_config(values: Any) -> DiceConfig:
    """From JSON: settings that are not there have their defaults, unknown ones are an error, lists become tuples, and a
    nested configuration may be null where its type allows it. Raises ``ValueError`` or ``TypeError``."""
    return _from_json(DiceConfig, values)


def file_size(config: DiceConfig, dtype: torch.dtype = torch.float16, *, priors: bool = False) -> int:
    """Bytes of the tensors of a converted file."""
    shapes = all_shapes(replace(config, named_priors=priors))
    return sum(torch.Size(shape).numel() for shape in shapes.values()) * dtype.itemsize


# parts


def _part(key: str) -> str:
    """The network of a weight; none for what no file brings."""
    return "" if key in OURS else key.split(".", 1)[0]


def _priors(folder: str | Path, config: DiceConfig) -> Tensor:
    """(8, P) in the order of ``LABELS``."""
    known = priors_in(folder)
    lacking = [label for label in LABELS if label not in known]
    if lacking:
        raise CheckpointError(
            f"{quote(folder, 120)} holds no prior of {lacking[0]} ({len(lacking)} of {len(LABELS)} are missing); put "
            f"{lacking[0]}.npy there, or leave the priors out"
        )
    for label in LABELS:
        if known[label].width != config.bank.prior_width:
            raise CheckpointError(
                f"{quote(folder, 120)}: the prior of {label} has {known[label].width} numbers, this network reads "
                f"{config.bank.prior_width}"
            )
    return torch.stack([torch.from_numpy(known[label].mean) for label in LABELS])


def _from_json(hint: Any, value: Any, where: str = "") -> Any:
    kinds = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    nested = next((kind for kind in kinds if dataclasses.is_dataclass(kind)), None)
    if value is None and type(None) in kinds:
        return None
    if nested is None:
        return _plain(kinds[0], value, where)
    name = getattr(nested, "__name__", str(nested))
    if not isinstance(value, dict):
        raise ValueError(f"{name} is a table of settings, got {quote(value, 40)}")
    hints = typing.get_type_hints(nested)
    unknown = value.keys() - hints.keys()
    if unknown:
        raise ValueError(f"unknown setting {min(unknown)!r} in {name}; the file is from a newer version")
    make = typing.cast("Any", nested)
    return make(**{key: _from_json(hints[key], one, f"{name}.{key}") for key, one in value.items()})


def _plain(hint: Any, value: Any, where: str) -> Any:
    """A setting that is no table. Text is no number even where it reads like one, and true, with which Python counts,
    is none either."""
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        if not isinstance(value, list) or (kinds[-1] is not Ellipsis and len(value) != len(kinds)):
            length = "" if kinds[-1] is Ellipsis else f" of {len(kinds)}"
            raise ValueError(f"{where} must be a list{length}, got {repr(value)[:40]}")
        return tuple(_plain(kinds[0], one, where) for one in value)
    allowed = (int, float) if hint is float else (hint,)
    if not isinstance(value, allowed) or (isinstance(value, bool) and hint is not bool):
        raise ValueError(f"{where} must be {_SAID[hint]}, got {repr(value)[:40]}")
    if hint is float and not math.isfinite(value):
        raise ValueError(f"{where} must be {_SAID[hint]}, got {value}")
    return value


def _write(
    path: Path, state: Mapping[str, Tensor], config: DiceConfig, metadata: Mapping[str, str], dtype: torch.dtype
) -> None:
    """A safetensors file, tensor by tensor: its header (length, JSON), then the numbers in the header's order."""
    names = sorted(state)
    header: dict[str, Any] = {
        "__metadata__": {
            "architecture": ARCHITECTURE,
            "format": FORMAT,
            "config": json.dumps(config_to_dict(config)),
            **metadata,
        }
    }
    end = 0
    for name in names:
        start, end = end, end + state[name].numel() * dtype.itemsize
        header[name] = {"dtype": _STORED[dtype], "shape": list(state[name].shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of 8 bytes
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(struct.pack("<Q", len(text)) + text)
            for name in names:
                stored = state[name].detach().to("cpu", dtype).contiguous()
                _check_stored(path.name, name, state[name], stored)
                stream.write(stored.view(-1).view(torch.uint8).numpy().data)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _check_stored(file: str, key: str, value: Tensor, stored: Tensor) -> None:
    """Raises ``CheckpointError`` where a weight is not finite, or not any more in the type that it is stored in."""
    if not stored.numel() or all(bool(torch.isfinite(one)) for one in stored.aminmax()):  # no copy as large as it is
        return
    if not all(bool(torch.isfinite(one)) for one in value.detach().aminmax()):
        raise CheckpointError(f"{file}: {key!r} holds numbers that are not finite and cannot be saved; train it anew")
    kind, most = str(stored.dtype).removeprefix("torch."), torch.finfo(stored.dtype).max
    raise CheckpointError(
        f"{file}: {key!r} holds {float(value.detach().abs().max()):.4g}, and {kind} ends at {most:.4g}; save as fp32"
    )
