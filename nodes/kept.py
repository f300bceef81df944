"""What the denoiser keeps over one run of the host's samplers: a portrait's features on its device, and what a Hallo
base's layers make of portrait and speech.

A run is one call of a sampler, of ours or of core's. The host copies its model options for every run and hands them to
every call of the network, so what stands in the copy ends with the run, and never outlives the weights it was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import comfy.patcher_extension

KEPT = "moee_kept"
"""In the transformer options of a run: its ``Run``."""

T = TypeVar("T")


class Run:
    """``steady``: neither the weights nor the frames change between two calls of the network, so that what its layers
    made of one step's conditions is what they would make in the next."""

    def __init__(self, *, steady: bool):
        self.steady = steady
        self._made: dict[Hashable, tuple[object, Any]] = {}

    def of(self, given: object, how: Hashable, make: Callable[[], T]) -> T:
        """What ``make`` made of ``given`` the first time that it was asked for in this way."""
        key = (id(given), how)
        if key not in self._made:
            self._made[key] = (given, make())  # held, so that nothing else gets its number
        return self._made[key][1]


def keep_over_runs(patcher: Any) -> None:
    """Give a MODEL's runs something to keep things in; its clones have it too."""
    patcher.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.OUTER_SAMPLE, KEPT, _run)


def _run(sampling: Any, *given: Any, **named: Any) -> Any:
    guider = sampling.class_obj
    hooked = any("hooks" in condition for conditions in guider.conds.values() for condition in conditions)
    windows = guider.model_options.get("context_handler") is not None
    guider.model_options.setdefault("transformer_options", {})[KEPT] = Run(steady=not hooked and not windows)
    return sampling(*given, **named)
