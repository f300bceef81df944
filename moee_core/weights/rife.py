"""RIFE's published weights (``flownet.pkl``, the "v3 HD" form) as ``networks.frame_interpolation.FrameInterpolator``.

160 tensors, loaded strictly. The published file was saved from several devices, so "module." stands before every name,
and a name without it is not the network's; a file in which no name has the prefix is read as it is. A fourth block,
``block_tea``, taught the others in training and is never asked: it has to be there and right, and is left out.

Raises ``CheckpointError`` naming the file and one offending key; nothing is ever loaded partially.
"""

from __future__ import annotations

import functools
from pathlib import Path

from torch import Tensor

from ..networks.frame_interpolation import SEEN, FlowBlock, FrameInterpolator
from ..ops import DEFAULT_BUILD, Build
from .checkpoint import check_keys
from .hallo import check_floating
from .key_map import KeyMap
from .tables import read_table

LICENCE = "Practical-RIFE: MIT"
WIDTH = 90
PREFIX = "module."
TEACHER = "block_tea."
TEACHER_SEEN = SEEN + 3
"""It was also shown the true middle frame."""

NAMES = KeyMap(
    rows=(
        ("blocks.{}.", "block{}."),
        ("shrinking.{}.conv.", "conv0.{}.0."),
        ("shrinking.{}.slopes.below.", "conv0.{}.1."),
        ("residuals.{}.{}.conv.", "convblock{}.{}.0."),
        ("residuals.{}.{}.slopes.below.", "convblock{}.{}.1."),
        ("to_flow.conv_in.", "conv1.0."),
        ("to_flow.slopes.below.", "conv1.1."),
        ("to_flow.conv_out.", "conv1.2."),
        ("to_preference.conv_in.", "conv2.0."),
        ("to_preference.slopes.below.", "conv2.1."),
        ("to_preference.conv_out.", "conv2.2."),
    )
)

Shapes = dict[str, tuple[int, ...]]


def rife_shapes() -> Shapes:
    """Names and shapes of the published file, without the prefix."""
    return dict(_shapes())


@functools.lru_cache(maxsize=1)
def _shapes() -> tuple[tuple[str, tuple[int, ...]], ...]:
    shapeless = Build(device="meta")
    state = FrameInterpolator(WIDTH, shapeless).state_dict()
    teacher = FlowBlock(TEACHER_SEEN, WIDTH, shapeless).state_dict()
    found = {NAMES.theirs(key): (key, value) for key, value in state.items()}
    found |= {TEACHER + NAMES.theirs(key): (key, value) for key, value in teacher.items()}
    return tuple((theirs, _stored(key, tuple(value.shape))) for theirs, (key, value) in found.items())


def _stored(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Slopes are a row of numbers in their file, and a table of one row here."""
    return shape[1:] if key.endswith("slopes.below.weight") else shape


def read_rife(path: str | Path) -> dict[str, Tensor]:
    """The weights of the published file by our names."""
    name, found = Path(path).name, read_table(path)
    prefix = PREFIX if any(key.startswith(PREFIX) for key in found) else ""
    found = {key: value for key, value in found.items() if key.startswith(prefix)}
    expected = {prefix + key: shape for key, shape in rife_shapes().items()}
    check_keys(name, expected, {key: tuple(value.shape) for key, value in found.items()})
    check_floating(name, found)
    state = FrameInterpolator(WIDTH, Build(device="meta")).state_dict()
    return {key: found[prefix + NAMES.theirs(key)].reshape(value.shape) for key, value in state.items()}


def load_rife(path: str | Path, build: Build = DEFAULT_BUILD) -> FrameInterpolator:
    """In eval mode, in float32 unless ``build.dtype`` says otherwise."""
    state = read_rife(path)
    network = FrameInterpolator(WIDTH, build)
    network.load_state_dict(state, strict=True)
    return network.eval().requires_grad_(False)
