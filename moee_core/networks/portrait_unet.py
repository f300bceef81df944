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

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..diffusion.schedule import alpha_sigma, alphas_cumprod
from ..experts.mixture import MixtureOfEmotionExperts, Routing
from ..experts.own import OwnExpert
from ..ops import Build
from .backbone import Backbone, Place
from .blocks import SpatialTransformer, TimeEmbedding
from .config import PortraitUNetConfig
from .masked_audio import MaskedAudioAttention, SpeechRegions
from .motion import AudioAttention, MotionModule
from .reference_net import ReferenceFeatures


@dataclass(frozen=True, kw_only=True)
class EmotionContext:
    """Emotion as the denoiser reads it: latents per frame (N, M, D), the routing to the experts, and experts of the
    user's own with their strength per frame (N,)."""

    latents_NMD: Tensor
    routing: Routing
    own: tuple[tuple[OwnExpert, Tensor], ...] = ()


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

    def forward(
        self,
        x_NZHW: Tensor,
        t_N: Tensor,
        *,
        frames: int,
        reference: ReferenceFeatures,
        audio_NSA: Tensor,
        emotion: EmotionContext | None = None,
        identity_BKC: Tensor | None = None,
        regions: SpeechRegions | None = None,
        added_NCHW: Tensor | None = None,
        options: dict | None = None,
    ) -> Tensor:
        if x_NZHW.shape[0] % frames:
            raise ValueError(f"{x_NZHW.shape[0]} latents cannot be split into windows of {frames} frames")
        if (regions is None) != (self.config.audio_layout == "plain"):
            wants = "reads" if regions is None else "does not read"
            raise ValueError(f"the audio attention of this network {wants} speech regions")
        identity_NKC = None if identity_BKC is None else identity_BKC.repeat_interleave(frames, dim=0)
        read = _Read(
            frames=frames,
            reference=reference,
            audio_NSA=audio_NSA,
            emotion=emotion,
            identity_NKC=identity_NKC,
            regions=regions,
            added_NCHW=added_NCHW,
            options=options,
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
        if self.audio_embedding is not None:
            emb = emb + self.audio_embedding(read.audio_NSA.to(emb.dtype).mean(dim=1))

        def run(site: nn.Module, x: Tensor) -> Tensor:
            if isinstance(site, MotionSite):
                everywhere = self.config.motion_levels == "all"
                return site.motion(x, None, read.frames, read.options) if everywhere else x
            assert isinstance(site, DenoiserSite)
            return self._site(site, x, read)

        h = self.backbone(x_NZHW, emb, run, read.added_NCHW)
        return self.conv_out(F.silu(self.conv_norm_out(h)))

    def _site(self, site: DenoiserSite, x: Tensor, read: _Read) -> Tensor:
        reference, emotion, frames, options = read.reference, read.emotion, read.frames, read.options
        reference_NTC = reference.sites[site.number]
        if reference_NTC.shape[0] != x.shape[0]:
            reference_NTC = reference_NTC.repeat_interleave(frames, dim=0)
        x, _ = site.spatial(x, reference_NTC, read.identity_NKC, options)
        n, c, height, width = x.shape
        if read.regions is not None:
            x = site.audio(x, read.audio_NSA, read.regions, options)
        tokens = x.flatten(2).transpose(1, 2)
        if read.regions is None:
            tokens = site.audio(tokens, read.audio_NSA, options)
        if emotion is not None:
            tokens = site.emotion(tokens, emotion.latents_NMD, emotion.routing, frames, options)
            for expert, strength in emotion.own:
                tokens = expert(site.number, tokens, strength, options)
        x = tokens.transpose(1, 2).reshape(n, c, height, width)
        if read.regions is not None:
            x = x.contiguous()  # a silent expert must not choose, by the layout it leaves behind, which kernels follow
        motion = None if reference.motion is None else reference.motion[site.number]
        return site.motion(x, motion, frames, options)


@dataclass(frozen=True, kw_only=True)
class _Read:
    """What the sites read besides the hidden states; the fields are ``PortraitUNet.forward``'s arguments."""

    frames: int
    reference: ReferenceFeatures
    audio_NSA: Tensor
    emotion: EmotionContext | None
    identity_NKC: Tensor | None
    regions: SpeechRegions | None
    added_NCHW: Tensor | None
    options: dict | None
