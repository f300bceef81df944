"""What hangs on a model is told by what it holds: equal things alike, in another process too, others apart."""

from __future__ import annotations

import functools
import subprocess
import sys
import threading
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from moee_core.contents import ContentsError, contents
from moee_core.jobs import fingerprint

ROOT = Path(__file__).resolve().parents[2]


class Cache:
    def __init__(self, threshold: float, kept: Any = None):
        self.threshold, self._kept = threshold, kept

    def apply(self, x: float) -> float:
        return x * self.threshold


class Slotted:
    __slots__ = ("of",)

    def __init__(self, of: int):
        self.of = of


def wrapper(strength: float, table: Any = None) -> Callable[[float], float]:
    def scaled(x: float) -> float:
        return x * strength if table is None else x

    return scaled


def doubled(x: float) -> float:
    return x * 2


def key(value: object) -> str:
    return fingerprint(contents(value))


PAIRS: dict[str, Callable[[float], Any]] = {
    "a closure": wrapper,
    "a tensor in a closure": lambda x: wrapper(1.0, torch.full((2, 2), x)),
    "an array": lambda x: {"table": np.full(3, x)},
    "an object": Cache,
    "what an object keeps to itself": lambda x: Cache(0.5, [x]),
    "a bound method": lambda x: Cache(x).apply,
    "a partial": lambda x: functools.partial(doubled, x=x),
    "slots": lambda x: Slotted(int(x * 10)),
    "a default": lambda x: _with_default(x),
    "the code": lambda x: wrapper(1.0) if x < 1 else doubled,
    "a network": lambda x: _linear(x),
    "the order": lambda x: [wrapper(x), wrapper(1 - x)],
    "deep inside": lambda x: {"wrappers": {"apply": {None: [functools.partial(Cache(x).apply, x=1.0)]}}},
    "a set of names": lambda x: {"a", "b", str(x)},
}


def _with_default(x: float) -> Callable[[float], float]:
    def chosen(y: float = x) -> float:
        return y

    return chosen


def _linear(x: float) -> nn.Module:
    made = nn.Linear(2, 2)
    with torch.no_grad():
        made.weight.fill_(x)
        made.bias.fill_(0.0)
    return made


@pytest.mark.parametrize("name", PAIRS)
def test_what_is_alike_has_one_key_and_what_is_not_another(name: str):
    make = PAIRS[name]
    assert key(make(0.25)) == key(make(0.25))
    assert key(make(0.25)) != key(make(1.5))


def test_a_module_setting_and_a_type_count():
    first, second = nn.GroupNorm(2, 4, eps=1e-5), nn.GroupNorm(2, 4, eps=1e-3)
    assert key(first) != key(second)
    assert key([1]) != key((1,))
    assert key(torch.ones(2, dtype=torch.float16)) != key(torch.ones(2))


def test_random_ids_and_circles_do_not_matter():
    def ring() -> dict[str, Any]:
        made: dict[str, Any] = {"id": uuid.uuid4(), "of": Cache(0.5)}
        made["self"] = made
        return made

    assert key(ring()) == key(ring())


def test_the_key_is_the_same_in_another_process():
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from moee_core.contents import contents\n"
        "from moee_core.jobs import fingerprint\n"
        "def outer(x):\n"
        "    def inner(y): return y * x if y in {'a', 'b', 'c'} else y\n"
        "    return inner\n"
        "print(fingerprint(contents([outer(2.0), {'a', 'b', 'c', 'd'}])))"
    )
    found = set()
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program, str(ROOT)],
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        found.add(done.stdout)
    assert len(found) == 1


def _endless() -> Any:
    made: Any = None
    for _ in range(200):
        made = [made]
    return made


def _hooked() -> nn.Module:
    made = nn.Linear(1, 1)
    made.register_forward_hook(lambda *_given: None)
    return made


@pytest.mark.parametrize(
    "make",
    [
        lambda: Cache(0.5, threading.Lock()),
        lambda: (x for x in range(3)),
        lambda: {Cache(0.5)},
        lambda: np.array([object()]),
        _endless,
        _hooked,
        lambda: nn.Linear(1 << 13, 1 << 12),
    ],
    ids=["a lock", "a generator", "a set of objects", "an array of objects", "too deep", "hooks", "many weights"],
)
def test_what_does_not_show_what_it_holds_is_refused(make: Callable[[], Any]):
    with pytest.raises(ContentsError):
        contents(wrapper(1.0, make()))


def test_what_is_known_stands_for_its_contents():
    network = nn.Linear(2, 2)
    seen = contents([wrapper(1.0, network)], lambda value: ["the network"] if value is network else None)
    assert "the network" in seen
    with torch.no_grad():
        network.weight.add_(1)
    assert seen == contents([wrapper(1.0, network)], lambda value: ["the network"] if value is network else None)
