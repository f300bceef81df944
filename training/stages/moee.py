"""MoEE's training stages on top of ``diffusion.py``: reference (1), experts (2a), gates (2b).

1   ReferenceNet and denoiser on all clips, with one emotion attention shared by all emotions.
2a  Six experts, each on clips of its own emotion, everything else frozen; masked noisy emotion sampling.
2b  Gates on compounds and blends, everything else frozen.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moee_core.emotion.vocabulary import EXPERTS
from moee_core.experts.gating import EmotionGates
from moee_core.experts.mixture import MixtureOfEmotionExperts
from moee_core.systems.moee import MoEESystem, expert_shares
from training.config import ConfigError, ExpertsStage, TrainConfig
from training.data.latents import LatentClips
from training.loop import Stage
from training.stages.diffusion import (
    DiffusionTask,
    ReferenceChoice,
    choose_reference,
    draw_numbers,
    with_everything_told,
)
from training.stages.preview import write_preview

STAGE_1 = ("reference_net.", "denoiser.", "audio_projector.", "emotion_to_latents.")


def _parameters(system: MoEESystem, *wanted: str) -> list[tuple[str, nn.Parameter]]:
    return [
        (name, parameter)
        for name, parameter in system.named_parameters()
        if any(part in name for part in wanted) and not name.startswith("denoiser.anchor_std")
    ]


def clip_kinds(clips: LatentClips) -> tuple[np.ndarray, np.ndarray]:
    """Per clip: the one expert it needs (-1 for neutral, -2 for several), and how many experts are open in it."""
    shares = expert_shares(clips.emotion.flatten(0, 1), len(EXPERTS)).view(*clips.emotion.shape[:2], -1)
    used = (shares > 0).any(dim=1)  # (N, 6)
    count = used.sum(dim=1)
    first = used.float().argmax(dim=1)
    only = torch.where(count == 1, first, torch.where(count == 0, -1, -2))
    return only.numpy(), count.numpy()


def reference_stage(config: TrainConfig, system: MoEESystem, clips: LatentClips, regions: np.ndarray) -> Stage:
    """Stage 1."""
    settings = config.stages.reference
    task = DiffusionTask(config, system, clips, regions)
    weight = task.position_weight(settings)
    pool = with_everything_told(clips, np.arange(len(clips) - task.held_out), ("label",))

    short = dataclasses.replace(settings, window=settings.short_window, batch_size=settings.short_batch_size)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        now = short if step < settings.short_until * settings.iterations else settings
        numbers = draw_numbers(config, step, pool, now.batch_size)
        rng = np.random.default_rng([config.seed, 6, step, numbers[0]])
        choices = [choose_reference(now, rng) for _ in numbers]
        return task.loss(task.batch(step, now, numbers, choices), now, weight, gated=False)

    return Stage(
        name="reference",
        module=system,
        trainable=[p for p in _parameters(system, *STAGE_1) if ".gates." not in p[0]],
        loss=loss,
        settings=settings,
        validate=lambda step, folder: write_preview(task, settings, folder / f"reference-{step:06d}.png", gated=False),
    )


def experts_stage(config: TrainConfig, system: MoEESystem, clips: LatentClips, regions: np.ndarray) -> Stage:
    """Stage 2a. Interleaved: a batch holds clips of several emotions, each trains its own expert."""
    settings = config.stages.experts
    task = DiffusionTask(config, system, clips, regions)
    weight = task.position_weight(settings)
    only, _ = clip_kinds(clips)
    pool = with_everything_told(clips, np.flatnonzero(only[: len(clips) - task.held_out] >= 0), ("label",))
    if not len(pool):
        raise ValueError("stage experts: no clip of a single emotion among the data; raise data.clips")

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        numbers = draw_numbers(config, step, pool, settings.batch_size)
        rng = np.random.default_rng([config.seed, 7, step, numbers[0]])
        choices = [mask_noisy_reference(settings, rng) for _ in numbers]
        batch = task.batch(step, settings, numbers, choices)
        if settings.label_noise and rng.random() < settings.label_noise:
            batch.emotion[:, 1:7] = batch.emotion[:, 1:7].roll(int(rng.integers(1, 6)), dims=1)
        return task.loss(batch, settings, weight, gated=False)

    wanted = (".emotion.experts.", ".emotion.norm.") if settings.init == "zero" else (".emotion.experts.",)
    trained = (*wanted, "emotion_to_latents.") if settings.train_latents else wanted
    return Stage(
        name="experts",
        module=system,
        trainable=_parameters(system, *trained),
        loss=loss,
        settings=settings,
        validate=lambda step, folder: write_preview(task, settings, folder / f"experts-{step:06d}.png", gated=False),
    )


def mask_noisy_reference(settings: ExpertsStage, rng: np.random.Generator) -> ReferenceChoice:
    """Masked noisy emotion sampling: where a sample's portrait comes from, and whether its mouth is greyed out."""
    draw = rng.random()
    kind = (
        2 if draw < settings.other_emotion else 0 if draw < settings.other_emotion + settings.neutral_reference else 1
    )
    return ReferenceChoice(kind=kind, masked=kind != 1 and bool(rng.random() < settings.mask_probability))


