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
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from ..audio.projector import window_indices
from ..diffusion.sampler import DeepFeatures, Reuse, Savings, frame_noise, guided, sample
from ..diffusion.schedule import alphas_cumprod
from ..emotion.latents import EmotionToLatents, EmotionToLatentsConfig
from ..emotion.signals import EmotionRows, EmotionSignals
from ..networks.autoencoder_kl import AutoencoderKL
from ..networks.conditions import FaceLocator, IdentityProjector
from ..networks.config import HalloConfig, PortraitUNetConfig
from ..networks.masked_audio import SpeechRegions
from ..networks.portrait_unet import EmotionContext, KeptConditions, KeptPortrait, PortraitUNet
from ..networks.reference_net import ReferenceFeatures, ReferenceNet
from ..ops import DEFAULT_BUILD, Build
from .moee import context_of, make_audio_projector, signals_of

DECODED_TOGETHER = 4
"""Frames that are decoded in one batch: enough to occupy a device, and half a gigabyte each at 512 pixels."""

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

    What stays over steps and windows is worked out once in either case. ``hallo_exact`` cannot spare all of it: its
    known branch reads the portrait with nobody's tokens too, so two portraits' keys and values are kept for one; and a
    window whose pictures are all above mid-grey sees another portrait, for which everything is worked out anew.

    Speed by choice, with other frames: ``savings``, and ``carry_latents``, which hands the last latents of a window to
    the next as they are, where Hallo was trained on pictures decoded, clamped and encoded again.
    """

    num_inference_steps: int = 40
    guidance: float = 3.5
    hallo_exact: bool = False
    half_reference: bool | None = None
    savings: Savings = field(default_factory=Savings)
    carry_latents: bool = False

    @property
    def guides(self) -> bool:
        """Whether there is a second branch."""
        return self.guidance != 1.0

    @property
    def crossed(self) -> bool:
        """Whether the branches are mixed up; with one of them there is nothing to mix."""
        return self.hallo_exact and self.guides

    @property
    def rounded(self) -> bool:
        return self.hallo_exact if self.half_reference is None else self.half_reference

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps <= 1000:
            raise ValueError(f"num_inference_steps must be 1 to 1000, got {self.num_inference_steps}")
        if self.hallo_exact and self.carry_latents:
            raise ValueError("hallo_exact hands decoded pictures to the next window; leave it or carry_latents out")
        if not 0.0 <= self.guidance <= 10.0:
            raise ValueError(f"guidance must be between 0 and 10, got {self.guidance:g}")


@dataclass(frozen=True, kw_only=True)
class HalloPortrait:
    """What is worked out of a portrait once for a whole video.

    ``picture_13HW`` in [-1, 1]; ``latent_1Zhw``; ``known_1KC`` and ``unknown_1KC`` identity tokens of this person and
    of nobody; ``located_1Dhw`` added behind conv_in; ``regions`` of one frame. ``kept`` is for the windows of one clip
    to share, and made where it is missing.
    """

    picture_13HW: Tensor
    latent_1Zhw: Tensor
    known_1KC: Tensor
    unknown_1KC: Tensor
    located_1Dhw: Tensor
    regions: SpeechRegions
    kept: HalloKept | None = None


@dataclass(frozen=True, kw_only=True)
class HalloKept:
    """What the networks make of a portrait, as long as neither it nor their weights change: ``HalloSystem.kept``.

    ``features``: per site (2, T, C), of the portrait with nobody's tokens and with the person's; without guidance
    (1, T, C), with the person's. ``known`` and ``unknown``: what the denoiser's sites make of it in either branch.
    ``frames``, ``guides``, ``crossed`` and ``rounded``: the windows and the sampling it was made for.
    """

    features: tuple[Tensor, ...]
    known: tuple[KeptPortrait, ...]
    unknown: tuple[KeptPortrait, ...]
    frames: int
    guides: bool
    crossed: bool
    rounded: bool

    def serves(self, frames: int, sampling: HalloSampling) -> bool:
        made = (self.frames, self.guides, self.crossed, self.rounded)
        return made == (frames, sampling.guides, sampling.crossed, sampling.rounded)


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
    def kept(self, portrait: HalloPortrait, frames: int, sampling: HalloSampling = HalloSampling()) -> HalloKept:
        """What all windows of ``frames`` frames of a clip have in common.

        The branch that knows nobody reads no portrait, so no keys and values of one are worked out for it; the
        portrait with nobody's tokens stands for its carried frames before the first window. ``hallo_exact`` cannot
        spare this: every other frame of the known branch reads that row there, so two portraits are kept.
        """
        tokens = torch.cat([portrait.unknown_1KC, portrait.known_1KC]) if sampling.guides else portrait.known_1KC
        features = self._features(portrait.latent_1Zhw.expand(len(tokens), -1, -1, -1), tokens, sampling)
        rows = torch.arange(frames, 2 * frames, device=tokens.device) % 2 if sampling.crossed else None
        read = ReferenceFeatures(
            sites=features if sampling.crossed else tuple(x[-1:] for x in features),
            latent=portrait.latent_1Zhw,
            rows_N=rows,
        )
        known = self.denoiser.kept_portrait(read, portrait.known_1KC, portrait.regions)
        return HalloKept(
            features=features,
            known=known,
            unknown=self.denoiser.nobody(known, portrait.unknown_1KC) if sampling.guides else (),
            frames=frames,
            guides=sampling.guides,
            crossed=sampling.crossed,
            rounded=sampling.rounded,
        )

    @torch.no_grad()
    def branches(
        self,
        portrait: HalloPortrait,
        motion_kZhw: Tensor | None,
        audio_FSA: Tensor,
        sampling: HalloSampling = HalloSampling(),
    ) -> list[KeptConditions]:
        """What the denoiser reads in a window, worked out once for all its steps: the branch that knows the person and,
        with guidance, the one that does not. The same as it makes of ``references`` at every step."""
        kept, frames = portrait.kept, len(audio_FSA)
        if kept is None or not kept.serves(frames, sampling):
            kept = self.kept(portrait, frames, sampling)
        branches = (1, 0) if sampling.guides else (1,)
        conditions = []
        for branch, motion in zip(branches, self._motion(portrait, kept, motion_kZhw, branches, sampling), strict=True):
            carried = ReferenceFeatures(sites=(), latent=portrait.latent_1Zhw, motion=motion)
            sites, heard = (kept.known, audio_FSA) if branch else (kept.unknown, None)
            conditions.append(self.denoiser.kept(sites, carried, heard))
        return conditions

    def _motion(
        self,
        portrait: HalloPortrait,
        kept: HalloKept,
        motion_kZhw: Tensor | None,
        branches: tuple[int, ...],
        sampling: HalloSampling,
    ) -> list[tuple[Tensor, ...]]:
        """Of every branch the features of the carried frames, per site (1, k, T, C); each is worked out once."""
        carried = self.config.unet.motion_frames if motion_kZhw is None else len(motion_kZhw)
        # the authors' rows are a portrait and k frames of either branch; those of odd number know the person
        known = {
            b: [(b * (carried + 1) + 1 + j) % 2 if sampling.crossed else b for j in range(carried)] for b in (0, 1)
        }
        if motion_kZhw is None:
            rows = {b: known[b] if sampling.guides else [0] * carried for b in branches}
            return [tuple(x[None, rows[b]] for x in kept.features) for b in branches]
        wanted = sorted({(j, known[b][j]) for b in branches for j in range(carried)})
        tokens = torch.cat([portrait.known_1KC if person else portrait.unknown_1KC for _, person in wanted])
        pictures = motion_kZhw.to(portrait.latent_1Zhw)[[j for j, _ in wanted]]
        features = self._features(pictures, tokens, sampling)
        rows = {b: [wanted.index((j, known[b][j])) for j in range(carried)] for b in branches}
        return [tuple(x[None, rows[b]] for x in features) for b in branches]

    def _features(self, latents_RZhw: Tensor, tokens_RKC: Tensor, sampling: HalloSampling) -> tuple[Tensor, ...]:
        features = self.reference_net(latents_RZhw, tokens_RKC)
        read = ReferenceFeatures(sites=features, latent=latents_RZhw)
        return read.rounded().sites if sampling.rounded else features

    @torch.no_grad()
    def sample_window(
        self,
        portrait: HalloPortrait,
        motion_kZhw: Tensor | None,
        audio_FSA: Tensor,
        noise_FZhw: Tensor,
        sampling: HalloSampling = HalloSampling(),
        emotion: EmotionContext | None = None,
        on_step: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """(F, Z, h, w) clean latents, in the noise's precision and where the portrait is. The networks compute in the
        portrait's precision. Both branches feel the emotion. ``motion_kZhw`` None is the portrait itself, as before the
        first window."""
        frames, like = len(audio_FSA), portrait.latent_1Zhw
        if emotion is not None:
            felt_FMD, routing = emotion.latents_NMD.to(like), emotion.routing.to(like.device)
            emotion = replace(emotion, latents_NMD=felt_FMD, routing=routing)
        known, *unknown = self.branches(portrait, motion_kZhw, audio_FSA.to(like), sampling)

        savings = sampling.savings
        reuse = Reuse(savings.reuse)

        def denoise(
            x: Tensor, t: Tensor, conditions: KeptConditions, located_1Dhw: Tensor | None, deep: DeepFeatures | None
        ) -> Tensor:
            given = {"frames": frames, "reference": conditions, "emotion": emotion, "added_NCHW": located_1Dhw}
            return self.denoiser(x.to(like), t[:1], **given, deep=deep).to(x)  # all frames are at one time-step

        def predict(x: Tensor, t: Tensor) -> Tensor:
            reuse.begin()
            full = denoise(x, t, known, portrait.located_1Dhw, reuse.of("full"))
            if not unknown or not savings.guides(t):
                return full
            without = denoise(x, t, unknown[0], None, reuse.of("conditions"))
            return guided({"full": full, "conditions": without}, {"conditions": sampling.guidance})

        unet = self.config.unet
        return sample(
            predict,
            noise_FZhw.to(like.device),
            alphas_cumprod(unet.beta_schedule, zero_snr=unet.zero_snr),
            num_inference_steps=sampling.num_inference_steps,
            prediction_type=unet.prediction_type,
            solver=savings.solver,
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

        The next window sees the last k pictures as they were decoded, clamped and encoded again, as Hallo was trained,
        or with ``carry_latents`` their latents.
        """
        count, k = self.config.window_frames, self.config.unet.motion_frames
        carried: Tensor | None = None
        held_kZhw: Tensor | None = None
        for start in range(0, total, count):
            # the last window is filled up with the recording's end, so that the network always sees a whole window
            wanted = torch.arange(start, start + count).clamp_max(total - 1)
            channels, height, width = portrait.latent_1Zhw.shape[1:]
            noise = make_noise(start, (count, channels, height, width))
            if sampling.carry_latents:
                seen, motion = portrait, held_kZhw
            else:
                seen, motion = self._latents(portrait, carried, sampling.hallo_exact)
            if seen.kept is None or not seen.kept.serves(count, sampling):
                seen = replace(seen, kept=self.kept(seen, count, sampling))
            if seen.latent_1Zhw is portrait.latent_1Zhw:  # not stretched, which a later window need not be
                portrait = seen
            latents = self.sample_window(seen, motion, speech(wanted), noise, sampling, emotion(wanted))
            latents = latents[: total - start].to(portrait.latent_1Zhw)  # what nobody will see is not decoded
            held_kZhw = latents[-k:]
            carried = self.autoencoder.decode(held_kZhw).clamp(-1, 1)  # first what the next window waits for
            before = latents[:-k].split(DECODED_TOGETHER) if len(latents) > k else ()
            yield torch.cat([*(self.autoencoder.decode(some).clamp(-1, 1) for some in before), carried])

    def _latents(
        self, portrait: HalloPortrait, carried_k3HW: Tensor | None, hallo_exact: bool
    ) -> tuple[HalloPortrait, Tensor | None]:
        """The portrait as the window sees it, and the latents of the carried frames; None: it is the portrait."""
        pictures = [portrait.picture_13HW] + ([] if carried_k3HW is None else [carried_k3HW])
        if hallo_exact and min(float(x.min()) for x in pictures) >= 0:
            stretched = self.autoencoder.encode(2 * portrait.picture_13HW - 1)
            portrait = replace(portrait, latent_1Zhw=stretched, kept=None)
            carried_k3HW = None if carried_k3HW is None else 2 * carried_k3HW - 1
        return portrait, None if carried_k3HW is None else self.autoencoder.encode(carried_k3HW)
