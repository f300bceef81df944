"""An expression reader's checkpoint: one safetensors file, loaded strictly.

Metadata keys as in ``checkpoint.py``: ``architecture`` ("expression_reader"), ``format``, ``config``, ``licence``,
``data_licence``, ``trained``. Raises ``CheckpointError`` naming the file and one offending key.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from ..networks.expression_reader import ExpressionReader, ExpressionReaderConfig
from ..ops import DEFAULT_BUILD, Build
from .checkpoint import check_keys, config_from_dict, read_header, read_tensors, write_checkpoint

ARCHITECTURE = "expression_reader"
FORMAT = "1"
EMBEDDED = Path(__file__).parents[1] / "assets" / "expression.safetensors"
"""The small one that ships."""


def load_expression_reader(path: str | Path = EMBEDDED, build: Build = DEFAULT_BUILD) -> ExpressionReader:
    """The network, in float32 unless ``build.dtype`` says otherwise, in eval mode."""
    path = Path(path)
    header, metadata = read_header(path)
    if metadata.get("architecture") != ARCHITECTURE or metadata.get("format") != FORMAT:
        found = f"{metadata.get('architecture', 'none stated')}, format {metadata.get('format', 'none')}"
        raise CheckpointError(f"{path.name} is not an expression reader of format {FORMAT} (found {quote(found, 60)})")
    try:
        config = config_from_dict(ExpressionReaderConfig, json.loads(metadata["config"]))
        shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
        reader = ExpressionReader(config, build)
    except (ArithmeticError, AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name}: its metadata cannot be used: {quote(error, 160)}") from error
    check_keys(path.name, {key: tuple(value.shape) for key, value in reader.state_dict().items()}, shapes)
    dtype = build.dtype or torch.float32
    reader.load_state_dict({key: value.to(dtype) for key, value in read_tensors(path).items()}, strict=True)
    return reader.eval().requires_grad_(False)


def save_expression_reader(
    path: str | Path,
    reader: ExpressionReader,
    *,
    metadata: dict[str, str] | None = None,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write atomically: a reader sees the old file or the whole new one."""
    write_checkpoint(path, ARCHITECTURE, FORMAT, reader, reader.config, metadata, dtype)
