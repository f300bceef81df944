"""Train the reader of action units on drawn faces (``training/configs/expression_reader.toml``).

Pictures are rendered once, as large as a portrait is, and kept; every step cuts them out anew, a little larger or
smaller, shifted, brighter, blurred or mirrored, as other pictures of other people will be. Loss: mean square error of
action units, mouth and lids. Every random choice is a function of (seed, step, sample); a killed run continues.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import multiprocessing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from moee_core.motion.coefficients import MOUTH, UNITS
from moee_core.networks.expression_reader import OUTPUTS, SIDE, ExpressionReader, ExpressionReaderConfig
from moee_core.ops import DEFAULT_BUILD
from moee_core.weights.expression_reader import load_expression_reader, save_expression_reader
from training.config import StageConfig
from training.data.clips import source_hash
from training.loop import Stage, run_stage
from training.run import claim, tensorboard

log = logging.getLogger(__name__)

KIND = "expression_reader"
PICTURE = 88
"""Side of a kept picture; what is cut out of it is ``SIDE`` pixels after scaling."""
DRAWN = 128
"""Side at which a face is drawn before it is reduced."""
PURPOSE = 23
MIRRORED = [UNITS.index(u[:-1] + {"L": "R", "R": "L"}[u[-1]]) if u[-1] in "LR" else i for i, u in enumerate(UNITS)]
KINDS = {"neutral": 0.1, "single": 0.35, "compound": 0.1, "blend": 0.15, "contempt": 0.05, "units": 0.25}


@dataclass(frozen=True, kw_only=True)
class ReaderData:
    """``pictures`` of the split train, and of the split tune for the figures."""

    pictures: int = 40000
    held_out: int = 1500
    workers: int = 2


@dataclass(frozen=True, kw_only=True)
class ReaderStage(StageConfig):
    """``scale``, ``shift`` and ``light``: how far a cut differs from the portrait's own framing, as parts of it."""

    iterations: int = 6000
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.02
    decay_from: float = 0.3
    scale: float = 0.15
    shift: float = 0.06
    light: float = 0.15


@dataclass(frozen=True, kw_only=True)
class ReaderTrain:
    """The whole file, with ``system_kind = "expression_reader"``."""

    name: str
    system_kind: str
    seed: int = 0
    threads: int = 0
    cache: str = "cache"
    runs: str = "runs"
    system: ExpressionReaderConfig = field(default_factory=ExpressionReaderConfig)
    data: ReaderData = field(default_factory=ReaderData)
    stage: ReaderStage = field(default_factory=ReaderStage)


def run(config: ReaderTrain) -> Path:
    """Train; return the path of ``model.safetensors``."""
    folder = Path(config.runs) / config.name
    claim(folder, config)
    path = folder / "model.safetensors"
    if path.exists():
        log.info("finished before")
        return path
    if config.threads:
        torch.set_num_threads(config.threads)
    pictures, truth = prepare_pictures(config, "train", config.data.pictures)
    shown, wanted = prepare_pictures(config, "tune", config.data.held_out)
    reader = ExpressionReader(config.system, DEFAULT_BUILD)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        for module in reader.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d)):
                bound = math.sqrt(3 / module.weight[0].numel())
                module.weight.uniform_(-bound, bound, generator=generator)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]  # every layer of the reader has one
    held = torch.from_numpy(np.stack([middle(picture) for picture in shown]))
    scale = torch.from_numpy(truth.std(axis=0)).clamp_min(0.05)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([config.seed, PURPOSE, step])
        numbers = rng.integers(0, len(pictures), config.stage.batch_size)
        cuts, targets = cut(pictures[numbers], truth[numbers], rng, config.stage)
        error = (
            torch.cat([part.view(len(cuts), -1) for part in reader(torch.from_numpy(cuts))], dim=1) - targets
        ) / scale
        figures = {}
        if step % 500 == 499:
            with torch.no_grad():
                found = torch.cat([part.view(len(held), -1) for part in reader(held)], dim=1).numpy()
            figures["held_out_r"] = float(np.mean(correlations(found, wanted)))
        return error.square().mean(), figures

    stage = Stage(
        name="reader", module=reader, trainable=list(reader.named_parameters()), loss=loss, settings=config.stage
    )
    run_stage(stage, folder, tensorboard(folder))
    with torch.no_grad():
        found = torch.cat([part.view(len(held), -1) for part in reader(held)], dim=1).numpy()
    figures = dict(
        zip([*UNITS, *MOUTH, "lids"], correlations(found, wanted).astype(float).round(3).tolist(), strict=True)
    )
    log.info("held-out people, correlation with the truth: %s", "  ".join(f"{k} {v}" for k, v in figures.items()))
    save_expression_reader(
        path,
        reader,
        metadata={
            "trained": json.dumps({"name": config.name, "iterations": config.stage.iterations, "held_out_r": figures}),
            "data_licence": "procedural faces",
        },
    )
    load_expression_reader(path)  # what was written can be read
    return path


def correlations(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(columns,) Pearson's r of each; 0 where either does not vary."""
    a, b = found - found.mean(axis=0), truth - truth.mean(axis=0)
    return (a * b).sum(axis=0) / np.maximum(np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0)), 1e-9)


