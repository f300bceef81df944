"""Train an expert of one's own beside the six of a finished model (``training/configs/own_expert.toml``).

Clips show an expression of action units, more or less strongly, on top of whatever else they show; the expert learns
what the model lacks, and nothing but the expert learns. Loss: that of the diffusion stages (``stages/diffusion.py``).
The outcome is one small file with its preview and an evaluation card: the error on held-out clips with the expert and
without it.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from moee_core.emotion.vocabulary import NEUTRAL, own_name
from moee_core.experts.file import card_text, load_expert, preview_text, save_expert
from moee_core.experts.mixture import MixtureOfEmotionExperts
from moee_core.experts.own import OwnExpert, make, start
from moee_core.ops import Build, plain_attention, torch_attention
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import load_system, state_hash
from training.config import ConfigError, DataConfig, DiffusionStage
from training.data.clips import prepare_clips, shown_units
from training.data.latents import prepare_latents
from training.loop import Stage, run_stage
from training.run import claim, settle_precision, tensorboard
from training.stages.diffusion import Batch, DiffusionTask, ReferenceChoice, choose_reference, draw_numbers
from training.stages.preview import write_preview

log = logging.getLogger(__name__)

KIND = "own_expert"
EMBEDDED = Path(__file__).parents[1] / "moee_core" / "assets" / "embedded.safetensors"
CHECKED = 24
"""Held-out clips of the evaluation card, at most."""


@dataclass(frozen=True, kw_only=True)
class OwnStage(DiffusionStage):
    """As the diffusion stages; the defaults suit a model that samples in one step, as the embedded one does.
    ``audio_drop``: guidance exaggerates what an expert does to a silent face, so it learns on silent ones too."""

    iterations: int = 400
    batch_size: int = 12
    window: int = 4
    learning_rate: float = 2e-3
    warmup: int = 20
    decay_from: float = 0.3
    ema: float = 0.98
    time_last: float = 1.0
    audio_drop: float = 0.1
    motion_drop: float = 0.2
    mouth_mask: float = 0.0
    spatial_weight: float = 6.0
    spatial_time: str = "flat"
    spatial_edges: float = 1.0
    save_every: int = 100
    validate_every: int = 200


@dataclass(frozen=True, kw_only=True)
class OwnTrain:
    """The whole file, with ``system_kind = "own_expert"``.

    ``call``: the name an emotion calls it by, without the @. ``start_from``: the checkpoint it belongs to, "" the one
    that ships. ``tokens``: its emotion tokens. The texts go into the file as they are.
    """

    name: str
    system_kind: str
    call: str
    data: DataConfig
    start_from: str = ""
    tokens: int = 8
    seed: int = 0
    precision: str = "auto"
    device: str = "cpu"
    threads: int = 0
    cache: str = "cache"
    runs: str = "runs"
    author: str = ""
    note: str = ""
    licence: str = "unstated"
    data_licence: str = "procedural faces; speech synthesised with flite (CMU licence)"
    stage: OwnStage = field(default_factory=OwnStage)

    def __post_init__(self) -> None:
        own_name(self.call)
        if self.tokens < 1:
            raise ValueError(f"tokens must be at least 1, got {self.tokens}")
        if not self.data.shown:
            raise ValueError('data.shown is empty; say what the expert shows, such as "L12:0.9, 14:0.6"')


def run(config: OwnTrain) -> Path:
    """Train; return the path of the expert's file. Started again it continues, and a finished run is left alone."""
    folder = Path(config.runs) / config.name
    config = settle_precision(config, folder)
    claim(folder, config)
    path = folder / f"{config.name}.safetensors"
    if path.exists():
        log.info("finished before")
        return path
    if config.threads:
        torch.set_num_threads(config.threads)
    cache = prepare_clips(config.data, config.seed, Path(config.cache))
    build = Build(attention=plain_attention if config.device == "cpu" else torch_attention)
    system, _ = load_system(config.start_from or EMBEDDED, build)
    if system.config.image_size != config.data.image_size:
        raise ConfigError(
            f"data.image_size is {config.data.image_size}, and the model draws {system.config.image_size}; make them "
            "the same"
        )
    base = state_hash(system.denoiser.state_dict())
    claim_base(folder, base)
    clips = prepare_latents(cache, system.autoencoder, system.speech_encoder)
    system.to(config.device).requires_grad_(False)
    expert = fresh(system, config.tokens, build).to(config.device)
    name = own_name(config.call)
    system.with_own({name: expert})
    task = DiffusionTask(config, system, clips, cache.regions(), own=(name, shown_units(config.data)))
    run_stage(_stage(config, task, expert), folder, tensorboard(folder))
    card = _card(config, task, expert)
    log.info("held-out clips: %s", card)
    preview = folder / "preview.png"
    write_preview(task, config.stage, preview, gated=True)
    about = {"author": config.author, "note": config.note} if config.author or config.note else {}
    about |= {"licence": config.licence, "data_licence": config.data_licence, "name": config.name}
    about |= {"evaluation": card_text(card)}
    if preview.exists():
        about["preview"] = preview_text(preview)
    state = {key: value.cpu() for key, value in expert.portable().items()}
    save_expert(path, name, base, state, about)
    load_expert(path)  # what was written can be read
    return path


