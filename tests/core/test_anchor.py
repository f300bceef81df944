"""A network that draws what changes of a portrait, around which the sampler does not know it."""

from __future__ import annotations

import pytest
import torch

from moee_core.diffusion.anchor import from_change, to_change
from moee_core.diffusion.shifting import SIGMA_MAX, karras_sigmas

GENERATOR = torch.Generator().manual_seed(3)
PORTRAIT = torch.randn(1, 4, 5, 6, generator=GENERATOR)
X = PORTRAIT + 0.4 * torch.randn(3, 4, 5, 6, generator=GENERATOR)
NOISE = torch.randn(3, 4, 5, 6, generator=GENERATOR)


def clean_of(v: torch.Tensor, noisy: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    return noisy / (sigma**2 + 1) - v * sigma / (sigma**2 + 1).sqrt()


@pytest.mark.parametrize("scale", [1.0, 0.4])
@pytest.mark.parametrize("sigma", [SIGMA_MAX, 3.0, 0.05])
def test_the_right_answer_about_the_change_is_the_right_answer_about_the_picture(scale: float, sigma: float):
    at = torch.tensor(sigma)
    noisy = X + at * NOISE
    seen, time = to_change(noisy / (at**2 + 1).sqrt(), at.log().reshape(1) / 4, PORTRAIT, scale)
    own = at / scale
    change = (X - PORTRAIT) / scale
    # what the network reads is the change with a noise of sigma / scale on it, scaled as always
    assert torch.allclose(seen, (change + own * NOISE) / (own**2 + 1).sqrt(), atol=2e-5)
    assert torch.allclose(4 * time, own.log().reshape(1), atol=1e-5)
    v = (NOISE - own * change) / (own**2 + 1).sqrt()
    found = from_change(v, noisy / (at**2 + 1).sqrt(), at.log().reshape(1) / 4, PORTRAIT, scale)
    # at 700 the noise has only float32's seventh digit left for the picture
    assert torch.allclose(clean_of(found, noisy, at), X, atol=2e-3 if sigma == SIGMA_MAX else 1e-4)


def test_a_network_that_answers_nothing_at_the_start_draws_the_portrait():
    sigma = karras_sigmas(1)[0]
    noisy = sigma * NOISE
    scaled, time = noisy / (sigma**2 + 1).sqrt(), sigma.log().reshape(1) / 4
    found = from_change(torch.zeros_like(noisy), scaled, time, PORTRAIT, 0.5)
    assert torch.allclose(clean_of(found, noisy, sigma), PORTRAIT.expand_as(noisy), atol=0.02)


def test_noise_levels_of_every_frame():
    """(N,) time-steps, as in training and where a host asks for them."""
    sigma = torch.tensor([0.1, 2.0, 50.0])
    scaled = NOISE
    together = from_change(X, scaled, sigma.log() / 4, PORTRAIT, 0.5)
    for row in range(3):
        one = slice(row, row + 1)
        alone = from_change(X[one], scaled[one], sigma[one].log() / 4, PORTRAIT, 0.5)
        assert torch.allclose(together[one], alone, atol=1e-5)
    seen, _ = to_change(scaled, sigma.log() / 4, PORTRAIT, 0.5)
    assert seen.shape == scaled.shape
