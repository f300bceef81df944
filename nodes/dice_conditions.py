"""From what a user connects to what DICE-Talk's denoiser reads: one function per stage, on host devices.

Shapes: IMAGE (B, H, W, C) in 0..1; AUDIO {"waveform": (B, C, S), "sample_rate": int}; T drawn frames, P prior width.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import replace
from typing import Any

import comfy.sd
import numpy as np
import torch
from torch import Tensor

from ..moee_core.audio.emotion_ear import EmotionEar
from ..moee_core.audio.encoder import encode_speech
from ..moee_core.audio.read import Waveform, resample_mono
from ..moee_core.emotion.priors import Prior
from ..moee_core.emotion.reference import read_units
from ..moee_core.emotion.source import EmotionSource, as_source
from ..moee_core.emotion.stand_ins import mood
from ..moee_core.emotion.timeline import parse_emotion
from ..moee_core.errors import CheckpointError
from ..moee_core.portrait.face_box import CLIP_SIDE, lanczos
from ..moee_core.portrait.regions import NO_FINDER, FaceBounds, find_bounds, finder_installed
from ..moee_core.renderer.detector import detected_points
from ..moee_core.renderer.find import find_face_box
from ..moee_core.renderer.points import FacePoints
from ..moee_core.systems.dice_pipeline import (
    DicePicture,
    clip_frames,
    emotion_tokens,
    picture_token,
    prior_of_clip,
    speech_tokens,
    square_picture,
    whole_picture,
)
from ..moee_core.video.frames import num_frames
from ..moee_core.weights.checkpoint import load_system
from . import dice_models, host
from .base import picture_of
from .conditions import waveform_of
from .dice_host import DiceClip
from .dice_sockets import DiceEncoders, DicePrior
from .look import expression_reader
from .sockets import FaceOnPicture

log = logging.getLogger(__name__)

MEMORY = 1 << 28
"""Bytes beside the weights for the networks around the denoiser."""
WITHOUT_EAR = (
    "this DICE-Talk model hears with Whisper, which is no part of it: choose whisper-tiny as speech_encoder in Load "
    "DICE-Talk Model (a folder in models/moee/encoders)"
)


def clip_of(
    encoders: DiceEncoders,
    image: Tensor,
    audio: dict[str, Any],
    emotion: Any,
    face: FaceOnPicture | None = None,
    *,
    mask: bool = True,
    vae: Any = None,
) -> tuple[DiceClip, Waveform]:
    """Everything that a clip is drawn from, and its recording. ``vae`` None is the model's own."""
    waveform = waveform_of(audio)
    config = encoders.config
    frames = clip_frames(waveform.samples.shape[1], waveform.sample_rate, config.fps)
    mono = torch.from_numpy(resample_mono(waveform, in_file=True))
    features = _heard(encoders, mono, waveform)
    rows = torch.from_numpy(_felt(encoders, emotion, mono, frames))
    seen = seen_portrait(encoders, image, face)
    latent, embedding = _encoded(encoders, seen, encoders.vae if vae is None else vae)

    def run(net: Any, device: Any) -> DiceClip:
        features_there = features.to(device)
        zero = rows.new_zeros(1, config.bank.prior_width, device=device)
        tokens, which = emotion_tokens(net, rows, device)
        seen_mask = seen.mask_3HW.to(device)
        return DiceClip(
            image_1D=picture_token(net, latent.to(device), embedding).cpu(),
            latent_1Zhw=latent,
            located_1Chw=net.face_locator(seen_mask[None]).cpu(),
            mask_1HW=seen.mask_3HW[:1] if mask else None,
            audio_TKD=speech_tokens(net, features_there, frames, device),
            emotion_UKD=tokens,
            emotion_T=which,
            silence_1KD=net.silence(features_there).cpu(),
            nothing_1KD=net.bank(zero).cpu(),
        )

    return host.on_device(encoders.around, run, MEMORY), waveform


def seen_portrait(encoders: DiceEncoders, image: Tensor, face: FaceOnPicture | None) -> DicePicture:
    """The first picture of a batch as the model is shown it, and where its face is: marked, or found."""
    picture = picture_of(image)
    if face is not None:
        if (face.points.width, face.points.height) != (picture.shape[1], picture.shape[0]):
            raise ValueError(
                f"the face was marked on a {face.points.width}x{face.points.height} picture, the portrait is "
                f"{picture.shape[1]}x{picture.shape[0]}; connect Face Points of the same picture"
            )
        bounds = FaceBounds.of_points(face.points)
    elif encoders.image_size:
        bounds = _drawn_face(picture)
    else:
        bounds = find_bounds(picture)
    if encoders.image_size:
        return square_picture(picture, bounds, encoders.image_size)
    return whole_picture(picture, bounds.face)


def _drawn_face(picture: np.ndarray) -> FaceBounds:
    """Where a finder sees a face, else in the middle: not every finder knows drawn faces, and where the small model's
    portraits have theirs."""
    height, width = picture.shape[:2]
    points = detected_points(picture)
    if points is None:
        box = find_face_box(picture)
        if box is None:
            why = "no face was found on this picture" if finder_installed() else NO_FINDER
            log.warning("talking portrait: a face in the middle of the picture is assumed: %s", why)
        points = FacePoints.template(width, height, box)
    return FaceBounds.of_points(points)


