"""What a MODEL's patches and the host's samplers are told of our guidance.

Our guiders are chains of branches, so they do not go through the host's own guidance. Functions that want to see its
result are called here as the host calls them: CFG++ samplers, and patches that correct what was guided.
"""

from __future__ import annotations

import logging
from typing import Any

from torch import Tensor

log = logging.getLogger(__name__)

AFTER = "sampler_post_cfg_function"
"""In the model options: functions of what guidance has made."""
INSTEAD = ("sampler_cfg_function", "sampler_pre_cfg_function", "sampler_calc_cond_batch_function")
"""In the model options: functions that take the place of the host's guidance of two branches."""
CFG_PP = "_cfg_pp"
"""Ends the names of samplers that step in the direction of the unconditional branch."""


def is_told(model_options: dict[str, Any], sampler_name: str = "") -> bool:
    """Whether the branch that knows nothing is needed even where it weighs nothing."""
    return bool(model_options.get(AFTER)) or sampler_name.endswith(CFG_PP)


def told(
    guided: Tensor,
    x: Tensor,
    sigma: Tensor,
    model: Any,
    model_options: dict[str, Any],
    *,
    scale: float,
    everything: tuple[Any, Tensor],
    nothing: tuple[Any, Tensor],
) -> Tensor:
    """What the functions behind guidance make of it. ``everything`` and ``nothing``: the conditions of the branches
    that know all and none, and what they predict; ``scale``: how far the former counts."""
    for function in model_options.get(AFTER, []):
        guided = function(
            {
                "denoised": guided,
                "cond": everything[0],
                "uncond": nothing[0],
                "cond_scale": scale,
                "model": model,
                "uncond_denoised": nothing[1],
                "cond_denoised": everything[1],
                "sigma": sigma,
                "model_options": model_options,
                "input": x,
            }
        )
    return guided


def say_what_is_left_out(model_options: dict[str, Any]) -> None:
    """A patch that is passed over in silence would be looked for in the frames."""
    for name in INSTEAD:
        if model_options.get(name):
            log.warning(
                "talking portrait: the MODEL brings a %s, which guides two branches; this sampler guides a chain of "
                "its own and does not call it. Take the patch away, or sample with core's KSampler",
                name,
            )
