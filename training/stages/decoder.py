"""The last stage: the decoder learns to draw what one sampling step leaves.

One step gives the mean of everything that fits, which the decoder of stage 0 has never seen: it draws it as smears.
Here it sees one-step estimates, everything but itself frozen, and is asked for the picture that was meant. Every other
time it decodes the true latents as well, so that it stays a faithful decoder. Loss: L1 on pixels and on their
differences, mouth and eyes weighted.
"""

from __future__ import annotations

import copy

import numpy as np
import torch
from torch import Tensor

from moee_core.diffusion.sampler import to_x0
from moee_core.diffusion.schedule import TRAIN_STEPS, alpha_sigma
from moee_core.systems.moee import MoEESystem
from training.config import DecoderStage, TrainConfig
from training.data.latents import LatentClips
from training.loop import Stage
from training.stages.diffusion import DiffusionTask, choose_reference, draw_numbers


def make_stage(config: TrainConfig, system: MoEESystem, clips: LatentClips, regions: np.ndarray) -> Stage:
    settings: DecoderStage = config.stages.decoder
    task = DiffusionTask(config, system, clips, regions)
    pool = np.arange(len(clips) - task.held_out)
    before = copy.deepcopy(system.autoencoder.decoder).requires_grad_(False)
    mouth, eyes = task.regions.to(task.device)
    region = 1 + (settings.mouth_weight - 1) * mouth + (settings.eye_weight - 1) * eyes

    def distance(made: Tensor, truth: Tensor) -> Tensor:
        error = (made.float() - truth.float()) * region
        edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
        return error.abs().mean() + settings.spatial_edges * edges

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        numbers = draw_numbers(config, step, pool, settings.batch_size)
        rng = np.random.default_rng([config.seed, 9, step, numbers[0]])
        batch = task.batch(step, settings, numbers, [choose_reference(settings, rng) for _ in numbers])
        batch.timesteps.fill_(TRAIN_STEPS - 1)
        rows = torch.arange(step % settings.spatial_every, len(batch.clean), settings.spatial_every)
        with torch.no_grad():
            velocity, noisy = task.predict(batch, settings, gated=True)
            alpha, sigma = (v[rows, None, None, None] for v in alpha_sigma(batch.timesteps, task.table))
            estimate = to_x0(velocity[rows], noisy[rows], alpha, sigma, "v_prediction")
        with torch.autocast(task.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            with torch.no_grad():
                truth = before(batch.clean[rows])
            drawn = distance(system.autoencoder.decode(estimate), truth)
            kept = distance(system.autoencoder.decode(batch.clean[rows[::2]]), truth[::2])
        return drawn + 0.5 * kept, {"drawn": float(drawn.detach()), "kept": float(kept.detach())}

    return Stage(
        name="decoder",
        module=system,
        trainable=[p for p in system.named_parameters() if p[0].startswith("autoencoder.decoder.")],
        loss=loss,
        settings=settings,
    )
