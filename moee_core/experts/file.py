"""An emotion expert as a small file, shared like a LoRA: what one expert learned beyond the model it was trained from.

Keys are those of the denoiser with the expert's number left out (``….emotion.expert.to_q.weight``), values the
difference to the base model's expert. So a strength scales it, and several can be added up. Metadata:
``architecture`` ("moee-expert"), ``format``, ``emotion`` (which of the six it serves), ``base`` (hash of the
denoiser it belongs to), ``licence``, ``data_licence``, and whatever the author adds.

Raises ``CheckpointError`` for a file of another kind and for a base model it does not fit.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..emotion.vocabulary import EXPERTS, quote
from ..errors import CheckpointError

ARCHITECTURE = "moee-expert"
FORMAT = "1"


@dataclass(frozen=True, kw_only=True)
class ExpertFile:
    """``deltas``: denoiser key with ``.expert.`` -> difference to the base model."""

    emotion: str
    base: str
    deltas: dict[str, Tensor]
    metadata: dict[str, str]

    def for_denoiser(self, emotion: str | None = None) -> dict[str, Tensor]:
        """The differences under the denoiser's own keys, for the file's emotion or another one."""
        index = EXPERTS.index(emotion or self.emotion)
        return {key.replace(".expert.", f".experts.{index}."): value for key, value in self.deltas.items()}


def expert_deltas(tuned: dict[str, Tensor], base: dict[str, Tensor], emotion: str) -> dict[str, Tensor]:
    """What the expert of ``emotion`` learned between two states of a denoiser."""
    if emotion not in EXPERTS:
        raise CheckpointError(f"there is no expert for {quote(emotion)}; choose one of {', '.join(EXPERTS)}")
    part = f".emotion.experts.{EXPERTS.index(emotion)}."
    found = {}
    for key, value in tuned.items():
        if part in key:
            if key not in base or base[key].shape != value.shape:
                raise CheckpointError(f"the two models differ in {key!r}; take both from the same family")
            found[key.replace(part, ".emotion.expert.")] = value.float() - base[key].float()
    return found


def save_expert(
    path: str | Path, emotion: str, base: str, deltas: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write atomically, in half precision."""
    from safetensors.torch import save_file

    path = Path(path)
    header = {
        "licence": "unstated",
        "data_licence": "unstated",
        **(metadata or {}),
        "architecture": ARCHITECTURE,
        "format": FORMAT,
        "emotion": emotion,
        "base": base,
    }
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode
        save_file({key: value.half().contiguous() for key, value in deltas.items()}, str(temporary), metadata=header)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_expert(path: str | Path) -> ExpertFile:
    """Read and check an expert's file."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ..weights.checkpoint import read_header

    name = Path(path).name
    _, metadata = read_header(path)
    if metadata.get("architecture") != ARCHITECTURE:
        what = quote(metadata.get("architecture", "none stated"))
        raise CheckpointError(f"{name} is not an emotion expert (architecture {what})")
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{name} has format {quote(metadata.get('format', 'none'))}, this version reads {FORMAT}")
    if metadata.get("emotion") not in EXPERTS:
        raise CheckpointError(f"{name} serves {quote(metadata.get('emotion', 'nothing'))}; known: {', '.join(EXPERTS)}")
    try:
        deltas = load_file(str(path))
    except SafetensorError as error:
        raise CheckpointError(f"{name} is damaged: {error}; copy or download it again") from error
    if not deltas or not all(".emotion.expert." in key for key in deltas):
        raise CheckpointError(f"{name} holds no expert's weights; it is damaged or was renamed")
    return ExpertFile(emotion=metadata["emotion"], base=metadata.get("base", ""), deltas=deltas, metadata=metadata)


def check_fits(expert: ExpertFile, name: str, base: str, shapes: dict[str, torch.Size]) -> None:
    """Raise unless the expert belongs to the denoiser with hash ``base`` and these parameter shapes."""
    if expert.base != base:
        raise CheckpointError(
            f"{name} was trained from another model (base {quote(expert.base or 'unknown')}, this one is "
            f"{quote(base)}); load the checkpoint its author names"
        )
    for key, value in expert.for_denoiser().items():
        if shapes.get(key) != value.shape:
            raise CheckpointError(f"{name}: {key!r} is {tuple(value.shape)}, this model has {shapes.get(key)}")
