"""MoEE: ReferenceNet, audio attention and a mixture of six emotion experts on an SD-1.5 family network.

``MoEESystem`` holds the parts of one checkpoint; ``pipeline.py`` runs them. Nothing here chooses a device.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..audio.emotion_ear import EmotionEar, EmotionEarConfig
from ..audio.encoder import SpeechEncoder
from ..audio.projector import AudioProjector
from ..emotion.frozen import FROZEN_TEXT, GIVE_TEXT, FrozenEncoders
from ..emotion.latents import EmotionToLatents, EmotionToLatentsConfig
from ..emotion.signals import EmotionRows, EmotionSignals
from ..emotion.source import EmotionSource
from ..emotion.stand_ins import WordsEncoder, mood
from ..emotion.vocabulary import EXPERTS, LABELS
from ..errors import EmotionError
from ..experts.mixture import Routing
from ..experts.own import OwnExpert, called
from ..motion.coefficients import UNITS
from ..motion.expression import prototype
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


def make_text_encoder(emotion: EmotionToLatentsConfig, build: Build) -> WordsEncoder | None:
    """The encoder of words that is part of a model, where it reads text by one."""
    return WordsEncoder(emotion.text_width, build) if emotion.text == "words" and emotion.text_width else None


def make_ear(emotion: EmotionToLatentsConfig, build: Build) -> EmotionEar | None:
    """The ear for the mood of a voice that is part of a model, where it has one."""
    return EmotionEar(EAR, build) if emotion.audio == "ear" and emotion.audio_width else None


EAR = EmotionEarConfig(width=67)
"""The listener inside a checkpoint is of this size, which is EmoTalker's."""


class MoEESystem(nn.Module):
    """All networks of a MoEE checkpoint. ``gated`` False: stage 2a, gates not trained yet."""

    def __init__(self, config: SystemConfig, build: Build = DEFAULT_BUILD):
        super().__init__()
        self.config = config
        self.autoencoder = Autoencoder(config.autoencoder, build)
        self.speech_encoder = make_speech_encoder(config.audio, build)
        self.audio_projector = make_audio_projector(config.audio, build)
        self.emotion_to_latents = EmotionToLatents(config.emotion, build)
        self.text_encoder = make_text_encoder(config.emotion, build)
        self.ear = make_ear(config.emotion, build)
        self.reference_net = ReferenceNet(config.unet, build)
        self.denoiser = PortraitUNet(config.unet, build)
        self.own_experts: Mapping[str, OwnExpert] = {}
        self.frozen = FrozenEncoders()

    def with_own(self, experts: Mapping[str, OwnExpert]) -> MoEESystem:
        """This system, with those experts beside its six; they are no part of its weights."""
        device = next(self.denoiser.parameters()).device
        self.own_experts = {name: expert.to(device) for name, expert in experts.items()}
        return self

    def with_frozen(self, encoders: FrozenEncoders) -> MoEESystem:
        """This system, with those encoders of text and voice beside it, on its device; they are no part of its weights.

        Raises ``CheckpointError`` for an encoder that this model was not trained with.
        """
        encoders.check(self.config.emotion)
        self.frozen = encoders.to(next(self.parameters()).device)
        return self

    def rows(self, source: EmotionSource, samples: Tensor, frames: int) -> EmotionRows:
        """What a source says of the frames of a recording, (S,) 16 kHz mono. Raises ``EmotionError`` for a text or a
        voice whose encoder is not at hand."""
        own_mood = None if self.ear is None else functools.partial(self.mood, samples, frames)
        return self.frozen.rows(source, samples, frames, self.config.fps, self.config.emotion, own_mood)

    def signals(self, rows: EmotionRows) -> EmotionSignals:
        """What is said of some frames as this model takes it, on its device."""
        return signals_of(rows, self.emotion_to_latents, self.text_encoder)

    def mood(self, samples: Tensor, frames: int) -> np.ndarray:
        """(frames, 16) the mood of a recording, (S,) 16 kHz mono. Raises ``EmotionError`` without an ear."""
        if self.ear is None:
            raise EmotionError("this model cannot hear the mood of a voice; it has no ear for emotion")
        return mood(self.ear, samples, frames, self.config.fps).numpy()

    def emotion_context(self, emotion: Tensor | EmotionSignals, *, gated: bool = True) -> EmotionContext:
        """Emotion vectors per frame (N, 8), or any signals -> latents and routing for the denoiser, on their device."""
        return context_of(emotion, self.emotion_to_latents, self.config.unet.experts, own=self.own_experts, gated=gated)


