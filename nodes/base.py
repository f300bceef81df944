"""What a Hallo base makes of a picture, a recording and the frames before a window, on host devices.

Shapes: IMAGE (B, H, W, C) in 0..1; F frames, k carried frames; latents of the host (N, Z, h, w) are not scaled, those
of the networks are.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import comfy.model_management as mm
import numpy as np
import torch
from torch import Tensor

from ..moee_core.audio.encoder import AudioFeatures
from ..moee_core.audio.read import Waveform, resample_mono
from ..moee_core.audio.wav2vec2 import Wav2Vec2Features, features_of_layers
from ..moee_core.errors import CheckpointError
from ..moee_core.jobs import fingerprint
from ..moee_core.portrait.identity import identity_of, nobody
from ..moee_core.portrait.regions import FaceBounds, find_bounds, framed
from ..moee_core.systems.hallo import HalloPortrait
from ..moee_core.video.frames import num_frames
from . import host
from .sockets import BasePortrait, FaceOnPicture, HalloEncoders, PersonRead, PortraitCondition, SpeechFeatures

log = logging.getLogger(__name__)

WITHOUT_EAR = (
    "a Hallo base hears with wav2vec 2.0, which is no part of it: choose it as speech_encoder in Load Talking Portrait "
    "Model (a folder in models/moee/encoders), or connect an audio encoder to Encode Speech"
)
MEMORY = 1 << 30
"""Bytes beside the weights for the reference network at 512 pixels, six pictures at once."""


def encode_portrait(
    encoders: HalloEncoders, vae: Any, image: Tensor, face: FaceOnPicture | None = None, insightface: Any = None
) -> BasePortrait:
    """The first picture of the batch with all that is worked out of it once. Without ``face`` one is looked for;
    without ``insightface`` the identity tokens are nobody's."""
    config = encoders.config
    picture = picture_of(image)
    bounds = find_bounds(picture) if face is None else FaceBounds.of_points(face.points)
    seen = framed(
        picture,
        bounds,
        config.image_size,
        patch=config.autoencoder.patch,
        levels=len(config.unet.block_widths),
    )
    width = config.identity.width
    identity = nobody(width) if insightface is None else identity_of(insightface, picture, width)
    if insightface is None:
        log.info("talking portrait: no insightface is connected; the person is known from the picture alone")
    pixels = torch.from_numpy(seen.picture_HW3).float()[None] / 255
    latent = vae.encode(pixels).float().cpu()

    def run(net: Any, device: Any) -> HalloPortrait:
        return net.portrait(
            seen.picture().to(device),
            identity.to(device),
            seen.located().to(device),
            seen.regions(),
            (latent * config.autoencoder.scaling).to(device),
        )

    person = _moved(host.on_device(encoders.around, run), torch.device("cpu"))
    key = fingerprint([encoders.key, seen.picture_HW3, seen.box_HW, *seen.maps, identity, latent])
    return BasePortrait(key=key, latent=latent, sites=(), person=person, vae=vae)


def _moved(person: HalloPortrait, device: Any) -> HalloPortrait:
    names = ("picture_13HW", "latent_1Zhw", "known_1KC", "unknown_1KC", "located_1Dhw")
    moved = {name: getattr(person, name).to(device) for name in names}
    return replace(person, **moved, regions=person.regions.to(device))


def encode_recording(
    encoders: HalloEncoders, waveform: Waveform, audio_encoder: Any = None, layers: Any = None
) -> SpeechFeatures:
    """Features of the whole recording: by ``audio_encoder`` of the host, from its finished ``layers``, or by the
    wav2vec 2.0 of the encoders."""
    fps = encoders.config.fps
    frames = num_frames(waveform.samples.shape[1], waveform.sample_rate, fps)
    if layers is not None:
        found = _from_layers(layers, frames)
    else:
        mono = torch.from_numpy(resample_mono(waveform, in_file=True))
        found = _ear(encoders, audio_encoder).features(mono, frames)
    audio, features = encoders.config.audio, found.features_TLD
    if features.shape[1:] != (audio.layers, audio.width):
        raise CheckpointError(
            f"this audio encoder has {features.shape[1]} layers of {features.shape[2]} numbers, the base hears with "
            f"{audio.layers} of {audio.width}; take wav2vec2-base-960h"
        )
    return SpeechFeatures(key=fingerprint([encoders.key, features]), features_FLD=features, fps=fps, waveform=waveform)


def _ear(encoders: HalloEncoders, audio_encoder: Any) -> Wav2Vec2Features:
    if audio_encoder is None:
        if encoders.ear is None:
            raise CheckpointError(WITHOUT_EAR)
        return encoders.ear
    network = getattr(audio_encoder, "model", None)
    if not all(hasattr(network, part) for part in ("feature_extractor", "feature_projection", "encoder")):
        raise CheckpointError("this audio encoder is no wav2vec 2.0; load wav2vec2-base-960h with Load Audio Encoder")
    mm.load_models_gpu([audio_encoder.patcher], memory_required=MEMORY)
    return Wav2Vec2Features(network, time_last=False, dtype=torch.float32)


def _from_layers(given: Any, frames: int) -> AudioFeatures:
    try:
        layers = given["encoded_audio_all_layers"]
    except (KeyError, TypeError) as error:
        raise ValueError("this is no output of Encode Audio: it holds no encoded_audio_all_layers") from error
    return features_of_layers([layer.cpu() for layer in layers], frames)


def references(
    encoders: HalloEncoders,
    portrait: PortraitCondition,
    frames: int,
    motion_kZhw: Tensor | None,
    carry_latents: bool = False,
) -> tuple[PersonRead, PersonRead]:
    """What the denoiser reads of the person, and of nobody. ``motion_kZhw``: the host's latents of the last frames
    before; None is the portrait. Frames are carried over as they look, decoded and encoded, as the base was trained;
    with ``carry_latents`` as they are."""
    if not isinstance(portrait, BasePortrait):
        raise ValueError(
            "this portrait was read by another kind of model; connect the encoders of this one to Encode Portrait"
        )
    person, vae = portrait.person, portrait.vae
    carried = encoders.config.unet.motion_frames
    motion = person.latent_1Zhw.expand(carried, -1, -1, -1)
    if motion_kZhw is not None:
        seen = motion_kZhw if carry_latents else vae.encode(vae.decode(motion_kZhw)[..., :3])
        motion = seen.float().cpu() * encoders.config.autoencoder.scaling

    def run(net: Any, device: Any) -> tuple[PersonRead, PersonRead]:
        known, unknown = net.references(_moved(person, device), motion.to(device), frames)
        return (
            PersonRead(
                features=host.moved(known, torch.device("cpu")),
                identity_1KC=person.known_1KC,
                regions=person.regions,
                located_1Dhw=person.located_1Dhw,
            ),
            PersonRead(
                features=host.moved(unknown, torch.device("cpu")),
                identity_1KC=person.unknown_1KC,
                regions=person.regions,
                located_1Dhw=None,
            ),
        )

    return host.on_device(encoders.around, run, MEMORY)


def picture_of(image: Tensor) -> np.ndarray:
    """(H, W, 3) uint8 of the first picture of a batch."""
    return (image[0, ..., :3].float().cpu().clamp(0, 1) * 255).round().byte().numpy()
