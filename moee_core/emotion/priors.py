"""Emotion priors: what DICE-Talk's bank is asked with, one per emotion, their blends and their course over time.

Shapes (legend for this file):
    P prior width (256 in the published files), F frames, L labels
    prior_P float32; a track of them (F, P) float32

Of weights w of the emotions other than neutral, which a blend or a timeline gives, the prior is

    prior = neutral + sum_e w_e (mean_e - neutral)          ours
          = neutral + intensity (mix - neutral)             intensity = sum_e w_e, mix = sum_e w_e mean_e / intensity

a line from the neutral prior to the mix, which goes on behind it where the intensity is above 1. The authors ask with
one prior for a whole clip, and show that what lies between two priors changes the face smoothly (Tan et al. 2025,
figure 4). Only means are used; a deviation is for who wants to draw around them. ``@name`` in a blend is a prior of
one's own.

Files: ``NAME.npy`` as the authors publish them, a pickled dictionary {"mu": (1, P)}, whose pickle is read here and
never run: only what describes NumPy arrays is understood, anything else refused. Plain float arrays (P,) or (1, P) as
``.npy``. And our own ``.safetensors``: ``mean`` and perhaps ``deviation``, with ``about`` and ``licence`` in the
metadata.

Raises ``CheckpointError`` for files, ``EmotionError`` for an emotion whose prior is not there or that a prior cannot
say, ``ValueError`` for numbers that are no prior.
"""

from __future__ import annotations

import io
import math
import os
import pickletools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import CheckpointError, EmotionError
from .condition import EMOTIONS, EmotionCondition
from .source import EmotionSource, as_source
from .timeline import EmotionTimeline
from .vocabulary import COMPOUNDS, LABELS, NEUTRAL, own_name, quote, resolve_label

ARCHITECTURE = "emotion_prior"
PUBLISHED_LICENCE = "DICE-Talk: CC BY-NC-SA 4.0, non-commercial"
NOT_STATED = "not stated"
MAX_BYTES = 1 << 18
"""A prior is a few kilobytes; what is larger is something else."""
MAGIC = b"\x93NUMPY"
_ROUNDING = 1e-6  # weights in float32 that add up to 1 miss it by less

Rows = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prior:
    """``mean`` (P,) and, where it is known, ``deviation`` (P,); ``about`` says where it is from."""

    mean: Rows
    deviation: Rows | None = None
    about: str = ""
    licence: str = NOT_STATED

    def __post_init__(self) -> None:
        for name in ("mean", "deviation"):
            value = getattr(self, name)
            if value is None:
                continue
            found = np.asarray(value)
            if found.dtype.kind != "f" or found.ndim not in (1, 2) or not found.size or found.size != found.shape[-1]:
                raise ValueError(
                    f"the {name} of a prior is (P,) or (1, P) floating point numbers, got {found.shape} {found.dtype}"
                )
            with np.errstate(over="ignore"):  # what float32 cannot hold is refused just below
                found = found.reshape(-1).astype(np.float32)
            if not np.isfinite(found).all() or (name == "deviation" and found.min() < 0):
                raise ValueError(f"the {name} of a prior holds {found.min():.3g} to {found.max():.3g}, which is none")
            object.__setattr__(self, name, found)
        if self.deviation is not None and self.deviation.shape != self.mean.shape:
            raise ValueError(f"a prior's mean has {self.mean.size} numbers, its deviation {self.deviation.size}")

    @property
    def width(self) -> int:
        return len(self.mean)


# blends


def blend_priors(weights: Mapping[str, float], known: Mapping[str, Prior]) -> Rows:
    """(P,) of a blend, {"happy": 0.6, "surprised": 0.4}: names and weights as ``condition`` has them."""
    condition = EmotionCondition(weights=tuple(weights.items()))
    emotions = dict(zip(EMOTIONS, condition.emotion_weights()[:, None], strict=True))
    return _mixed({**emotions, **{name: np.array([x]) for name, x in condition.own.items()}}, known)[0]


