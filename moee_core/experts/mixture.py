"""Mixture of emotion experts: six gated cross-attentions to the emotion latents.

Shapes (legend for this file):
    N = B * F frames, T tokens, C width, M emotion tokens, D emotion width, E experts

    x_NTC         hidden states entering the block (after audio attention)
    emotion_NMD   emotion latents, the keys and values of every expert
    routing       which frames use which expert, see ``Routing``
    -> x'_NTC     same shape and dtype

Equation (MoEE Eq. 4): X' = X + sum_i g_i E_i(X s_i), with E_i a cross-attention whose keys and values are the emotion
latents. Three readings of where the local gate acts are a setting, because the literal one is provably weak (a
normalisation after it cancels it, and s -> 0 leaves the mean value vector instead of silence):
    ``local_gate="output"``  X' = X + sum_i g_i s_i * E_i(X^)      default: delivers the claimed spatial control
    ``local_gate="query"``   X' = X + sum_i g_i E_i(X^ s_i)        literal
    ``local_gate="off"``     s_i = 1
``global_gate="off"``: g is the blend that is asked for.
X^ = LayerNorm(X) is taken before gating. Neutral closes every expert: X' = X, bit for bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..networks.blocks import CrossAttention
from ..ops import Build
from .gating import EmotionGates

LOCAL_GATES = ("output", "query", "off")
GATE_POOLS = ("clip", "frame")
GATE_PRIORS = ("blend", "mask")
GLOBAL_GATES = ("softmax", "off")


@dataclass(frozen=True, kw_only=True)
class Routing:
    """Which frames reach which expert.

    ``prior_NE`` (N, E) float: share of each expert in the frame's blend, 0 = closed.
    ``rows``: for each expert the indices of its open frames, or None when all are open. Worked out once on the CPU,
    so that the network never waits for the device to know which experts to run.
    ``gated``: False bypasses both gates (stage 2a): g is the prior itself and s = 1.
    """

    prior_NE: Tensor
    rows: tuple[Tensor | None, ...]
    gated: bool = True

    @staticmethod
    def of(prior_NE: Tensor, gated: bool = True) -> Routing:
        """From shares on the CPU; ``to`` moves the result."""
        open_NE = prior_NE > 0
        rows = tuple(None if bool(column.all()) else column.nonzero().flatten() for column in open_NE.unbind(1))
        return Routing(prior_NE=prior_NE, rows=rows, gated=gated)

    def to(self, device: torch.device) -> Routing:
        rows = tuple(None if row is None else row.to(device) for row in self.rows)
        return Routing(prior_NE=self.prior_NE.to(device), rows=rows, gated=self.gated)


class MixtureOfEmotionExperts(nn.Module):
    """``experts`` cross-attentions to the emotion latents, softly gated; one is plain emotion attention."""

    def __init__(
        self,
        width: int,
        emotion_width: int,
        heads: int,
        experts: int,
        *,
        build: Build,
        local_gate: str = "output",
        gate_pool: str = "clip",
        gate_context: bool = False,
        gate_prior: str = "blend",
        global_gate: str = "softmax",
        multiple: int = 1,
    ):
        super().__init__()
        for name, value, allowed in (
            ("local_gate", local_gate, LOCAL_GATES),
            ("gate_pool", gate_pool, GATE_POOLS),
            ("gate_prior", gate_prior, GATE_PRIORS),
            ("global_gate", global_gate, GLOBAL_GATES),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
        self.local_gate = local_gate
        self.global_gate = global_gate
        self.norm = build.layer_norm(width)
        self.experts = nn.ModuleList(
            CrossAttention(width, emotion_width, heads, build, multiple) for _ in range(experts)
        )
        self.gates = EmotionGates(width, experts, emotion_width if gate_context else 0, gate_pool, gate_prior, build)

    def forward(
        self, x_NTC: Tensor, emotion_NMD: Tensor, routing: Routing, frames: int, options: dict | None = None
    ) -> Tensor:
        if routing.prior_NE.shape != (x_NTC.shape[0], len(self.experts)):
            raise ValueError(
                f"routing is for {tuple(routing.prior_NE.shape)} (frames, experts), "
                f"the hidden states have {x_NTC.shape[0]} frames and this mixture {len(self.experts)} experts"
            )
        if all(rows is not None and rows.numel() == 0 for rows in routing.rows):
            return x_NTC
        normed = self.norm(x_NTC)
        local_NTE, global_NE = None, routing.prior_NE.to(x_NTC.dtype)
        if routing.gated:
            local_NTE, learned_NE = self.gates(normed, routing.prior_NE, frames, emotion_NMD)
            global_NE = learned_NE if self.global_gate == "softmax" else global_NE
        out = x_NTC
        for index, (expert, rows) in enumerate(zip(self.experts, routing.rows, strict=True)):
            if rows is not None and rows.numel() == 0:
                continue
            update = self._expert_update(expert, index, rows, normed, emotion_NMD, local_NTE, options)
            weight = global_NE[:, index, None, None]
            if rows is None:
                out = out + weight * update
            else:
                out = out.index_add(0, rows, (weight[rows] * update).to(out.dtype))
        return out

    def _expert_update(
        self,
        expert: nn.Module,
        index: int,
        rows: Tensor | None,
        normed: Tensor,
        emotion_NMD: Tensor,
        local_NTE: Tensor | None,
        options: dict | None,
    ) -> Tensor:
        """s_i * E_i(X^) or E_i(X^ s_i) on the frames in ``rows``."""
        query = normed if rows is None else normed[rows]
        context = emotion_NMD if rows is None else emotion_NMD[rows]
        if local_NTE is None or self.local_gate == "off":
            return expert(query, context, options)
        gate = local_NTE[:, :, index : index + 1]
        gate = gate if rows is None else gate[rows]
        if self.local_gate == "query":
            return expert(query * gate, context, options)
        return gate * expert(query, context, options)
