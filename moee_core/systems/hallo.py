"""Hallo: the public network that MoEE builds on, with a place for MoEE's experts at every site.

Shapes (legend for this file):
    F frames of a window, k carried frames, Z latent channels, h w latents of an H x W picture, E face embedding width,
    W window of speech features, L layers, D width, S A audio tokens, R regions, K C identity tokens

    portrait --> autoencoder --> ReferenceNet ----------------.
    features ------> windows --> audio tokens ----------------+--> denoiser, sampled per window --> decoder --> frames
    face, regions -> locator, maps of every level ------------'        ^ last k frames of the previous window

Guidance (Ho & Salimans 2022): v = v_0 + s (v_1 - v_0), where v_0 knows neither person nor speech nor where the face
is: tokens of the zero embedding, zero audio tokens, nothing added behind conv_in, no token of the portrait. It keeps
the carried frames and the regions.

``hallo_exact`` repeats what the authors' published code does where that is an accident of its array layout. Its numbers
are then those of the authors, and the default is what the accident stands in the way of:

    ======================= ============================================= =========================================
    what                    ``hallo_exact``                               default
    ======================= ============================================= =========================================
    identity of the         known and unknown tokens alternate over the   every branch its own
    reference net's rows    rows of both branches
    portrait that a frame   even rows of the batch read the first         every frame reads the portrait with the
    reads                   branch's row, odd ones the second's           person's tokens
    reference features      rounded to half precision                     in the networks' precision
    a stack of pictures     taken for one in [0, 1] and stretched         left alone
    above mid-grey
    end of a recording *    ``features(samples, n)`` with n the next      features of the recording alone, the last
                            multiple of the window; ``total`` n, cut      frame's tokens fill the last window up
                            afterwards
    noise *                 ``running_noise(42)``, in the networks' type  ``numbered_noise`` of the caller's seed
    ======================= ============================================= =========================================

    * handed in by the caller: the option does not reach it, but without it the numbers are not the authors'

Xu et al. 2024, "Hallo: Hierarchical Audio-Driven Visual Synthesis for Portrait Image Animation"; facts from the
authors' published code. Raises ``ValueError`` for conditions that do not fit the configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from ..audio.projector import window_indices
from ..diffusion.sampler import frame_noise, guided, sample_ddim
from ..diffusion.schedule import alphas_cumprod
from ..emotion.latents import EmotionToLatents, EmotionToLatentsConfig
from ..emotion.signals import EmotionRows, EmotionSignals
from ..networks.autoencoder_kl import AutoencoderKL
from ..networks.conditions import FaceLocator, IdentityProjector
from ..networks.config import HalloConfig, PortraitUNetConfig
from ..networks.masked_audio import SpeechRegions
from ..networks.portrait_unet import EmotionContext, PortraitUNet
from ..networks.reference_net import ReferenceFeatures, ReferenceNet
from ..ops import DEFAULT_BUILD, Build
from .moee import context_of, make_audio_projector, signals_of

MakeNoise = Callable[[int, tuple[int, int, int, int]], Tensor]
"""(first frame of a window, (F, Z, h, w)) -> unit noise of that shape."""


def numbered_noise(seed: int) -> MakeNoise:
    """Noise that depends on the seed and a frame's own number alone, however the clip is cut into windows."""

    def make(start: int, shape: tuple[int, int, int, int]) -> Tensor:
        frames, *one = shape
        return frame_noise(seed, start, frames, (one[0], one[1], one[2]), sharing=0.0)

    return make


def running_noise(seed: int = 42, dtype: torch.dtype = torch.float32) -> MakeNoise:
    """Noise as the authors draw it: one generator that runs through the windows, in the networks' type. To be made anew
    for every clip, and asked for its windows in order."""
    generator = torch.Generator().manual_seed(seed)

    def make(_start: int, shape: tuple[int, int, int, int]) -> Tensor:
        frames, channels, height, width = shape
        drawn_ZFhw = torch.randn((channels, frames, height, width), generator=generator, dtype=dtype)
        return drawn_ZFhw.transpose(0, 1)

    return make


@dataclass(frozen=True, kw_only=True)
class HalloSampling:
    """How a clip is sampled; steps and guidance are the authors'. ``guidance`` 1 is off and takes half the time.

    ``half_reference`` rounds the reference features to half precision; None does where ``hallo_exact`` is set.
    """

    num_inference_steps: int = 40
    guidance: float = 3.5
    hallo_exact: bool = False
    half_reference: bool | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps <= 1000:
            raise ValueError(f"num_inference_steps must be 1 to 1000, got {self.num_inference_steps}")
        if not 0.0 <= self.guidance <= 10.0:
            raise ValueError(f"guidance must be between 0 and 10, got {self.guidance:g}")


