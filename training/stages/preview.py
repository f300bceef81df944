"""Validation pictures: truth above, sampled below, for a few held-out clips."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import torch

from moee_core.diffusion.sampler import sample
from moee_core.networks.autoencoder import Autoencoder
from training.config import DiffusionStage
from training.stages.diffusion import DiffusionTask, ReferenceChoice, signals

STEPS = 4
SHOWN = 6


@torch.no_grad()
def write_preview(task: DiffusionTask, settings: DiffusionStage, path: Path, *, gated: bool) -> None:
    """A PNG of held-out clips with their portrait first."""
    count = min(4, task.held_out)
    numbers = [len(task.clips) - 1 - i for i in range(count)]
    batch = task.batch(0, settings, numbers, [ReferenceChoice(kind=0, masked=False)] * count)
    system, window = task.system, settings.window
    reference = system.reference_net.reference(batch.portrait, batch.motion)
    audio = system.audio_projector(batch.speech)
    emotion = system.emotion_context(signals(system, batch, task.device), gated=gated)

    def predict(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return system.denoiser(x, t, frames=window, reference=reference, audio_NSA=audio, emotion=emotion)

    made = sample(
        predict, batch.noise, task.table, num_inference_steps=STEPS, prediction_type=system.config.unet.prediction_type
    )
    write_strips(system.autoencoder, batch.portrait, batch.clean, made, path)


def write_strips(
    autoencoder: Autoencoder, portrait_BZhw: torch.Tensor, truth_NZhw: torch.Tensor, made_NZhw: torch.Tensor, path: Path
) -> None:
    """A PNG of clips, each with its portrait first, the truth above and what was made below; needs cv2, and does
    nothing where it is not installed."""
    try:
        import cv2
    except ImportError:  # a bare GPU machine trains without it; the pictures are a convenience
        return
    count = len(portrait_BZhw)
    window = len(truth_NZhw) // count
    frames = np.linspace(0, window - 1, SHOWN).round().astype(int)
    rows = []
    for latents in (truth_NZhw, made_NZhw):
        chosen = latents.view(count, window, *latents.shape[1:])[:, frames]
        strip = torch.cat([portrait_BZhw[:, None], chosen], dim=1)
        images = autoencoder.decode(strip.flatten(0, 1)).clamp(-1, 1)
        images = ((images + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        rows.append(images.reshape(count, SHOWN + 1, *images.shape[1:]))
    sheet = np.concatenate([np.concatenate([np.hstack(t), np.hstack(m)]) for t, m in zip(*rows, strict=True)])
    ok, data = cv2.imencode(".png", sheet[..., ::-1])
    if ok:
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        temporary.write_bytes(data.tobytes())
        os.replace(temporary, path)