def cut(
    pictures: np.ndarray, truth: np.ndarray, rng: np.random.Generator, settings: ReaderStage
) -> tuple[np.ndarray, Tensor]:
    """(B, 88, 88, 3) uint8 and (B, outputs) -> (B, 3, 64, 64) in [-1, 1] and the targets, both mirrored together."""
    import cv2

    cuts, targets = np.empty((len(pictures), 3, SIDE, SIDE), np.float32), truth.copy()
    for number, picture in enumerate(pictures):
        zoom = SIDE / PICTURE * float(np.exp(rng.uniform(-settings.scale, settings.scale)))
        place = PICTURE / 2 + rng.uniform(-settings.shift, settings.shift, 2) * PICTURE
        matrix = np.array([[zoom, 0, SIDE / 2 - zoom * place[0]], [0, zoom, SIDE / 2 - zoom * place[1]]])
        mirrored = rng.random() < 0.5
        if mirrored:
            matrix = np.array([[-1, 0, SIDE - 1], [0, 1, 0]]) @ np.vstack([matrix, [0, 0, 1]])
            targets[number, : len(UNITS)] = truth[number, MIRRORED]
        small = cv2.warpAffine(picture, matrix, (SIDE, SIDE), flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
        if rng.random() < 0.4:
            small = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(0.3, 1.1)))
        light = 1 + rng.uniform(-settings.light, settings.light, 3)
        values = small.astype(np.float32) / 127.5 - 1
        values = values * light + rng.uniform(-settings.light, settings.light)
        values += rng.normal(0, 0.03 * rng.random(), values.shape)
        cuts[number] = values.transpose(2, 0, 1)
    return cuts, torch.from_numpy(targets)


def middle(picture: np.ndarray) -> np.ndarray:
    """(3, 64, 64) the whole picture as it is read in use."""
    from moee_core.emotion.reference import as_read

    return as_read(picture)


def prepare_pictures(config: ReaderTrain, split: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, 88, 88, 3) uint8 pictures and (count, outputs) truth of a split's people, rendered once."""
    about = json.dumps([source_hash(), Path(__file__).read_text(encoding="utf-8"), config.seed, split, count])
    folder = Path(config.cache) / f"faces-{hashlib.sha256(about.encode()).hexdigest()[:16]}"
    if not (folder / "truth.npy").exists():
        folder.mkdir(parents=True, exist_ok=True)
        log.info("rendering %d faces of %s", count, split)
        jobs = [(config.seed, split, first, min(500, count - first)) for first in range(0, count, 500)]
        if config.data.workers > 1:
            with multiprocessing.get_context("spawn").Pool(config.data.workers) as pool:
                parts = list(pool.imap(_render, jobs))
        else:
            parts = [_render(job) for job in jobs]
        np.save(folder / "pictures.npy", np.concatenate([part[0] for part in parts]))
        np.save(folder / "truth.npy", np.concatenate([part[1] for part in parts]))
    return np.load(folder / "pictures.npy", mmap_mode="r"), np.load(folder / "truth.npy")


def _render(job: tuple[int, str, int, int]) -> tuple[np.ndarray, np.ndarray]:
    import cv2

    from training.face_world import performance as world
    from training.face_world.render import render
    from training.face_world.rig import AU_NAMES, FaceState
    from training.face_world.splits import person, split_rng
    from training.face_world.visemes import VISEME_OF

    cv2.setNumThreads(1)
    seed, split, first, count = job
    shapes = [target for targets in VISEME_OF.values() for target in targets]
    pictures, truth = np.empty((count, PICTURE, PICTURE, 3), np.uint8), np.zeros((count, OUTPUTS), np.float32)
    for number in range(count):
        rng = split_rng(split, first + number, purpose=PURPOSE + seed)
        identity = person(split, first + number)
        units = np.zeros(len(AU_NAMES), np.float32)
        kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
        if kind == "units":
            units[: len(UNITS)] = world.random_units(rng)
        else:
            units = world.emotion_action_units(world.random_emotion(rng, kind)[None])[0] * identity.expressiveness
            if rng.random() < 0.3:
                units[: len(UNITS)] += 0.6 * world.random_units(rng)
        viseme = np.zeros(len(MOUTH), np.float32)
        if rng.random() < 0.55:
            viseme = np.array(shapes[rng.integers(len(shapes))], np.float32) * rng.uniform(0.1, 1.0)
            viseme[0] *= 1 - min(1.0, viseme[3])
        units = np.clip(units, 0, world.MAX_UNIT)
        blink = float(rng.uniform(0.5, 1.0)) if rng.random() < 0.06 else 0.0
        pose = world.reference_pose(rng)
        state = FaceState(
            action_units=units, viseme=np.clip(viseme, [0, -1, 0, 0], 1).astype(np.float32), pose=pose, blink=blink,
            gaze=rng.normal(0, 0.15, 2).astype(np.float32),
        )  # fmt: skip
        drawn = render(identity, state, DRAWN)
        pictures[number] = cv2.resize(drawn, (PICTURE, PICTURE), interpolation=cv2.INTER_AREA)
        truth[number] = [*units[: len(UNITS)], *state.viseme, blink]
    return pictures, truth
