"""Portrait, recording and prior to a talking clip, by DICE-Talk: the whole chain around ``DiceTalkSystem``.

Shapes (legend for this file):
    H W the picture that is animated, Z h w its latent, T drawn frames, F frames of the video, S samples at 16 kHz, R
    speech features of L layers and width A, K tokens of width D, P prior width, U priors that differ
    priors_TP, or (1, P) for a whole clip

What sees, hears and draws pixels is handed in (``DiceAround``), because a host has those networks elsewhere: an
autoencoder of one's choice, CLIP's embedding of the picture, a speech encoder.

A clip has ceil(seconds x rate) frames, whether its frames are shown as they are drawn or doubled by interpolation, and
is drawn with as many as either needs: at most one more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from ..audio.emotion_ear import EmotionEar
from ..audio.emotion_features import FeatureReader
from ..diffusion.sampler import frame_noise
from ..emotion.prior_embedder import Embedded
from ..portrait.face_box import lanczos, mask_of, working_size
from ..portrait.image import fit_square
from ..portrait.regions import FaceBounds
from ..renderer.points import Box
from ..video.frames import num_frames
from ..video.interpolate import count_before
from .dice_talk import DiceConditions, DiceSampling, DiceTalkSystem

TOKENS_AT_ONCE = 250
"""Frames whose speech tokens are made at once."""
PRIORS_AT_ONCE = 8
"""Priors that read the bank at once; each sees the tokens of all its codes."""
DECODED_AT_ONCE = 10
"""Frames that Stable Video Diffusion's decoder, which looks along time, is given at once by the authors."""
UNITS_RATE = 25.0
"""Rows of action units a second, as the embedder was trained."""


@dataclass(frozen=True, kw_only=True)
class DicePicture:
    """``picture_HW3`` uint8 that is animated, and ``mask_3HW`` in [0, 1] where its face is."""

    picture_HW3: np.ndarray
    mask_3HW: Tensor


def whole_picture(picture: np.ndarray, box: Box) -> DicePicture:
    """A picture of any shape at DICE-Talk's working size, and the face's ``box`` on it."""
    before = (picture.shape[0], picture.shape[1])
    after = working_size(*before)
    return DicePicture(picture_HW3=lanczos(picture, *after), mask_3HW=mask_of(box, before, after))


