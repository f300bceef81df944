"""An emotion expert as a small file, shared like a LoRA: what one expert learned beyond the model it was trained from.

Keys are those of the denoiser with the expert's number left out (``….emotion.expert.to_q.weight``), values the
difference to the base model's expert. So a strength scales it, and several can be added up. Metadata:
``architecture`` ("moee-expert"), ``format``, ``emotion`` (which of the six it serves), ``base`` (hash of the
denoiser it belongs to), ``licence``, ``data_licence``, and whatever the author adds. An expert of the author's own,
beside the six, has an ``emotion`` that begins with @ and whole weights (``own.py``). Of that we read, all optional:
``name``, ``author``, ``note``, ``parts`` (JSON list: what was added up), ``preview`` (a JPEG as base64, at most 64 KB,
no side above 256 pixels) and ``evaluation`` (a JSON object of at most 8 KB: how it was measured). A preview or
evaluation that cannot be used is an error where it is asked for, never a reason not to load the expert.

Raises ``CheckpointError`` for a file of another kind and for a base model it does not fit.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..emotion.vocabulary import EXPERTS, OWN, own_name, quote
from ..errors import CheckpointError, EmotionError

ARCHITECTURE = "moee-expert"
TOKENS = "tokens"
OWN_PART = ".emotion.own."
"""In the keys of an expert beside the six."""
FORMAT = "1"
MAX_HEADER = 2 * 2**20  # bytes; that of an expert with everything in it is a tenth of this
MAX_METADATA = 2**20  # bytes, when writing
MAX_PREVIEW = 64 * 2**10  # bytes of JPEG
MAX_PREVIEW_SIDE = 256  # pixels
MAX_CARD = 8 * 2**10  # bytes of JSON
MAX_CARD_DEPTH = 8
MAX_WEIGHT = 2.0
PREVIEW_QUALITIES = (88, 75, 60, 40, 20)  # of 100; the first that fits
# A JPEG's frame header, by marker: C0..CF but for tables (C4, CC) and an extension (C8).
JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length


@dataclass(frozen=True, kw_only=True)
class ExpertFile:
    """``deltas``: denoiser key with ``.expert.`` -> difference to the base model, or, of an expert of the author's
    own, its weights. ``file``: its name, for messages."""

    emotion: str
    base: str
    deltas: dict[str, Tensor]
    metadata: dict[str, str]
    file: str = ""

    @property
    def own(self) -> bool:
        """Whether it stands beside the six, rather than changing one of them."""
        return self.emotion.startswith(OWN)

    def for_denoiser(self, emotion: str | None = None) -> dict[str, Tensor]:
        """The differences under the denoiser's own keys, for the file's emotion or another one."""
        index = _index(emotion or self.emotion)
        return {key.replace(".expert.", f".experts.{index}."): value for key, value in self.deltas.items()}

    def preview(self) -> bytes | None:
        """The JPEG of its preview, safe to decode (no side above 256 pixels), or None."""
        text = self.metadata.get("preview")
        if text is None:
            return None
        where = f"{self.title}: its preview"
        if len(text) > 4 * (MAX_PREVIEW // 3 + 1):
            raise CheckpointError(f"{where} has {len(text)} characters, at most {MAX_PREVIEW // 1024} KB are allowed")
        try:
            data = base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError) as error:
            raise CheckpointError(f"{where} is not base64 ({error}); ask its author for the file again") from error
        size = _jpeg_size(data)
        if size is None or len(data) > MAX_PREVIEW:
            raise CheckpointError(f"{where} is not a whole JPEG of at most {MAX_PREVIEW // 1024} KB")
        if not 1 <= min(size) <= max(size) <= MAX_PREVIEW_SIDE:
            raise CheckpointError(f"{where} is {size[0]}x{size[1]} pixels, allowed are 1 to {MAX_PREVIEW_SIDE}")
        return data

    def card(self) -> dict[str, Any]:
        """Its evaluation card, {} without one."""
        text = self.metadata.get("evaluation")
        return {} if text is None else parse_card(text, f"{self.title}: its evaluation card")

    @property
    def title(self) -> str:
        return self.file or f"the expert for {quote(self.emotion)}"


def _index(emotion: str) -> int:
    if emotion not in EXPERTS:
        raise CheckpointError(f"there is no expert for {quote(emotion)}; choose one of {', '.join(EXPERTS)}")
    return EXPERTS.index(emotion)


def portable(values: Mapping[str, Tensor], emotion: str) -> dict[str, Tensor]:
    """From the denoiser's keys to a file's: those of the expert for ``emotion``, without its number."""
    part = f".emotion.experts.{_index(emotion)}."
    return {key.replace(part, ".emotion.expert."): value for key, value in values.items() if part in key}


def expert_deltas(tuned: dict[str, Tensor], base: dict[str, Tensor], emotion: str) -> dict[str, Tensor]:
    """What the expert of ``emotion`` learned between two states of a denoiser."""
    before, found = portable(base, emotion), {}
    for key, value in portable(tuned, emotion).items():
        if key not in before or before[key].shape != value.shape:
            whole = key.replace(".expert.", f".experts.{_index(emotion)}.")
            raise CheckpointError(f"the two models differ in {whole!r}; take both from the same family")
        found[key] = value.float() - before[key].float()
    return found


def combined(
    experts: Sequence[tuple[ExpertFile, float]], base: str, shapes: Mapping[str, tuple[int, ...]]
) -> dict[str, Tensor]:
    """What several experts with their weights add to one denoiser: its keys -> float32 sums.

    ``base`` and ``shapes`` are the denoiser's hash and parameters. Every expert is checked against them, every weight
    against -2..2; a sum with infinite or undefined numbers is refused.
    """
    total: dict[str, Tensor] = {}
    for expert, weight in experts:
        check_adds_up(expert)
        check_weight(weight, expert.title)
        check_fits(expert, expert.title, base, shapes)
        for key, value in expert.for_denoiser().items():
            part = value.float() * weight
            total[key] = total[key] + part if key in total else part
    for key, value in total.items():
        if not torch.isfinite(value).all():
            names = ", ".join(expert.title for expert, _ in experts)
            raise CheckpointError(f"the sum has numbers that are not finite in {key!r}; one is damaged: {names}")
    return total


def check_adds_up(expert: ExpertFile) -> None:
    """Raise ``CheckpointError`` for one that stands beside the six: it is no difference to any of them."""
    if expert.own:
        raise CheckpointError(
            f"{expert.title} is an expert of its own ({quote(expert.emotion)}) and changes none of the six; load "
            "it beside them instead of adding it up"
        )


def check_weight(weight: float, name: str) -> None:
    """Raise ``ValueError`` unless an expert may be added with this weight."""
    if not (math.isfinite(weight) and abs(weight) <= MAX_WEIGHT):
        raise ValueError(
            f"{name}: its weight must be a number from -{MAX_WEIGHT:g} to {MAX_WEIGHT:g}, got {weight:g}: it was "
            "trained at 1, and the network has never seen what lies beyond twice that (Load Emotion Expert ends there "
            "too)"
        )


def save_expert(
    path: str | Path, emotion: str, base: str, deltas: dict[str, Tensor], metadata: dict[str, str] | None = None
) -> None:
    """Write atomically, in half precision. Raises ``CheckpointError`` for numbers that it cannot hold."""
    header = {
        "licence": "unstated",
        "data_licence": "unstated",
        **(metadata or {}),
        "architecture": ARCHITECTURE,
        "format": FORMAT,
        "emotion": emotion,
        "base": base,
    }
    size = sum(len(json.dumps(key)) + len(json.dumps(value)) for key, value in header.items())
    if size > MAX_METADATA:
        longest = max(header, key=lambda key: len(header[key]))
        raise CheckpointError(
            f"{Path(path).name}: {size} bytes of metadata, at most {MAX_METADATA} are read; shorten {quote(longest)}"
        )
    write_tensors(path, {key: value.half() for key, value in deltas.items()}, header)


def write_tensors(path: str | Path, state: Mapping[str, Tensor], header: dict[str, str]) -> None:
    """A safetensors file, whole or not at all: a reader sees the old one or the new one."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    path = Path(path)
    for key, value in state.items():
        if value.is_floating_point() and not torch.isfinite(value.float()).all():
            raise CheckpointError(
                f"{path.name} is not written: {key!r} has numbers that are infinite, undefined or too large for "
                f"{str(value.dtype).removeprefix('torch.')}"
            )
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the user's umask gives; some safetensors releases make it private
        save_file({key: value.contiguous() for key, value in state.items()}, str(temporary), metadata=header)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CheckpointError(
            f"{path.name} cannot be written ({quote(reason, 120)}); check the folder and the free space"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def load_expert(path: str | Path) -> ExpertFile:
    """Read and check an expert's file."""
    from ..weights.checkpoint import read_tensors

    _, metadata = _checked_header(path)
    return ExpertFile(
        emotion=metadata["emotion"],
        base=metadata.get("base", ""),
        deltas=read_tensors(path),
        metadata=metadata,
        file=Path(path).name,
    )


def inspect_expert(path: str | Path) -> ExpertFile:
    """As ``load_expert``, without reading the weights: ``deltas`` have shapes and no values (device "meta")."""
    from safetensors import SafetensorError, safe_open

    name = Path(path).name
    tensors, metadata = _checked_header(path)
    try:
        with safe_open(str(path), framework="pt"):  # the library's own checks of types, shapes and places
            pass
        deltas = {key: torch.empty(entry["shape"], device="meta") for key, entry in tensors.items()}
    except (SafetensorError, LookupError, OverflowError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{name} is damaged: {quote(error, 120)}; copy or download it again") from error
    return ExpertFile(
        emotion=metadata["emotion"], base=metadata.get("base", ""), deltas=deltas, metadata=metadata, file=name
    )


def _checked_header(path: str | Path) -> tuple[dict[str, Any], dict[str, str]]:
    """(tensors, metadata) of a file that is an expert's by all that its header says."""
    from ..weights.checkpoint import read_header

    path = Path(path)
    name = path.name
    _limit_header(path)
    try:
        tensors, metadata = read_header(path)
    except CheckpointError:
        raise
    except ValueError as error:  # a number of thousands of digits, metadata that are no table
        raise CheckpointError(f"{name} is not a safetensors file: {quote(error, 120)}") from error
    if not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"{name} is not a safetensors file: its metadata are not texts")
    if metadata.get("architecture") != ARCHITECTURE:
        what = quote(metadata.get("architecture", "none stated"))
        raise CheckpointError(f"{name} is not an emotion expert (architecture {what})")
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{name} has format {quote(metadata.get('format', 'none'))}, this version reads {FORMAT}")
    emotion = metadata.get("emotion", "nothing")
    own = _is_own(emotion)
    if not own and emotion not in EXPERTS:
        raise CheckpointError(
            f"{name} serves {quote(emotion)}; known: {', '.join(EXPERTS)}, and names of one's own such as @smug"
        )
    belongs = (lambda key: key == TOKENS or OWN_PART in key) if own else (lambda key: ".emotion.expert." in key)
    if not tensors or not all(belongs(key) for key in tensors):
        raise CheckpointError(f"{name} holds no expert's weights; it is damaged or was renamed")
    return tensors, metadata


def _is_own(emotion: str) -> bool:
    """Whether it is the name, as it must be written, of an expert of somebody's own."""
    try:
        return emotion.startswith(OWN) and own_name(emotion) == emotion
    except EmotionError:
        return False


def _limit_header(path: Path) -> None:
    """Raise for a header too large for an expert's before any of it is parsed."""
    try:
        if not path.is_file():
            return  # read_header has the words for it
        with path.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
        fits_file = length <= path.stat().st_size - 8
    except OSError:
        return
    if fits_file and length > MAX_HEADER:
        raise CheckpointError(
            f"{path.name} is not an emotion expert: its header has {length} bytes, an expert's at most {MAX_HEADER}"
        )


def check_fits(expert: ExpertFile, name: str, base: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise unless the expert belongs to the denoiser with hash ``base`` and these parameter shapes."""
    if expert.base != base:
        raise CheckpointError(
            f"{name} was trained from another model (base {quote(expert.base or 'unknown')}, this one is "
            f"{quote(base)}); load the checkpoint its author names"
        )
    if expert.own:
        _check_own(expert, name, shapes)
        return
    for key, value in expert.for_denoiser().items():
        if shapes.get(key) != value.shape:
            raise CheckpointError(f"{name}: {key!r} is {tuple(value.shape)}, this model has {shapes.get(key)}")


def _check_own(expert: ExpertFile, name: str, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise unless an expert of its own has weights for every site of the denoiser, and tokens."""
    first = ".emotion.experts.0."
    wanted: dict[str, tuple[int, ...]] = {}
    width = 0
    for key, shape in shapes.items():
        if first not in key:
            continue
        site, tail = key.split(first)
        wanted[f"{site}{OWN_PART}attention.{tail}"] = tuple(shape)
        if tail == "to_k.weight":
            width, channels = shape[1], shape[0]
            wanted |= {f"{site}{OWN_PART}norm.{part}": (channels,) for part in ("weight", "bias")}
            wanted |= {f"{site}{OWN_PART}gate.weight": (1, channels), f"{site}{OWN_PART}gate.bias": (1,)}
    found = {key: tuple(value.shape) for key, value in expert.deltas.items()}
    tokens = found.pop(TOKENS, ())
    if len(tokens) != 2 or tokens[0] < 2 or tokens[0] % 2 or tokens[1] != width:
        raise CheckpointError(f"{name}: {TOKENS!r} is {tokens}, this model needs an even number of rows of {width}")
    for key in sorted(wanted.keys() | found.keys()):
        if wanted.get(key) != found.get(key):
            raise CheckpointError(f"{name}: {quote(key, 80)} is {found.get(key)}, this model has {wanted.get(key)}")


def preview_text(picture: str | Path) -> str:
    """A picture as the metadata ``preview``: JPEG, longest side at most 256, base64. ``MediaError`` if it is none."""
    import cv2
    import numpy as np

    from ..portrait.image import read_portrait

    pixels_HW3 = read_portrait(picture)
    height, width = pixels_HW3.shape[:2]
    factor = MAX_PREVIEW_SIDE / max(height, width)
    if factor < 1:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        pixels_HW3 = cv2.resize(pixels_HW3, size, interpolation=cv2.INTER_AREA)
    for quality in PREVIEW_QUALITIES:
        done, data = cv2.imencode(
            ".jpg", np.ascontiguousarray(pixels_HW3[:, :, ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
        if done and data.size <= MAX_PREVIEW:
            return base64.b64encode(data.tobytes()).decode("ascii")
    raise CheckpointError(f"the preview {quote(Path(picture).name)} cannot be made small enough; give another picture")


def card_text(card: Mapping[str, Any], name: str = "the evaluation card") -> str:
    """An evaluation card as the metadata ``evaluation``. Raises ``CheckpointError`` for what no reader would take."""
    try:
        text = json.dumps(card, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(f"{name} cannot be written as JSON: {quote(error, 120)}") from error
    parse_card(text, name)
    return text


def parse_card(text: str, name: str) -> dict[str, Any]:
    """An evaluation card from its JSON; ``name`` says in messages what and where it is."""
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_CARD:
        raise CheckpointError(f"{name} has {size} bytes, at most {MAX_CARD} are allowed; keep only the figures")
    try:
        card = json.loads(text, parse_float=_finite, parse_constant=_finite)
    except (ValueError, RecursionError) as error:
        reason = quote(error, 120)
        raise CheckpointError(f"{name} is not JSON: {reason}; write an object of names and values") from error
    if not isinstance(card, dict):
        raise CheckpointError(f'{name} is not a JSON object but {quote(text, 20)}; write {{"people": 50, ...}}')
    if _deeper_than(MAX_CARD_DEPTH, card):
        raise CheckpointError(f"{name} is nested more than {MAX_CARD_DEPTH} levels deep; keep only the figures")
    return card


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def _deeper_than(levels: int, value: Any) -> bool:
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return inside is not None and (levels == 0 or any(_deeper_than(levels - 1, one) for one in inside))


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that a JPEG's header states, or None when it is no JPEG with a beginning and an end."""
    if data[:3] != b"\xff\xd8\xff" or data[-2:] != b"\xff\xd9":
        return None
    place = 2
    while place + 9 <= len(data) and data[place] == 0xFF:
        marker = data[place + 1]
        if marker == 0xFF or marker in JPEG_BARE:  # a fill byte, or a marker that stands alone
            place += 1 if marker == 0xFF else 2
        elif marker in JPEG_FRAMES:  # length 2, precision 1, height 2, width 2
            height, width = (int.from_bytes(data[at : at + 2], "big") for at in (place + 5, place + 7))
            return width, height
        else:
            place += 2 + max(2, int.from_bytes(data[place + 2 : place + 4], "big"))
    return None
