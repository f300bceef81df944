"""From what a user connects to what the denoiser reads: one function per stage, each a library call on host devices.

Shapes: IMAGE (B, H, W, C) in 0..1; AUDIO {"waveform": (B, C, S), "sample_rate": int}; F frames, k motion frames.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..moee_core.audio.encoder import encode_speech
from ..moee_core.audio.projector import window_indices
from ..moee_core.audio.read import Waveform, resample_mono
from ..moee_core.emotion.signals import EmotionRows
from ..moee_core.emotion.source import EmotionSource
from ..moee_core.emotion.stand_ins import mood
from ..moee_core.jobs import fingerprint
from ..moee_core.networks.reference_net import ReferenceFeatures
from ..moee_core.ops import Build
from ..moee_core.portrait.image import fit_square
from ..moee_core.systems.moee import expert_shares, make_ear, network_inputs
from ..moee_core.video.frames import num_frames
from . import base, host
from .sockets import (
    AnyEncoders,
    EmotionTrack,
    EncoderSet,
    FaceOnPicture,
    HalloEncoders,
    PersonRead,
    PortraitCondition,
    SpeechFeatures,
)

CHUNK = 250
"""Frames whose tokens are worked out at once."""


def waveform_of(audio: dict[str, Any]) -> Waveform:
    """AUDIO -> Waveform of its first recording."""
    samples = audio["waveform"]
    if samples.ndim != 3 or samples.shape[0] < 1 or samples.shape[-1] < 1:
        raise ValueError(
            f"the recording is empty (waveform {tuple(samples.shape)}); load a file with sound, at least one frame long"
        )
    return Waveform(samples=samples[0].float().cpu().numpy(), sample_rate=int(audio["sample_rate"]))


def encode_portrait(
    encoders: AnyEncoders, vae: Any, image: Tensor, face: FaceOnPicture | None = None, insightface: Any = None
) -> PortraitCondition:
    """The first picture of the batch through autoencoder and ReferenceNet, once. ``face`` and ``insightface`` are for a
    Hallo base, and refused by other models."""
    if isinstance(encoders, HalloEncoders):
        return base.encode_portrait(encoders, vae, image, face, insightface)
    _only_for_a_base(face=face, insightface=insightface)
    square = fit_square(base.picture_of(image), encoders.config.image_size)
    latent = vae.encode(torch.from_numpy(square).float()[None] / 255).float()
    sites = host.on_device(
        encoders.reference_net, lambda net, device: tuple(site.cpu() for site in net(latent.to(device)))
    )
    return PortraitCondition(key=fingerprint([encoders.key, square, latent.cpu()]), latent=latent.cpu(), sites=sites)


def motion_features(encoders: EncoderSet, latents_kZhw: Tensor) -> tuple[Tensor, ...]:
    """Features of the last frames of the previous window, (1, k, T, C) per site."""
    return host.on_device(
        encoders.reference_net,
        lambda net, device: tuple(site.cpu()[None] for site in net(latents_kZhw.to(device, torch.float32))),
    )


def _only_for_a_base(**given: Any) -> None:
    """Raises ``ValueError`` for what would be left aside in silence."""
    for name, value in given.items():
        if value is not None:
            raise ValueError(f"{name} is read by a Hallo base only, this model does without; disconnect it")


def encode_recording(
    encoders: AnyEncoders, audio: dict[str, Any], audio_encoder: Any = None, audio_encoder_output: Any = None
) -> SpeechFeatures:
    """Features of the whole recording, computed in chunks. ``audio_encoder`` and its output are for a Hallo base, and
    refused by other models."""
    waveform = waveform_of(audio)
    if isinstance(encoders, HalloEncoders):
        return base.encode_recording(encoders, waveform, audio_encoder, audio_encoder_output)
    _only_for_a_base(audio_encoder=audio_encoder, audio_encoder_output=audio_encoder_output)
    fps = encoders.config.fps
    frames = num_frames(waveform.samples.shape[1], waveform.sample_rate, fps)
    mono = torch.from_numpy(resample_mono(waveform, in_file=True))
    features = host.on_device(
        encoders.speech,
        lambda net, _device: encode_speech(net.get_submodule("encoder"), mono, frames, fps).features_TLD.cpu(),
    )
    return SpeechFeatures(key=fingerprint([encoders.key, features]), features_FLD=features, fps=fps, waveform=waveform)


def encode_emotion(encoders: AnyEncoders, source: EmotionSource, speech: SpeechFeatures) -> EmotionTrack:
    """The emotion of every frame; where the voice has a say in it, the recording is listened to."""
    frames, fps = speech.num_frames, encoders.config.fps
    mono = torch.from_numpy(resample_mono(speech.waveform, in_file=True))
    emotion = encoders.emotion_config
    ear = make_ear(emotion, Build(device="meta"))
    own_mood = None if ear is None else functools.partial(_mood, encoders, mono, frames)
    rows = encoders.frozen.rows(source, mono, frames, fps, emotion, own_mood)
    embedded = (rows.text, rows.mood, None if rows.sentence is None else rows.sentence[:1], rows.voice)
    said = [rows.vectors, rows.units, *(part for part in embedded if part is not None)]
    own = [part for name in sorted(rows.own) for part in (name, rows.own[name])]
    return EmotionTrack(key=fingerprint([*rows.said, *said, *own]), key_encoder=encoders.key, rows=rows, source=source)


def _mood(encoders: AnyEncoders, mono: Tensor, frames: int) -> np.ndarray:
    """(F, 16) the mood of the recording, by the model's own ear."""
    fps = encoders.config.fps
    return host.on_device(encoders.emotion, lambda net, _device: mood(net["ear"], mono, frames, fps).numpy())


