"""The denoiser: an SD-1.5 UNet that reads portrait, audio and emotion, over a window of frames.

Shapes (legend for this file):
    B clips (or guidance branches), F frames, N = B * F, frames folded into the batch
    x_NZHW noisy latents; t_N time-steps 0..999; audio_NSA audio tokens per frame; emotion_NMD emotion latents per frame
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
from .backbone import Backbone
from .blocks import SpatialTransformer, TimeEmbedding
from .config import PortraitUNetConfig
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

    def __init__(self, width: int, config: PortraitUNetConfig, build: Build):
        super().__init__()
        heads, groups = config.heads, config.norm_groups
        self.spatial = SpatialTransformer(width, heads, config.identity_width, config.ff_multiple, groups, build)
        self.audio = AudioAttention(width, config.audio_width, heads, build)
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
        self.motion = MotionModule(width, heads, config.motion_attentions, config.motion_ff_multiple, groups, build)


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
        self.backbone = Backbone(
            config, channels * (2 if config.anchor else 1), lambda size: DenoiserSite(size, config, build), build
        )
        for number, (_, site) in enumerate(self.sites()):
            site.number = number
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
        options: dict | None = None,
    ) -> Tensor:
        if x_NZHW.shape[0] % frames:
            raise ValueError(f"{x_NZHW.shape[0]} latents cannot be split into windows of {frames} frames")
        if self.anchor_std is None:
            return self._network(x_NZHW, t_N, frames, reference, audio_NSA, emotion, identity_BKC, options)
        alpha, sigma, std, ref = self._anchor(t_N, reference.latent, frames, x_NZHW)
        change = x_NZHW.float() - alpha * ref
        variance = alpha**2 * std**2 + sigma**2
        inputs = torch.cat([change * variance.rsqrt(), ref], dim=1).to(x_NZHW.dtype)
        out = self._network(inputs, t_N, frames, reference, audio_NSA, emotion, identity_BKC, options)
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

    def _network(
        self,
        x_NZHW: Tensor,
        t_N: Tensor,
        frames: int,
        reference: ReferenceFeatures,
        audio_NSA: Tensor,
        emotion: EmotionContext | None,
        identity_BKC: Tensor | None,
        options: dict | None,
    ) -> Tensor:
        emb = self.time_embedding(t_N, x_NZHW.dtype)
        if self.audio_embedding is not None:
            emb = emb + self.audio_embedding(audio_NSA.to(emb.dtype).mean(dim=1))
        identity = None if identity_BKC is None else identity_BKC.repeat_interleave(frames, dim=0)
        features = iter(range(len(reference.sites)))

        def run(site: nn.Module, x: Tensor) -> Tensor:
            index = next(features)
            tokens = reference.sites[index].repeat_interleave(frames, dim=0)
            motion = None if reference.motion is None else reference.motion[index]
            return self._site(site, x, tokens, motion, frames, audio_NSA, emotion, identity, options)

        h = self.backbone(x_NZHW, emb, run)
        return self.conv_out(F.silu(self.conv_norm_out(h)))

    def _site(
        self,
        site: nn.Module,
        x: Tensor,
        reference_NTC: Tensor,
        motion_BkTC: Tensor | None,
        frames: int,
        audio_NSA: Tensor,
        emotion: EmotionContext | None,
        identity_NKC: Tensor | None,
        options: dict | None,
    ) -> Tensor:
        assert isinstance(site, DenoiserSite)
        x, _ = site.spatial(x, reference_NTC, identity_NKC, options)
        n, c, height, width = x.shape
        tokens = site.audio(x.flatten(2).transpose(1, 2), audio_NSA, options)
        if emotion is not None:
            tokens = site.emotion(tokens, emotion.latents_NMD, emotion.routing, frames, options)
            for expert, strength in emotion.own:
                tokens = expert(site.number, tokens, strength, options)
        x = tokens.transpose(1, 2).reshape(n, c, height, width)
        return site.motion(x, motion_BkTC, frames, options)
