"""DICE-Talk: a portrait of the SVD family that speaks with an emotion given as a prior.

Shapes (legend for this file):
    T frames of a clip, with its padding where latents are meant, F of a window, Z latent channels, h w latents of an
    H x W picture, S tokens of width D, U emotions that differ, P prior width, R speech features of L layers and width A
    priors, recording, portrait -> ``DiceConditions`` -> sampled latents (T, Z, h, w)

Guidance is a chain, each branch knowing more than the one before: nothing; the picture; the speech too; the emotion
too. v = v_0 + g_r (v_1 - v_0) + g_a (v_2 - v_1) + g_e (v_3 - v_2). The authors' published code has one scale for speech
and emotion together, g_a = g_e, where the third branch drops out; so does every branch between two scales that are
alike.

Tan et al. 2025, "Disentangle Identity, Cooperate Emotion"; facts from the authors' published code.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.projector import TokenProjector
from ..diffusion.anchor import from_change, to_change
from ..diffusion.shifting import chain_weights, sample_shifting
from ..emotion.bank import EmotionBank, EmotionBankConfig
from ..emotion.prior_embedder import PriorEmbedder, PriorEmbedderConfig
from ..emotion.vocabulary import LABELS
from ..errors import MediaError
from ..networks.conditions import FaceLocator
from ..networks.config import VideoUNetConfig
from ..networks.video_unet import VideoUNet
from ..ops import DEFAULT_BUILD, Build

EARS, PICTURES = ("whisper", "embedded"), ("clip", "latent")
ANOTHER_TYPE = "load the weights as bf16 or fp32 (if they are, the file is damaged: copy or download it again)"
"""What to do where a network answers with numbers that are not finite: half precision ends at 65504."""


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_whole(settings: object, least: int, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not _is_whole(value) or value < least:
            raise ValueError(
                f"{type(settings).__name__}.{name} must be a whole number of at least {least}, got {value!r}"
            )


def _check_finite(settings: object, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if not _is_finite(value):
            raise ValueError(f"{type(settings).__name__}.{name} must be a finite number, got {value!r}")


@dataclass(frozen=True, kw_only=True)
class DiceConfig:
    """Sizes; the defaults are the published ones. ``ids``: frame rate, motion and expression buckets as numbers.

    ``ear``: whose features are heard; "embedded" is the speech encoder of the model that ships. Of these features a
    video frame reads ``speech_frames``, ``speech_before`` of them before it, and the next frame those ``speech_step``
    further. ``picture``: where the portrait's token comes from, CLIP's embedding or the portrait's latent.
    ``embedder``: its sizes, where priors can be made of a video and a recording. ``named_priors``: whether the eight
    labels have priors of their own in the file. ``change_scale``: see ``diffusion/anchor.py``; 0 is plain SVD.
    """

    unet: VideoUNetConfig = field(default_factory=VideoUNetConfig)
    bank: EmotionBankConfig = field(default_factory=EmotionBankConfig)
    embedder: PriorEmbedderConfig | None = None
    named_priors: bool = False
    ear: str = "whisper"
    picture: str = "clip"
    change_scale: float = 0.0
    speech_layers: int = 5
    speech_width: int = 384
    speech_hidden: int = 1024
    speech_frames: int = 10
    speech_before: int = 4
    speech_step: int = 4
    locator_widths: tuple[int, ...] = (16, 32, 96, 256)
    window_frames: int = 25
    fps: float = 12.5
    motion_bucket: float = 8.0
    expression_bucket: float = 16.0
    latent_scale: float = 0.18215

    def __post_init__(self) -> None:
        _check_whole(self, 1, "speech_layers", "speech_width", "speech_hidden", "speech_frames", "speech_step")
        _check_whole(self, 1, "window_frames")
        _check_whole(self, 0, "speech_before")
        _check_finite(self, "change_scale", "fps", "motion_bucket", "expression_bucket", "latent_scale")
        for name in ("fps", "latent_scale"):
            if not getattr(self, name) > 0:
                raise ValueError(f"DiceConfig.{name} must be above 0, got {getattr(self, name)!r}")
        if not self.locator_widths or not all(_is_whole(width) and width >= 1 for width in self.locator_widths):
            raise ValueError(
                f"DiceConfig.locator_widths must be whole numbers of at least 1, got {self.locator_widths!r}"
            )
        for name, allowed in (("ear", EARS), ("picture", PICTURES)):
            if getattr(self, name) not in allowed:
                found = getattr(self, name)
                raise ValueError(f"DiceConfig.{name} must be one of {', '.join(allowed)}; got {found!r}")
        if self.unet.adapters != 2:
            raise ValueError(f"DICE-Talk has adapters for speech and emotion, got {self.unet.adapters}")
        if self.unet.context_width != self.bank.width:
            raise ValueError(
                f"the bank's tokens are {self.bank.width} wide, the UNet reads contexts of {self.unet.context_width}"
            )
        if self.embedder is not None and self.embedder.width != self.bank.prior_width:
            raise ValueError(
                f"the embedder's priors are {self.embedder.width} wide, the bank reads {self.bank.prior_width}"
            )
        if not self.change_scale >= 0:
            raise ValueError(f"DiceConfig.change_scale must be 0 or more, got {self.change_scale}")


@dataclass(frozen=True, kw_only=True)
class DiceSampling:
    """How a clip is sampled; the defaults are the authors'. ``emotion_guidance`` None is ``audio_guidance``.
    ``ramp_from`` lets the three scales rise linearly over the steps from these. ``padding``: frames behind the clip
    that keep its end from its beginning, where windows go round; they are cut off."""

    steps: int = 25
    reference_guidance: float = 3.0
    audio_guidance: float = 6.0
    emotion_guidance: float | None = None
    ramp_from: tuple[float, float, float] | None = None
    overlap: int = 0
    shift: int = 7
    padding: int = 25
    strength: float = 1.0

    def __post_init__(self) -> None:
        _check_whole(self, 1, "steps")
        _check_whole(self, 0, "overlap", "shift", "padding")
        _check_finite(self, "reference_guidance", "audio_guidance", "strength")
        if self.emotion_guidance is not None:
            _check_finite(self, "emotion_guidance")
        if not 0 < self.strength <= 1:
            raise ValueError(f"DiceSampling.strength must be above 0 and at most 1, got {self.strength!r}")
        if self.ramp_from is not None and not (len(self.ramp_from) == 3 and all(map(_is_finite, self.ramp_from))):
            raise ValueError(f"DiceSampling.ramp_from must be three finite numbers or None, got {self.ramp_from!r}")

    def scales(self, part: float) -> tuple[float, float, float]:
        """At a part of the way, 0 to 1."""
        emotion = self.audio_guidance if self.emotion_guidance is None else self.emotion_guidance
        end = (self.reference_guidance, self.audio_guidance, emotion)
        start = end if self.ramp_from is None else self.ramp_from
        a, b, c = (low + part * (high - low) for low, high in zip(start, end, strict=True))
        return a, b, c


@dataclass(frozen=True, kw_only=True)
class DiceConditions:
    """What a clip is drawn from. ``image_1D`` the picture's CLIP embedding, ``latent_1Zhw`` its unscaled latent,
    ``located_1Chw`` the face's features behind conv_in, ``mask_1HW`` where speech and emotion act; ``audio_TSD`` tokens
    of every frame's speech, ``emotion_USD`` of the emotions that differ and, ``which_T``, the one of each frame;
    ``silence_1SD`` and ``nothing_1SD`` those of no speech and no emotion.

    What grows with a clip, ``audio_TSD``, ``emotion_USD`` and ``which_T``, lies on one device, which need not be where
    the network computes: it is looked up a window at a time."""

    image_1D: Tensor
    latent_1Zhw: Tensor
    located_1Chw: Tensor
    mask_1HW: Tensor
    audio_TSD: Tensor
    emotion_USD: Tensor
    which_T: Tensor
    silence_1SD: Tensor
    nothing_1SD: Tensor

    def tokens(self, numbers_F: Tensor) -> tuple[Tensor, Tensor]:
        """(F, S, D) of speech and of emotion in some frames, where the network computes. Numbers from the last spoken
        frame on are padding, in which nobody speaks or feels."""
        numbers = numbers_F.to(self.audio_TSD.device)
        spoken = numbers < len(self.audio_TSD)
        at = numbers.clamp_max(len(self.audio_TSD) - 1)

        def chosen(rows_FSD: Tensor, none_1SD: Tensor) -> Tensor:
            rows = rows_FSD.to(none_1SD)
            if bool(spoken.all()):
                return rows
            return torch.where(spoken.to(none_1SD.device)[:, None, None], rows, none_1SD)

        heard, felt = self.audio_TSD[at], self.emotion_USD[self.which_T[at]]
        return chosen(heard, self.silence_1SD), chosen(felt, self.nothing_1SD)


class PictureToken(nn.Module):
    """The portrait's token from its latent, seen through a grid of 4 x 4 means: where there is no CLIP."""

    SIDE = 4

    def __init__(self, channels: int, width: int, build: Build):
        super().__init__()
        self.to_token = build.linear(channels * self.SIDE**2, width)
        self.norm = build.layer_norm(width)

    def forward(self, latent_NZhw: Tensor) -> Tensor:
        """(N, D)."""
        return self.norm(self.to_token(F.adaptive_avg_pool2d(latent_NZhw, self.SIDE).flatten(1)))


