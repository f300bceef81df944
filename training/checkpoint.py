"""Training state on disk: written whole or not at all, read strictly.

A run folder holds ``state.pt`` (the running stage: weights, averaged weights, optimiser, step) and one
``STAGE.safetensors`` for every finished stage.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from moee_core.errors import CheckpointError


def save_state(path: Path, state: dict[str, Any]) -> None:
    """Atomic: a kill at any moment leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path) -> dict[str, Any] | None:
    """The state, or None when there is none yet."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a damaged file; all mean the same to the user
        raise CheckpointError(
            f"{path} cannot be read ({type(error).__name__}); delete it to restart its stage"
        ) from error
