"""Portrait, recording and prior to a talking clip, by DICE-Talk: the whole chain around ``DiceTalkSystem``.

Shapes (legend for this file):
    H W the picture that is animated, Z h w its latent, T drawn frames, F frames of the video, S samples at 16 kHz, R
    speech features of L layers and width A, K tokens of width D, P prior width, U priors that differ, N frames of
    somebody's face as C action units
    priors_TP, or (1, P) for a whole clip

What sees, hears and draws pixels is handed in (``DiceAround``), because a host has those networks elsewhere: an
autoencoder of one's choice, CLIP's embedding of the picture, a speech encoder.

A clip has ceil(seconds x rate) frames, whether its frames are shown as they are drawn or doubled by interpolation, and
is drawn with as many as either needs: at most one more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor, nn

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
from .dice_talk import ANOTHER_TYPE, DiceConditions, DiceSampling, DiceTalkSystem, check_finite

TOKENS_AT_ONCE = 250
"""Frames whose speech tokens are made at once."""
PRIORS_AT_ONCE = 8
"""Priors that read the bank at once: the weights of their attention to the tokens of all codes are in memory."""
DECODED_AT_ONCE = 10
"""Frames that Stable Video Diffusion's decoder, which looks along time, is given at once by the authors."""
UNITS_RATE = 25.0
"""Rows of action units a second, as the embedder was trained."""
ANOTHER_VAE = "load the autoencoder (VAE) as bf16 or fp32"
"""What to do where it gives numbers that are not finite."""
APART = 0.5
"""Seconds by which a face and its voice may differ in length before it is said what of them was read."""


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
    """The largest square of a picture at ``size`` pixels, as the small model is shown it: from the middle of a wide
    one and a third down what a tall one has too much, moved to the face where it is not in there."""
    x0, y0, x1, y1 = bounds.face
    height, width = picture.shape[:2]
    side = min(height, width)
    top = _first((height - side) // 3, y0, y1, side, height)  # where ``fit_square`` cuts, if the face is in there
    left = _first((width - side) // 2, x0, x1, side, width)
    return DicePicture(
        picture_HW3=fit_square(picture[top : top + side, left : left + side], size),
        mask_3HW=mask_of((x0 - left, y0 - top, x1 - left, y1 - top), (side, side), (size, size)).clamp(0, 1),
    )


def _first(usual: int, low: float, high: float, side: int, length: int) -> int:
    """The first pixel of ``side`` of a picture's ``length``: the usual one, moved no further than it takes to hold
    ``low`` to ``high``; the middle of these where they are longer than the side."""
    low, high = max(low, 0.0), min(high, float(length))
    longer = high - low > side
    first = round((low + high - side) / 2) if longer else min(max(usual, math.ceil(high) - side), math.floor(low))
    return min(max(first, 0), length - side)


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
    """(frames, K, D) on the CPU, in the weights' type. Raises ``ValueError`` for features of other sizes or none, and
    ``MediaError`` for some that are not finite."""
    check_finite(features_RLA, "speech feature {}", "load the speech encoder in fp32, or export the recording again")
    bank, kind = system.config.bank, _kind(system.audio_projector)
    features = features_RLA.to(device, kind)
    tokens_TKD = torch.empty(frames, bank.tokens, bank.width, dtype=kind)  # a long clip's tokens are in memory once
    for first in range(0, frames, TOKENS_AT_ONCE):
        numbers = torch.arange(first, min(first + TOKENS_AT_ONCE, frames), device=device)
        tokens_TKD[first : first + TOKENS_AT_ONCE] = system.audio_tokens(features, numbers)
    return tokens_TKD


@torch.no_grad()
def emotion_tokens(system: DiceTalkSystem, priors_TP: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """(U, K, D) tokens of the priors that differ, on the CPU in the weights' type, and (T,) which of them each frame
    has. Raises ``MediaError`` for a prior that is not finite."""
    check_finite(priors_TP, "the prior of frame {}", "make the prior anew, or take another")
    different, which = torch.unique(priors_TP, dim=0, return_inverse=True)
    rows = different.to(device, _kind(system.bank))
    whole = system.bank.whole(rows) if system.config.bank.form == "bank" else None  # once, for all groups
    made = [system.bank(part, whole=whole).cpu() for part in rows.split(PRIORS_AT_ONCE)]
    return torch.cat(made), which.cpu()


def _kind(network: nn.Module) -> torch.dtype:
    """In which its layers compute: half precision takes no float32."""
    return next(network.parameters()).dtype


@dataclass(frozen=True, kw_only=True)
class ReadPrior(Embedded):
    """Of ``prior_of_clip``, with ``about``: what was read, in words."""

    about: str


@torch.no_grad()
def prior_of_clip(
    system: DiceTalkSystem, units_NC: np.ndarray | None, fps: float, ear: EmotionEar | None, samples_S: Tensor | None
) -> ReadPrior:
    """The Gaussian of what a face does, as action units at ``fps``, and of what a voice says. One row of units is a
    picture, which is held for as long as the voice is; of more, and of a voice that is longer or shorter, what both
    have is read. Raises ``ValueError`` for a system that cannot embed, or where neither is given."""
    if system.config.embedder is None:
        raise ValueError(
            "this DICE-Talk model makes no priors of videos: the embedder of the published one was not published; "
            "choose a prior by its emotion or from a file, or the model that ships with the pack"
        )
    device, rate = next(system.embedder.parameters()).device, system.config.embedder.speech_rate
    face = voice = None
    if units_NC is not None:
        face = _units_at_rate(units_NC, fps, system.config.embedder.coefficients).to(device)
    if samples_S is not None and ear is not None:
        check_finite(samples_S[:, None], "sample {} of the recording", "export it again")
        reader = FeatureReader(ear, samples_S)
        starts = range(0, reader.total, reader.chunk)
        parts = [reader.read(first, min(first + reader.chunk, reader.total)).float() for first in starts]
        voice = torch.cat(parts)[:, None].to(device)
        voice = voice[: len(voice) - len(voice) % rate]
        if face is not None and not len(voice):
            voice = None
    about = []
    if face is not None and units_NC is not None:
        about.append("1 frame" if len(units_NC) == 1 else f"{len(units_NC)} frames")
    if voice is not None:
        about.append("a voice")
    said = " and ".join(about)
    if face is not None and voice is not None and units_NC is not None:
        heard = len(voice) // rate
        if len(units_NC) == 1:
            face = face[:1].expand(heard, -1)
        elif abs(len(face) - heard) > APART * UNITS_RATE:
            said += f", the first {min(len(face), heard) / UNITS_RATE:.1f} s of both"
    found = system.embedder.clip(face, voice)
    for values in (found.mean_BD, found.variance_BD):
        check_finite(values, "the prior of this clip", ANOTHER_TYPE)
    return ReadPrior(mean_BD=found.mean_BD, variance_BD=found.variance_BD, weights_BN=found.weights_BN, about=said)


def _units_at_rate(units_NC: np.ndarray, fps: float, width: int) -> Tensor:
    """Action units at ``fps`` as they are at ``UNITS_RATE``, at least one row of them."""
    if units_NC.ndim != 2 or units_NC.shape[1] != width or not len(units_NC):
        raise ValueError(
            f"action units of a face must be (N, {width}) with N at least 1, got {units_NC.shape}; give at least one "
            "frame in which a face was read"
        )
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(f"fps of the frames must be a finite number above 0, got {fps}")
    check_finite(torch.from_numpy(units_NC), "row {} of the action units", "leave this frame out of the video")
    count = max(1, round(len(units_NC) / fps * UNITS_RATE))
    at = np.clip((np.arange(count) + 0.5) / UNITS_RATE * fps - 0.5, 0, len(units_NC) - 1)
    rows = [np.interp(at, np.arange(len(units_NC)), column) for column in units_NC.T]
    return torch.from_numpy(np.stack(rows, axis=1).astype(np.float32))


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
    """What ``DiceTalkSystem.sample`` draws ``frames`` frames from, in the weights' type; what grows with the clip stays
    on the CPU. Raises ``ValueError`` for what does not fit, and ``MediaError`` for what is not finite."""
    config, weight = system.config, next(system.bank.parameters())
    width, device = config.bank.prior_width, weight.device
    if frames < 1:
        raise ValueError(f"a clip has at least 1 frame, got {frames}; give a longer recording")
    if priors_TP.ndim != 2 or priors_TP.shape[1] != width or len(priors_TP) not in (1, frames):
        raise ValueError(
            f"priors must be (1, {width}) or, one for each frame, ({frames}, {width}), got {tuple(priors_TP.shape)}; "
            "make them for this model and for as many frames"
        )
    if seen.mask_3HW.shape[1:] != seen.picture_HW3.shape[:2]:
        raise ValueError(
            f"the face's mask is {tuple(seen.mask_3HW.shape[1:])}, the picture {seen.picture_HW3.shape[:2]} (height, "
            "width); take both from whole_picture or square_picture"
        )
    audio = speech_tokens(system, features_RLA, frames, device)
    tokens, which = emotion_tokens(system, priors_TP, device)
    pixels = torch.from_numpy(seen.picture_HW3).permute(2, 0, 1)[None].float() / 127.5 - 1
    latent = around.encode(pixels.to(device)).float()
    if latent.ndim != 4 or latent.shape[:2] != (1, config.unet.channels_out):
        raise ValueError(
            f"the portrait's latent must be (1, {config.unet.channels_out}, h, w), got {tuple(latent.shape)}; encode "
            "it with the autoencoder that this model was trained with"
        )
    check_finite(latent, "the portrait's latent", ANOTHER_VAE)
    mask = seen.mask_3HW.to(weight)
    return DiceConditions(
        image_1D=picture_token(system, latent, None if around.embed is None else around.embed(seen.picture_HW3)),
        latent_1Zhw=latent.to(weight),
        located_1Chw=system.face_locator(mask[None]),
        mask_1HW=mask[:1],
        audio_TSD=audio,
        emotion_USD=tokens,
        which_T=which.expand(frames),
        silence_1SD=system.silence(weight),
        nothing_1SD=system.bank(weight.new_zeros(1, width)),
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
    """The drawn frames (H, W, 3) uint8, decoded a few at a time; ``interpolate.doubled`` makes twice as many. Raises
    ``MediaError`` with the frame that is not finite."""
    spoken = len(given.audio_TSD)
    padding = frames_behind(spoken, system.config.window_frames, sampling)
    latent = given.latent_1Zhw
    shape = (latent.shape[1], latent.shape[2], latent.shape[3])
    noise = dice_noise(seed, spoken + padding, shape, sharing)
    latents = system.sample(given, noise, replace(sampling, padding=padding), on_step)
    for first in range(0, len(latents), DECODED_AT_ONCE):
        with torch.no_grad():
            pictures = around.decode(latents[first : first + DECODED_AT_ONCE] / system.config.latent_scale).float()
        numbers = torch.arange(first, first + len(pictures))
        # clamped and rounded, NaN would be a black picture
        check_finite(pictures, "what the decoder makes of frame {}", ANOTHER_VAE, numbers)
        shown = ((pictures.clamp(-1, 1) + 1) * 127.5).round().byte()
        yield from shown.permute(0, 2, 3, 1).cpu().numpy()
