"""The last stage: what one sampling step draws, learned where it is seen.

One step gives the mean of everything that fits, which the decoder of stage 0 has never seen: it draws it as smears.
Here every sample is a one-step estimate, and the decoder is asked for the picture that was meant. With ``whole`` the
networks that made the estimate learn along (all but the gates), from the latent loss of stage 1 at the last time-step
and from the same pictures; every emotion's expert is moved by its own frames alone. The decoder also decodes true
latents, so that it stays a faithful one. Loss on pictures: L1 on pixels and on their differences, mouth and eyes
weighted.
"""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from torch import Tensor, nn

from moee_core.diffusion.sampler import to_x0
from moee_core.diffusion.schedule import TRAIN_STEPS, alpha_sigma
from moee_core.emotion.vocabulary import LABELS
from moee_core.systems.moee import MoEESystem
from training.adversary import Adversary
from training.config import ConfigError, DecoderStage, SourceOdds, TrainConfig
from training.data.latents import LatentClips
from training.loop import Stage
from training.stages.autoencoder import pictures
from training.stages.diffusion import (
    ROUNDED,
    DiffusionTask,
    choose_reference,
    draw_numbers,
    draw_told,
    with_everything_told,
)

SEEN = 400
"""Clips by which the critic knows where frames differ from portraits."""
PULL = 0.5
"""An emotion this strong holds the lips elsewhere than speech wants them."""
DRAWING = ("denoiser.", "reference_net.", "audio_projector.")
TELLING = ("emotion_to_latents.encoders.action_units.", "emotion_to_latents.encoders.text.", "text_encoder.")


def trained_parameters(system: MoEESystem, *, whole: bool, telling: bool = False) -> list[tuple[str, nn.Parameter]]:
    """The decoder's; with ``whole`` also those of the networks that make the estimate, gates and anchor excepted;
    ``telling`` adds the encoders of action units and text."""
    wanted = ("autoencoder.decoder.", *(DRAWING if whole else ()), *(TELLING if telling else ()))
    return [
        (name, parameter)
        for name, parameter in system.named_parameters()
        if name.startswith(wanted) and ".gates." not in name and not name.startswith("denoiser.anchor_std")
    ]


