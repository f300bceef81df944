"""What an object holds, as parts for ``jobs.fingerprint``: the same in another process, another where it would act
differently.

A host lets anybody hang functions and objects on a model that shape its frames: wrappers, patches of attention, caches.
They are told by where their code stands, the code itself, and all that they carry: defaults, closures, bound objects,
attributes. What a function takes from its module's globals is not looked at.

Raises ``ContentsError`` for what cannot be told so: whoever asks must then take it for another one every time.
"""

from __future__ import annotations

import enum
import functools
import types
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .errors import MoEEError

MOST_PARTS, DEEPEST = 100_000, 60
"""Beyond that an object leads into the whole program, and says nothing of its own."""
MOST_NUMBERS = 1 << 24
"""Of a network that hangs on another: reading more of them takes longer than it is worth."""
_HEAP_TYPE = 1 << 9  # of CPython's type flags: a class that was made by Python code

Known = Callable[[Any], "Iterable[object] | None"]
"""What stands for an object in place of its contents; None where those are to be read."""


class ContentsError(MoEEError, ValueError):
    """An object cannot be told by what it holds."""


def contents(value: object, known: Known | None = None) -> list[object]:
    """Tensors, arrays, numbers and texts. An object that is met again is told by its number."""
    return list(_Reader(known or (lambda _value: None)).parts(value, 0))


class _Reader:
    def __init__(self, known: Known):
        self.known = known
        self.met: dict[int, tuple[int, object]] = {}  # held, so that nothing else gets its number
        self.count = 0

    def parts(self, value: Any, depth: int) -> Iterator[object]:
        self.count += 1
        if self.count > MOST_PARTS or depth > DEEPEST:
            raise ContentsError(
                f"a {_name(type(value))} leads to more than {MOST_PARTS} parts, or deeper than {DEEPEST}"
            )
        if value is None or isinstance(value, bool | int | float | complex | str | bytes | torch.dtype | torch.device):
            yield _name(value) if isinstance(value, enum.Enum) else value
        elif isinstance(value, uuid.UUID):
            yield "id"  # drawn anew for the same thing
        elif isinstance(value, enum.Enum | PurePath):
            yield str(value)
        elif isinstance(value, type | types.ModuleType):
            yield _name(value)
        elif id(value) in self.met:
            yield "again", self.met[id(value)][0]
        else:
            self.met[id(value)] = len(self.met), value
            stands = self.known(value)
            yield from self._held(value, depth) if stands is None else self._row(stands, depth)

    def _row(self, values: Iterable[object], depth: int) -> Iterator[object]:
        for value in values:
            yield from self.parts(value, depth + 1)

    def _held(self, value: Any, depth: int) -> Iterator[object]:
        if isinstance(value, Tensor):
            yield str(value.dtype)
            yield value
            return
        yield _name(type(value))
        if isinstance(value, np.ndarray | np.generic):
            if value.dtype.hasobject:
                raise ContentsError("an array of Python objects cannot be told from another")
            yield np.asarray(value)
        elif isinstance(value, Mapping):
            yield len(value)
            yield from self._row((part for pair in value.items() for part in pair), depth)
        elif isinstance(value, list | tuple):
            yield len(value)
            yield from self._row(value, depth)
        elif isinstance(value, set | frozenset):
            if not all(isinstance(one, int | float | str | bytes) for one in value):
                raise ContentsError("a set of objects has no order to be told by")
            yield sorted(map(repr, value))
        elif isinstance(value, functools.partial):
            yield from self._row((value.func, value.args, value.keywords), depth)
        elif isinstance(value, types.MethodType):
            yield from self._row((value.__func__, value.__self__), depth)
        elif isinstance(value, types.FunctionType):
            yield from self._function(value, depth)
        elif isinstance(value, types.BuiltinFunctionType):
            yield _name(value)
            yield from self.parts(value.__self__, depth + 1)
        elif isinstance(value, nn.Module):
            yield from self._module(value, depth)
        else:
            yield from self._attributes(value, depth)

    def _function(self, value: types.FunctionType, depth: int) -> Iterator[object]:
        yield _name(value)
        yield from _code(value.__code__)
        cells = []
        for cell in value.__closure__ or ():
            try:
                cells.append(cell.cell_contents)
            except ValueError:  # a name that the function around it has not bound yet
                cells.append("unbound")
        yield from self._row((value.__defaults__, value.__kwdefaults__, cells, vars(value)), depth)

    def _module(self, value: nn.Module, depth: int) -> Iterator[object]:
        tensors = [*value.named_parameters(), *value.named_buffers()]
        if sum(one.numel() for _, one in tensors) > MOST_NUMBERS:
            raise ContentsError(f"a {_name(type(value))} has too many weights to be read for this")
        for name, one in value.named_modules():
            if one._forward_hooks or one._forward_pre_hooks:
                raise ContentsError(f"a {_name(type(one))} has hooks")
            yield name, _name(type(one))
            yield from self._row(
                (part for pair in vars(one).items() if not pair[0].startswith("_") for part in pair), depth
            )
        for name, one in tensors:
            yield name
            yield from self.parts(one, depth + 1)

    def _attributes(self, value: Any, depth: int) -> Iterator[object]:
        kinds = type(value).__mro__[:-1]
        slots = [name for kind in kinds for name in _slots(kind)]
        own = all(kind.__flags__ & _HEAP_TYPE for kind in kinds)
        if not kinds or not own or not (hasattr(value, "__dict__") or slots):
            raise ContentsError(f"a {_name(type(value))} does not show what it holds")
        held = {
            **getattr(value, "__dict__", {}),
            **{name: getattr(value, name) for name in slots if hasattr(value, name)},
        }
        yield from self._row((part for pair in sorted(held.items()) for part in pair), depth)


def _name(value: Any) -> str:
    """Where a type, a function, a module or a member stands."""
    if isinstance(value, enum.Enum):
        return f"{_name(type(value))}.{value.name}"
    return (
        f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', None) or getattr(value, '__name__', '')}"
    )


def _code(code: types.CodeType) -> Iterator[object]:
    yield code.co_code
    yield code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        elif not isinstance(constant, frozenset):  # whose order changes from process to process
            yield constant


def _slots(kind: type) -> tuple[str, ...]:
    found = kind.__dict__.get("__slots__", ())
    found = (found,) if isinstance(found, str) else tuple(found)
    return tuple(name for name in found if name not in ("__dict__", "__weakref__"))