@dataclass(frozen=True, kw_only=True)
class HalloPortrait:
    """What is worked out of a portrait once for a whole video.

    ``picture_13HW`` in [-1, 1]; ``latent_1Zhw``; ``known_1KC`` and ``unknown_1KC`` identity tokens of this person and
    of nobody; ``located_1Dhw`` added behind conv_in; ``regions`` of one frame.
    """

    picture_13HW: Tensor
    latent_1Zhw: Tensor
    known_1KC: Tensor
    unknown_1KC: Tensor
    located_1Dhw: Tensor
    regions: SpeechRegions


def emotion_config(unet: PortraitUNetConfig) -> EmotionToLatentsConfig:
    """Emotion-to-Latents of a base: it takes labels and action units. A text becomes labels and units before it."""
    return EmotionToLatentsConfig(width=unet.emotion_width, text_width=0, audio_width=0)


class HalloSystem(nn.Module):
    """The networks of a Hallo base: those of its published file, the autoencoder, and MoEE's Emotion-to-Latents.

    ``whole`` False leaves out autoencoder and denoiser, for a host that has them in places of their own.
    """

    def __init__(self, config: HalloConfig, build: Build = DEFAULT_BUILD, *, whole: bool = True):
        super().__init__()
        unet = config.unet
        self.config = config
        self.emotion_to_latents = EmotionToLatents(emotion_config(unet), build)
        self.audio_projector = make_audio_projector(config.audio, build)
        self.identity_projector = IdentityProjector(
            config.identity.width, config.identity.tokens, unet.identity_width, build
        )
        self.face_locator = FaceLocator(config.locator_widths, unet.block_widths[0], build)
        self.reference_net = ReferenceNet(unet, build)
        if whole:
            self.autoencoder = AutoencoderKL(config.autoencoder, build)
            self.denoiser = PortraitUNet(unet, build)

    @torch.no_grad()
    def signals(self, rows: EmotionRows) -> EmotionSignals:
        """What is said of some frames as the base takes it. Raises ``EmotionError`` for the mood of a voice."""
        return signals_of(rows, self.emotion_to_latents)

    @torch.no_grad()
    def emotion_context(self, emotion: Tensor | EmotionSignals) -> EmotionContext:
        """Emotion vectors per frame (F, 8), or any signals -> latents and routing for the experts. In a base that
        nobody has taught emotion yet the experts are silent, and it changes nothing."""
        return context_of(emotion, self.emotion_to_latents, self.config.unet.experts)

    @torch.no_grad()
    def portrait(
        self,
        picture_13HW: Tensor,
        embedding_1E: Tensor,
        face_13HW: Tensor,
        regions: SpeechRegions,
        latent_1Zhw: Tensor | None = None,
    ) -> HalloPortrait:
        """``picture_13HW`` in [-1, 1], of the networks' type and on their device, to which the others are brought;
        ``embedding_1E`` of its face, zeros for nobody; ``face_13HW`` the face's box as a picture in [0, 1]; ``regions``
        of one frame, a map for every level of the UNet. ``latent_1Zhw`` of the picture is worked out if not given."""
        if face_13HW.shape[-2:] != picture_13HW.shape[-2:]:
            raise ValueError(
                f"the face's box is drawn on {tuple(face_13HW.shape[-2:])}, the portrait is "
                f"{tuple(picture_13HW.shape[-2:])}"
            )
        embedding_1E = embedding_1E.to(picture_13HW)
        return HalloPortrait(
            picture_13HW=picture_13HW,
            latent_1Zhw=self.autoencoder.encode(picture_13HW) if latent_1Zhw is None else latent_1Zhw,
            known_1KC=self.identity_projector(embedding_1E),
            unknown_1KC=self.identity_projector(torch.zeros_like(embedding_1E)),
            located_1Dhw=self.face_locator(face_13HW.to(picture_13HW)),
            regions=regions.to(picture_13HW.device),
        )

    @torch.no_grad()
    def audio_tokens(self, features_TLD: Tensor, frames_F: Tensor) -> Tensor:
        """(F, S, A) tokens of some frames of a recording, each from its window of features."""
        windows = window_indices(len(features_TLD), self.config.audio.margin)[frames_F]
        return self.audio_projector(features_TLD[windows].to(next(self.audio_projector.parameters())))

    @torch.no_grad()
    def references(
        self, portrait: HalloPortrait, motion_kZhw: Tensor, frames: int, *, crossed: bool = False
    ) -> tuple[ReferenceFeatures, ReferenceFeatures]:
        """(of the branch that knows the person, of the one that does not), for windows of ``frames`` frames.
        ``crossed`` mixes the branches up as ``hallo_exact`` does."""
        pictures = torch.cat([portrait.latent_1Zhw, motion_kZhw.to(portrait.latent_1Zhw)])
        tokens = torch.cat([portrait.unknown_1KC, portrait.known_1KC])
        rows = len(pictures)  # of one branch; the unknown one comes first
        whose = torch.arange(2 * rows) % 2 if crossed else torch.arange(2).repeat_interleave(rows)
        features = self.reference_net(torch.cat([pictures, pictures]), tokens[whose.to(tokens.device)])
        read = rows * (torch.arange(frames, 2 * frames) % 2 if crossed else torch.ones(1, dtype=torch.long))
        known = ReferenceFeatures(
            sites=tuple(x[read.to(x.device)] for x in features),
            latent=portrait.latent_1Zhw,
            motion=tuple(x[None, rows + 1 :] for x in features),
        )
        unknown = ReferenceFeatures(
            sites=tuple(x[:1, :0] for x in features),  # not a token of the portrait
            latent=portrait.latent_1Zhw,
            motion=tuple(x[None, 1:rows] for x in features),
        )
        return known, unknown

    @torch.no_grad()
    def sample_window(
        self,
        portrait: HalloPortrait,
        motion_kZhw: Tensor,
        audio_FSA: Tensor,
        noise_FZhw: Tensor,
        sampling: HalloSampling = HalloSampling(),
        emotion: EmotionContext | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """(F, Z, h, w) clean latents, in the noise's precision and where the portrait is. The networks compute in the
        portrait's precision. Both branches feel the emotion."""
        frames, like = len(audio_FSA), portrait.latent_1Zhw
        audio_FSA = audio_FSA.to(like)
        if emotion is not None:
            felt_FMD, routing = emotion.latents_NMD.to(like), emotion.routing.to(like.device)
            emotion = replace(emotion, latents_NMD=felt_FMD, routing=routing)
        crossed = sampling.hallo_exact and sampling.guidance != 1.0  # with one branch there is nothing to mix up
        known, unknown = self.references(portrait, motion_kZhw, frames, crossed=crossed)
        if sampling.hallo_exact if sampling.half_reference is None else sampling.half_reference:
            known, unknown = known.rounded(), unknown.rounded()
        regions = portrait.regions.frames(frames)
        located = portrait.located_1Dhw.expand(frames, -1, -1, -1)

        def predict(x: Tensor, t: Tensor) -> Tensor:
            full = self.denoiser(
                x.to(like),
                t,
                frames=frames,
                reference=known,
                audio_NSA=audio_FSA,
                emotion=emotion,
                identity_BKC=portrait.known_1KC,
                regions=regions,
                added_NCHW=located,
            )
            if sampling.guidance == 1.0:
                return full.to(x)
            without = self.denoiser(
                x.to(like),
                t,
                frames=frames,
                reference=unknown,
                audio_NSA=torch.zeros_like(audio_FSA),
                emotion=emotion,
                identity_BKC=portrait.unknown_1KC,
                regions=regions,
            )
            return guided({"full": full.to(x), "conditions": without.to(x)}, {"conditions": sampling.guidance})

        unet = self.config.unet
        return sample_ddim(
            predict,
            noise_FZhw.to(like.device),
            alphas_cumprod(unet.beta_schedule, zero_snr=unet.zero_snr),
            num_inference_steps=sampling.num_inference_steps,
            prediction_type=unet.prediction_type,
            on_step=on_step,
        )

    @torch.no_grad()
    def animate(
        self,
        portrait: HalloPortrait,
        total: int,
        speech: Callable[[Tensor], Tensor],
        make_noise: MakeNoise,
        sampling: HalloSampling = HalloSampling(),
        emotion: Callable[[Tensor], EmotionContext | None] = lambda frames: None,
    ) -> Iterator[Tensor]:
        """Yield (f, 3, H, W) pictures in [-1, 1], a window at a time, ``total`` in all. ``speech`` gives the audio
        tokens (F, S, A) of the frames of a window, whose numbers it is told, and ``emotion`` what is felt in them.

        The next window sees the last k pictures as they were decoded, clamped and encoded again, as Hallo was trained.
        """
        count = self.config.window_frames
        carried = portrait.picture_13HW.expand(self.config.unet.motion_frames, -1, -1, -1)
        for start in range(0, total, count):
            # the last window is filled up with the recording's end, so that the network always sees a whole window
            wanted = torch.arange(start, start + count).clamp_max(total - 1)
            channels, height, width = portrait.latent_1Zhw.shape[1:]
            noise = make_noise(start, (count, channels, height, width))
            seen, motion = self._latents(portrait, carried, sampling.hallo_exact)
            latents = self.sample_window(seen, motion, speech(wanted), noise, sampling, emotion(wanted))
            frames = latents.to(portrait.latent_1Zhw)
            pictures = torch.cat([self.autoencoder.decode(one[None]) for one in frames]).clamp(-1, 1)
            yield pictures[: total - start]
            carried = pictures[-self.config.unet.motion_frames :]

    def _latents(
        self, portrait: HalloPortrait, carried_k3HW: Tensor, hallo_exact: bool
    ) -> tuple[HalloPortrait, Tensor]:
        """The portrait as the window sees it, and the latents of the carried frames."""
        if hallo_exact and min(portrait.picture_13HW.min(), carried_k3HW.min()) >= 0:
            stretched = self.autoencoder.encode(2 * portrait.picture_13HW - 1)
            return replace(portrait, latent_1Zhw=stretched), self.autoencoder.encode(2 * carried_k3HW - 1)
        return portrait, self.autoencoder.encode(carried_k3HW)
