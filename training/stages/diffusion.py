"""What stages 1, 2a and 2b share: batches of clips, noise, and the weighted velocity loss.

Shapes (legend for this file): B clips, F frames of a window, k motion frames, N = B * F, Z channels, h latent side

Loss. L_latent (MoEE Eq. 6) on the velocity. With the reference anchor its error is expressed in the network's own
unit, (v^ - v)^2 w / r^2 (see portrait_unet.py), then weighted by how much a position moves (tempered by
``scale_power``) and by mouth and eyes. L_spatial (Eq. 7): w(t) |I_p - I_GT| with w(t) = cos(t pi / 2T) or 1,
I_p the decoded one-step estimate of some frames, weighted by lambda = ``spatial_weight``.
Every random choice is a function of (seed, sample, step).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from moee_core.audio.projector import window_indices
from moee_core.diffusion.sampler import to_x0
from moee_core.diffusion.schedule import TRAIN_STEPS, alpha_sigma, alphas_cumprod
from moee_core.emotion.signals import EmotionSignals
from moee_core.motion.expression import detector_units, expression
from moee_core.networks.reference_net import ReferenceFeatures
from moee_core.systems.moee import MoEESystem
from training import parallel
from training.config import DiffusionStage, SourceOdds
from training.data.clips import PAD
from training.data.latents import LatentClips


class Settings(Protocol):
    """What a task needs to know of a run's configuration."""

    @property
    def seed(self) -> int: ...
    @property
    def device(self) -> str: ...
    @property
    def precision(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One training batch, everything on the training device."""

    clean: Tensor  # (N, Z, h, h)
    noise: Tensor  # (N, Z, h, h)
    timesteps: Tensor  # (N,)
    portrait: Tensor  # (B, Z, h, h)
    motion: Tensor  # (B, k, Z, h, h)
    speech: Tensor  # (N, W, K, D)
    keep_audio: Tensor  # (N,) 0 or 1
    emotion: Tensor  # (N, 8), on the CPU
    units: Tensor  # (N, 20) beside the emotion, on the CPU
    viseme: Tensor  # (N, 4) the mouth that speech asks for; no input of the networks
    places: list[tuple[int, int]]  # N times (clip, frame)
    told: tuple[str, ...] = ("label",)  # the modalities that say the emotion
    own: Mapping[str, Tensor] = field(default_factory=dict)  # @name of an expert of one's own -> strength (N,)


@dataclass(frozen=True, kw_only=True)
class ReferenceChoice:
    """Which portrait a sample gets: ``kind`` 0 neutral, 1 same emotion, 2 another; ``masked``: mouth greyed out."""

    kind: int
    masked: bool


def choose_reference(settings: DiffusionStage, rng: np.random.Generator) -> ReferenceChoice:
    """Stage 1 and 2b: mostly a neutral portrait."""
    kind = 0
    if rng.random() < settings.other_reference:
        kind = 1 if rng.random() < settings.same_reference else 2
    return ReferenceChoice(kind=kind, masked=bool(rng.random() < settings.mouth_mask))


class DiffusionTask:
    """Batches and loss over a set of clips."""

    def __init__(
        self,
        config: Settings,
        system: MoEESystem,
        clips: LatentClips,
        regions: np.ndarray,
        own: tuple[str, np.ndarray] | None = None,
    ):
        """``own``: @name and action units (20,) at strength 1 of an expert of one's own, by which the units of the
        clips are meant: its strength is how much of them a frame shows."""
        self.own = own
        self.config, self.system, self.clips = config, system, clips
        self.device = torch.device(config.device)
        unet = system.config.unet
        self.table = alphas_cumprod(unet.beta_schedule, zero_snr=unet.zero_snr)
        self.regions = torch.from_numpy(regions)
        self.held_out = max(1, len(clips) // 60)

    def position_weight(self, settings: DiffusionStage, changed_Nhh: Tensor | None = None) -> Tensor:
        """(1, Z, h, h) or, with what to add to the regions' weights of every frame, (N, Z, h, h): mean 1."""
        side = self.clips.latents.shape[-1]
        mouth, eyes = torch.nn.functional.adaptive_avg_pool2d(self.regions, side)
        region = (1 + (settings.mouth_weight - 1) * mouth + (settings.eye_weight - 1) * eyes).to(self.device)
        if changed_Nhh is not None:
            region = region + changed_Nhh
        scale = (self.clips.change_std * self.drawn_by()).clamp_min(1e-3).to(self.device) ** settings.scale_power
        weight = region.view(-1, 1, side, side) * scale
        return weight / weight.mean()

    def drawn_by(self) -> Tensor:
        """(Z, 1, 1): how much of the picture a latent's channel draws."""
        return self.system.autoencoder.decoder.linear.weight.detach().square().sum(dim=0).sqrt().cpu()

    def changed(self, clean_NZhh: Tensor, portrait_BZhh: Tensor) -> Tensor:
        """(N, h, h): how far the frames are from the portraits of their clips, smoothed, mean 1."""
        portrait = portrait_BZhh.repeat_interleave(len(clean_NZhh) // len(portrait_BZhh), dim=0)
        apart = ((clean_NZhh - portrait).abs() * self.drawn_by().to(clean_NZhh)).sum(dim=1, keepdim=True)
        apart = torch.nn.functional.avg_pool2d(apart, 3, stride=1, padding=1, count_include_pad=False)[:, 0]
        return apart / apart.mean().clamp_min(1e-6)

    def batch(self, step: int, settings: DiffusionStage, numbers: list[int], choices: list[ReferenceChoice]) -> Batch:
        """Samples ``numbers`` with the given portraits; everything else from (seed, sample, step)."""
        window, k = settings.window, self.system.config.unet.motion_frames
        clips, parts = self.clips, []
        places: list[tuple[int, int]] = []
        for number, choice in zip(numbers, choices, strict=True):
            rng = np.random.default_rng([self.config.seed, 5, number, step])
            generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
            start = draw_start(settings, rng, clips.viseme[number], k)
            clean = clips.latents[number, start : start + window].float()
            places += [(number, start + i) for i in range(window)]
            pool = clips.masked if choice.masked else clips.references
            portrait = pool[number, choice.kind].float()
            motion = clips.latents[number, start - k : start].float()
            if rng.random() < settings.motion_drop:
                motion = portrait[None].expand_as(motion)
            rough = torch.randn(motion.shape, generator=generator) * settings.motion_noise * float(rng.random())
            noise = torch.randn(clean.shape, generator=generator)
            common = torch.randn(clean.shape[1:], generator=generator)
            noise = (1 - settings.noise_sharing) ** 0.5 * noise + settings.noise_sharing**0.5 * common
            frames = window_indices(
                clips.speech.shape[1], self.system.config.audio.margin, PAD + start, PAD + start + window
            )
            parts.append(
                {
                    "clean": clean,
                    "noise": noise,
                    "timesteps": torch.full((window,), draw_timestep(settings, rng)),
                    "portrait": portrait[None],
                    "motion": (motion + rough)[None],
                    "speech": clips.speech[number][frames].float(),
                    "keep_audio": torch.full((window,), float(rng.random() >= settings.audio_drop)),
                    "emotion": clips.emotion[number, start : start + window],
                    "units": clips.units[number, start : start + window],
                    "viseme": clips.viseme[number, start : start + window],
                }
            )
        merged = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
        kept = {name: merged.pop(name) for name in ("emotion", "units")}
        moved = {name: value.to(self.device) for name, value in merged.items()}
        batch = Batch(**moved, **kept, places=places, told=("label",), own={})
        if self.own is None:
            return batch
        name, units = self.own[0], torch.from_numpy(self.own[1])
        strength = batch.units @ units / units.square().sum()
        own: Mapping[str, Tensor] = {name: strength}
        return replace(batch, units=torch.zeros_like(batch.units), own=own)

    def predict(self, batch: Batch, settings: DiffusionStage, *, gated: bool) -> tuple[Tensor, Tensor]:
        """(velocity predicted, noisy latents)."""
        alpha, sigma = (v[:, None, None, None] for v in alpha_sigma(batch.timesteps, self.table))
        noisy = alpha * batch.clean + sigma * batch.noise
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            reference: ReferenceFeatures = self.system.reference_net.reference(batch.portrait, batch.motion)
            audio = self.system.audio_projector(batch.speech) * batch.keep_audio[:, None, None]
            emotion = None
            if settings.emotion:
                emotion = self.system.emotion_context(signals(self.system, batch, self.device), gated=gated)
            velocity = self.system.denoiser(
                noisy, batch.timesteps, frames=settings.window, reference=reference, audio_NSA=audio, emotion=emotion
            )
        return velocity.float(), noisy

    def loss(
        self, batch: Batch, settings: DiffusionStage, weight: Tensor, *, gated: bool
    ) -> tuple[Tensor, dict[str, float]]:
        velocity, noisy = self.predict(batch, settings, gated=gated)
        alpha, sigma = (v[:, None, None, None] for v in alpha_sigma(batch.timesteps, self.table))
        total = self.latent_loss(batch, velocity, weight)
        figures: dict[str, float] = {}
        if settings.spatial_weight:
            spatial = self._spatial(batch, settings, velocity, noisy, alpha, sigma)
            figures["spatial"] = float(spatial.detach())
            total = total + settings.spatial_weight * spatial
        return total, figures

    def latent_loss(self, batch: Batch, velocity: Tensor, weight: Tensor) -> Tensor:
        """MoEE Eq. 6 in the network's own unit."""
        alpha, sigma = (v[:, None, None, None] for v in alpha_sigma(batch.timesteps, self.table))
        target = alpha * batch.noise - sigma * batch.clean
        error = (velocity - target).square()
        if self.system.config.unet.anchor:
            std = self.system.denoiser.anchor_map(error.shape[-2], error.shape[-1], error.device).detach()
            error = error * (alpha**2 * std**2 + sigma**2) / std**2
        return (error * weight).mean()

    def _spatial(
        self, batch: Batch, settings: DiffusionStage, velocity: Tensor, noisy: Tensor, alpha: Tensor, sigma: Tensor
    ) -> Tensor:
        """MoEE Eq. 7 without a perceptual network: w(t) |I_p - I_GT|_1, and of their edges if asked."""
        first, every = settings.spatial_every // 2, settings.spatial_every
        rows = torch.arange(min(first, len(velocity) - 1), len(velocity), every, device=velocity.device)
        x0 = to_x0(velocity[rows], noisy[rows], alpha[rows], sigma[rows], "v_prediction")
        fade = torch.ones(len(rows), 1, 1, 1, device=velocity.device)
        if settings.spatial_time == "cosine":
            fade = torch.cos(batch.timesteps[rows] * math.pi / (2 * TRAIN_STEPS))[:, None, None, None]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            with torch.no_grad():
                truth = self.system.autoencoder.decode(batch.clean[rows]).float()
            made = self.system.autoencoder.decode(x0).float()
        mouth, eyes = self.regions.to(made.device)
        region = 1 + (settings.mouth_weight - 1) * mouth + (settings.eye_weight - 1) * eyes
        error = (made - truth) * fade * region
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return error.abs().mean() + settings.spatial_edges * edges


def signals(system: MoEESystem, batch: Batch, device: torch.device) -> EmotionSignals:
    """The batch's emotion as its modalities say it: action units alone are all that the face shows, beside a label or
    a text what it shows beyond the emotion."""
    vectors, units = batch.emotion, batch.units
    if batch.told == ("action_units",):
        units = units + torch.from_numpy(expression(vectors.numpy()))
        vectors = torch.eye(vectors.shape[1])[:1].expand_as(vectors)
    inputs: dict[str, Tensor] = {}
    if "label" in batch.told:
        inputs["label"] = vectors.to(device)
    if "action_units" in batch.told:
        inputs["action_units"] = torch.from_numpy(detector_units(units.numpy())).to(device)
    if "text" in batch.told:
        if system.text_encoder is None:
            raise ValueError("this model has no text encoder to train with; set system.emotion.text to words")
        features = torch.cat([vectors, torch.from_numpy(detector_units(units.numpy()))], dim=-1)
        inputs["text"] = system.text_encoder(features.to(device))
    return EmotionSignals(inputs=inputs, vectors_N8=vectors, units_N20=units, own=batch.own)


def draw_told(odds: SourceOdds, rng: np.random.Generator) -> tuple[str, ...]:
    """The modalities of a batch."""
    names = ("label", "action_units", "text", "several")
    kind = str(rng.choice(names, p=[getattr(odds, name) for name in names]))
    if kind != "several":
        return (kind,)
    dropped = str(rng.choice(["label", "action_units", "text", "none"]))
    return tuple(name for name in names[:3] if name != dropped)


def with_everything_told(clips: LatentClips, pool: np.ndarray, told: tuple[str, ...]) -> np.ndarray:
    """Those of the clips ``pool`` of which the modalities say all: labels know no action units beside them."""
    if "action_units" in told or "text" in told:
        return pool
    return pool[(clips.units[pool] == 0).flatten(1).all(dim=1).numpy()]


ROUNDED = -0.35
"""Lips narrower than this are rounded (axis "width" of the visemes)."""


def draw_start(settings: DiffusionStage, rng: np.random.Generator, viseme_L4: Tensor, motion_frames: int) -> int:
    """First frame of a window, after its motion frames; around rounded lips with probability ``rounded``."""
    last = len(viseme_L4) - settings.window
    if settings.rounded and rng.random() < settings.rounded:
        frames = torch.nonzero(viseme_L4[motion_frames:, 1] < ROUNDED)[:, 0].tolist()
        if frames:
            frame = motion_frames + int(frames[rng.integers(len(frames))])
            start = frame - int(rng.integers(settings.window))
            return min(max(start, motion_frames), last)
    return int(rng.integers(0, last - motion_frames + 1)) + motion_frames


def draw_timestep(settings: DiffusionStage, rng: np.random.Generator) -> int:
    """Logit-normal over 0..999, with an extra weight on the last, where every sampling starts."""
    if rng.random() < settings.time_last:
        return TRAIN_STEPS - 1
    value = 1 / (1 + math.exp(-rng.normal(settings.time_mean, settings.time_std)))
    return min(TRAIN_STEPS - 1, int(value * TRAIN_STEPS))


def draw_numbers(config: Settings, step: int, pool: np.ndarray, count: int) -> list[int]:
    """``count`` clip numbers of one step, of which this process gets its share."""
    rng = np.random.default_rng([config.seed, 4, step])
    return parallel.share([int(n) for n in pool[rng.integers(0, len(pool), count)]])
