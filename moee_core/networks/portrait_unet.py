"""The denoiser: an SD-1.5 UNet that reads portrait, audio and emotion, over a window of frames.

Shapes (legend for this file):
    B clips (or guidance branches), F frames, N = B * F, frames folded into the batch
    x_NZHW noisy latents; t_N time-steps 0..999; audio_NSA audio tokens per frame; emotion_NMD emotion latents per frame
    regions: where speech acts, for the masked audio layout; added_NCHW: features that join behind conv_in
    -> v_NZHW (or epsilon), as ``config.prediction_type`` says

Order at every site, as the field has it: residual block, spatial transformer (self + reference, identity), audio
attention, mixture of emotion experts, temporal attention.

Reference anchor (ours, ``config.anchor``; Karras et al. 2022's preconditioning with a known mean). A talking frame is
its portrait plus a change whose scale r is known per channel and position from the training data. With
x_t = alpha x_0 + sigma eps and x_0 ~ N(ref, r^2) the best linear estimate of the velocity is
    v_lin = -sigma ref + alpha sigma (1 - r^2) d / w,    d = x_t - alpha ref,   w = alpha^2 r^2 + sigma^2
and the network F adds only what that cannot know: v = v_lin - (r / sqrt(w)) F(d / sqrt(w), ref). Where nothing ever
moves r is near 0, so hair and background come out of the portrait untouched, at any number of steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion.sampler import DeepFeatures
from ..diffusion.schedule import alpha_sigma, alphas_cumprod
from ..experts.mixture import MixtureOfEmotionExperts, Routing
from ..experts.own import OwnExpert
from ..ops import Build
from .backbone import Backbone, Place
from .blocks import FewTokens, Identity, KeyValue, Reference, SpatialTransformer, TimeEmbedding
from .config import PortraitUNetConfig
from .masked_audio import FoldedSpeech, KeptSpeech, MaskedAudioAttention, SpeechRegions
from .motion import AudioAttention, KeptMotion, MotionModule
from .reference_net import ReferenceFeatures


@dataclass(frozen=True, kw_only=True)
class EmotionContext:
    """Emotion as the denoiser reads it: latents per frame (N, M, D), the routing to the experts, and experts of the
    user's own with their strength per frame (N,)."""

    latents_NMD: Tensor
    routing: Routing
    own: tuple[tuple[OwnExpert, Tensor], ...] = ()


@dataclass(frozen=True, kw_only=True)
class KeptPortrait:
    """What one site's layers make of a portrait: keys and values of the reference (None: of no portrait), of the
    identity (None: of nobody), and speech folded for its regions."""

    reference: KeyValue | None
    identity: FewTokens | KeyValue | None
    speech: FoldedSpeech


@dataclass(frozen=True, kw_only=True)
class SiteConditions:
    """What one site reads besides the hidden states: tensors as they are given, or what its layers made of them."""

    reference: Reference
    identity: Identity
    speech: Tensor | KeptSpeech
    motion: Tensor | KeptMotion | None


@dataclass(frozen=True, kw_only=True)
class KeptConditions:
    """All that stays over the denoising steps of a window, as ``PortraitUNet.kept`` makes it. ``sites`` in the order of
    their numbers; ``latent`` is the reference anchor's; ``heard_NE`` what speech adds to the time embedding."""

    sites: tuple[SiteConditions, ...]
    latent: Tensor
    heard_NE: Tensor | None = None


class DenoiserSite(nn.Module):
    """Spatial transformer, audio attention, emotion experts, temporal attention at one place of the UNet."""

    number = 0

    def __init__(self, place: Place, config: PortraitUNetConfig, build: Build):
        super().__init__()
        width, heads, groups = place.width, config.heads, config.norm_groups
        self.spatial = SpatialTransformer(width, heads, config.identity_width, config.ff_multiple, groups, build)
        self.audio = (
            MaskedAudioAttention(
                width,
                place.entering,
                config.audio_width,
                heads,
                config.ff_multiple,
                groups,
                place.level,
                build,
            )
            if config.audio_layout == "masked"
            else AudioAttention(width, config.audio_width, heads, build)
        )
        self.emotion = MixtureOfEmotionExperts(
            width,
            config.emotion_width,
            heads,
            config.experts,
            build=build,
            local_gate=config.local_gate,
            gate_pool=config.gate_pool,
            gate_context=config.gate_context,
            gate_prior=config.gate_prior,
            global_gate=config.global_gate,
            multiple=config.expert_multiple,
        )
        self.motion = _motion(width, config, build)


