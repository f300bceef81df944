"""DICE-Talk's embedder: moments of takes, their Gaussians, InfoNCE.

Shapes (legend for this file): B rows, N frames, C action units, A speech width, D prior width

Every batch depends on (seed, step, sample) only. Half of the rows of a batch are the other moments of the other half.
What is measured on held-out takes: clustering strength (``clustering``) and whether the nearest mean of the training
takes' emotions is the right one.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from moee_core.audio.emotion_ear import EmotionEar
from moee_core.emotion.prior_embedder import PriorEmbedder, contrastive
from moee_core.emotion.vocabulary import LABELS
from moee_core.metrics.clusters import clustering_strength
from moee_core.systems.dice_talk import DiceTalkSystem
from training import parallel
from training.data.prior_clips import Scene, SceneDraw, voice_of
from training.dice_config import DiceTrain, EmbedderStage
from training.loop import Stage

log = logging.getLogger(__name__)

FIGURES_EVERY = 250
PURPOSE = 41
HELD_OUT_FRAMES = 64
MODALITIES = {"speech": (False, True), "face": (True, False), "both": (True, True)}
"""What is looked at: (face, speech)."""


def embedder_stage(
    config: DiceTrain, system: DiceTalkSystem, ear: EmotionEar, train: Sequence[Scene], tune: Sequence[Scene]
) -> Stage:
    settings, embedder = config.stages.embedder, system.embedder
    draw = SceneDraw(train)
    device = torch.device(config.device)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([config.seed, PURPOSE, step])
        low, high = math.log(settings.least_frames), math.log(embedder.config.frames)
        frames = round(math.exp(rng.uniform(low, high)))
        rows, groups, there, eps = [], [], [], []
        for number in parallel.share(list(range(settings.batch_size))):
            own = np.random.default_rng([config.seed, PURPOSE, step, number])
            pair = draw.pair(own)
            rows += [moment(ear, scene, frames, own, settings) for scene in pair]
            groups += [scene.group for scene in pair]
            there += [_looked_at(settings, scene, own) for scene in pair]
            eps.append(own.standard_normal((2, embedder.config.width)).astype(np.float32))
        found = embedder(
            torch.stack([face for face, _ in rows]).to(device),
            torch.stack([voice for _, voice in rows]).to(device),
            torch.stack(there).to(device),
        )
        priors = parallel.everyone(found.sample(torch.from_numpy(np.concatenate(eps)).to(device)))
        alike = parallel.everyone(torch.tensor(groups, device=device)[:, None])[:, 0]
        total = contrastive(priors, alike, settings.temperature)
        due = step % FIGURES_EVERY == FIGURES_EVERY - 1 or step + 1 == settings.iterations
        return total, figures(embedder, ear, train, tune) if due else {}

    named = [(f"embedder.{name}", parameter) for name, parameter in embedder.named_parameters()]
    return Stage(name="embedder", module=system, trainable=named, loss=loss, settings=settings)


def moment(
    ear: EmotionEar, scene: Scene, frames: int, rng: np.random.Generator, settings: EmbedderStage
) -> tuple[Tensor, Tensor]:
    """(N, C) units and (2 N, 1, A) features of a random moment, as a reader errs and another voice sounds; a take that
    is too short holds its last frame."""
    first = int(rng.integers(0, max(len(scene) - frames, 0) + 1))
    units = scene.units_NC[first : first + frames]
    held = np.pad(units, ((0, frames - len(units)), (0, 0)), mode="edge")
    constant, quick = rng.normal(0.0, settings.units_noise, (2, *held.shape)).astype(np.float32)
    noisy = held + 0.7 * constant[:1] + 0.7 * quick
    noisy = noisy if scene.signed else np.clip(noisy, 0, None)
    manner = rng.normal(0.0, settings.voice_noise, scene.voice_TQ.shape[1])
    voice = voice_of(ear, scene, first, len(units), manner)
    return torch.from_numpy(noisy), _held(voice, 2 * frames)


def _held(voice_TLA: Tensor, wanted: int) -> Tensor:
    return torch.cat([voice_TLA, voice_TLA[-1:].expand(wanted - len(voice_TLA), -1, -1)])


def _looked_at(settings: EmbedderStage, scene: Scene, rng: np.random.Generator) -> Tensor:
    """(2,) whether a row's face and speech are looked at."""
    drawn = rng.random()
    if not scene.voiced:
        return torch.tensor([True, False])
    without_speech = settings.drop_face <= drawn < settings.drop_face + settings.drop_speech
    return torch.tensor([drawn >= settings.drop_face, not without_speech])


