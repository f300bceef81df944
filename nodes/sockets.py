"""The socket types of the pack, and the objects that travel through them.

MODEL, VAE, IMAGE, AUDIO, LATENT, VIDEO and CONDITIONING are ComfyUI's own. Ours are frozen: a node does not change what
it was given.

Shapes: F video frames, Z latent channels, h latent side, T tokens of a site, S audio tokens, L D layers and width.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from comfy_api.latest import io
from torch import Tensor

from ..moee_core.audio.read import Waveform
from ..moee_core.audio.wav2vec2 import Wav2Vec2Features
from ..moee_core.emotion.frozen import FrozenEncoders
from ..moee_core.emotion.latents import EmotionToLatents, EmotionToLatentsConfig
from ..moee_core.emotion.signals import EmotionRows
from ..moee_core.emotion.source import EmotionSource
from ..moee_core.emotion.stand_ins import WordsEncoder
from ..moee_core.networks.config import HalloConfig, SystemConfig
from ..moee_core.networks.masked_audio import SpeechRegions
from ..moee_core.networks.reference_net import ReferenceFeatures
from ..moee_core.renderer.points import FacePoints
from ..moee_core.systems.hallo import HalloPortrait, emotion_config

Encoders = io.Custom("MOEE_ENCODERS")
Portrait = io.Custom("MOEE_PORTRAIT")
Speech = io.Custom("MOEE_SPEECH")
Emotion = io.Custom("MOEE_EMOTION")
"""Carries a ``moee_core.emotion.source.EmotionSource``."""
EmotionLatents = io.Custom("MOEE_EMOTION_LATENTS")
Face = io.Custom("MOEE_FACE")
MotionSocket = io.Custom("MOEE_MOTION")
"""Carries a ``moee_core.motion.coefficients.Motion``."""
AudioEncoder = io.Custom("AUDIO_ENCODER")
AudioEncoderOutput = io.Custom("AUDIO_ENCODER_OUTPUT")
"""ComfyUI's own, from Load Audio Encoder and Encode Audio."""
ClipVision = io.Custom("CLIP_VISION")
"""ComfyUI's own, from Image Only Checkpoint Loader."""
InsightFace = io.Custom("INSIGHTFACE")
"""insightface's FaceAnalysis, as other packs load it; see ``moee_core/portrait/identity.py``."""
LandmarksSocket = io.Custom("FACE_LANDMARKS")
"""ComfyUI's own, from its MediaPipe node; see ``moee_core/renderer/detector.py``."""


@dataclass(frozen=True, kw_only=True)
class EncoderSet:
    """The networks around the denoiser, each in a patcher of its own, and what the checkpoint says of itself.

    ``frozen`` are encoders from folders of the user's, which are no part of the checkpoint.
    """

    config: SystemConfig
    key: str
    reference_net: Any
    speech: Any
    emotion: Any
    sampling: dict[str, float]
    domain: dict[str, float]
    frozen: FrozenEncoders = field(default_factory=FrozenEncoders)

    @property
    def emotion_config(self) -> EmotionToLatentsConfig:
        return self.config.emotion

    @staticmethod
    def projector(speech: Any) -> Any:
        """From windows of features to tokens, in ``speech``'s networks."""
        return speech["projector"]

    @staticmethod
    def emotion_networks(emotion: Any) -> tuple[EmotionToLatents, WordsEncoder | None]:
        """Emotion-to-Latents and the encoder of words, in ``emotion``'s networks."""
        return emotion["latents"], dict(emotion.named_children()).get("text")


@dataclass(frozen=True, kw_only=True)
class HalloEncoders:
    """The same of a Hallo base: ``around`` holds all its networks but denoiser and autoencoder
    (``HalloSystem(whole=False)``), ``ear`` is a wav2vec 2.0 from a folder of the user's."""

    config: HalloConfig
    key: str
    around: Any
    sampling: dict[str, float]
    ear: Wav2Vec2Features | None = None
    frozen: FrozenEncoders = field(default_factory=FrozenEncoders)

    @property
    def speech(self) -> Any:
        return self.around

    @property
    def emotion(self) -> Any:
        return self.around

    @property
    def emotion_config(self) -> EmotionToLatentsConfig:
        return emotion_config(self.config.unet)

    @staticmethod
    def projector(speech: Any) -> Any:
        return speech.audio_projector

    @staticmethod
    def emotion_networks(emotion: Any) -> tuple[EmotionToLatents, WordsEncoder | None]:
        return emotion.emotion_to_latents, None


AnyEncoders = EncoderSet | HalloEncoders


@dataclass(frozen=True, kw_only=True)
class PortraitCondition:
    """(1, Z, h, w) latent of the portrait, as a LATENT has it, and (1, T, C) features of every site."""

    key: str
    latent: Tensor
    sites: tuple[Tensor, ...]


@dataclass(frozen=True, kw_only=True)
class BasePortrait(PortraitCondition):
    """A portrait as a Hallo base reads it, which has no ``sites`` before a window, and the ``vae`` it was read with,
    which carries frames over from window to window."""

    person: HalloPortrait
    vae: Any


@dataclass(frozen=True, kw_only=True)
class PersonRead:
    """What a Hallo base's denoiser reads of a person, or of nobody, in a window; nothing of it is a row per frame."""

    features: ReferenceFeatures
    identity_1KC: Tensor
    regions: SpeechRegions
    located_1Dhw: Tensor | None

    @property
    def latent(self) -> Tensor:
        return self.features.latent


@dataclass(frozen=True, kw_only=True)
class SpeechFeatures:
    """(F, L, D) features, one row per video frame, and the recording they came from."""

    key: str
    features_FLD: Tensor
    fps: float
    waveform: Waveform

    @property
    def num_frames(self) -> int:
        return self.features_FLD.shape[0]


@dataclass(frozen=True, kw_only=True)
class EmotionTrack:
    """What is said of every frame, and by what."""

    key: str
    key_encoder: str
    rows: EmotionRows
    source: EmotionSource


@dataclass(frozen=True, kw_only=True)
class FaceOnPicture:
    """A portrait (H, W, 3) uint8 and where its face is."""

    key: str
    picture: np.ndarray
    points: FacePoints
