"""The loop every stage runs in: optimiser, averaged weights, schedule, checkpoints, resume, progress.

A stage is deterministic: its batch, noise and time-steps depend on (seed, sample, step) only, so a run that was
killed and resumed on one thread continues bit for bit.
"""

from __future__ import annotations

import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from training import parallel
from training.adversary import Adversary
from training.checkpoint import load_state, save_state
from training.config import StageConfig
from training.muon import Muon

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What a stage hands to the loop.

    ``loss(step)`` returns the loss and named figures of one batch; ``trainable`` are the parameters it moves, all of
    ``module``; ``validate(step, folder)`` may write pictures; ``adversary`` takes a step of its own after each.
    """

    name: str
    module: nn.Module
    trainable: list[tuple[str, nn.Parameter]]
    loss: Callable[[int], tuple[Tensor, dict[str, float]]]
    settings: StageConfig
    validate: Callable[[int, Path], None] | None = None
    adversary: Adversary | None = None


def learning_rate(settings: StageConfig, step: int) -> float:
    """Linear warm-up, flat, then a half cosine from ``decay_from`` of the run to ``final_rate`` of the rate."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup))
    progress = step / max(1, settings.iterations)
    tail = max(0.0, (progress - settings.decay_from) / max(1e-9, 1 - settings.decay_from))
    scale = settings.final_rate + (1 - settings.final_rate) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, tail)))
    return settings.learning_rate * warm * scale


class Averages:
    """Exponential moving average of the trained parameters, warm at the start."""

    def __init__(self, trainable: list[tuple[str, nn.Parameter]], decay: float):
        self.decay = decay
        self.names = [name for name, _ in trainable]
        self.live = [parameter for _, parameter in trainable]
        self.values = [parameter.detach().clone() for parameter in self.live]

    @torch.no_grad()
    def update(self, step: int) -> None:
        decay = min(self.decay, (step + 1) / (step + 12))
        for value, parameter in zip(self.values, self.live, strict=True):
            value.lerp_(parameter.detach(), 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange averaged and live weights; call twice to undo."""
        for value, parameter in zip(self.values, self.live, strict=True):
            kept = parameter.detach().clone()
            parameter.copy_(value)
            value.copy_(kept)


def run_stage(stage: Stage, folder: Path, writer: object | None = None) -> dict[str, float]:
    """Train one stage to its end, resuming from ``folder/state.pt`` if it belongs to this stage.

    Leaves the averaged weights in the module. Returns the last figures, with ``loss`` the mean over the last tenth.
    """
    settings = stage.settings
    path = folder / "state.pt"
    parameters = [parameter for _, parameter in stage.trainable]
    for parameter in stage.module.parameters():
        parameter.requires_grad_(False)
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimiser = _optimiser(settings, parameters)
    averages = Averages(stage.trainable, settings.ema)
    step, losses = _resume(stage, path, optimiser, averages)
    began, first, figures = time.monotonic(), step, {}
    while step < settings.iterations:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings, step)
        loss, figures = stage.loss(step)
        optimiser.zero_grad(set_to_none=True)
        if loss.requires_grad:  # a batch may reach nothing that is trained here: an expert, and only neutral frames
            loss.backward()
        value = parallel.average_gradients(parameters, loss)
        if not math.isfinite(value):
            raise RuntimeError(f"stage {stage.name}: the loss became {value} at step {step}; lower the learning rate")
        torch.nn.utils.clip_grad_norm_(parameters, settings.clip)
        optimiser.step()
        averages.update(step)
        if stage.adversary is not None:
            figures |= stage.adversary.learn()
        losses.append(value)
        step += 1
        if parallel.rank():
            continue  # one process reports, validates and saves for all
        if step % 25 == 0 or step == settings.iterations:
            _report(stage, step, first, began, losses, figures, folder, writer)
        if stage.validate is not None and (step % settings.validate_every == 0 or step == settings.iterations):
            averages.swap()
            stage.validate(step, folder)
            averages.swap()
        if step % settings.save_every == 0 or step == settings.iterations:
            _save(stage, path, step, optimiser, averages, losses)
    averages.swap()
    for parameter in stage.module.parameters():
        parameter.requires_grad_(False)
    tail = losses[-max(1, len(losses) // 10) :]
    return {**figures, "loss": sum(tail) / len(tail), "last_loss": losses[-1]} if losses else {}


def _optimiser(settings: StageConfig, parameters: list[nn.Parameter]) -> torch.optim.AdamW | Muon:
    if settings.optimiser == "muon":
        return Muon(parameters, settings.learning_rate, settings.weight_decay)
    return torch.optim.AdamW(parameters, settings.learning_rate, betas=(0.9, 0.99), weight_decay=settings.weight_decay)


def _resume(
    stage: Stage, path: Path, optimiser: torch.optim.AdamW | Muon, averages: Averages
) -> tuple[int, list[float]]:
    state = load_state(path)
    if state is None or state["stage"] != stage.name:
        return 0, []
    stage.module.load_state_dict(state["module"], strict=True)
    optimiser.load_state_dict(state["optimiser"])
    if stage.adversary is not None:
        stage.adversary.load_state_dict(state["adversary"])
    with torch.no_grad():
        for value, name in zip(averages.values, averages.names, strict=True):
            value.copy_(state["averages"][name])
    log.info("stage %s: resuming at step %d of %d", stage.name, state["step"], stage.settings.iterations)
    return int(state["step"]), list(state["losses"])


def _save(
    stage: Stage, path: Path, step: int, optimiser: torch.optim.AdamW | Muon, averages: Averages, losses: list[float]
) -> None:
    save_state(
        path,
        {
            "stage": stage.name,
            "step": step,
            "module": stage.module.state_dict(),
            "averages": dict(zip(averages.names, averages.values, strict=True)),
            "optimiser": optimiser.state_dict(),
            "adversary": stage.adversary.state_dict() if stage.adversary is not None else None,
            "losses": losses,
        },
    )


def _report(
    stage: Stage,
    step: int,
    first: int,
    began: float,
    losses: list[float],
    figures: dict[str, float],
    folder: Path,
    writer: object | None,
) -> None:
    spent = time.monotonic() - began
    speed = (step - first) / max(spent, 1e-9)
    left = (stage.settings.iterations - step) / max(speed, 1e-9)
    recent = losses[-100:]
    mean = sum(recent) / len(recent)
    extra = "".join(f"  {name} {value:.4f}" for name, value in figures.items())
    log.info(
        "%s %d/%d  loss %.4f%s  %.2f it/s  %.0f min left",
        stage.name,
        step,
        stage.settings.iterations,
        mean,
        extra,
        speed,
        left / 60,
    )
    line = {"stage": stage.name, "step": step, "loss": round(mean, 5), "speed": round(speed, 3), **figures}
    with (folder / "log.jsonl").open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(line) + "\n")
    if writer is not None:
        for name, value in {"loss": mean, "speed": speed, **figures}.items():
            writer.add_scalar(f"{stage.name}/{name}", value, step)  # type: ignore[attr-defined]
