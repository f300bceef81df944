"""Shifted Windows: any sampler over a clip of any length, in windows that are laid anew in every step.

Shapes: F frames of a window, T of the clip; latents (T, Z, h, w), the frames as batch.

Sonic and DICE-Talk average what several windows say of a frame behind an Euler step; here what they predict of the
clean frame is averaged with equal weights, in every evaluation of any sampler. For Euler's method that is the same: a
step is linear in the prediction. The host's own handler of context windows carries it: it cuts conditions, goes window
by window, and keeps one window's branches in memory at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import comfy.context_windows
import comfy.patcher_extension
from comfy_api.latest import io
from torch import Tensor

from ..moee_core.diffusion.shifting import shifted_windows

HANDLER = "context_handler"
PREPARE = "moee_shifted_windows"


class ShiftedWindows(comfy.context_windows.IndexListContextHandler):
    """The host's handler with our windows. ``begin``: how many steps were done before the run, where one goes on with a
    job. ``on_window`` is called behind every window of an evaluation."""

    def __init__(self, window: int, shift: int, overlap: int):
        if not 0 <= overlap < window:
            raise ValueError(f"windows of {window} frames can overlap in 0 to {window - 1}, got {overlap}")
        flat = comfy.context_windows.ContextFuseMethods.FLAT
        super().__init__(
            comfy.context_windows.ContextSchedule("shifted", self._windows),
            comfy.context_windows.get_matching_fuse_method(flat),
            context_length=window,
            context_overlap=overlap,
        )
        self.causal_window_fix = False  # of newer hosts: no further frame before a window
        self.shift, self.begin = shift, 0
        self.on_window: Callable[[], None] | None = None

    def should_use_context(
        self, model: Any, conds: list, x_in: Tensor, timestep: Tensor, model_options: dict[str, Any]
    ) -> bool:
        """A clip as long as one window is gone round as well."""
        return x_in.shape[0] >= self.context_length

    def set_step(self, timestep: Tensor, model_options: dict[str, Any]) -> None:
        """By the place of the noise level among those of the run; one between two belongs to the step before it."""
        sigmas = model_options["transformer_options"]["sample_sigmas"]
        reached = sigmas >= timestep[0].to(sigmas) * (1 - 1e-4)
        self._step = max(int(reached.sum()) - 1, 0)

    def _windows(self, total: int, *_given: object) -> list[list[int]]:
        shift = (self.begin + self._step) * self.shift % self.context_length
        return [one.tolist() for one in shifted_windows(total, self.context_length, self.context_overlap, shift)]

    def combine_context_window_results(self, *given: Any, **named: Any) -> None:
        super().combine_context_window_results(*given, **named)
        if self.on_window is not None:
            self.on_window()

    def windows_of(self, total: int) -> int:
        """How many windows an evaluation has."""
        return -(-total // (self.context_length - self.context_overlap))


def shifted(model: Any, window: int, shift: int, overlap: int) -> Any:
    """A clone of the MODEL that is sampled in such windows; memory is reckoned for one of them."""
    clone = model.clone()
    clone.model_options[HANDLER] = ShiftedWindows(window, shift, overlap)
    kind = comfy.patcher_extension.WrappersMP.PREPARE_SAMPLING
    clone.remove_wrappers_with_key(kind, PREPARE)
    clone.add_wrapper_with_key(kind, PREPARE, _one_window)
    return clone


def _one_window(prepare: Any, model: Any, noise_shape: Any, *given: Any, **named: Any) -> Any:
    handler = (named.get("model_options") or {}).get(HANDLER)
    if isinstance(handler, ShiftedWindows):
        noise_shape = [min(noise_shape[0], handler.context_length), *noise_shape[1:]]
    return prepare(model, noise_shape, *given, **named)


class ShiftedWindowsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEShiftedWindows",
            display_name="Shifted Windows",
            category="MoEE talking portrait",
            description="Samples a clip of any length in windows that move on with every step, so that no seam stays "
            "where it was. For any sampler, and any MODEL whose frames are a batch.",
            inputs=[
                io.Model.Input("model", tooltip="DICE-Talk, or another talking-portrait model."),
                io.Int.Input(
                    "window",
                    default=25,
                    min=2,
                    max=1000,
                    tooltip="Frames seen together: 25 for the published DICE-Talk, 12 for the models that ship.",
                ),
                io.Int.Input(
                    "shift", default=7, min=0, max=1000, tooltip="By how many frames windows move from step to step."
                ),
                io.Int.Input(
                    "overlap", default=0, min=0, max=999, tooltip="Frames that two windows share, less than a window."
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, model: Any, window: int, shift: int, overlap: int) -> io.NodeOutput:
        return io.NodeOutput(shifted(model, window, shift, overlap))