def make_stage(
    config: TrainConfig, system: MoEESystem, clips: LatentClips, regions: np.ndarray, frames: list[np.ndarray]
) -> Stage:
    """``frames``: the clips' pictures in shards of equal length, (clips, L, S, S, 3) uint8."""
    settings: DecoderStage = config.stages.decoder
    task = DiffusionTask(config, system, clips, regions)
    weight = task.position_weight(settings)
    pool = _pool(clips, len(clips) - task.held_out, settings.hard)
    pool = _with_emphasis(clips, pool, settings.emphasised, settings.emphasis_share)
    odds = settings.sources
    _check_odds(system, odds)
    pools = {True: _with_units(clips, pool, settings.beside), False: with_everything_told(clips, pool, ("label",))}
    mouth, eyes = task.regions.to(task.device)
    region = 1 + (settings.mouth_weight - 1) * mouth + (settings.eye_weight - 1) * eyes
    short = dataclasses.replace(settings, window=settings.short_window, batch_size=settings.short_batch_size)
    telling = odds.label < 1
    adversary = _adversary(config, task, telling) if settings.critic else None

    def distance(made: Tensor, truth: Tensor, region: Tensor = region) -> Tensor:
        error = (made.float() - truth.float()) * region
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return error.abs().mean() + settings.spatial_edges * edges

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        now = short if step < settings.short_until * settings.iterations else settings
        told = draw_told(odds, np.random.default_rng([config.seed, 12, step]))
        numbers = draw_numbers(config, step, pools[told != ("label",)], now.batch_size)
        rng = np.random.default_rng([config.seed, 9, step, numbers[0]])
        batch = task.batch(step, now, numbers, [choose_reference(now, rng) for _ in numbers])
        batch = dataclasses.replace(batch, told=told)
        batch.timesteps.fill_(TRAIN_STEPS - 1)
        rows = torch.arange(step % now.spatial_every, len(batch.clean), now.spatial_every)
        with torch.set_grad_enabled(settings.whole):
            velocity, noisy = task.predict(batch, now, gated=True)
            alpha, sigma = (v[:, None, None, None] for v in alpha_sigma(batch.timesteps, task.table))
            estimate = to_x0(velocity, noisy, alpha, sigma, "v_prediction")
        changed = (
            settings.changed_weight * task.changed(batch.clean, batch.portrait) if settings.changed_weight else None
        )
        shown = [batch.places[row] for row in rows.tolist()]
        truth = pictures(np.stack([frames[clip // len(frames[0])][clip % len(frames[0]), i] for clip, i in shown]))
        truth = truth.to(task.device)
        with torch.autocast(task.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            drawn = distance(system.autoencoder.decode(estimate[rows]), truth, raised(region, changed, rows))
            few = rows[:: settings.kept_every]
            kept = distance(system.autoencoder.decode(batch.clean[few]), truth[:: settings.kept_every])
        total = drawn + 0.5 * kept
        figures = {"drawn": float(drawn.detach()), "kept": float(kept.detach())}
        if settings.whole:
            weighted = weight if changed is None else task.position_weight(settings, changed)
            latent = task.latent_loss(batch, velocity, weighted)
            total = settings.spatial_weight * total + latent
            figures["latent"] = float(latent.detach())
            if adversary is not None:
                portrait = batch.portrait.repeat_interleave(now.window, dim=0)
                asked = torch.cat([batch.emotion, batch.units], dim=1) if telling else batch.emotion
                condition = torch.cat([batch.viseme, asked.to(task.device)], dim=1)
                objection = adversary.objection(estimate, batch.clean, portrait, condition)
                (pull,) = torch.autograd.grad(objection, estimate, retain_graph=True)
                (slope,) = torch.autograd.grad(latent, velocity, retain_graph=True)
                total = total + settings.critic * slope.norm() / pull.norm().clamp_min(1e-8) * objection
                figures["objection"] = float(objection.detach())
        return total, figures

    return Stage(
        name="decoder",
        module=system,
        trainable=trained_parameters(system, whole=settings.whole, telling=settings.whole and telling),
        loss=loss,
        settings=settings,
        adversary=adversary,
    )


def raised(region_SS: Tensor, changed_Nhh: Tensor | None, rows: Tensor) -> Tensor:
    """The weights of pixels (n, 1, S, S) with those of change added, of the same mean; as they are without any."""
    if changed_Nhh is None:
        return region_SS
    added = nn.functional.interpolate(
        changed_Nhh[rows, None], size=region_SS.shape[-2:], mode="bilinear", align_corners=False
    )
    weight = region_SS + added
    return weight * (region_SS.mean() / weight.mean())


def _check_odds(system: MoEESystem, odds: SourceOdds) -> None:
    """Raises ``ConfigError`` where a batch would be told by what the model has no encoder for."""
    has = {
        "action_units": "action_units" in system.emotion_to_latents.encoders,
        "text": system.text_encoder is not None,
    }
    for name, there in has.items():
        if not there and (getattr(odds, name) or odds.several):
            raise ConfigError(
                f"stages.decoder.sources: this model has no encoder of {name}; give it one in [system.emotion], or set "
                f"{name} and several to 0"
            )


def _pool(clips: LatentClips, count: int, hard: float) -> np.ndarray:
    """Numbers of the first ``count`` clips, those whose lips round against an emotion repeated until they are ``hard``
    of the pool. Raises ``ValueError`` when there is none such."""
    pool = np.arange(count)
    if not hard:
        return pool
    rounded = clips.viseme[:count, :, 1] < ROUNDED
    pulled = clips.emotion[:count, :, 1:].amax(dim=-1) > PULL
    found = pool[(rounded & pulled).any(dim=1).numpy()]
    if not len(found):
        raise ValueError("stages.decoder.hard: no clip rounds its lips while an emotion is strong; raise data.clips")
    return repeated(pool, found, hard)


def _with_emphasis(clips: LatentClips, pool: np.ndarray, names: tuple[str, ...], share: float) -> np.ndarray:
    """The pool with the clips that show most of one of the emotions ``names`` repeated until they are ``share`` of it.
    Raises ``ConfigError`` when there is none such."""
    if not names:
        return pool
    most = clips.emotion[pool, :, 1:].amax(dim=1)
    among = torch.tensor([LABELS.index(name) - 1 for name in names])
    found = pool[((most.amax(dim=1) > 0) & torch.isin(most.argmax(dim=1), among)).numpy()]
    if not len(found):
        raise ConfigError(f"stages.decoder.emphasis: no clip shows {' or '.join(names)}; raise data.clips")
    return repeated(pool, found, share)


def _with_units(clips: LatentClips, pool: np.ndarray, beside: float) -> np.ndarray:
    """The pool with the clips that show units beside an emotion repeated until they are ``beside`` of it. Raises
    ``ConfigError`` when there is none such."""
    if not beside:
        return pool
    found = pool[(clips.units[pool] != 0).flatten(1).any(dim=1).numpy()]
    if not len(found):
        raise ConfigError("stages.decoder.beside: no clip shows units beside an emotion; set data.units")
    return repeated(pool, found, beside)


def repeated(pool: np.ndarray, found: np.ndarray, share: float) -> np.ndarray:
    """``pool`` with its members ``found`` repeated until they are about ``share`` of it."""
    times = round(max(0.0, (share * len(pool) / len(found) - 1) / (1 - share)))
    return np.concatenate([pool, np.repeat(found, times)])


def _adversary(config: TrainConfig, task: DiffusionTask, telling: bool) -> Adversary:
    """A critic that looks at mouth and eyes, and at the rest of the face a little."""
    known = [task.clips.viseme, task.clips.emotion, *([task.clips.units] if telling else [])]
    settings, side = config.stages.decoder, task.clips.latents.shape[-1]
    mouth, eyes = torch.nn.functional.adaptive_avg_pool2d(task.regions, side)
    seen = 0.1 + mouth + eyes
    if settings.changed_weight:
        few = task.clips.latents[:SEEN, 0].float(), task.clips.references[:SEEN, 2].float()
        changed = task.changed(*few).mean(dim=0)
        seen = seen + changed / changed.amax()
    return Adversary(
        seen,
        task.clips.change_std.clamp_min(0.05).to(task.device),
        condition=sum(part.shape[-1] for part in known),
        seed=config.seed,
        rate=settings.critic_rate,
        penalty=settings.critic_penalty,
    )