def prior_track(
    emotion: EmotionSource | EmotionTimeline | EmotionCondition,
    known: Mapping[str, Prior],
    frames: int,
    fps: float,
    mood: NDArray[np.float32] | None = None,
) -> Rows:
    """(F, P): the prior of every frame. ``mood`` (F, 16) is needed where the voice itself is asked for its emotion."""
    source = as_source(emotion)
    if source.units is not None:
        raise EmotionError("DICE-Talk has no action units; leave them out, and say the emotion by labels or a text")
    rows = source.rows(frames, fps, mood)
    if rows.units.any():
        raise EmotionError(
            "the text tells parts of the face to move, DICE-Talk has no action units; name feelings alone"
        )
    emotions = dict(zip(EMOTIONS, rows.vectors[:, 1:].T.astype(np.float64), strict=True))
    return _mixed({**emotions, **{name: x.astype(np.float64) for name, x in rows.own.items()}}, known)


def _mixed(weights: Mapping[str, NDArray[np.float64]], known: Mapping[str, Prior]) -> Rows:
    """(F, P) of weights (F,) of everything but neutral, which has what they leave: less than nothing above 1."""
    rest = 1.0 - np.sum(list(weights.values()), axis=0)
    rest = np.where(np.abs(rest) < _ROUNDING, 0.0, rest)
    asked = {name: x for name, x in {NEUTRAL: rest, **weights}.items() if x.any()}
    widths = {name: prior.width for name, prior in known.items()}
    if len(set(widths.values())) > 1:
        low, high = min(widths, key=widths.__getitem__), max(widths, key=widths.__getitem__)
        raise EmotionError(
            f"priors of one network are of one width, {quote(low)} has {widths[low]} numbers and {quote(high)} "
            f"{widths[high]}; take files that were made for the same network"
        )
    lacking = [name for name in asked if name not in known]
    if lacking:
        name = lacking[0].removeprefix("@")
        why = ", from which every emotion that is not at its full strength starts" if name == NEUTRAL else ""
        there = ", ".join(sorted(known)) or "none"
        raise EmotionError(
            f"there is no prior of {quote(lacking[0])}{why} (there are: {there}); put {name}.npy or {name}.safetensors "
            "into the folder of the priors (models/moee/dice_talk/priors in ComfyUI), and run it again"
        )
    if not asked:  # no frame at all
        return np.zeros((len(rest), next(iter(widths.values()), 0)), np.float32)
    total = sum(x[:, None] * known[name].mean.astype(np.float64) for name, x in asked.items())
    return np.asarray(total, np.float32)


# files


def priors_in(folder: str | Path) -> dict[str, Prior]:
    """Label -> prior of the files of a folder, ``angry.npy`` or ``anger.safetensors``. A file that no label names is
    one of one's own, "@smug". Other safetensors are passed over, files whose names begin with a dot, which systems
    leave beside others, and a ``.npy`` beside its twin as safetensors."""
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(
            f"{quote(folder, 120)} is not a folder; give the one with the priors, angry.npy and so on"
        )
    found: dict[str, Prior] = {}
    paths: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if not is_prior(path) or (path.suffix == ".npy" and is_prior(path.with_suffix(".safetensors"))):
            continue
        name = named_prior(path)
        if name in paths:
            raise CheckpointError(
                f"{quote(path.name)} and {quote(paths[name].name)} are both priors of {name}; take one away"
            )
        found[name], paths[name] = read_prior(path), path
    if not found:
        raise CheckpointError(
            f"{quote(folder, 120)} holds no priors; put {', '.join(f'{label}.npy' for label in sorted(LABELS))} there"
        )
    return found


def prior_name(stem: str) -> str:
    """The label that a file's name means, or @name of one's own."""
    try:
        name = resolve_label(stem)
    except EmotionError:
        return own_name(stem)
    return own_name(stem) if name in COMPOUNDS else name