def signals_of(
    rows: EmotionRows, latents: EmotionToLatents, text_encoder: WordsEncoder | None = None
) -> EmotionSignals:
    """What is said of some frames as Emotion-to-Latents takes it, on its device."""
    device = next(latents.parameters()).device
    inputs = network_inputs(rows, latents, text_encoder, device)
    vectors, units = torch.from_numpy(rows.vectors), torch.from_numpy(rows.units)
    own = {name: torch.from_numpy(np.ascontiguousarray(strength)) for name, strength in rows.own.items()}
    return EmotionSignals(inputs=inputs, vectors_N8=vectors, units_N20=units, own=own)


def context_of(
    emotion: Tensor | EmotionSignals,
    latents: EmotionToLatents,
    experts: int,
    *,
    own: Mapping[str, OwnExpert] | None = None,
    gated: bool = True,
) -> EmotionContext:
    """Emotion vectors per frame (N, 8), or any signals -> latents and routing for a denoiser of so many ``experts``, on
    the latents' device."""
    signals = EmotionSignals.of_labels(emotion) if isinstance(emotion, Tensor) else emotion
    shares = expert_shares(signals.vectors_N8.cpu(), experts, signals.units_N20)
    like = next(latents.parameters())
    made = latents({name: value.to(like) for name, value in signals.inputs.items()})
    beside = tuple(called(own or {}, signals.own, made.device))
    return EmotionContext(latents_NMD=made, routing=Routing.of(shares, gated).to(made.device), own=beside)


def network_inputs(
    rows: EmotionRows, latents: EmotionToLatents, text_encoder: WordsEncoder | None, device: torch.device
) -> dict[str, Tensor]:
    """What Emotion-to-Latents takes of what is said, on the device. Raises ``EmotionError`` for what it cannot take."""
    inputs, as_words = rows.inputs(tuple(latents.encoders))
    moved = {name: value.to(device) for name, value in inputs.items()}
    if as_words:
        if text_encoder is None:
            raise EmotionError(f"this model reads text by {FROZEN_TEXT}, which is not at hand; {GIVE_TEXT}")
        moved["text"] = text_encoder(moved["text"])
    return moved


UNIT_FLOOR = 0.04
"""Every expert's part in an action unit, however foreign: no unit is without an expert."""


def expert_shares(vectors_N8: Tensor, experts: int, units_N20: Tensor | None = None) -> Tensor:
    """(N, 8) emotion vectors -> (N, experts) shares: the blend over the experts, rows summing to 1, or 0 for neutral.

    Contempt has no expert of its own and is open to all. ``units_N20``, units of a face beside the emotion, go to the
    experts in whose prototypes they are, as far as they are strong. A network with one shared emotion attention (stage
    1) has a single column: 1 wherever there is any emotion.
    """
    active = vectors_N8[:, 1:].float()
    moved = torch.zeros(len(active), len(UNITS)) if units_N20 is None else units_N20.float().cpu().clamp_min(0)
    if experts == 1:
        return ((active.sum(dim=1, keepdim=True) + moved.to(active).sum(dim=1, keepdim=True)) > 0).float()
    if experts != len(EXPERTS):
        raise ValueError(f"the labels describe {len(EXPERTS)} experts, this network has {experts}")
    contempt = active[:, LABELS.index("contempt") - 1 :].sum(dim=1, keepdim=True)
    shares = active[:, : len(EXPERTS)] + contempt / len(EXPERTS) + (moved @ _experts_by_unit()).to(active)
    total = shares.sum(dim=1, keepdim=True)
    return torch.where(total > 0, shares / total.clamp_min(1e-8), torch.zeros_like(shares))


@functools.cache
def _experts_by_unit() -> Tensor:
    """(20, 6), rows summing to 1: which experts have a unit in their prototype."""
    parts = torch.from_numpy(np.stack([prototype(name) for name in EXPERTS], axis=1)) + UNIT_FLOOR
    return parts / parts.sum(dim=1, keepdim=True)