def square_picture(picture: np.ndarray, bounds: FaceBounds, size: int) -> DicePicture:
    """The largest square of a picture at ``size`` pixels, as the small model is shown it."""
    height, width = picture.shape[:2]
    side = min(height, width)
    face = bounds.cropped((height - side) // 3, (width - side) // 2, side, side).face  # as ``fit_square`` cuts it
    return DicePicture(
        picture_HW3=fit_square(picture, size), mask_3HW=mask_of(face, (side, side), (size, size)).clamp(0, 1)
    )


def clip_frames(samples: int, sample_rate: int, fps: float) -> int:
    """How many frames are drawn of a recording: enough for it, and for it doubled."""
    shown = num_frames(samples, sample_rate, fps)
    return max(shown, count_before(num_frames(samples, sample_rate, 2 * fps)))


def frames_behind(spoken: int, window: int, sampling: DiceSampling) -> int:
    """Frames of padding: as many as asked for, and so many that a clip is at least one window long. In a single step
    windows are laid once, so they only have to be full: nothing then goes round, and the beginning never sees the end.
    """
    if sampling.steps == 1 and sampling.overlap == 0:
        return -spoken % window
    return max(sampling.padding, window - spoken)


def dice_noise(seed: int, frames: int, shape: tuple[int, int, int], sharing: float = 0.0) -> Tensor:
    """(frames, Z, h, w) on the CPU, each frame's own by its number: one seed is one clip."""
    noise = torch.empty(frames, *shape)
    for number, frame in enumerate(noise):  # one by one: a long clip's noise is in memory once
        frame.copy_(frame_noise(seed, number, 1, shape, sharing)[0])
    return noise


@torch.no_grad()
def speech_tokens(system: DiceTalkSystem, features_RLA: Tensor, frames: int, device: torch.device) -> Tensor:
    """(frames, K, D) on the CPU."""
    numbers = torch.arange(frames, device=device)
    features = features_RLA.to(device)
    return torch.cat([system.audio_tokens(features, part).cpu() for part in numbers.split(TOKENS_AT_ONCE)])


@torch.no_grad()
def emotion_tokens(system: DiceTalkSystem, priors_TP: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """(U, K, D) tokens of the priors that differ, on the CPU, and (T,) which of them each frame has."""
    different, which = torch.unique(priors_TP, dim=0, return_inverse=True)
    made = [system.bank(part.to(device)).cpu() for part in different.float().split(PRIORS_AT_ONCE)]
    return torch.cat(made), which


@torch.no_grad()
def prior_of_clip(
    system: DiceTalkSystem, units_NC: np.ndarray | None, fps: float, ear: EmotionEar | None, samples_S: Tensor | None
) -> Embedded:
    """The Gaussian of what a face does, as action units at ``fps``, and of what a voice says. Raises ``ValueError`` for
    a system that cannot embed, or where neither is given."""
    if system.config.embedder is None:
        raise ValueError(
            "this DICE-Talk model makes no priors of videos: the embedder of the published one was not published; "
            "choose a prior by its emotion or from a file, or the model that ships with the pack"
        )
    device = next(system.embedder.parameters()).device
    face = voice = None
    if units_NC is not None:
        seconds = len(units_NC) / fps
        count = max(1, round(seconds * UNITS_RATE))
        at = np.clip((np.arange(count) + 0.5) / UNITS_RATE * fps - 0.5, 0, len(units_NC) - 1)
        rows = [np.interp(at, np.arange(len(units_NC)), column) for column in units_NC.T]
        face = torch.from_numpy(np.stack(rows, axis=1).astype(np.float32)).to(device)
    if samples_S is not None and ear is not None:
        reader = FeatureReader(ear, samples_S)
        starts = range(0, reader.total, reader.chunk)
        parts = [reader.read(first, min(first + reader.chunk, reader.total)).float() for first in starts]
        voice = torch.cat(parts)[:, None].to(device)
        voice = voice[: len(voice) - len(voice) % system.embedder.config.speech_rate]
        if face is not None and not len(voice):
            voice = None
    return system.embedder.clip(face, voice)


@dataclass(frozen=True, kw_only=True)
class DiceAround:
    """The networks around a system. ``encode`` (1, 3, H, W) in [-1, 1] -> (1, Z, h, w) unscaled; ``decode`` (N, Z, h,
    w) unscaled -> (N, 3, H, W) in [-1, 1]; ``embed`` (H, W, 3) uint8 -> (1, D), None where the latent is the token."""

    encode: Callable[[Tensor], Tensor]
    decode: Callable[[Tensor], Tensor]
    embed: Callable[[np.ndarray], Tensor] | None = None


@torch.no_grad()
def dice_conditions(
    system: DiceTalkSystem,
    seen: DicePicture,
    features_RLA: Tensor,
    priors_TP: Tensor,
    frames: int,
    around: DiceAround,
) -> DiceConditions:
    """What ``DiceTalkSystem.sample`` draws ``frames`` frames from."""
    weight = next(system.bank.parameters())
    device = weight.device
    pixels = torch.from_numpy(seen.picture_HW3).permute(2, 0, 1)[None].float() / 127.5 - 1
    latent = around.encode(pixels.to(device)).float()
    image = picture_token(system, latent, None if around.embed is None else around.embed(seen.picture_HW3))
    tokens, which = emotion_tokens(system, priors_TP.expand(frames, -1), device)
    mask = seen.mask_3HW.to(weight)
    return DiceConditions(
        image_1D=image,
        latent_1Zhw=latent.to(weight),
        located_1Chw=system.face_locator(mask[None]),
        mask_1HW=mask[:1],
        audio_TSD=speech_tokens(system, features_RLA, frames, device).to(weight),
        emotion_TSD=tokens[which].to(weight),
        silence_1SD=system.silence(weight),
        nothing_1SD=system.bank(weight.new_zeros(1, system.config.bank.prior_width)),
    )


def picture_token(system: DiceTalkSystem, latent_1Zhw: Tensor, embedding_1D: Tensor | None) -> Tensor:
    """(1, D): from the latent, or CLIP's embedding, whichever the system reads. Raises ``ValueError`` for one that is
    missing or of another width."""
    weight = next(system.bank.parameters())
    if system.config.picture == "latent":
        return system.picture_token(latent_1Zhw.to(weight))
    width = system.config.unet.context_width
    if embedding_1D is None:
        raise ValueError("this DICE-Talk model knows its portrait by CLIP's embedding too; connect clip_vision")
    if embedding_1D.shape != (1, width):
        raise ValueError(
            f"this DICE-Talk model reads an embedding of {width} numbers, this CLIP Vision gives "
            f"{tuple(embedding_1D.shape)}; take the one of Stable Video Diffusion (ViT-H)"
        )
    return embedding_1D.to(weight)


def animate_dice(
    system: DiceTalkSystem,
    given: DiceConditions,
    around: DiceAround,
    sampling: DiceSampling,
    *,
    seed: int,
    sharing: float = 0.0,
    on_step: Callable[[int, int], None] | None = None,
) -> Iterator[np.ndarray]:
    """The drawn frames (H, W, 3) uint8, decoded a few at a time; ``interpolate.doubled`` makes twice as many."""
    spoken = len(given.audio_TSD)
    padding = frames_behind(spoken, system.config.window_frames, sampling)
    latent = given.latent_1Zhw
    shape = (latent.shape[1], latent.shape[2], latent.shape[3])
    noise = dice_noise(seed, spoken + padding, shape, sharing)
    latents = system.sample(given, noise, replace(sampling, padding=padding), on_step)
    for part in (latents / system.config.latent_scale).split(DECODED_AT_ONCE):
        with torch.no_grad():
            pictures = around.decode(part).float()
        shown = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte()
        yield from shown.permute(0, 2, 3, 1).cpu().numpy()
