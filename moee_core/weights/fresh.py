"""Starting weights for parts that a published file does not bring, the same on every machine.

Norms are the identity, biases zero, every other weight normal with variance 1 / inputs, drawn from its name; the last
layers of what is to say nothing at first are zero, and so are the gates of experts, which prefer none and no place.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping

import torch
from torch import Tensor

SILENT = re.compile(
    r"\.emotion\.(experts\.\d+\.to_out|gates)\.|\.audio\.(zero_convs\.\d+|proj_out)\.|\.motion\.proj_out\.|^face_locator\.conv_out\."
)
"""Behind these layers stands a sum: at zero, the network is what it was without the part they belong to."""


def fresh_state(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """A float32 tensor for every name, on the CPU."""
    return {key: _fresh(key, shape) for key, shape in shapes.items()}


def _fresh(key: str, shape: tuple[int, ...]) -> Tensor:
    if SILENT.search(key) or key.endswith(".bias"):
        return torch.zeros(shape)
    if len(shape) == 1:
        return torch.ones(shape)
    generator = torch.Generator().manual_seed(zlib.crc32(key.encode()))
    return torch.randn(shape, generator=generator) / math.sqrt(math.prod(shape[1:]))