def named_prior(path: str | Path) -> str:
    """``prior_name`` of a file. Raises ``CheckpointError`` for a name that can be neither."""
    path = Path(path)
    try:
        return prior_name(path.stem)
    except EmotionError as error:
        raise CheckpointError(
            f"the name of {quote(path.name)} in {quote(path.parent, 120)} is no label, and cannot be called by @name "
            "(letters, digits and _, beginning with a letter); rename it, angry.npy or my_prior.npy, or take it away"
        ) from error


def is_prior(path: str | Path) -> bool:
    """Whether a file looks like a prior, by its name and what stands at its beginning. A hidden file is none."""
    path = Path(path)
    if path.name.startswith("."):
        return False
    if path.suffix == ".npy" and path.is_file():
        return True
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    from ..weights.checkpoint import read_header

    try:
        header, metadata = read_header(path)
    except CheckpointError:
        return False
    return metadata.get("architecture") == ARCHITECTURE or ("mean" in header and header.keys() <= {"mean", "deviation"})


def read_prior(path: str | Path) -> Prior:
    """A file of one of the kinds above."""
    path = Path(path)
    try:
        if path.suffix == ".safetensors":
            return _from_safetensors(path)
        if path.suffix != ".npy":
            raise CheckpointError(f"{quote(path.name)} is no prior by its name; give a .npy or a .safetensors")
        size = path.stat().st_size
        if size > MAX_BYTES:
            raise CheckpointError(f"{quote(path.name)} is no prior: it has {size} bytes, a prior a few thousand")
        return _from_npy(path.name, path.read_bytes())
    except OSError as error:
        raise CheckpointError(
            f"cannot read the prior {quote(path, 120)}: {error.strerror}; look at the path"
        ) from error
    except CheckpointError:
        raise
    except ValueError as error:  # of ``Prior``
        raise CheckpointError(f"{quote(path.name)} is no prior: {quote(error, 160)}") from error


def write_prior(path: str | Path, prior: Prior) -> None:
    """As safetensors, atomically."""
    from safetensors.numpy import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"a prior is written as .safetensors, got {quote(path.name)}")
    tensors = {"mean": prior.mean} | ({} if prior.deviation is None else {"deviation": prior.deviation})
    metadata = {"architecture": ARCHITECTURE, "format": "1", "about": prior.about, "licence": prior.licence}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(save(tensors, metadata=metadata))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _from_safetensors(path: Path) -> Prior:
    from ..weights.checkpoint import read_header, read_tensors

    header, metadata = read_header(path)
    if "mean" not in header or not header.keys() <= {"mean", "deviation"}:
        raise CheckpointError(
            f"{quote(path.name)} is no prior: it holds {quote(', '.join(sorted(header)), 60)}, a prior 'mean' and "
            "perhaps 'deviation'"
        )
    found = {name: value.float().numpy() for name, value in read_tensors(path).items() if value.is_floating_point()}
    if found.keys() != header.keys():
        raise CheckpointError(f"{quote(path.name)} is no prior: its numbers are not floating point")
    about, licence = metadata.get("about", path.name), metadata.get("licence", NOT_STATED)
    return Prior(mean=found["mean"], deviation=found.get("deviation"), about=about, licence=licence)


