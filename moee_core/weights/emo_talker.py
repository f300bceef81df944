"""An EmoTalker checkpoint: one safetensors file with everything but HuBERT, loaded strictly.

Metadata keys as in ``checkpoint.py``: ``architecture`` ("emo_talker"), ``format``, ``config`` (JSON of
EmoTalkerConfig), ``licence``, ``data_licence``, ``trained``.

Raises ``CheckpointError`` naming the file and one offending key; nothing is ever loaded partially.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import torch

from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from ..ops import DEFAULT_BUILD, Build
from ..systems.emo_talker import EmoTalkerConfig, EmoTalkerSystem
from .checkpoint import check_keys, config_from_dict, read_header, read_tensors, write_checkpoint

ARCHITECTURE = "emo_talker"
EMBEDDED = Path(__file__).parents[1] / "assets" / "emotalker.safetensors"
"""The small one that ships."""
FORMAT = "1"


@dataclass(frozen=True, kw_only=True)
class EmoTalkerInfo:
    """What a file says about itself, without its tensors' values."""

    path: Path
    config: EmoTalkerConfig
    metadata: dict[str, str]
    shapes: dict[str, tuple[int, ...]]
    dtypes: dict[str, str]

    @property
    def parameters(self) -> int:
        return sum(int(torch.Size(shape).numel()) for shape in self.shapes.values())


def inspect_emo_talker(path: str | Path) -> EmoTalkerInfo:
    """The header of an EmoTalker checkpoint, its configuration parsed."""
    path = Path(path)
    header, metadata = read_header(path)
    if metadata.get("architecture") != ARCHITECTURE:
        found = metadata.get("architecture")
        what = f"architecture {quote(found)}" if found else "no architecture in its metadata"
        raise CheckpointError(f"{path.name} is not an EmoTalker checkpoint ({what}, {len(header)} tensors)")
    if metadata.get("format") != FORMAT:
        found = quote(metadata.get("format", "none"))
        raise CheckpointError(f"{path.name} has format {found}, this version reads {FORMAT}")
    try:
        config = config_from_dict(EmoTalkerConfig, json.loads(metadata["config"]))
        shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
        dtypes = {key: str(entry["dtype"]) for key, entry in header.items()}
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name}: its metadata cannot be used: {quote(error, 160)}") from error
    return EmoTalkerInfo(path=path, config=config, metadata=metadata, shapes=shapes, dtypes=dtypes)


def load_emo_talker(path: str | Path, build: Build = DEFAULT_BUILD) -> tuple[EmoTalkerSystem, EmoTalkerInfo]:
    """The networks, in float32 unless ``build.dtype`` says otherwise, in eval mode."""
    info = inspect_emo_talker(path)
    name = info.path.name
    try:
        system = EmoTalkerSystem(info.config, build)
    except (RuntimeError, ValueError) as error:  # sizes that no network can have
        raise CheckpointError(f"{name}: no network can be built from its configuration: {error}") from error
    expected = {key: tuple(value.shape) for key, value in system.state_dict().items()}
    check_keys(name, expected, info.shapes)
    dtype = build.dtype or torch.float32
    system.load_state_dict({key: value.to(dtype) for key, value in read_tensors(path).items()}, strict=True)
    return system.eval().requires_grad_(False), info


def save_emo_talker(
    path: str | Path,
    system: EmoTalkerSystem,
    *,
    metadata: dict[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write atomically: a reader sees the old file or the whole new one."""
    write_checkpoint(path, ARCHITECTURE, FORMAT, system, system.config, metadata, dtype)