class MotionSite(nn.Module):
    """Temporal attention alone, at a place without spatial attention (AnimateDiff's layout). It has no number: nothing
    of the reference and no expert belongs to it."""

    def __init__(self, place: Place, config: PortraitUNetConfig, build: Build):
        super().__init__()
        self.motion = _motion(place.width, config, build)


def _motion(width: int, config: PortraitUNetConfig, build: Build) -> MotionModule:
    return MotionModule(
        width,
        config.heads,
        config.motion_attentions,
        config.motion_ff_multiple,
        config.norm_groups,
        build,
        norm_carried=config.motion_layout == "animatediff",
    )


class PortraitUNet(nn.Module):
    """See the module's docstring. ``options`` is ComfyUI's ``transformer_options``, handed to every attention."""

    def __init__(self, config: PortraitUNetConfig, build: Build):
        super().__init__()
        self.config = config
        width, channels = config.block_widths[0], config.latent_channels
        self.time_embedding = TimeEmbedding(width, config.time_width, build)
        self.audio_embedding = (
            build.linear(config.audio_width, config.time_width) if config.audio_time_embedding else None
        )

        def site(place: Place) -> nn.Module | None:
            if place.attention:
                return DenoiserSite(place, config, build)
            return MotionSite(place, config, build) if config.motion_layout == "animatediff" else None

        self.backbone = Backbone(config, channels * (2 if config.anchor else 1), site, build)
        for number, (_, one) in enumerate(self.sites()):
            one.number = number
        self.conv_norm_out = build.group_norm(config.norm_groups, width)
        self.conv_out = build.conv(width, channels)
        # standard deviation of the change against the portrait: one leaf module, so that a host can stream it
        self.anchor_std = build.embedding(channels, config.grid * config.grid) if config.anchor else None

    def sites(self) -> list[tuple[str, DenoiserSite]]:
        """Name and module of every site, in a fixed order: ``site.number`` is its place in it."""
        return [(name, module) for name, module in self.named_modules() if isinstance(module, DenoiserSite)]

    def kept_portrait(
        self, reference: ReferenceFeatures, identity_1KC: Tensor | None, regions: SpeechRegions
    ) -> tuple[KeptPortrait, ...]:
        """What the sites' layers make of a portrait, for a whole clip of one person. ``reference``'s motion frames are
        not read; sites without a token are no portrait. ``regions`` of one frame or of every one.

        Raises ``ValueError`` for a network whose audio attention reads no regions, which keeps nothing.
        """
        if self.config.audio_layout == "plain":
            raise ValueError("conditions are kept for the masked audio layout only; give this network the tensors")

        def one(site: DenoiserSite) -> KeptPortrait:
            tokens_RTC = reference.sites[site.number]
            block: Any = site.spatial.transformer_blocks[0]
            audio: Any = site.audio
            return KeptPortrait(
                reference=block.attn1.kept(tokens_RTC, reference.rows_N) if tokens_RTC.shape[1] else None,
                identity=_identity(site, identity_1KC),
                speech=audio.folded(regions, tokens_RTC),
            )

        return tuple(one(site) for _, site in self.sites())

    def nobody(self, known: tuple[KeptPortrait, ...], identity_1KC: Tensor | None) -> tuple[KeptPortrait, ...]:
        """The same for a branch that reads no portrait and other identity tokens; the speech is shared."""

        def one(site: DenoiserSite) -> KeptPortrait:
            identity = _identity(site, identity_1KC)
            return KeptPortrait(reference=None, identity=identity, speech=known[site.number].speech)

        return tuple(one(site) for _, site in self.sites())

    def kept(
        self, portrait: tuple[KeptPortrait, ...], reference: ReferenceFeatures, audio_NSA: Tensor | None
    ) -> KeptConditions:
        """All that one guidance branch of a window reads: of ``reference`` the motion frames and the latent, and the
        window's speech. ``audio_NSA`` None is silence, which is tokens of zeros for less work."""

        def one(site: DenoiserSite) -> SiteConditions:
            known, audio = portrait[site.number], site.audio
            assert isinstance(audio, MaskedAudioAttention)
            motion = None if reference.motion is None else site.motion.kept(reference.motion[site.number])
            return SiteConditions(
                reference=known.reference,
                identity=known.identity,
                speech=audio.kept(known.speech, audio_NSA),
                motion=motion,
            )

        heard = None
        if self.audio_embedding is not None:
            mean = (
                reference.latent.new_zeros(1, self.config.audio_width) if audio_NSA is None else audio_NSA.mean(dim=1)
            )
            heard = self.audio_embedding(mean)
        sites = tuple(one(site) for _, site in self.sites())
        return KeptConditions(sites=sites, latent=reference.latent, heard_NE=heard)

    def forward(
        self,
        x_NZHW: Tensor,
        t_N: Tensor,
        *,
        frames: int,
        reference: ReferenceFeatures | KeptConditions,
        audio_NSA: Tensor | None = None,
        emotion: EmotionContext | None = None,
        identity_BKC: Tensor | None = None,
        regions: SpeechRegions | None = None,
        added_NCHW: Tensor | None = None,
        options: dict | None = None,
        deep: DeepFeatures | None = None,
    ) -> Tensor:
        """``reference`` as ``kept`` holds audio, identity and regions too, which are then not given again. ``t_N`` may
        be one time-step (1,) for all frames. ``deep`` keeps deep features between steps (``Savings.reuse``)."""
        if x_NZHW.shape[0] % frames:
            raise ValueError(f"{x_NZHW.shape[0]} latents cannot be split into windows of {frames} frames")
        if isinstance(reference, KeptConditions):
            if not (audio_NSA is None and identity_BKC is None and regions is None):
                raise ValueError("audio, identity and regions are part of what was kept; give them to kept() alone")
            site, heard_NE = reference.sites.__getitem__, reference.heard_NE
        else:
            if audio_NSA is None:
                raise ValueError("a denoiser that nothing was kept for needs audio tokens, one row a frame")
            if (regions is None) != (self.config.audio_layout == "plain"):
                wants = "reads" if regions is None else "does not read"
                raise ValueError(f"the audio attention of this network {wants} speech regions")
            site = _as_given(x_NZHW.shape[0], frames, reference, audio_NSA, identity_BKC)
            heard_NE = None
            if self.audio_embedding is not None:
                heard_NE = self.audio_embedding(audio_NSA.to(x_NZHW.dtype).mean(dim=1))
        read = _Read(
            frames=frames,
            site=site,
            heard_NE=heard_NE,
            emotion=emotion,
            regions=regions,
            added_NCHW=added_NCHW,
            options=options,
            deep=deep,
        )
        if self.anchor_std is None:
            return self._network(x_NZHW, t_N, read)
        alpha, sigma, std, ref = self._anchor(t_N, reference.latent, frames, x_NZHW)
        change = x_NZHW.float() - alpha * ref
        variance = alpha**2 * std**2 + sigma**2
        inputs = torch.cat([change * variance.rsqrt(), ref], dim=1).to(x_NZHW.dtype)
        out = self._network(inputs, t_N, read)
        linear = alpha * sigma * (1 - std**2) / variance * change - sigma * ref
        return (linear - std * variance.rsqrt() * out.float()).to(x_NZHW.dtype)

    def anchor_map(self, height: int, width: int, device: torch.device) -> Tensor:
        """(1, Z, H, W) float32: the anchor's standard deviations, resized to another latent grid when asked."""
        assert self.anchor_std is not None
        rows = torch.arange(self.config.latent_channels, device=device)
        std = self.anchor_std(rows).float().view(1, -1, self.config.grid, self.config.grid)
        if (height, width) != (self.config.grid, self.config.grid):
            std = F.interpolate(std, size=(height, width), mode="bilinear", align_corners=False)
        return std

    def _anchor(
        self, t_N: Tensor, ref_BZHW: Tensor, frames: int, like: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        table = alphas_cumprod(self.config.beta_schedule, zero_snr=self.config.zero_snr)
        alpha, sigma = (value[:, None, None, None] for value in alpha_sigma(t_N, table))
        std = self.anchor_map(like.shape[-2], like.shape[-1], like.device)
        return alpha, sigma, std, ref_BZHW.float().repeat_interleave(frames, dim=0)

    def _network(self, x_NZHW: Tensor, t_N: Tensor, read: _Read) -> Tensor:
        emb = self.time_embedding(t_N, x_NZHW.dtype)
        if read.heard_NE is not None:
            emb = emb + read.heard_NE

        def run(site: nn.Module, x: Tensor) -> Tensor:
            if isinstance(site, MotionSite):
                everywhere = self.config.motion_levels == "all"
                return site.motion(x, None, read.frames, read.options) if everywhere else x
            assert isinstance(site, DenoiserSite)
            return self._site(site, x, read)

        h = self.backbone(x_NZHW, emb, run, read.added_NCHW, read.deep)
        return self.conv_out(F.silu(self.conv_norm_out(h)))

    def _site(self, site: DenoiserSite, x: Tensor, read: _Read) -> Tensor:
        given, emotion, options = read.site(site.number), read.emotion, read.options
        x, _ = site.spatial(x, given.reference, given.identity, options)
        n, c, height, width = x.shape
        masked = self.config.audio_layout == "masked"
        if masked:
            x = site.audio(x, given.speech, read.regions, options)
        tokens = x.flatten(2).transpose(1, 2)
        if not masked:
            tokens = site.audio(tokens, given.speech, options)
        if emotion is not None:
            tokens = site.emotion(tokens, emotion.latents_NMD, emotion.routing, read.frames, options)
            for expert, strength in emotion.own:
                tokens = expert(site.number, tokens, strength, options)
        x = tokens.transpose(1, 2).reshape(n, c, height, width)
        if masked:
            # a silent expert must not choose, by the layout it leaves behind, which kernels follow
            x = x.contiguous(memory_format=torch.channels_last)
        return site.motion(x, given.motion, read.frames, options)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What the network reads besides the hidden states; most fields are ``PortraitUNet.forward``'s arguments."""

    frames: int
    site: Callable[[int], SiteConditions]
    heard_NE: Tensor | None
    emotion: EmotionContext | None
    regions: SpeechRegions | None
    added_NCHW: Tensor | None
    options: dict | None
    deep: DeepFeatures | None


def _identity(site: DenoiserSite, tokens_1KC: Tensor | None) -> FewTokens | KeyValue | None:
    block: Any = site.spatial.transformer_blocks[0]
    return block.attn2.folded(tokens_1KC[0]) if tokens_1KC is not None and block.has_identity else None


def _as_given(
    rows: int, frames: int, reference: ReferenceFeatures, audio_NSA: Tensor, identity_BKC: Tensor | None
) -> Callable[[int], SiteConditions]:
    """What a site of some number reads, as tensors. A site's portrait is repeated for the frames when it is asked for,
    not all of them at once."""
    identity_NKC = None if identity_BKC is None else identity_BKC.repeat_interleave(frames, dim=0)

    def one(number: int) -> SiteConditions:
        tokens = reference.sites[number]
        if reference.rows_N is not None:
            tokens = tokens[reference.rows_N]
        elif tokens.shape[0] != rows:
            tokens = tokens.repeat_interleave(frames, dim=0)
        return SiteConditions(
            reference=tokens,
            identity=identity_NKC,
            speech=audio_NSA,
            motion=None if reference.motion is None else reference.motion[number],
        )

    return one