def _from_npy(name: str, data: bytes) -> Prior:
    stream = io.BytesIO(data)
    if not data.startswith(MAGIC):
        raise CheckpointError(
            f"{quote(name)} is no .npy, it begins with {data[:12]!r}; a download may have saved a page in its place"
        )
    try:
        version = np.lib.format.read_magic(stream)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, by_columns, dtype = reader(stream)
        rest = data[stream.tell() :]
        plain = not dtype.hasobject
        if plain and len(rest) != dtype.itemsize * math.prod(shape):
            raise ValueError(f"its {len(rest)} bytes do not fill the shape {shape}")
        mean = np.frombuffer(rest, dtype).reshape(shape, order="F" if by_columns else "C") if plain else None
    except Exception as error:  # a damaged header raises whatever its text comes to when it is parsed
        raise CheckpointError(f"{quote(name)} is damaged: {quote(error, 120)}; copy or download it again") from error
    if mean is not None:
        return Prior(mean=mean, about=name)
    if shape != ():
        raise CheckpointError(f"{quote(name)} holds {shape} Python objects, a prior is one; it is not opened")
    entries = _Described(name).dictionary(rest)
    mean, deviation = (entries.get(key) for key in ("mu", "sigma"))
    if mean is None or not entries.keys() <= {"mu", "sigma"}:
        raise CheckpointError(
            f"{quote(name)} holds {quote(', '.join(map(str, entries)) or 'nothing', 60)}, a prior of DICE-Talk 'mu'; "
            "give one of its files, or (P,) numbers"
        )
    return Prior(mean=mean, deviation=deviation, about=name, licence=PUBLISHED_LICENCE)


# the authors' pickles, read and not run


@dataclass(frozen=True)
class _Named:
    """A name that a pickle asks for. It is compared, never looked up."""

    module: str
    name: str


@dataclass(eq=False)
class _Made:
    """What a pickle calls a name with, and hands over behind it."""

    what: str
    arguments: tuple[Any, ...]
    state: tuple[Any, ...] = field(default=())


_CORES = ("numpy.core.", "numpy._core.")  # before NumPy 2, and since
_CALLS = {
    **{_Named(core + "multiarray", "_reconstruct"): "array" for core in _CORES},
    **{_Named(core + "multiarray", "scalar"): "scalar" for core in _CORES},
    **{_Named(core + "numeric", "_frombuffer"): "buffer" for core in _CORES},
    _Named("numpy", "dtype"): "dtype",
    _Named("_codecs", "encode"): "bytes",  # how protocol 2 writes bytes
}
_NAMES = {*_CALLS, _Named("numpy", "ndarray")}
_MARK = object()
_CONSTANTS = {
    *("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES"),
    *("SHORT_BINBYTES", "BYTEARRAY8"),
}
_FIXED = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}


class _Described:
    """The few instructions by which NumPy describes arrays, followed as a description: a stack of values, names that
    are not looked up and calls that are not made. Whatever else a pickle may say is refused."""

    def __init__(self, name: str):
        self.name = name
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def dictionary(self, data: bytes) -> dict[Any, NDArray[Any]]:
        """The arrays of the one dictionary that the described array of objects holds."""
        try:
            end = self._follow(data)
            (outer,) = self.stack
            if end != len(data) or not isinstance(outer, _Made) or outer.what != "array":
                raise ValueError("it describes no array")
            _, shape, kind, _, inside = outer.state
            if shape != () or not _type_of(kind).hasobject or not isinstance(inside[0], dict):
                raise ValueError("it describes no dictionary")
            return {key: _array_of(value) for key, value in inside[0].items()}
        except _RefusedError as error:
            raise CheckpointError(
                f"{quote(self.name)} is not opened: its pickle {error}, which no prior needs; nothing of it was run"
            ) from error
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"{quote(self.name)} is no prior, or damaged: {quote(error, 90)}; copy or download it again"
            ) from error

    def _follow(self, data: bytes) -> int:
        """Its length. pickletools only takes the bytes apart."""
        stack, memo = self.stack, self.memo
        code: Any
        argument: Any
        at: Any
        for code, argument, at in pickletools.genops(data):
            name: str = code.name
            if name in _CONSTANTS:
                stack.append(argument)
            elif name in _FIXED:
                stack.append(_FIXED[name])
            elif name in ("EMPTY_LIST", "EMPTY_DICT"):
                stack.append([] if name == "EMPTY_LIST" else {})
            elif name == "MARK":
                stack.append(_MARK)
            elif name == "MEMOIZE":
                memo[len(memo)] = stack[-1]
            elif name in ("BINPUT", "LONG_BINPUT"):
                memo[argument] = stack[-1]
            elif name in ("BINGET", "LONG_BINGET"):
                stack.append(memo[argument])
            elif name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"):
                stack.append(tuple(self._marked() if name == "TUPLE" else self._last(int(name[-1]))))
            elif name in ("APPEND", "APPENDS"):
                items = self._marked() if name == "APPENDS" else self._last(1)
                cast("list[Any]", stack[-1]).extend(items)
            elif name in ("SETITEM", "SETITEMS"):
                items = self._marked() if name == "SETITEMS" else self._last(2)
                for key, value in zip(items[::2], items[1::2], strict=True):
                    cast("dict[Any, Any]", stack[-1])[_text(key)] = value
            elif name in ("GLOBAL", "STACK_GLOBAL"):
                pair = str(argument).split(" ", 1) if name == "GLOBAL" else self._last(2)
                stack.append(_known(_Named(*map(_text, pair))))
            elif name == "REDUCE":
                called, arguments = self._last(2)
                stack.append(_made(called, arguments))
            elif name == "BUILD":
                (state,) = self._last(1)
                if not isinstance(stack[-1], _Made):
                    raise _RefusedError("changes what is not NumPy's")
                stack[-1].state = tuple(state)
            elif name == "STOP":
                return at + 1
            elif name not in ("PROTO", "FRAME"):
                raise _RefusedError(f"says {name}")
        raise ValueError("it has no end")

    def _last(self, count: int) -> list[Any]:
        if len(self.stack) < count:
            raise ValueError("it takes what is not there")
        taken = self.stack[-count:]
        del self.stack[-count:]
        return taken

    def _marked(self) -> list[Any]:
        taken = []
        while (value := self.stack.pop()) is not _MARK:
            taken.append(value)
        return taken[::-1]


