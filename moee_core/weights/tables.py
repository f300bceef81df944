"""Files that hold a table of tensors, whatever wrote them: safetensors, or a pickle of PyTorch's.

A pickle is read with ``weights_only``: one that holds more than weights is refused, because opening it would run what
it holds. A table may lie at the top or inside one of ``INSIDE``. Raises ``CheckpointError`` naming the file.
"""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from .checkpoint import read_header, read_tensors

PICKLES = (b"PK", b"\x80")
"""How what PyTorch saves begins: a zip archive, or before 2020 the pickle itself."""
INSIDE = ("state_dict", "model_state_dict", "model")
"""Where training programs put the weights in what they save."""


def read_table(path: str | Path) -> dict[str, Tensor]:
    """Every tensor of a file, by its name."""
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"there is no file {quote(path, 120)}; give a file of weights")
    if path.suffix == ".safetensors":
        read_header(path)  # says more of a damaged file than the library does
        return read_tensors(path)
    try:
        with path.open("rb") as stream:
            start = stream.read(16)
    except OSError as error:
        raise CheckpointError(f"{path.name} cannot be read: {error.strerror}; look at who may read it") from error
    if start and not start.startswith(PICKLES):
        raise CheckpointError(
            f"{path.name} is not a file of weights, it begins with {start!r}; a download may have saved a page or a "
            "pointer in its place"
        )
    return _tensors(path, unpickled(path, mapped=zipfile.is_zipfile(path)))


def shapes_of(path: str | Path) -> dict[str, tuple[int, ...]]:
    """The shape of every tensor of a file, without reading their values where the format allows."""
    path = Path(path)
    if path.suffix == ".safetensors" and path.is_file():
        header, _ = read_header(path)
        try:
            return {key: tuple(entry["shape"]) for key, entry in header.items()}
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path.name} is damaged: its header gives no shapes; copy or download it again"
            ) from error
    return {key: tuple(value.shape) for key, value in read_table(path).items()}


def unpickled(path: Path, wanted: str = "its table of weights as .safetensors", *, mapped: bool = False) -> Any:
    """What a pickle of weights holds. ``wanted`` is what to save instead of a refused one. ``mapped``: its values stay
    in the file until they are used."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path.name} is damaged, or holds more than weights and is not opened, because that could run anything; "
            f"copy or download it again, or save {wanted}, where you trust the file"
        ) from error
    except Exception as error:  # a damaged pickle raises whatever its broken instructions come to
        raise CheckpointError(f"{path.name} is damaged: {quote(error, 80)}; copy or download it again") from error


def _tensors(path: Path, found: Any) -> dict[str, Tensor]:
    for inside in INSIDE:
        if isinstance(found, dict) and isinstance(found.get(inside), dict):
            found = found[inside]
    if not isinstance(found, dict):
        raise CheckpointError(f"{path.name} is not a table of weights: it holds a {type(found).__name__}")
    odd = sorted(str(key) for key, value in found.items() if not isinstance(value, Tensor))
    if odd:
        raise CheckpointError(f"{path.name} is not a table of weights: {odd[0]!r} is none")
    return {str(key): value for key, value in found.items()}
