"""DICE-Talk's UNet, bank and objective, trained together on the face world.

Shapes (legend for this file):
    B clips, F frames of a window, N = B F, Z channels, h latent side, P prior width, L frames of a cached clip
    y (N, Z, h, h): what changes of the portrait, (x - p) / s, see ``diffusion/anchor.py``

Loss (Eq. 15): L_den + lambda L_cls + L_vq. L_den is the squared error of v = (eps - sigma y) / sqrt(sigma^2 + 1), in
each position's own unit, weighed by mouth, eyes and how much a position moves; beside it stands the absolute error of
decoded pictures, without which one step gives the mean of all mouths that fit. L_cls (Eq. 16): cross-entropy of the
discrimination head on the features of the middle block, for frames that show one emotion at one level. L_vq (Eq. 17)
as ``training/dice_config.py`` says; where codes are running means (``update = "ema_reset"``) its first part moves
nothing, and its figure only says how near they are. Emotion is a prior that the frozen embedder made of the clip's own
face, as a reader of pictures reads it.
Every random choice is a function of (seed, sample, step).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from moee_core.diffusion.shifting import SIGMA_MAX
from moee_core.networks.autoencoder import Autoencoder
from moee_core.systems.dice_talk import DiceTalkSystem
from training import parallel
from training.data.clips import PAD
from training.data.dice_clips import DiceClips
from training.dice_config import DenoiserStage, DiceTrain
from training.loop import Stage
from training.stages.diffusion import ROUNDED
from training.stages.preview import write_strips

PURPOSE = 42
BY = (0.5, 0.25, 0.25)
"""How often a clip's prior is made of its face, of face and voice, of a voice."""
LEAST_UNIT = 0.25
"""Positions that change less than this, in the latents' common unit, do not count as if they changed as much."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """On the training device. ``label`` (N,) class of emotion and level, -1 for regular frames; ``kept`` (B, 3): 0
    where speech, picture or emotion is dropped; ``located`` (B, 1, S, S) the face's box."""

    clean: Tensor
    noise: Tensor
    sigma: Tensor
    portrait: Tensor
    located: Tensor
    speech: Tensor
    prior: Tensor
    kept: Tensor
    label: Tensor