class _RefusedError(Exception):
    """What a pickle says that a description of arrays does not need."""


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a name in it is no text")
    return value


def _known(asked: _Named) -> _Named:
    if asked not in _NAMES:
        raise _RefusedError(f"asks for {quote(f'{asked.module}.{asked.name}', 60)}")
    return asked


def _made(called: Any, arguments: Any) -> Any:
    if not isinstance(called, _Named) or called not in _CALLS or not isinstance(arguments, tuple):
        raise _RefusedError("calls what is not NumPy's")
    what = _CALLS[called]
    if what != "bytes":
        return _Made(what, arguments)
    text, encoding = arguments
    if not isinstance(text, str) or encoding != "latin1":
        raise _RefusedError("encodes a text otherwise than NumPy does")
    return text.encode("latin1")


def _type_of(made: Any) -> np.dtype[Any]:
    """Of numbers or of objects: what NumPy writes for a type, "f4", and behind it the order of its bytes."""
    if not isinstance(made, _Made) or made.what != "dtype" or not isinstance(made.arguments[0], str):
        raise ValueError("a type is described in a way that NumPy does not use")
    code, order = made.arguments[0], _text(made.state[1])
    if code not in ("O8", "f2", "f4", "f8") or order not in ("<", ">", "|", "="):
        raise ValueError(f"numbers of type {order + code!r} are no prior")
    return np.dtype("O" if code == "O8" else order + code)


def _array_of(made: Any) -> NDArray[Any]:
    """The numbers of a described array."""
    if not isinstance(made, _Made) or made.what not in ("array", "buffer"):
        raise ValueError("it holds something else than numbers")
    if made.what == "array":
        _, shape, kind, by_columns, data = made.state
        order = "F" if by_columns else "C"
    else:
        data, kind, shape, order = made.arguments
    dtype = _type_of(kind)
    if dtype.hasobject or not isinstance(data, bytes | bytearray) or order not in ("C", "F"):
        raise ValueError("it holds something else than numbers")
    if not all(isinstance(side, int) and side >= 0 for side in shape) or len(data) != dtype.itemsize * math.prod(shape):
        raise ValueError(f"its {len(data)} bytes do not fill the shape that it states")
    return np.frombuffer(bytes(data), dtype).reshape(shape, order=order)
