"""Stable Diffusion's autoencoder on our operations; diffusers is the oracle."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch

from moee_core.networks.autoencoder_kl import AutoencoderKL
from moee_core.networks.config import AutoencoderKLConfig
from moee_core.ops import Build, plain_attention
from moee_core.weights.key_map import AUTOENCODER, KeyMap

SMALL = AutoencoderKLConfig(block_widths=(8, 16, 24), layers_per_block=2, norm_groups=4)


@pytest.fixture(scope="module")
def pair() -> tuple[AutoencoderKL, Any]:
    """Ours and diffusers' with the same random weights."""
    diffusers = pytest.importorskip("diffusers")
    levels = len(SMALL.block_widths)
    theirs = diffusers.AutoencoderKL(
        block_out_channels=SMALL.block_widths,
        layers_per_block=SMALL.layers_per_block,
        norm_num_groups=SMALL.norm_groups,
        latent_channels=SMALL.latent_channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
    ).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    ours, names = AutoencoderKL(SMALL, Build(attention=plain_attention)).eval(), KeyMap(rows=AUTOENCODER)
    state = theirs.state_dict()
    assert {names.theirs(key) for key in ours.state_dict()} == set(state)
    ours.load_state_dict({key: state[names.theirs(key)] for key in ours.state_dict()})
    return ours, theirs


@pytest.mark.parametrize("size", [(16, 16), (24, 40)])
def test_latents_are_the_scaled_mean(pair: tuple[AutoencoderKL, Any], size: tuple[int, int]):
    ours, theirs = pair
    x = torch.rand(2, 3, *size) * 2 - 1
    with torch.no_grad():
        expected = 0.18215 * theirs.encode(x).latent_dist.mean
        torch.testing.assert_close(ours.encode(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 4), (6, 10)])
def test_pictures_come_back(pair: tuple[AutoencoderKL, Any], size: tuple[int, int]):
    ours, theirs = pair
    z = torch.randn(2, 4, *size)
    with torch.no_grad():
        expected = theirs.decode(z / 0.18215).sample
        torch.testing.assert_close(ours.decode(z), expected, rtol=1e-4, atol=1e-4)


def test_sides_must_be_multiples_of_the_patch(pair: tuple[AutoencoderKL, Any]):
    assert SMALL.patch == 4
    with pytest.raises(ValueError, match=re.escape("picture sides must be multiples of 4, got (16, 18)")):
        pair[0].encode(torch.zeros(1, 3, 16, 18))


def test_widths_must_fit_the_norms():
    with pytest.raises(ValueError, match="block width 100 must be a multiple of norm_groups 32"):
        AutoencoderKLConfig(block_widths=(100,))
