"""What a MODEL is by its contents: all of it that shapes frames, for the key of a job.

Whatever hangs on the MODEL counts along with its settings: LoRA, wrappers, patches, context windows, caches. Where
something does not show what it holds the key is one that nobody finds again, so that a clip is sampled anew rather than
taken from a job of other settings.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterable
from typing import Any

import comfy.context_windows
import comfy.model_patcher
import comfy.samplers

from ..moee_core.contents import ContentsError, contents
from .host import CHECKPOINT, OWN

log = logging.getLogger(__name__)

HUNG = (
    *("wrappers", "callbacks", "injections", "attachments", "object_patches", "weight_wrapper_patches"),
    *("hook_patches", "forced_hooks", "additional_models"),
)
"""Where the host keeps what a MODEL is changed by, beside its options and the patches of its weights."""


def model_contents(model: Any, scheduler: str, steps: int) -> list[object]:
    """The type that a MODEL computes in, its noise levels, and everything that hangs on it."""
    sampling = model.get_model_object("model_sampling")
    sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, steps).cpu()
    return [str(model.model.get_dtype()), type(sampling).__name__, sigmas, *_hung(model)]


def _hung(model: Any) -> list[object]:
    places = [getattr(model, name, None) for name in HUNG]
    try:
        return contents([model.model_options, sorted(model.patches.items()), *places], _Known(model))
    except ContentsError as error:
        log.warning(
            "talking portrait: something that changes this MODEL cannot be told from another of its kind (%s); the "
            "clip is sampled anew every time, and a job that was interrupted does not go on",
            error,
        )
        return [uuid.uuid4().hex]


class _Known:
    """What stands for the parts of one MODEL that are known by other means than their contents."""

    def __init__(self, model: Any):
        self.model = model
        self.network = {id(part): name for name, part in model.model.named_modules()}
        loaded = model.model_options.get("transformer_options", {}).get(OWN, {})
        self.own = {id(patcher): content for patcher, content in loaded.values()}

    def __call__(self, value: Any) -> Iterable[object] | None:
        if id(value) in self.network:
            return ["the network", self.network[id(value)]]
        if id(value) in self.own:
            return ["an expert of one's own", self.own[id(value)]]
        if isinstance(value, comfy.model_patcher.ModelPatcher):
            if value.model is self.model.model or CHECKPOINT in value.model_options:
                return ["a MODEL", value.model_options, sorted(value.patches.items())]
            return None
        if isinstance(value, comfy.context_windows.IndexListContextHandler):
            # what begins with _ is where it stands in a run, and stays behind it
            return [type(value), *(pair for pair in sorted(vars(value).items()) if not pair[0].startswith("_"))]
        compiled = getattr(value, "_orig_mod", None)
        return None if compiled is None else ["compiled", compiled]