def _encoded(encoders: DiceEncoders, seen: DicePicture, vae: Any) -> tuple[Tensor, Tensor | None]:
    """(1, Z, h, w) unscaled latent and (1, D) embedding of the portrait, on the CPU."""
    if not isinstance(vae, comfy.sd.VAE) and not hasattr(vae, "encode"):
        raise ValueError("connect vae: the one of Stable Video Diffusion, from Image Only Checkpoint Loader")
    pixels = torch.from_numpy(seen.picture_HW3).float()[None] / 255
    latent = vae.encode(pixels).float().cpu()
    wanted = encoders.config.unet.channels_out
    if latent.ndim != 4 or latent.shape[1] != wanted:
        raise ValueError(
            f"this VAE gives latents {tuple(latent.shape)}, the model draws {wanted} channels; connect the VAE that "
            "Load DICE-Talk Model gives, or the one of Stable Video Diffusion"
        )
    if encoders.config.picture != "clip":
        return latent, None
    if encoders.clip_vision is None:
        raise ValueError(
            "connect clip_vision to Load DICE-Talk Model: the one of Stable Video Diffusion, from Image Only "
            "Checkpoint Loader"
        )
    small = torch.from_numpy(lanczos(seen.picture_HW3, CLIP_SIDE, CLIP_SIDE)).float()[None] / 255
    return latent, encoders.clip_vision.encode_image(small, crop=False)["image_embeds"].float().cpu()


def _heard(encoders: DiceEncoders, mono: Tensor, waveform: Waveform) -> Tensor:
    """(R, L, A) features of the whole recording."""
    config = encoders.config
    if encoders.ear is None:
        raise CheckpointError(WITHOUT_EAR)
    if config.ear == "embedded":
        frames = num_frames(waveform.samples.shape[1], waveform.sample_rate, 25)
        features = host.on_device(
            encoders.ear, lambda net, _device: encode_speech(net, mono, frames, 25.0).features_TLD.cpu()
        )
    else:
        features = encoders.ear.features(mono)
    if features.shape[1:] != (config.speech_layers, config.speech_width):
        raise CheckpointError(
            f"this speech encoder has {features.shape[1]} layers of {features.shape[2]} numbers, the model hears with "
            f"{config.speech_layers} of {config.speech_width}; take whisper-tiny"
        )
    return features


def _felt(encoders: DiceEncoders, emotion: Any, mono: Tensor, frames: int) -> np.ndarray:
    """(T, P) the prior of every frame, of a text, an emotion or a prior."""
    fps = encoders.config.fps
    said = as_prior(encoders, emotion)
    width = encoders.config.bank.prior_width
    asks_voice = said.source is not None and bool(said.source.voice)
    rows = said.rows(frames, fps, mood(_mood_ear(), mono, frames, fps).numpy() if asks_voice else None)
    if rows.shape[1] != width:
        raise ValueError(
            f"this prior has {rows.shape[1]} numbers, the model reads {width}; take one that was made for this model"
        )
    return rows


def as_prior(encoders: DiceEncoders, emotion: Any) -> DicePrior:
    """A text, an emotion or a prior as a prior. One by name is of this model's priors."""
    if isinstance(emotion, DicePrior):
        return emotion
    if isinstance(emotion, str):
        emotion = as_source(parse_emotion(emotion))
    if not isinstance(emotion, EmotionSource):
        raise ValueError(f"an emotion is a text, an Emotion node or a DICE-Talk Prior, got {type(emotion).__name__}")
    return DicePrior(about=emotion.explain(), known=dice_models.known_priors(encoders), source=emotion)


def prior_of_video(
    encoders: DiceEncoders, image: Tensor | None, fps: float, audio: dict[str, Any] | None, seed: int | None
) -> Prior:
    """The prior of the frames of a video, of its sound, or of both. ``seed`` None takes the mean of the Gaussian."""
    if image is None and audio is None:
        raise ValueError("connect image (the frames of a video), audio (its sound), or both; there is nothing to read")
    units = None
    if image is not None:
        units = read_units(expression_reader(), (picture_of(row[None]) for row in image))
    mono = None if audio is None else torch.from_numpy(resample_mono(waveform_of(audio), in_file=True))
    found = host.on_device(encoders.around, lambda net, _device: prior_of_clip(net, units, fps, _mood_ear(), mono))
    prior = Prior(
        mean=found.mean_BD[0].float().cpu().numpy(),
        deviation=found.variance_BD[0].float().clamp_min(0).sqrt().cpu().numpy(),
        about=f"of {found.about}",
        licence=encoders.licence,
    )
    return drawn(prior, seed)


def drawn(prior: Prior, seed: int | None) -> Prior:
    """A prior as it is, or one drawn from its Gaussian. Raises ``ValueError`` where it has no deviation."""
    if seed is None:
        return prior
    if prior.deviation is None:
        raise ValueError("this prior is a mean without a deviation, so none can be drawn around it; set draw to mean")
    eps = torch.randn(prior.width, generator=torch.Generator().manual_seed(seed)).numpy()
    mean = (prior.mean + prior.deviation * eps).astype(np.float32)
    return replace(prior, mean=mean, deviation=None, about=f"{prior.about}, drawn with seed {seed}")


@functools.lru_cache(maxsize=1)
def _mood_ear() -> EmotionEar:
    """What the model that ships hears moods with, on the CPU."""
    ear = load_system(host.EMBEDDED_FILE)[0].ear
    assert ear is not None  # it ships with one
    return ear