def gates_stage(config: TrainConfig, system: MoEESystem, clips: LatentClips, regions: np.ndarray) -> Stage:
    """Stage 2b. The cross-entropy ties the global gates to the known blend; without it they hardly move."""
    settings = config.stages.gates
    task = DiffusionTask(config, system, clips, regions)
    weight = task.position_weight(settings)
    _, count = clip_kinds(clips)
    pool = with_everything_told(clips, np.flatnonzero(count[: len(clips) - task.held_out] >= 2), ("label",))
    if not len(pool):
        raise ValueError("stage gates: no clip with two emotions among the data; raise data.clips or data.compound")
    gates = [module for module in system.denoiser.modules() if isinstance(module, EmotionGates)]
    seen: list[Tensor] = []
    for gate in gates:
        gate.global_gate.register_forward_hook(lambda _module, _inputs, output: seen.append(output))

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        numbers = draw_numbers(config, step, pool, settings.batch_size)
        rng = np.random.default_rng([config.seed, 8, step, numbers[0]])
        batch = task.batch(step, settings, numbers, [choose_reference(settings, rng) for _ in numbers])
        seen.clear()
        total, figures = task.loss(batch, settings, weight, gated=True)
        shares = expert_shares(batch.emotion, system.config.unet.experts).to(total.device)
        rows = shares.sum(dim=1) > 0
        if seen and bool(rows.any()):
            entropy = torch.stack([F.cross_entropy(logits.float()[rows], shares[rows]) for logits in seen]).mean()
            total = total + settings.gate_weight * entropy
            figures["gate"] = float(entropy.detach())
        seen.clear()
        return total, figures

    return Stage(
        name="gates",
        module=system,
        trainable=_parameters(system, ".gates."),
        loss=loss,
        settings=settings,
        validate=lambda step, folder: write_preview(task, settings, folder / f"gates-{step:06d}.png", gated=True),
    )


@torch.no_grad()
def initialise(system: MoEESystem, clips: LatentClips | None, seed: int) -> None:
    """Starting weights: PyTorch's defaults, zero for every residual branch's last layer, the anchor's statistics."""
    generator = torch.Generator().manual_seed(seed)
    for module in system.modules():
        if isinstance(module, (nn.Linear, nn.Conv2d, nn.Conv1d)):
            bound = 1 / math.sqrt(module.weight[0].numel())
            module.weight.uniform_(-bound, bound, generator=generator)
            if module.bias is not None:
                module.bias.uniform_(-bound, bound, generator=generator)
        elif isinstance(module, nn.Embedding):
            module.weight.normal_(0, 0.5, generator=generator)
    for name, module in (*system.denoiser.named_modules(), *system.reference_net.named_modules()):
        last = name.endswith(("proj_out", "conv2", "conv_out")) or (".audio.attention.to_out.0" in f".{name}")
        if last and isinstance(module, (nn.Linear, nn.Conv2d)):
            module.weight.zero_()
            if module.bias is not None:
                module.bias.zero_()
    for module in system.denoiser.modules():
        if isinstance(module, MixtureOfEmotionExperts):
            for name, parameter in module.experts.named_parameters():
                if ".to_out." in name:
                    parameter.zero_()
    if system.denoiser.anchor_std is not None and clips is not None:
        system.denoiser.anchor_std.weight.copy_(clips.change_std.clamp_min(0.05).flatten(1))


@torch.no_grad()
def start_from(previous: MoEESystem, system: MoEESystem, *, merged: bool = True) -> None:
    """Weights of a finished model into stage 1's network, whose one emotion attention is the mean of its experts; or,
    not ``merged``, into a network with as many experts.

    What the finished model does not have (encoders that were not trained) keeps its start. Raises ``ConfigError`` for
    a model of other sizes.
    """
    given = previous.state_dict()
    target = system.state_dict()
    for key, value in target.items():
        if merged and ".emotion.gates." in key:
            continue  # stage 1 has one expert and no use for gates
        if merged and ".emotion.experts.0." in key:
            head, tail = key.split(".emotion.experts.0.")
            parts = [
                given[name]
                for name in given
                if name.startswith(f"{head}.emotion.experts.")
                and name.split(".emotion.experts.")[1].split(".", 1)[1] == tail
            ]
            found = torch.stack(parts).mean(0) if parts else None
        else:
            found = given.get(key)
        if found is None:
            continue
        if found.shape != value.shape:
            raise ConfigError(f"start_from: {key} is {tuple(found.shape)} there and {tuple(value.shape)} here")
        value.copy_(found)
    system.load_state_dict(target)


def _widen(target: Tensor, source: Tensor, *, output: bool) -> None:
    """The shared attention into the first heads of a wider one; the further heads keep their random start and say
    nothing yet."""
    if output and target.ndim == 2:
        target.zero_()
    rows, columns = source.shape[0], source.shape[-1]
    part = target[:rows] if target.ndim == 1 else target[:rows, :columns]
    part.copy_(source)


@torch.no_grad()
def grow_experts(shared: MoEESystem, system: MoEESystem, init: str, local_bias: float) -> None:
    """Stage 1's network into one with an expert per emotion (``upcycle``: copies of the shared attention).

    The gates start neutral: equal global logits, local gates open (sigmoid of ``local_bias``).
    """
    state = shared.state_dict()
    target = system.state_dict()
    for key in target:
        if ".emotion.gates." in key:
            target[key].zero_()
            if key.endswith("local_gate.bias"):
                target[key].fill_(local_bias)
        elif ".emotion.experts." in key:
            head, tail = key.split(".emotion.experts.")
            source = state[f"{head}.emotion.experts.0.{tail.split('.', 1)[1]}"]
            _widen(target[key], source, output=".to_out." in key)
            if init == "zero" and ".to_out." in key:
                target[key].zero_()
        else:
            target[key].copy_(state[key])
    system.load_state_dict(target)