def audio_tokens(encoders: AnyEncoders, speech: SpeechFeatures, frames: Tensor) -> Tensor:
    """(F, S, A) tokens of the given frame numbers."""
    windows = window_indices(speech.num_frames, encoders.config.audio.margin)[frames]

    def run(net: Any, device: Any) -> Tensor:
        project = encoders.projector(net)
        parts = [project(speech.features_FLD[rows].to(device)).cpu() for rows in windows.split(CHUNK)]
        return torch.cat(parts)

    return host.on_device(encoders.speech, run)


def emotion_latents(encoders: AnyEncoders, rows: EmotionRows) -> tuple[Tensor, Tensor]:
    """(F, M, D) latents and (F, E) shares of the experts."""

    def run(net: Any, device: Any) -> Tensor:
        latents, words = encoders.emotion_networks(net)
        return latents(network_inputs(rows, latents, words, device)).cpu()

    vectors, units = torch.from_numpy(rows.vectors), torch.from_numpy(rows.units)
    return host.on_device(encoders.emotion, run), expert_shares(vectors, encoders.config.unet.experts, units)


def _references(
    encoders: AnyEncoders, portrait: PortraitCondition, frames: int, motion_kZhw: Tensor | None, carry_latents: bool
) -> tuple[ReferenceFeatures | PersonRead, ReferenceFeatures | PersonRead]:
    """What is read of the person, with speech and without. Only a Hallo base makes a difference."""
    if isinstance(encoders, HalloEncoders):
        return base.references(encoders, portrait, frames, motion_kZhw, carry_latents)
    count = encoders.config.unet.motion_frames
    motion = portrait.latent.expand(count, -1, -1, -1) if motion_kZhw is None else motion_kZhw
    reference = ReferenceFeatures(
        sites=portrait.sites, latent=portrait.latent, motion=motion_features(encoders, motion)
    )
    return reference, reference


def conditioning(
    encoders: AnyEncoders,
    portrait: PortraitCondition,
    speech: SpeechFeatures,
    emotion: EmotionTrack,
    frames: Tensor,
    motion_kZhw: Tensor | None = None,
    *,
    carry_latents: bool = False,
) -> dict[str, list]:
    """CONDITIONING for the given frame numbers: ``full``, the same ``without_audio``, and without audio and emotion
    (``negative``). ``motion_kZhw``: the last frames before them; None repeats the portrait. A Hallo base without audio
    does not know the person either, as its guidance was made. ``carry_latents`` is for a base: others always do."""
    person, silent_person = _references(encoders, portrait, len(frames), motion_kZhw, carry_latents)
    tokens = audio_tokens(encoders, speech, frames)
    rows = emotion.rows.take(frames.numpy())
    latents, shares = emotion_latents(encoders, rows)
    own = {f"{host.OWN_CONDITION}{name}": torch.from_numpy(strength) for name, strength in rows.own.items()}
    silent, neutral = torch.zeros_like(tokens), torch.zeros_like(shares)

    def entry(audio: Tensor, share: Tensor, read: ReferenceFeatures | PersonRead) -> list:
        values = {"moee_audio": audio, "moee_emotion": latents, "moee_shares": share, "moee_reference": read}
        called = own if share is shares else {name: torch.zeros_like(strength) for name, strength in own.items()}
        return [[None, {**values, **called}]]

    return {
        "full": entry(tokens, shares, person),
        "without_audio": entry(silent, shares, silent_person),
        "negative": entry(silent, neutral, silent_person),
    }


def opposite(encoders: AnyEncoders) -> str:
    """Which of them core's ``cfg`` moves away from: the silent, neutral face; of a Hallo base, which is always guided
    far, the silent and unknown one with the same emotion."""
    return "without_audio" if isinstance(encoders, HalloEncoders) else "negative"
