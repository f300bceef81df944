"""What the gates of a mixture do: how much every expert is called, and where on the face.

Shapes (legend for this file): E experts, T = h w tokens of a site, N frames
    gates of a site: local (N, T, E) in 0..1, global (N, E) with rows that sum to 1 (0 for neutral)
    -> ``GateView``: called (E,) mean of g; where (E, h, w) mean of s, both over sites, passes and frames

``GateRecorder`` listens to a denoiser while it runs, wherever it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType

import numpy as np
import torch
from torch import Tensor, nn

from ..emotion.vocabulary import EXPERTS
from .gating import EmotionGates

MAP_SIDE = 32
LEAST = 0.005
"""An expert whose share is below this is not called."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GateView:
    """See the module's docstring; ``names`` (E) of the experts. All zero when no expert was called."""

    called: np.ndarray
    where: np.ndarray
    names: tuple[str, ...] = EXPERTS

    def text(self) -> str:
        """One line: "happy 0.97 (where: 0.41 to 0.98)"; only experts that are called."""
        order = [i for i in np.argsort(-self.called) if self.called[i] > LEAST]
        said = [
            f"{self.names[i]} {self.called[i]:.2f} (where: {self.where[i].min():.2f} to {self.where[i].max():.2f})"
            for i in order
        ]
        return ", ".join(said) or "no expert is called: the emotion is neutral"


class GateRecorder:
    """``with GateRecorder(denoiser) as recorder: ...`` then ``recorder.view()``."""

    def __init__(self, denoiser: nn.Module):
        self.gates = [module for module in denoiser.modules() if isinstance(module, EmotionGates)]
        self._called: list[Tensor] = []
        self._where: list[Tensor] = []
        self._handles: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> GateRecorder:
        self._handles = [gate.register_forward_hook(self._heard) for gate in self.gates]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()

    @torch.no_grad()
    def _heard(self, _module: nn.Module, _inputs: object, outputs: tuple[Tensor, Tensor]) -> None:
        local, called = outputs
        side = round(local.shape[1] ** 0.5)
        if side * side != local.shape[1]:
            return  # a picture that is not square has no map here; its shares still count
        self._called.append(called.float().mean(dim=0).cpu())
        grid = local.float().mean(dim=0).T.reshape(1, -1, side, side)
        self._where.append(nn.functional.interpolate(grid, size=(MAP_SIDE, MAP_SIDE), mode="bilinear")[0].cpu())

    def view(self) -> GateView:
        """The means of everything heard so far."""
        if not self._called:
            none = len(EXPERTS)
            return GateView(called=np.zeros(none), where=np.zeros((none, MAP_SIDE, MAP_SIDE)))
        return GateView(
            called=torch.stack(self._called).mean(dim=0).numpy(), where=torch.stack(self._where).mean(dim=0).numpy()
        )


def gate_picture(view: GateView, face: np.ndarray, columns: int = 3, scale: float = 1) -> np.ndarray:
    """The map of every expert over the face (H, W, 3) uint8: red where it acts most, clear where it acts least, on one
    scale for all that are called, whose ends stand below with each expert's share."""
    import cv2

    from ..video.frames import contact_sheet

    grey = cv2.cvtColor(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB).astype(np.float32)
    heard = view.where[view.called > LEAST] if (view.called > LEAST).any() else view.where
    low, high = float(heard.min()), float(heard.max())
    cells = []
    for where, called in zip(view.where, view.called, strict=True):
        heat = cv2.resize(where.astype(np.float32), face.shape[1::-1], interpolation=cv2.INTER_CUBIC)
        colour = np.stack([255 * np.ones_like(heat), 60 * np.ones_like(heat), 40 * np.ones_like(heat)], axis=-1)
        strength = np.clip((heat - low) / max(high - low, 1e-6), 0, 1)
        share = (strength * (0.65 if called > LEAST else 0.0))[..., None]
        cells.append(np.rint(grey * (1 - share) + colour * share).clip(0, 255).astype(np.uint8))
    labels: Sequence[str] = [
        f"{name} g {called:.2f} s {where.min():.2f}-{where.max():.2f}"
        for name, called, where in zip(view.names, view.called, view.where, strict=True)
    ]
    return contact_sheet(cells, columns, labels, scale)