def claim_base(folder: Path, base: str) -> None:
    """A run belongs to one model: continued over another one it would end in a file that fits neither."""
    path = folder / "base"
    if not path.exists():
        path.write_text(base + "\n", encoding="utf-8")
    elif path.read_text(encoding="utf-8").strip() != base:
        raise ConfigError(
            f"{folder} began with another model (base {path.read_text(encoding='utf-8').strip()}, this one is {base}); "
            "set start_from back, change `name`, or delete the folder"
        )


def fresh(system: MoEESystem, tokens: int, build: Build) -> OwnExpert:
    """A new expert for the model: silent, alike its six."""
    expert = make(system.denoiser, tokens, build)
    mixtures = [site.emotion for _, site in system.denoiser.sites()]
    assert all(isinstance(mixture, MixtureOfEmotionExperts) for mixture in mixtures)
    labels = torch.eye(system.config.emotion.labels)
    with torch.no_grad():
        known = system.emotion_to_latents({"label": labels[1:7].to(next(system.parameters()).device)})
        mean_MD = known.mean(dim=0)
    rows = torch.arange(tokens) % len(mean_MD)
    start(expert, [list(mixture.experts) for mixture in mixtures], mean_MD[rows.to(mean_MD.device)])
    return expert


def _stage(config: OwnTrain, task: DiffusionTask, expert: OwnExpert) -> Stage:
    settings = config.stage
    weight = task.position_weight(settings)
    pool = np.arange(len(task.clips) - task.held_out)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        numbers = draw_numbers(config, step, pool, settings.batch_size)
        rng = np.random.default_rng([config.seed, 14, step, numbers[0]])
        batch = task.batch(step, settings, numbers, [choose_reference(settings, rng) for _ in numbers])
        return task.loss(batch, settings, weight, gated=True)

    trainable: list[tuple[str, nn.Parameter]] = list(expert.named_parameters())
    return Stage(
        name=KIND,
        module=expert,
        trainable=trainable,
        loss=loss,
        settings=settings,
        validate=lambda step, folder: write_preview(
            task, settings, folder / f"{config.name}-{step:06d}.png", gated=True
        ),
    )


@torch.no_grad()
def _card(config: OwnTrain, task: DiffusionTask, expert: OwnExpert) -> dict[str, object]:
    """Mean loss over held-out clips with the expert at its full strength, and without it."""
    settings = config.stage
    numbers = [len(task.clips) - 1 - i for i in range(min(CHECKED, task.held_out))]
    weight = task.position_weight(settings)
    figures: dict[str, float] = {}
    for word, scale in (("with", 1.0), ("without", 0.0)):
        expert.scale = scale
        losses = []
        for number in numbers:
            batch: Batch = task.batch(0, settings, [number], [ReferenceChoice(kind=0, masked=False)])
            losses.append(float(task.loss(batch, settings, weight, gated=True)[0]))
        figures[word] = round(float(np.mean(losses)), 4)
    expert.scale = 1.0
    return {
        "held_out_clips": len(numbers),
        "loss_with": figures["with"],
        "loss_without": figures["without"],
        "iterations": settings.iterations,
        "shown": config.data.shown,
        "calls_for": f"{own_name(config.call)} beside {NEUTRAL}",
    }
