"""Soft gates of the emotion mixture: where each expert acts (local) and how much (global).

Shapes (legend for this file):
    B clips, F frames, N = B * F, T tokens of a frame, C width, E experts

    x_NTC      normed hidden states X
    prior_NE   share of each expert known from the condition (a blend); 0 = closed. Rows sum to 1, or to 0 for neutral
    -> local_NTE in (0, 1), global_NE with rows summing to 1 (0 for neutral rows)

Equations (MoEE Eq. 2-3):
    s = sigmoid(G(X, phi))                    local gate, one value per token and expert
    g = softmax(G(Pool(X), omega))            global gate, one value per clip (or frame) and expert
Where a blend is known the softmax is taken over its experts only, starting from the blend (``gate_prior="blend"``:
g proportional to prior * exp(logit)) or from equal shares of the open experts (``"mask"``).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..ops import Build


class EmotionGates(nn.Module):
    """The two gates of one mixture. ``context_width`` > 0 lets both also see the mean emotion latent."""

    def __init__(self, width: int, experts: int, context_width: int, pool: str, prior: str, build: Build):
        super().__init__()
        self.pool = pool
        self.prior = prior
        self.local_gate = build.linear(width, experts)
        self.global_gate = build.linear(width, experts)
        self.context = build.linear(context_width, width) if context_width else None

    def logits(self, x_NTC: Tensor, frames: int, emotion_NMC: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Local logits (N, T, E) and pooled global logits (N, E), before sigmoid and softmax."""
        if self.context is not None and emotion_NMC is not None:
            x_NTC = x_NTC + self.context(emotion_NMC.mean(dim=1, keepdim=True))
        pooled_NC = x_NTC.mean(dim=1)
        if self.pool == "clip":
            clips = pooled_NC.shape[0] // frames
            pooled_NC = pooled_NC.view(clips, frames, -1).mean(dim=1).repeat_interleave(frames, dim=0)
        return self.local_gate(x_NTC), self.global_gate(pooled_NC)

    def forward(
        self, x_NTC: Tensor, prior_NE: Tensor, frames: int, emotion_NMC: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        local_NTE, global_NE = self.logits(x_NTC, frames, emotion_NMC)
        return local_NTE.sigmoid(), share(global_NE, prior_NE, self.prior).to(x_NTC.dtype)


def share(logits_NE: Tensor, prior_NE: Tensor, prior: str) -> Tensor:
    """Softmax over the open experts of each row; a row with no open expert (neutral) is all zero. float32."""
    open_NE = prior_NE > 0
    logits_NE = logits_NE.float()
    if prior == "blend":
        logits_NE = logits_NE + prior_NE.float().clamp_min(1e-6).log()
    # a finite floor instead of -inf keeps rows without any open expert free of NaN
    weights_NE = torch.softmax(logits_NE.masked_fill(~open_NE, -1e4), dim=-1)
    return weights_NE * open_NE
