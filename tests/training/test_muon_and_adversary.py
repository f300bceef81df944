"""Muon's steps against singular values, and the critic of latents."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from training.adversary import Adversary
from training.config import StageConfig
from training.muon import Muon, orthogonalised


@pytest.mark.parametrize("shape", [(3, 8, 20), (2, 20, 8), (1, 5, 5)])
def test_orthogonalising_keeps_the_singular_vectors_and_levels_the_values(shape: tuple[int, int, int]):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalised(matrices)
    for before, after in zip(matrices, found, strict=True):
        u, values, v = torch.linalg.svd(before, full_matrices=False)
        inside = u.T @ after @ v.T
        levelled = inside.diagonal()
        assert float(levelled.min()) > 0.6 * min(1.0, float(values.min() / values.max()) * 20)
        assert float(levelled.max()) < 1.3
        assert float((inside - torch.diag(levelled)).abs().max()) < 1e-4


def test_muon_moves_matrices_by_the_size_of_an_adamw_step_and_the_rest_as_adamw():
    torch.manual_seed(0)
    conv, bias = nn.Parameter(torch.randn(16, 4, 3, 3)), nn.Parameter(torch.randn(16))
    twin = nn.Parameter(bias.detach().clone())
    muon = Muon([conv, bias], 0.01, 0.0)
    adam = torch.optim.AdamW([twin], 0.01, betas=(0.9, 0.99), weight_decay=0.0)
    before = conv.detach().clone()
    gradient, slope = torch.randn(16, 4, 3, 3), torch.randn(16)
    conv.grad, bias.grad, twin.grad = gradient, slope, slope.clone()
    muon.step()
    adam.step()
    assert torch.equal(bias, twin)
    change = (conv.detach() - before).flatten(1)
    assert float(change.square().mean().sqrt()) == pytest.approx(0.2 * 0.01, rel=0.25), "root mean square of 0.2 rates"
    assert float((change * gradient.flatten(1)).sum()) < 0, "downhill"


def test_muon_finds_the_minimum_of_a_badly_scaled_problem_and_leaves_what_has_no_gradient():
    torch.manual_seed(1)
    scales = torch.logspace(0, 1, 6)
    target = torch.randn(12, 6)
    weight, idle = nn.Parameter(torch.zeros(12, 6)), nn.Parameter(torch.ones(3, 3))
    muon = Muon([weight, idle], 0.05, 0.1)
    for step in range(300):
        muon.param_groups[0]["lr"] = 0.2 * (1 - step / 300)
        muon.zero_grad()
        (((weight - target) * scales) ** 2).sum().backward()
        muon.step()
    assert float((weight.detach() - target).abs().max()) < 0.1
    assert torch.equal(idle.detach(), torch.ones(3, 3))


def test_muons_state_goes_on_where_it_was():
    def made() -> tuple[list[nn.Parameter], Muon]:
        torch.manual_seed(2)
        parameters = [nn.Parameter(torch.randn(4, 6)), nn.Parameter(torch.randn(4))]
        return parameters, Muon(parameters, 0.01, 0.01)

    def steps(parameters: list[nn.Parameter], muon: Muon, first: int, last: int) -> None:
        for step in range(first, last):
            for i, parameter in enumerate(parameters):
                parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(10 * step + i))
            muon.step()

    straight, optimiser = made()
    steps(straight, optimiser, 0, 6)
    first, before = made()
    steps(first, before, 0, 3)
    state = copy.deepcopy(before.state_dict())
    second, after = made()
    after.load_state_dict(state)
    with torch.no_grad():
        for new, old in zip(second, first, strict=True):
            new.copy_(old)
    steps(second, after, 3, 6)
    assert all(torch.equal(a, b) for a, b in zip(straight, second, strict=True))


def test_an_unknown_optimiser_is_refused():
    with pytest.raises(ValueError, match="optimiser must be adamw or muon, got 'sgd'"):
        StageConfig(optimiser="sgd")


def made_adversary(region: torch.Tensor | None = None) -> Adversary:
    inside = torch.ones(8, 8) if region is None else region
    scale = torch.full((3, *inside.shape), 0.5)
    return Adversary(inside, scale, condition=4, seed=1, rate=2e-3, penalty=0.1)


def test_the_critic_learns_to_tell_means_from_the_real_thing_and_pulls_towards_it():
    torch.manual_seed(0)
    adversary = made_adversary()
    portrait, condition = torch.randn(16, 3, 8, 8), torch.zeros(16, 4)
    signs = torch.where(torch.rand(16, 1, 1, 1) < 0.5, -1.0, 1.0)
    real = portrait + signs * 1.0  # always one of two things; the mean of both is neither
    wrong = []
    for _ in range(150):
        adversary.objection(portrait.clone(), real, portrait, condition)
        wrong.append(adversary.learn()["critic"])
    assert wrong[-1] < 0.3 * wrong[0]
    estimate = (portrait + 0.3 * signs).requires_grad_(True)
    objection = adversary.objection(estimate, real, portrait, condition)
    (slope,) = torch.autograd.grad(objection, estimate)
    towards = (slope * (real - estimate.detach())).sum(dim=(1, 2, 3))
    assert float((towards < 0).float().mean()) > 0.8, "a step down the slope brings most estimates nearer to the truth"


def test_the_critic_looks_where_it_is_told_and_its_own_weights_are_not_moved_by_the_objection():
    region = torch.zeros(24, 24)
    region[20:, 20:] = 1.0
    adversary = made_adversary(region)
    portrait, real = torch.randn(2, 3, 24, 24), torch.randn(2, 3, 24, 24)
    estimate = torch.randn(2, 3, 24, 24, requires_grad=True)
    adversary.objection(estimate, real, portrait, torch.zeros(2, 4)).backward()
    assert estimate.grad is not None
    assert float(estimate.grad[:, :, -2:, -2:].abs().sum()) > 0
    assert float(estimate.grad[:, :, 0, 0].abs().sum()) == 0.0, "far outside the critic's sight"
    assert all(parameter.grad is None and parameter.requires_grad for parameter in adversary.parameters)


def test_the_critic_goes_on_where_it_was():
    def run(adversary: Adversary, first: int, last: int) -> None:
        for step in range(first, last):
            generator = torch.Generator().manual_seed(step)
            made, real, portrait = (torch.randn(4, 3, 8, 8, generator=generator) for _ in range(3))
            adversary.objection(made, real, portrait, torch.zeros(4, 4))
            adversary.learn()

    straight, half, resumed = made_adversary(), made_adversary(), made_adversary()
    run(straight, 0, 4)
    run(half, 0, 2)
    resumed.load_state_dict(copy.deepcopy(half.state_dict()))
    run(resumed, 2, 4)
    pairs = zip(straight.critic.parameters(), resumed.critic.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert made_adversary().learn() == {}, "nothing seen, nothing learnt"
