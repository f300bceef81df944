"""Every network on a graphics card that is not there: PyTorch's fake tensors know devices, so a tensor that was left on
the CPU fails here and not on the first user's machine."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from moee_core.diffusion.schedule import alphas_cumprod
from moee_core.experts.mixture import Routing
from moee_core.networks.portrait_unet import EmotionContext
from moee_core.ops import Build, plain_attention, torch_attention
from moee_core.systems.moee import MoEESystem

from ..fixtures.tiny import LATENT_CHANNELS, TINY, WIDTH

# Fake tensors would take "cuda" too, but without CUDA their indexing fails. "lazy" is a device of PyTorch's
# own that every build knows, and what matters is that it is not the CPU.
CARD = torch.device("lazy:0")
FRAMES = TINY.window_frames
SIDE = TINY.image_size // 8


def _uninitialised(kind: type[nn.Module]) -> type[nn.Module]:
    """As the host's layers are: weights come from a file, and random numbers for a missing card cannot be drawn."""
    return type(kind.__name__, (kind,), {"reset_parameters": lambda self: None})


LAYERS = ("Linear", "Conv2d", "Conv1d", "GroupNorm", "LayerNorm", "Embedding")
OPERATIONS = SimpleNamespace(**{name: _uninitialised(getattr(nn, name)) for name in LAYERS})


@pytest.fixture(params=[torch_attention, plain_attention], ids=["fused", "plain"])
def system(request: pytest.FixtureRequest) -> Iterator[MoEESystem]:
    # kept for ever by its cache: it must not be made of fakes
    real = alphas_cumprod(TINY.unet.beta_schedule, zero_snr=TINY.unet.zero_snr)
    assert type(real) is torch.Tensor
    with FakeTensorMode(allow_non_fake_inputs=True):
        build = Build(operations=OPERATIONS, attention=request.param, device=CARD)
        yield MoEESystem(TINY, build).eval().requires_grad_(False)


def on_card(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device=CARD)


def test_a_tensor_that_stays_behind_is_noticed(system: MoEESystem):
    with pytest.raises(RuntimeError, match="device"):
        system.autoencoder.encode(torch.empty(1, 3, 64, 64))


def test_autoencoder_and_audio(system: MoEESystem):
    latents = system.autoencoder.encode(on_card(2, 3, 64, 64))
    assert latents.device == CARD
    assert system.autoencoder.decode(latents).shape == (2, 3, 64, 64)
    features = system.speech_encoder(on_card(1, 40, 40))
    assert features.device == system.speech_encoder.visemes(features).device == CARD
    tokens = system.audio_projector(on_card(FRAMES, 5, TINY.audio.layers, WIDTH))
    assert tokens.device == CARD


@pytest.mark.parametrize("open_experts", ["all", "some", "none"])
def test_the_denoiser_with_everything_it_reads(system: MoEESystem, open_experts: str):
    latents = system.emotion_to_latents({"label": on_card(FRAMES, 8)})
    reference = system.reference_net.reference(
        on_card(1, LATENT_CHANNELS, SIDE, SIDE), on_card(1, 2, LATENT_CHANNELS, SIDE, SIDE)
    )
    some = torch.empty(FRAMES // 2, dtype=torch.long, device=CARD)
    none = torch.empty(0, dtype=torch.long, device=CARD)
    rows = {"all": (None,) * 6, "some": (some, none, None, none, some, none), "none": (none,) * 6}[open_experts]
    velocity = system.denoiser(
        on_card(FRAMES, LATENT_CHANNELS, SIDE, SIDE),
        torch.empty(FRAMES, dtype=torch.long, device=CARD),
        frames=FRAMES,
        reference=reference,
        audio_NSA=on_card(FRAMES, TINY.audio.tokens, WIDTH),
        emotion=EmotionContext(latents_NMD=latents, routing=Routing(prior_NE=on_card(FRAMES, 6), rows=rows)),
    )
    assert velocity.device == CARD
    assert velocity.shape == (FRAMES, LATENT_CHANNELS, SIDE, SIDE)