class DenoiserTask:
    """Batches and loss."""

    def __init__(self, config: DiceTrain, system: DiceTalkSystem, autoencoder: Autoencoder, clips: DiceClips):
        self.config, self.system, self.clips = config, system, clips
        self.autoencoder = autoencoder
        self.settings: DenoiserStage = config.stages.denoiser
        self.device = torch.device(config.device)
        self.held_out = max(1, len(clips) // 60)
        usable = np.arange(len(clips) - self.held_out)
        labelled = clips.label[usable].max(dim=1).values >= 0
        self.pools = usable[labelled.numpy()], usable[~labelled.numpy()]
        side = clips.latents.shape[-1]
        regions = torch.from_numpy(clips.regions)
        mouth, eyes = F.adaptive_avg_pool2d(regions, side)
        settings = self.settings
        self.region = (1 + (settings.mouth_weight - 1) * mouth + (settings.eye_weight - 1) * eyes).to(self.device)
        self.pixels = (1 + (settings.mouth_weight - 1) * regions[0] + (settings.eye_weight - 1) * regions[1]).to(
            self.device
        )
        drawn_by = autoencoder.decoder.linear.weight.detach().square().sum(dim=0).sqrt().cpu()
        self.drawn_by = drawn_by.to(self.device)
        moving = (clips.change_std * drawn_by).clamp_min(1e-3) ** settings.scale_power
        own = (clips.change_std / system.config.change_scale).clamp_min(LEAST_UNIT)
        self.moving, self.unit = moving.to(self.device), own.to(self.device)
        self.features: list[Tensor] = []
        system.unet.mid_block.register_forward_hook(self._keep)

    def _keep(self, _module: object, _inputs: object, output: Tensor) -> None:
        """The middle block's features, for the discrimination head."""
        self.features.append(output)

    def numbers(self, step: int, size: int) -> list[tuple[int, int]]:
        """(place in the batch, clip) of this process's share. Half of a batch shows one emotion at one level, half is
        regular."""
        rng = np.random.default_rng([self.config.seed, PURPOSE, step])
        out = []
        for _ in range(size):
            pool = self.pools[0 if rng.random() < self.settings.labelled and len(self.pools[0]) else 1]
            pool = pool if len(pool) else self.pools[0]
            out.append(int(pool[rng.integers(len(pool))]))
        return parallel.share(list(enumerate(out)))

    def batch(self, step: int, numbers: list[tuple[int, int]], window: int) -> Batch:
        settings, clips, config = self.settings, self.clips, self.system.config
        parts: list[dict[str, Tensor]] = []
        for place, number in numbers:
            rng = np.random.default_rng([self.config.seed, PURPOSE + 1, number, step, place])
            generator = torch.Generator().manual_seed(int(rng.integers(1 << 62)))
            start = self._start(rng, number, window)
            frames = torch.arange(start, start + window)
            kind = 0
            if rng.random() < settings.other_reference:
                kind = 1 if rng.random() < settings.same_reference else 2
            clean = clips.latents[number, frames].float()
            portrait = clips.references[number, kind].float()
            noise = torch.randn(clean.shape, generator=generator)
            common = torch.randn(clean.shape[1:], generator=generator)
            noise = (1 - settings.noise_sharing) ** 0.5 * noise + settings.noise_sharing**0.5 * common
            at = PAD + frames[:, None] + torch.arange(config.speech_frames)[None] - config.speech_before
            parts.append(
                {
                    "clean": (clean - portrait) / config.change_scale,
                    "noise": noise,
                    "sigma": torch.full((window,), self._sigma(rng)),
                    "portrait": portrait[None],
                    "located": clips.boxes[number][None].float(),
                    "speech": clips.speech[number][at].float(),
                    "prior": self._prior(rng, number, frames),
                    "kept": self._kept(rng)[None],
                    "label": clips.label[number, frames],
                }
            )
        merged = {name: torch.cat([part[name] for part in parts]).to(self.device) for name in parts[0]}
        return Batch(**merged)

    def _start(self, rng: np.random.Generator, number: int, window: int) -> int:
        """First frame of a window; around rounded lips with probability ``rounded``."""
        length = self.clips.latents.shape[1]
        if self.settings.rounded and rng.random() < self.settings.rounded:
            frames = torch.nonzero(self.clips.viseme[number, :, 1] < ROUNDED)[:, 0].tolist()
            if frames:
                start = int(frames[rng.integers(len(frames))]) - int(rng.integers(window))
                return min(max(start, 0), length - window)
        return int(rng.integers(0, length - window + 1))

    def _sigma(self, rng: np.random.Generator) -> float:
        """Of the noise on y."""
        most = SIGMA_MAX / self.system.config.change_scale
        if rng.random() < self.settings.noise_last:
            return most
        drawn = math.exp(rng.normal(self.settings.noise_mean, self.settings.noise_std))
        return min(most, max(drawn, 0.002))

    def _prior(self, rng: np.random.Generator, number: int, frames: Tensor) -> Tensor:
        """(F, P): of the frames around each, or one for all; drawn from its Gaussian, or its mean (Eq. 6)."""
        clips, width = self.clips, self.system.config.bank.prior_width
        eps = torch.from_numpy(rng.standard_normal(width).astype(np.float32))
        if rng.random() < self.settings.per_frame:
            mean, variance = clips.moments[0][number, frames], clips.moments[1][number, frames]
        else:
            by = int(rng.choice(len(BY), p=BY))
            mean, variance = (part[number, by][None].expand(len(frames), -1) for part in clips.wholes)
        return mean + variance.sqrt() * eps if self.settings.prior == "sampled" else mean

    def _kept(self, rng: np.random.Generator) -> Tensor:
        settings, drawn = self.settings, rng.random()
        kept = torch.ones(3)
        for which, share in enumerate((settings.audio_drop, settings.image_drop, settings.emotion_drop)):
            if 0 <= drawn < share:
                kept[which] = 0
            drawn -= share
        return torch.zeros(3) if 0 <= drawn < settings.all_drop else kept

    def draw(self, batch: Batch, window: int, *, retrieval: bool) -> tuple[Tensor, Tensor]:
        """(v, clean), both of y: what the networks answer, and the clean latents that this means."""
        system = self.system
        sigma = batch.sigma[:, None, None, None]
        root = (sigma**2 + 1).sqrt()
        noisy = batch.clean + sigma * batch.noise
        kept_NK = batch.kept.repeat_interleave(window, dim=0)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            audio = system.audio_projector(batch.speech * kept_NK[:, 0, None, None, None])
            felt = system.bank(batch.prior * kept_NK[:, 2:], retrieval=retrieval)
            seen = batch.portrait * batch.kept[:, 1, None, None, None]
            token = system.picture_token(seen) * batch.kept[:, 1:2]
            located = system.face_locator(batch.located.expand(-1, 3, -1, -1))
            buckets = (system.config.fps, system.config.motion_bucket, system.config.expression_bucket)
            v = system.unet(
                torch.cat([noisy / root, seen.repeat_interleave(window, dim=0)], dim=1),
                batch.sigma.log() / 4,
                frames=window,
                ids_BK=batch.clean.new_tensor([buckets]).expand(len(seen), -1),
                kept=system.unet.kept(token.repeat_interleave(window, dim=0)[:, None], [audio, felt], window),
                mask_RHW=batch.located[:, 0],
                added_NCHW=located.repeat_interleave(window, dim=0),
            )
        v = v.float()
        return v, noisy / root**2 - v * sigma / root

    def loss(self, step: int, batch: Batch, window: int) -> tuple[Tensor, dict[str, float]]:
        settings, system = self.settings, self.system
        retrieval = np.random.default_rng([self.config.seed, PURPOSE + 2, step]).random() >= settings.whole_bank
        self.features.clear()
        v, clean = self.draw(batch, window, retrieval=retrieval)
        sigma = batch.sigma[:, None, None, None]
        target = (batch.noise - sigma * batch.clean) / (sigma**2 + 1).sqrt()
        total = ((v - target).square() * self._weight(batch)).mean()
        out = {"denoising": float(total.detach())}
        if settings.spatial_weight:
            spatial = self._spatial(batch, clean, window)
            out["spatial"] = float(spatial.detach())
            total = total + settings.spatial_weight * spatial
        labelled = batch.label >= 0
        if settings.discrimination and bool(labelled.any()):
            logits = system.bank.classifier(self.features[0][labelled].float())
            losses = F.cross_entropy(logits, batch.label[labelled], reduction="none")
            if settings.discrimination_noise == "snr":
                losses = losses / (batch.sigma[labelled] ** 2 + 1)
            out["discrimination"] = float(losses.mean().detach())
            total = total + settings.discrimination * losses.mean()
        if settings.vq and system.config.bank.form == "bank":
            generator = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
            found = system.bank.retrieved(batch.prior, learn=True, generator=generator)
            learned = found.codebook
            if settings.code_map == "learned":
                learned = learned + settings.commitment * found.commitment
            out["vq"] = float(learned.detach())
            total = total + settings.vq * learned
        return total, out

    def _weight(self, batch: Batch) -> Tensor:
        """(N, Z, h, h): mean 1, over the variance of every position, so that an answer of 0 costs about 1."""
        region = self.region.expand(len(batch.clean), -1, -1)
        if self.settings.changed_weight:
            apart = (batch.clean.abs() * self.drawn_by).sum(dim=1, keepdim=True)
            apart = F.avg_pool2d(apart, 3, stride=1, padding=1, count_include_pad=False)[:, 0]
            region = region + self.settings.changed_weight * apart / apart.mean().clamp_min(1e-6)
        weight = region[:, None] * self.moving
        return weight / weight.mean() / self.unit**2

    def _spatial(self, batch: Batch, clean: Tensor, window: int) -> Tensor:
        """Mean absolute error of decoded pictures, and of their edges."""
        every = self.settings.spatial_every
        rows = torch.arange(every // 2, len(clean), every, device=clean.device)
        scale = self.system.config.change_scale
        portrait = batch.portrait.repeat_interleave(window, dim=0)[rows]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.precision == "bf16"):
            with torch.no_grad():
                truth = self.autoencoder.decode(portrait + scale * batch.clean[rows]).float()
            made = self.autoencoder.decode(portrait + scale * clean[rows]).float()
        error = (made - truth) * self.pixels
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return error.abs().mean() + self.settings.spatial_edges * edges


def denoiser_stage(config: DiceTrain, system: DiceTalkSystem, autoencoder: Autoencoder, clips: DiceClips) -> Stage:
    settings = config.stages.denoiser
    task = DenoiserTask(config, system, autoencoder, clips)
    system.bank.classifier.train()

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        short = step < settings.short_until * settings.iterations
        window = settings.short_window if short else settings.window
        numbers = task.numbers(step, settings.short_batch_size if short else settings.batch_size)
        torch.manual_seed(config.seed * 1_000_003 + step)  # dropout in the head draws from nowhere else
        return task.loss(step, task.batch(step, numbers, window), window)

    @torch.no_grad()
    def preview(step: int, folder: Path) -> None:
        """Held-out clips in one step from noise."""
        numbers = [(i, len(clips) - 1 - i) for i in range(min(4, task.held_out))]
        batch = task.batch(0, numbers, settings.window)
        most = torch.full_like(batch.sigma, SIGMA_MAX / system.config.change_scale)
        batch = dataclasses.replace(batch, sigma=most, kept=torch.ones_like(batch.kept))
        _, clean = task.draw(batch, settings.window, retrieval=False)
        portrait = batch.portrait.repeat_interleave(settings.window, dim=0)
        truth, made = (portrait + system.config.change_scale * part for part in (batch.clean, clean))
        write_strips(autoencoder, batch.portrait, truth, made, folder / f"denoiser-{step:06d}.png")

    frozen = ["embedder.", "priors."]
    if config.stages.denoiser.vq:
        frozen += ["bank.to_code."] if config.stages.denoiser.code_map == "fixed" else []
        frozen += [] if system.bank.dictionary.learns_by_gradient else ["bank.dictionary."]
    named = [(name, value) for name, value in system.named_parameters() if not name.startswith(tuple(frozen))]
    return Stage(name="denoiser", module=system, trainable=named, loss=loss, settings=settings, validate=preview)
