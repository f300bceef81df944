"""Expert files onto a system in memory: those that change one of the six, and those that stand beside them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import CheckpointError
from ..ops import DEFAULT_BUILD, Build
from ..systems.moee import MoEESystem
from ..weights.checkpoint import state_hash
from .file import ExpertFile, check_fits, combined
from .own import OwnExpert, from_file


@torch.no_grad()
def apply_experts(
    system: MoEESystem, experts: Sequence[tuple[ExpertFile, float]], build: Build = DEFAULT_BUILD
) -> MoEESystem:
    """The system, its denoiser changed by the experts' differences times their strengths, with their owners' own
    experts beside its six.

    Raises ``CheckpointError`` for an expert of another base and for two of one name, ``ValueError`` for a strength
    outside -2..2; the system is then as it was.
    """
    state = system.denoiser.state_dict()
    base = state_hash(state)
    shapes = {key: tuple(value.shape) for key, value in state.items()}
    changes = combined([(expert, weight) for expert, weight in experts if not expert.own], base, shapes)
    own: dict[str, OwnExpert] = {}
    for expert, weight in experts:
        if not expert.own:
            continue
        check_fits(expert, expert.title, base, shapes)
        if expert.emotion in own:
            raise CheckpointError(f"two experts are called {expert.emotion}; load one of them, or rename it")
        own[expert.emotion] = from_file(expert, system.denoiser, build, weight)
    for key, change in changes.items():
        state[key] += change.to(state[key])
    return system.with_own(own)
