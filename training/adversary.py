"""A critic of latents: tells one-step estimates from real latents, so that an estimate is a face and not a mean.

The squared error asks for the mean of all that fits, and a decoder draws a mean of mouths as a smear. The critic sees
the change of the latents against the portrait together with the portrait, the heard mouth and the emotion, and the
networks that make the estimate learn to look real to it (as Sauer et al. 2024, "LADD", in the latents, so that nothing
needs to be decoded). The loss is relativistic in pairs with gradient penalties on both sides (Huang et al. 2024,
"R3GAN"): every estimate is compared with the truth of the same frame.

Shapes (legend for this file): N frames, Z channels, h latent side, C numbers of a condition.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training import parallel


class LatentCritic(nn.Module):
    """Logits on a grid of half the latents' side."""

    def __init__(self, channels: int, side: int, condition: int, width: int = 48):
        super().__init__()
        self.stem = nn.Conv2d(2 * channels, width, 3, padding=1)
        self.down = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.told = nn.Linear(condition, 2 * width)
        self.place = nn.Parameter(torch.zeros(2 * width, side // 2, side // 2))
        self.body = nn.ModuleList(nn.Conv2d(2 * width, 2 * width, 3, padding=1) for _ in range(2))
        self.out = nn.Conv2d(2 * width, 1, 1)

    def forward(self, change_NZhh: Tensor, portrait_NZhh: Tensor, condition_NC: Tensor) -> Tensor:
        """(N, h/2, h/2)."""
        x = F.leaky_relu(self.stem(torch.cat([change_NZhh, portrait_NZhh], dim=1)), 0.2)
        x = self.down(x) + self.told(condition_NC)[:, :, None, None] + self.place
        for layer in self.body:
            x = F.leaky_relu(x, 0.2)
            x = x + layer(x)
        return self.out(F.leaky_relu(x, 0.2))[:, 0]


class Adversary:
    """The critic with its optimiser. ``objection`` gives the estimate's loss, ``learn`` one step of the critic's own.

    ``region_hh`` weighs the latents' positions, ``scale_Zhh`` is the unit of change. ``penalty`` is gamma of the
    gradient penalties.
    """

    def __init__(self, region_hh: Tensor, scale_Zhh: Tensor, *, condition: int, seed: int, rate: float, penalty: float):
        channels, side = scale_Zhh.shape[0], scale_Zhh.shape[-1]
        device = scale_Zhh.device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critic = LatentCritic(channels, side, condition).to(device)
        weight = F.avg_pool2d(region_hh[None, None], 2)[0, 0]
        self.weight = (weight / weight.sum()).to(device)
        self.scale, self.penalty = scale_Zhh, penalty
        self.parameters = list(self.critic.parameters())
        self.optimiser = torch.optim.Adam(self.parameters, rate, betas=(0.0, 0.99))
        self._seen: tuple[Tensor, Tensor, Tensor, Tensor] | None = None

    def objection(self, estimate: Tensor, truth: Tensor, portrait: Tensor, condition: Tensor) -> Tensor:
        """How much less real than its truth an estimate looks, all (N, Z, h, h) but the condition (N, C)."""
        made, real = (estimate - portrait) / self.scale, (truth - portrait) / self.scale
        self._seen = (made.detach(), real, portrait, condition)
        for parameter in self.parameters:
            parameter.requires_grad_(False)
        less = self.critic(real, portrait, condition) - self.critic(made, portrait, condition)
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        return self._mean(F.softplus(less))

    def _mean(self, value_Nhh: Tensor) -> Tensor:
        return (value_Nhh * self.weight).sum(dim=(1, 2)).mean()

    def learn(self) -> dict[str, float]:
        """One step on the frames that ``objection`` saw last."""
        if self._seen is None:
            return {}
        made, real, portrait, condition = self._seen
        made, real = made.requires_grad_(True), real.detach().requires_grad_(True)
        score_made, score_real = self.critic(made, portrait, condition), self.critic(real, portrait, condition)
        wrong = self._mean(F.softplus(score_made - score_real))
        sums = ((score_made + score_real) * self.weight).sum()
        slopes = torch.autograd.grad(sums, (made, real), create_graph=True)
        steep = sum(slope.square().sum(dim=(1, 2, 3)).mean() for slope in slopes)
        loss = wrong + 0.5 * self.penalty * steep
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        parallel.average_gradients(self.parameters, loss)
        self.optimiser.step()
        self._seen = None
        return {"critic": float(wrong.detach()), "steep": float(torch.as_tensor(steep).detach())}

    def state_dict(self) -> dict[str, Any]:
        return {"critic": self.critic.state_dict(), "optimiser": self.optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.critic.load_state_dict(state["critic"], strict=True)
        self.optimiser.load_state_dict(state["optimiser"])