class DiceTalkSystem(nn.Module):
    """The networks of DICE-Talk's files. ``whole`` False leaves out the UNet, for a host that has it elsewhere."""

    def __init__(self, config: DiceConfig, build: Build = DEFAULT_BUILD, *, whole: bool = True):
        super().__init__()
        self.config = config
        bank = config.bank
        inputs = config.speech_frames * config.speech_layers * config.speech_width
        self.audio_projector = TokenProjector(inputs, config.speech_hidden, bank.tokens, bank.width, build)
        self.bank = EmotionBank(bank, build)
        self.face_locator = FaceLocator(config.locator_widths, config.unet.block_widths[0], build)
        if config.picture == "latent":
            self.picture_token = PictureToken(config.unet.channels_out, bank.width, build)
        if config.embedder is not None:
            self.embedder = PriorEmbedder(config.embedder, build)
        if config.named_priors:
            self.priors = build.embedding(len(LABELS), bank.prior_width)
        if whole:
            self.unet = VideoUNet(config.unet, build)

    @torch.no_grad()
    def audio_tokens(self, features_RLA: Tensor, frames: Tensor) -> Tensor:
        """(F, S, D) for some frames of a recording, from its features; before and behind it is silence, features of
        zeros. Raises ``ValueError`` for features of other sizes, or none."""
        config = self.config
        if features_RLA.ndim != 3 or features_RLA.shape[1:] != (config.speech_layers, config.speech_width):
            raise ValueError(
                f"speech features must be (R, {config.speech_layers}, {config.speech_width}), got "
                f"{tuple(features_RLA.shape)}; take those of the speech encoder that this model hears with"
            )
        if not len(features_RLA):
            raise ValueError("there are no speech features, not one of the recording; give a longer recording")
        offsets = torch.arange(config.speech_frames, device=frames.device) - config.speech_before
        at = frames[:, None] * config.speech_step + offsets[None]
        inside = (at >= 0) & (at < len(features_RLA))
        windows = features_RLA[at.clamp(0, len(features_RLA) - 1)]
        return self.audio_projector(windows * inside[..., None, None].to(windows))

    @torch.no_grad()
    def silence(self, like: Tensor) -> Tensor:
        """(1, S, D): what is heard of a window of zeros."""
        size = (1, self.config.speech_frames, self.config.speech_layers, self.config.speech_width)
        return self.audio_projector(like.new_zeros(size))

    @torch.no_grad()
    def sample(
        self,
        given: DiceConditions,
        noise_TZhw: Tensor,
        sampling: DiceSampling = DiceSampling(),
        on_step: Callable[[int, int], None] | None = None,
        *,
        tail: int = 0,
    ) -> Tensor:
        """(T - padding + tail, Z, h, w) latents, scaled as the noise is; ``noise_TZhw`` is of the clip and its padding.
        ``tail``: frames of the padding to keep. A decoder that looks along time is given them with the last frames of
        the clip by the authors.

        Raises ``ValueError`` for what does not belong together, and ``MediaError`` with the frame where the network
        answers with numbers that are not finite."""
        _check_clip(given, noise_TZhw, sampling.padding)
        spoken = len(given.audio_TSD)
        config, latent = self.config, given.latent_1Zhw
        portrait = config.latent_scale * latent
        # not in half precision, which has no 29.97; the networks take it in their own type behind its waves
        ids = torch.tensor([[config.fps, config.motion_bucket, config.expression_bucket]], device=latent.device)

        def predict(frames: Tensor, x: Tensor, time: Tensor, part: float) -> Tensor:
            count = len(frames)
            silent, nothing = (one.expand(count, -1, -1) for one in (given.silence_1SD, given.nothing_1SD))
            image = given.image_1D.expand(count, -1)
            heard, felt = given.tokens(frames)
            chain = (
                (torch.zeros_like(image), torch.zeros_like(latent), silent, nothing),
                (image, latent, silent, nothing),
                (image, latent, heard, nothing),
                (image, latent, heard, felt),
            )
            weights = chain_weights(sampling.scales(part))
            asked = [(weight, one) for weight, one in zip(weights, chain, strict=True) if weight]
            rows = len(asked)
            pictures, latents, sounds, feelings = zip(*(one for _, one in asked), strict=True)
            kept = self.unet.kept(torch.cat(pictures)[:, None], [torch.cat(sounds), torch.cat(feelings)], count)
            seen, at = x, time
            if config.change_scale:
                seen, at = to_change(x, time, portrait, config.change_scale)
            joined = [torch.cat([seen.to(latent), one.expand(count, -1, -1, -1)], dim=1) for one in latents]
            v = self.unet(
                torch.cat(joined),
                at,
                frames=count,
                ids_BK=ids.expand(rows, -1),
                kept=kept,
                mask_RHW=given.mask_1HW,
                added_NCHW=given.located_1Chw,
            )
            parts = v.unflatten(0, (rows, count))
            found: Tensor = sum(weight * one.float() for (weight, _), one in zip(asked, parts, strict=True))  # type: ignore[assignment]
            # in every window, not at the end: NaN stays, and a long clip has hours of steps to go
            check_finite(found, "what the network draws of frame {}", ANOTHER_TYPE, frames)
            return from_change(found, x, time, portrait, config.change_scale) if config.change_scale else found

        found = sample_shifting(
            predict,
            noise_TZhw.to(latent.device),
            steps=sampling.steps,
            window=config.window_frames,
            overlap=sampling.overlap,
            shift=sampling.shift,
            start_from=portrait,
            strength=sampling.strength,
            on_step=on_step,
        )
        return found[: spoken + tail]