@torch.no_grad()
def priors_of(
    embedder: PriorEmbedder, ear: EmotionEar, scenes: Sequence[Scene], looked_at: str, frames: int = HELD_OUT_FRAMES
) -> tuple[np.ndarray, np.ndarray]:
    """Means and variances (scenes, D) of the middle of every take, without noise."""
    means, variances = [], []
    face, speech = MODALITIES[looked_at]
    device = embedder.to_weight.weight.device
    for scene in scenes:
        count = min(frames, len(scene))
        first = (len(scene) - count) // 2
        units = torch.from_numpy(scene.units_NC[first : first + count]).to(device)
        voice = voice_of(ear, scene, first, count).to(device)
        found = embedder(units[None] if face else None, voice[None] if speech else None)
        means.append(found.mean_BD[0].cpu().numpy())
        variances.append(found.variance_BD[0].cpu().numpy())
    return np.stack(means), np.stack(variances)


def figures(
    embedder: PriorEmbedder, ear: EmotionEar, train: Sequence[Scene], tune: Sequence[Scene]
) -> dict[str, float]:
    """Of takes that were held out, by what is looked at: clustering strength, and the share of takes whose emotion is
    that of the nearest centroid of training takes."""
    out: dict[str, float] = {}
    known_ones = [scene for scene in train if scene.known]
    some = known_ones[:: max(1, len(known_ones) // 600)]
    held = [scene for scene in tune if scene.known]
    emotions, wanted = (np.array([scene.emotion for scene in part]) for part in (some, held))
    labels = [label for label in range(len(LABELS)) if (emotions == label).any()]
    if len(set(wanted.tolist())) < 2 or len(labels) < 2:
        return out  # nothing to tell apart
    voiced = all(scene.voiced for scene in (*some, *held))
    for name in MODALITIES if voiced else ("face",):
        known, _ = priors_of(embedder, ear, some, name)
        found, _ = priors_of(embedder, ear, held, name)
        strengths = list(clustering_strength(found, wanted).values())
        if strengths:  # none where every label was held out once
            out[f"{name} strength"] = float(np.mean(strengths))
        centroids = np.stack([known[emotions == label].mean(axis=0) for label in labels])
        nearest = np.argmin(((found[:, None] - centroids[None]) ** 2).sum(axis=2), axis=1)
        out[f"{name} emotion"] = float(np.mean(np.array(labels)[nearest] == wanted))
    return out


@torch.no_grad()
def name_priors(system: DiceTalkSystem, ear: EmotionEar, train: Sequence[Scene]) -> None:
    """The labels' priors: the mean of what faces, and their voices, give at full level ("Ours-P" of the paper). A label
    that no clip shows has the prior of nobody's emotion, 0, also where an earlier embedder had another for it."""
    system.priors.weight.zero_()
    full = [scene for scene in train if scene.known and (scene.emotion == 0 or scene.level == 3)]
    for looked_at, voiced in (("both", True), ("face", False)):
        mine = [scene for scene in full if scene.voiced == voiced]
        labels = sorted({scene.emotion for scene in mine})
        if not mine:
            continue
        means, _ = priors_of(system.embedder, ear, mine, looked_at)
        emotions = np.array([scene.emotion for scene in mine])
        for label in labels:
            if voiced or not bool(system.priors.weight[label].any()):
                system.priors.weight[label] = torch.from_numpy(means[emotions == label].mean(axis=0))
    lacking = [name for name, row in zip(LABELS, system.priors.weight, strict=True) if not bool(row.any())]
    if lacking:
        log.warning("no clip at full level shows %s; these priors stay nobody's", ", ".join(lacking))
