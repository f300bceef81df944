"""Hallo's published weights as ``systems.hallo.HalloSystem``, loaded strictly; and as one file of our own.

Two files make a base: ``net.pth`` (a pickle or safetensors; five networks, 2,656 tensors at full size) and the
autoencoder of Stable Diffusion 1.5 (sd-vae-ft-mse, in either naming of its attention). The weights of Stable Diffusion
and AnimateDiff that lie beside them are all inside net.pth already.

The tables of time positions in net.pth are compared with the sinusoids they are, and left aside. MoEE's experts and
Emotion-to-Latents are in no published file: the experts start silent, so that the network says what Hallo says.

Metadata of our file: ``architecture`` ("hallo_base"), ``format``, ``config`` (JSON of HalloConfig), ``licence``,
``sources`` (JSON: ``name`` and content ``hash`` of the files it was made of, by their part: ``net``, ``autoencoder``).
It holds no experts.

Raises ``CheckpointError`` naming the file and one offending key; nothing is ever loaded partially.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from ..networks.config import HalloConfig
from ..networks.motion import temporal_positions
from ..ops import DEFAULT_BUILD, Build
from ..systems.hallo import HalloSystem
from .checkpoint import check_keys, config_from_dict, read_header, read_tensors, state_hash, write_state
from .fresh import fresh_state
from .key_map import AUTOENCODER, AUTOENCODER_BEFORE_2023, BACKBONE, POSITIONS, POSITIONS_LENGTH, KeyMap
from .tables import read_table

ARCHITECTURE = "hallo_base"
FORMAT = "1"
LICENCE = "Hallo: MIT; Stable Diffusion 1.5, which it was trained from: CreativeML OpenRAIL-M"
PARTS = {
    "reference_net": KeyMap(rows=BACKBONE, prefix="reference_unet."),
    "denoiser": KeyMap(rows=BACKBONE, prefix="denoising_unet."),
    "face_locator": KeyMap(prefix="face_locator."),
    "identity_projector": KeyMap(prefix="imageproj."),
    "audio_projector": KeyMap(prefix="audioproj."),
}
"""Our networks and where they are in net.pth."""
HALLO = HalloConfig()
"""The published size."""
POSITIONS_TOLERANCE = 5e-3
"""What storing a number up to 1 in half precision, or in bfloat16, may change."""

Shapes = dict[str, tuple[int, ...]]


def base_shapes(config: HalloConfig = HALLO, name: str = "the settings given") -> tuple[Shapes, Shapes]:
    """Our names and shapes of what published files bring, and of what they do not (MoEE's experts and
    Emotion-to-Latents). ``name`` says in an error where the configuration is from."""
    try:
        shapes = dict(_shapes(config))
    except (ArithmeticError, RuntimeError, TypeError, ValueError) as error:  # sizes that no network can have
        raise CheckpointError(
            f"{name}: no Hallo network can be built from this configuration: {quote(error, 160)}; take the published "
            "sizes, or a file that was converted with its own"
        ) from error
    ours = {key: shape for key, shape in shapes.items() if ".emotion." in key or key.startswith("emotion_to_latents.")}
    return {key: shape for key, shape in shapes.items() if key not in ours}, ours


@functools.lru_cache(maxsize=2)
def _shapes(config: HalloConfig) -> tuple[tuple[str, tuple[int, ...]], ...]:
    state = HalloSystem(config, Build(device="meta")).state_dict()
    return tuple((key, tuple(value.shape)) for key, value in state.items())


def read_net(path: str | Path, config: HalloConfig = HALLO) -> dict[str, Tensor]:
    """The weights of net.pth by our names."""
    names: dict[str, str] = {}
    expected: Shapes = {}
    for ours, shape in base_shapes(config)[0].items():
        part, inside = ours.split(".", 1)
        if part in PARTS:
            names[ours] = PARTS[part].theirs(inside)
            expected[names[ours]] = shape
    tables = position_tables(expected)
    found = checked_table(path, expected | tables)
    check_positions(Path(path).name, {key: found[key] for key in tables})
    return {ours: found[theirs] for ours, theirs in names.items()}


def read_autoencoder(path: str | Path, config: HalloConfig = HALLO) -> dict[str, Tensor]:
    """The weights of Stable Diffusion's autoencoder, a file in diffusers' layout, by our names.

    SDXL's has the same names and shapes, so it cannot be told apart and is taken; its latents mean something else to
    the networks, and the pictures will be wrong.
    """
    ours = {key: shape for key, shape in base_shapes(config)[0].items() if key.startswith("autoencoder.")}
    found = read_table(path)
    before = any(key.endswith(".query.weight") for key in found)
    names = KeyMap(rows=AUTOENCODER_BEFORE_2023 if before else AUTOENCODER)
    theirs = {key: names.theirs(key.removeprefix("autoencoder.")) for key in ours}
    expected = {theirs[key]: shape for key, shape in ours.items()}
    check_keys(Path(path).name, expected, {key: tuple(value.shape) for key, value in found.items()})
    check_floating(Path(path).name, found)
    return {key: found[theirs[key]] for key in ours}


def load_hallo(
    net: str | Path, autoencoder: str | Path, config: HalloConfig = HALLO, build: Build = DEFAULT_BUILD
) -> HalloSystem:
    """The published files as a system with silent experts, in float32 unless ``build.dtype`` says otherwise, in eval
    mode."""
    return assembled(config, build, read_net(net, config) | read_autoencoder(autoencoder, config))


def convert_hallo(
    net: str | Path,
    autoencoder: str | Path,
    path: str | Path,
    *,
    config: HalloConfig = HALLO,
    dtype: torch.dtype = torch.float16,
) -> None:
    """Write the published files as one of ours, atomically."""
    parts = {"net": (net, read_net(net, config)), "autoencoder": (autoencoder, read_autoencoder(autoencoder, config))}
    state = {key: value for _, one in parts.values() for key, value in one.items()}
    # what each reader checked is a part; that the parts are the whole is this function's own promise
    check_keys(Path(path).name, base_shapes(config)[0], {key: tuple(value.shape) for key, value in state.items()})
    sources = {role: {"name": Path(file).name, "hash": state_hash(one)} for role, (file, one) in parts.items()}
    write_state(path, ARCHITECTURE, FORMAT, state, config, {"licence": LICENCE, "sources": json.dumps(sources)}, dtype)


def inspect_hallo_base(path: str | Path) -> tuple[HalloConfig, dict[str, str]]:
    """Configuration and metadata of a file of ``convert_hallo``, whose tensors are those of its configuration."""
    path = Path(path)
    header, metadata = read_header(path)
    if metadata.get("architecture") != ARCHITECTURE or metadata.get("format") != FORMAT:
        found = f"{metadata.get('architecture', 'none stated')}, format {metadata.get('format', 'none')}"
        raise CheckpointError(f"{path.name} is not a Hallo base of format {FORMAT} (found {quote(found, 60)})")
    try:
        config = config_from_dict(HalloConfig, json.loads(metadata["config"]))
        shapes = {key: tuple(entry["shape"]) for key, entry in header.items()}
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path.name}: its metadata cannot be used: {quote(error, 160)}") from error
    check_keys(path.name, base_shapes(config, path.name)[0], shapes)
    return config, metadata


def load_hallo_base(path: str | Path, build: Build = DEFAULT_BUILD) -> tuple[HalloSystem, dict[str, str]]:
    """A file of ``convert_hallo``, and its metadata."""
    config, metadata = inspect_hallo_base(path)
    return assembled(config, build, read_tensors(path)), metadata


def load_base_parts(path: str | Path) -> tuple[dict[str, dict[str, Tensor]], HalloConfig, str]:
    """The weights by network, for a host that builds and places each network itself, {"denoiser": {key: tensor}, ...};
    the configuration; and a short name of the content. What the file does not bring starts as ``fresh`` says, in the
    type of the file."""
    config, _ = inspect_hallo_base(path)
    state = read_tensors(path)
    like = state[min(state)].dtype
    state |= {key: value.to(like) for key, value in fresh_state(base_shapes(config)[1]).items()}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        part, inside = key.split(".", 1)
        parts.setdefault(part, {})[inside] = value
    return parts, config, base_content(path)


def base_content(path: str | Path) -> str:
    """A short name of what a base's file holds: that of its sources and of its type, by which experts know the base
    that they were trained on. Hashing gigabytes would take longer than loading them."""
    header, metadata = read_header(Path(path))
    stored = header[min(header)]["dtype"]
    return hashlib.sha256(f"{metadata['config']} {metadata.get('sources')} {stored}".encode()).hexdigest()[:16]


def assembled(config: HalloConfig, build: Build, state: Mapping[str, Tensor]) -> HalloSystem:
    """A system of these weights; what they lack, which are the experts at least, starts as ``fresh`` says."""
    known, experts = base_shapes(config)
    lacking = {key: shape for key, shape in (known | experts).items() if key not in state}
    system = HalloSystem(config, build)
    unknown = system.load_state_dict(dict(state), strict=False).unexpected_keys  # casts tensor by tensor
    if unknown:
        raise CheckpointError(
            f"{quote(unknown[0], 80)} is no weight of a Hallo network, nor are {len(unknown) - 1} more"
        )
    places = system.state_dict()
    for key, shape in lacking.items():  # so that there is never more than one of them beside the system's own
        places[key].copy_(fresh_state({key: shape})[key])
    return system.eval().requires_grad_(False)


def checked_table(path: str | Path, expected: Shapes) -> dict[str, Tensor]:
    """A file's tensors, which are exactly those expected."""
    found = read_table(path)
    check_keys(Path(path).name, expected, {key: tuple(value.shape) for key, value in found.items()})
    check_floating(Path(path).name, found)
    return found