def check_finite(rows_N: Tensor, what: str, remedy: str, numbers_N: Tensor | None = None) -> None:
    """Raises ``MediaError`` where one of rows (N, ...) has a number that is not finite. ``what`` they are: {} in it is
    the number of the first such row, by ``numbers_N`` where the rows have numbers of their own."""
    bad = ~torch.isfinite(rows_N).flatten(1).all(dim=1)
    if not bool(bad.any()):
        return
    numbers = torch.arange(len(bad)) if numbers_N is None else numbers_N.cpu()
    first = f"{int(numbers[bad.cpu()].min())} (counted from 0)"
    raise MediaError(f"{what.format(first)} is not finite, it holds NaN or infinity; {remedy}")


def _check_clip(given: DiceConditions, noise_TZhw: Tensor, padding: int) -> None:
    spoken, latent = len(given.audio_TSD), given.latent_1Zhw
    if not spoken:
        raise ValueError("the clip has no frame to speak in: audio_TSD is empty; give a longer recording")
    if len(noise_TZhw) != spoken + padding:
        raise ValueError(f"noise is for {len(noise_TZhw)} frames, the clip has {spoken} and {padding} of padding")
    if noise_TZhw.shape[1:] != latent.shape[1:]:
        raise ValueError(
            f"noise is {tuple(noise_TZhw.shape[1:])} a frame, the portrait's latent {tuple(latent.shape[1:])} "
            "(channels, height, width); draw it as large as the latent"
        )
    if given.which_T.shape != (spoken,):
        raise ValueError(f"emotion is told for {given.which_T.numel()} frames, the clip has {spoken}")
    low, high = int(given.which_T.min()), int(given.which_T.max())
    if low < 0 or high >= len(given.emotion_USD):
        raise ValueError(f"which_T names emotions {low} to {high}, emotion_USD has {len(given.emotion_USD)} of them")
