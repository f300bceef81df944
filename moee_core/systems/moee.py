"""MoEE: ReferenceNet, audio attention and a mixture of six emotion experts on an SD-1.5 family network.

``MoEESystem`` holds the parts of one checkpoint; ``pipeline.py`` runs them. Nothing here chooses a device.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..audio.encoder import SpeechEncoder
from ..audio.projector import AudioProjector
from ..emotion.latents import EmotionToLatents
from ..emotion.vocabulary import EXPERTS, LABELS
from ..experts.mixture import Routing
from ..networks.autoencoder import Autoencoder
from ..networks.config import AudioConfig, SystemConfig
from ..networks.portrait_unet import EmotionContext, PortraitUNet
from ..networks.reference_net import ReferenceNet
from ..ops import DEFAULT_BUILD, Build


def make_speech_encoder(audio: AudioConfig, build: Build) -> SpeechEncoder:
    return SpeechEncoder(audio.width, audio.layers, build)


def make_audio_projector(audio: AudioConfig, build: Build) -> AudioProjector:
    return AudioProjector(
        layers=audio.layers,
        width=audio.width,
        margin=audio.margin,
        hidden=audio.hidden,
        tokens=audio.tokens,
        token_width=audio.token_width,
        build=build,
    )


class MoEESystem(nn.Module):
    """All networks of a MoEE checkpoint. ``gated`` False: stage 2a, gates not trained yet."""

    def __init__(self, config: SystemConfig, build: Build = DEFAULT_BUILD):
        super().__init__()
        self.config = config
        self.autoencoder = Autoencoder(config.autoencoder, build)
        self.speech_encoder = make_speech_encoder(config.audio, build)
        self.audio_projector = make_audio_projector(config.audio, build)
        self.emotion_to_latents = EmotionToLatents(config.emotion, build)
        self.reference_net = ReferenceNet(config.unet, build)
        self.denoiser = PortraitUNet(config.unet, build)

    def emotion_context(self, vectors_N8: Tensor, *, gated: bool = True) -> EmotionContext:
        """Emotion vectors per frame -> latents and routing for the denoiser, on the vectors' device."""
        latents = self.emotion_to_latents({"label": vectors_N8})
        return EmotionContext(latents_NMD=latents, routing=self.routing(vectors_N8, gated=gated))

    def routing(self, vectors_N8: Tensor, *, gated: bool = True) -> Routing:
        return Routing.of(expert_shares(vectors_N8.cpu(), self.config.unet.experts), gated).to(vectors_N8.device)


def expert_shares(vectors_N8: Tensor, experts: int) -> Tensor:
    """(N, 8) emotion vectors -> (N, experts) shares: the blend over the experts, rows summing to 1, or 0 for neutral.

    Contempt has no expert of its own and is open to all. A network with one shared emotion attention (stage 1) has a
    single column: 1 wherever there is any emotion.
    """
    active = vectors_N8[:, 1:].float()
    if experts == 1:
        return (active.sum(dim=1, keepdim=True) > 0).float()
    if experts != len(EXPERTS):
        raise ValueError(f"the labels describe {len(EXPERTS)} experts, this network has {experts}")
    contempt = active[:, LABELS.index("contempt") - 1 :].sum(dim=1, keepdim=True)
    shares = active[:, : len(EXPERTS)] + contempt / len(EXPERTS)
    total = shares.sum(dim=1, keepdim=True)
    return torch.where(total > 0, shares / total.clamp_min(1e-8), torch.zeros_like(shares))