def check_floating(name: str, found: Mapping[str, Tensor]) -> None:
    """Raises ``CheckpointError`` where weights are whole numbers, which mean nothing without their scales."""
    for key, value in found.items():
        if not value.is_floating_point():
            raise CheckpointError(
                f"{name}: {key!r} is of type {str(value.dtype).removeprefix('torch.')}, a weight has to be a floating "
                "point number; take the file that was not quantised"
            )


def position_tables(expected: Shapes) -> Shapes:
    """Names and shapes of the tables of time positions that stand with the temporal attentions among the names."""
    query = "to_q.weight"
    return {
        key.removesuffix(query) + POSITIONS: (1, POSITIONS_LENGTH, shape[1])
        for key, shape in expected.items()
        if ".attention_blocks." in key and key.endswith(query)
    }


def check_positions(name: str, tables: Mapping[str, Tensor]) -> None:
    """Raises ``CheckpointError`` unless every table holds the sinusoids that the network works out for itself."""
    for key, table in tables.items():
        expected = temporal_positions(POSITIONS_LENGTH, table.shape[-1], torch.zeros((), dtype=torch.float32))
        largest = float((table[0].float() - expected).abs().max())
        if not largest <= POSITIONS_TOLERANCE:  # so that no number at all is refused too
            raise CheckpointError(
                f"{name}: {key!r} does not hold the sinusoids of AnimateDiff's second version, it deviates by up to "
                f"{largest:.3g} ({POSITIONS_TOLERANCE:g} is allowed); take Hallo's own net.pth, or mm_sd_v15_v2"
            )
