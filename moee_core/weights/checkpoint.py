"""One file per model: safetensors with the architecture in its metadata, loaded strictly.

Metadata keys: ``architecture`` ("moee"), ``format`` (version of this layout), ``config`` (JSON of SystemConfig),
``licence``, ``data_licence``, ``trained`` (JSON: what was trained, steps, date), ``domain`` (JSON: error thresholds),
``sampling`` (JSON: the settings the model is best sampled with, fields of ``SamplingSettings``).

Raises ``CheckpointError`` naming the file and one offending key; nothing is ever loaded partially.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import struct
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from ..networks.config import LATER, SystemConfig
from ..ops import DEFAULT_BUILD, Build
from ..systems.moee import MoEESystem

ARCHITECTURE = "moee"
FORMAT = "1"


@dataclass(frozen=True, kw_only=True)
class CheckpointInfo:
    """What a file says about itself, without its tensors' values."""

    path: Path
    config: SystemConfig
    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]
    domain: dict[str, float] = field(default_factory=dict)
    sampling: dict[str, float] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        return sum(_count(shape) for shape in self.shapes.values())


def _count(shape: tuple[int, ...]) -> int:
    total = 1
    for side in shape:
        total *= side
    return total


def read_header(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(tensors, metadata) of a safetensors file's header, checked against the file's size."""
    path = Path(path)
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise CheckpointError(f"{path} is not a file; give the path of a .safetensors file")
        with path.open("rb") as stream:
            lead = stream.read(8)
            length = struct.unpack("<Q", lead)[0] if len(lead) == 8 else 0
            if not 2 <= length <= min(100_000_000, size - 8):
                raise CheckpointError(f"{path.name} is not a safetensors file, or it is cut off ({size} bytes)")
            header = json.loads(stream.read(length))
        metadata = dict(header.pop("__metadata__", {}))
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    except OSError as error:
        raise CheckpointError(f"cannot read the checkpoint {path}: {error.strerror}") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(f"{path.name} is not a safetensors file: its header is not JSON") from error
    except (AttributeError, IndexError, KeyError, RecursionError, TypeError) as error:
        raise CheckpointError(f"{path.name} is not a safetensors file: its header describes no tensors") from error
    if size != 8 + length + end:
        raise CheckpointError(
            f"{path.name} is damaged: {size} bytes, its header promises {8 + length + end}; copy or download it again"
        )
    return header, metadata


def inspect_checkpoint(path: str | Path) -> CheckpointInfo:
    """Header of one of our checkpoints, its configuration parsed."""
    path = Path(path)
    header, metadata = read_header(path)
    if metadata.get("architecture") != ARCHITECTURE:
        found = metadata.get("architecture")
        what = f"architecture {quote(found)}" if found else "no architecture in its metadata"
        raise CheckpointError(f"{path.name} is not a MoEE checkpoint ({what}, {len(header)} tensors)")
    if metadata.get("format") != FORMAT:
        found = quote(metadata.get("format", "none"))
        raise CheckpointError(f"{path.name} has format {found}, this version reads {FORMAT}")
    try:
        config = config_from_dict(SystemConfig, json.loads(metadata["config"]))
        shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
        dtypes = {key: entry["dtype"] for key, entry in header.items()}
        domain = {key: float(value) for key, value in json.loads(metadata.get("domain", "{}")).items()}
        sampling = {key: float(value) for key, value in json.loads(metadata.get("sampling", "{}")).items()}
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name}: its metadata cannot be used: {quote(error, 160)}") from error
    return CheckpointInfo(
        path=path,
        config=config,
        metadata=metadata,
        shapes=shapes,
        dtypes=dtypes,
        domain=domain,
        sampling=sampling,
    )


def load_system(path: str | Path, build: Build = DEFAULT_BUILD) -> tuple[MoEESystem, CheckpointInfo]:
    """The networks of a checkpoint, in float32 unless ``build.dtype`` says otherwise, in eval mode."""
    info = inspect_checkpoint(path)
    name = Path(path).name
    try:
        system = MoEESystem(info.config, build)
    except (RuntimeError, ValueError) as error:  # sizes that no network can have
        raise CheckpointError(f"{name}: no network can be built from its configuration: {error}") from error
    expected = {key: tuple(value.shape) for key, value in system.state_dict().items()}
    check_keys(name, expected, info.shapes)
    dtype = build.dtype or torch.float32
    state = {key: value.to(dtype) for key, value in read_tensors(path).items()}
    system.load_state_dict(state, strict=True)
    return system.eval().requires_grad_(False), info


def load_parts(path: str | Path) -> tuple[dict[str, dict[str, Tensor]], CheckpointInfo]:
    """The weights by network, for a host that builds and places each network itself: {"denoiser": {key: tensor}, ...}.

    Checked as strictly as ``load_system`` does, without building anything: a complete set, every shape right.
    """
    info = inspect_checkpoint(path)
    name = Path(path).name
    try:
        system = MoEESystem(info.config, Build(device="meta"))
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"{name}: no network can be built from its configuration: {error}") from error
    check_keys(name, {key: tuple(value.shape) for key, value in system.state_dict().items()}, info.shapes)
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in read_tensors(path).items():
        part, inside = key.split(".", 1)
        parts.setdefault(part, {})[inside] = value
    return parts, info


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a safetensors file. Raises ``CheckpointError`` for a damaged one."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(str(path))
    except SafetensorError as error:
        raise CheckpointError(f"{Path(path).name} is damaged: {error}; copy or download it again") from error


def check_keys(name: str, expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> None:
    """Raises ``CheckpointError`` unless a file's keys and shapes are exactly those of an architecture."""
    for label, keys in (("is missing", expected.keys() - found.keys()), ("is unknown", found.keys() - expected.keys())):
        if keys:
            raise CheckpointError(f"{name}: {len(keys)} of {len(expected)} tensors do not fit: {min(keys)!r} {label}")
    for key, shape in expected.items():
        if found[key] != shape:
            raise CheckpointError(f"{name}: {key!r} has shape {found[key]}, this architecture needs {shape}")


def save_system(
    path: str | Path,
    system: MoEESystem,
    *,
    metadata: dict[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write atomically: a reader sees the old file or the whole new one."""
    write_checkpoint(path, ARCHITECTURE, FORMAT, system, system.config, metadata, dtype)


def write_checkpoint(
    path: str | Path,
    architecture: str,
    format_: str,
    module: nn.Module,
    config: Any,
    metadata: dict[str, str] | None,
    dtype: torch.dtype,
) -> None:
    """The weights of any architecture with what its loader reads: ``config`` is a dataclass. Atomic."""
    write_state(path, architecture, format_, module.state_dict(), config, metadata, dtype)


def write_state(
    path: str | Path,
    architecture: str,
    format_: str,
    state: dict[str, Tensor],
    config: Any,
    metadata: dict[str, str] | None,
    dtype: torch.dtype,
) -> None:
    """As ``write_checkpoint``, of weights that are in no network."""
    from safetensors.torch import save_file

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {key: value.detach().to("cpu", dtype).contiguous() for key, value in state.items()}
    header = {
        "architecture": architecture,
        "format": format_,
        "config": json.dumps(config_to_dict(config)),
        "licence": "Apache-2.0",
        **(metadata or {}),
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's umask gives; some safetensors releases make it private
        save_file(stored, str(temporary), metadata=header)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def state_hash(state: dict[str, Tensor]) -> str:
    """Short content hash of a set of weights, independent of key order."""
    digest = hashlib.sha256()
    for key in sorted(state):
        digest.update(key.encode())
        digest.update(state[key].detach().to("cpu", torch.float32).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def config_to_dict(config: Any) -> dict[str, Any]:
    """Nested frozen dataclasses as JSON holds them; settings marked ``LATER`` only where they are not at their
    default."""
    values: dict[str, Any] = {}
    for one in dataclasses.fields(config):
        value = getattr(config, one.name)
        if one.metadata.get(LATER) and value == one.default:
            continue
        values[one.name] = config_to_dict(value) if dataclasses.is_dataclass(value) else value
    return values


def config_from_dict(kind: Any, values: dict[str, Any]) -> Any:
    """Nested frozen dataclasses from JSON; unknown keys are an error, lists become tuples."""
    hints = typing.get_type_hints(kind)
    unknown = set(values) - set(hints)
    if unknown:
        raise ValueError(f"unknown setting {min(unknown)!r} in {kind.__name__}; the file is from a newer version")

    def convert(hint: Any, value: Any) -> Any:
        if dataclasses.is_dataclass(hint) and not isinstance(hint, types.GenericAlias):
            return config_from_dict(hint, value)
        return tuple(value) if isinstance(value, list) else value

    return kind(**{key: convert(hints[key], value) for key, value in values.items()})
