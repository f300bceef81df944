"""EmoTalker's measurements, each a command that runs in minutes and prints a table.

    python training/emotalker_report.py codebook CONFIG [--seeds 3] [--iterations 500]
    python training/emotalker_report.py emotion  CONFIG [--seeds 3] [--iterations 500]
    python training/emotalker_report.py voice    MODEL [MODEL ...]
    python training/emotalker_report.py masks    CONFIG MODEL [--seeds 3] [--iterations 500]
    python training/emotalker_report.py modes    MODEL [MODEL ...]
    python training/emotalker_report.py faces    MODEL --picture OUT.png

codebook: use of the codes and reconstruction with gradient, EMA, EMA and reset. emotion: how well a linear reader
tells a clip's emotion from its codes, with and without the emotion loss. voice: the emotion that a voice alone gives a
face, by emotion and level, and landmark distances, also with the head driven by the true frames; models trained with
other seeds give the interval. masks: the transformer trained again with each mask off. modes: outputs fed back as they
are, snapped to codes, or drawn. faces: the mean code of every emotion and level, decoded and drawn (the paper's
Figure 4).

Everything is measured on the test split: voices, sentences and people that no training has seen. Beside every figure
stands what the same instrument says of the truth or of a still face.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import torch

from moee_core.emotion.dictionary import code_use
from moee_core.emotion.vocabulary import LABELS
from moee_core.errors import MoEEError
from moee_core.metrics.definitions import spearman
from moee_core.systems.emo_talker import EmoTalkerSystem, MotionSettings
from moee_core.video.frames import write_image
from moee_core.weights.emo_talker import load_emo_talker
from training import emotalker
from training.config import from_table, read_table
from training.data.motion_clips import Take, prepare_takes
from training.emotalker_config import EmoTalkerTrain
from training.emotalker_measure import PrototypeReader, interval, landmark_distances, landmarks, mean_units
from training.face_world.splits import person
from training.loop import run_stage
from training.stages import emotalker as stages

CODEBOOK_ARMS = {
    "naive, random start": {"update": "naive", "start": "uniform"},
    "naive": {"update": "naive"},
    "EMA": {"update": "ema"},
    "EMA and reset": {"update": "ema_reset"},
}
MASK_ARMS = {
    "both masks": {},
    "no temporal bias": {"bias": False},
    "no alignment": {"align": False},
    "neither": {"bias": False, "align": False},
}
LANDMARK_STEP = 5
"""Landmarks are compared in every fifth frame."""
SHEET_SIDE = 256
BEGINNING = 3
"""Tokens of a take in which the emotion is still rising."""
Row = dict[str, float]


def clips_of(config: EmoTalkerTrain) -> tuple[stages.Clips, list[Take]]:
    """What training sees, and the test split."""
    cache = Path(config.cache)
    train, tune, test = (prepare_takes(config.data, config.seed, cache, name) for name in ("train", "tune", "test"))
    return stages.Clips(train, tune), test


def trained_codes(config: EmoTalkerTrain, clips: stages.Clips) -> EmoTalkerSystem:
    """A motion VQ-VAE from its start."""
    system = emotalker.start(config, clips)
    with tempfile.TemporaryDirectory() as folder:
        run_stage(stages.vqvae_stage(config, system, clips), Path(folder))
    return system


def _with(config: EmoTalkerTrain, seed: int, stage: str, iterations: int, changes: dict[str, Any]) -> EmoTalkerTrain:
    """The configuration with another seed and length of a stage. Takes stay those of the configuration's own seed."""
    settings = dataclasses.replace(getattr(config.stages, stage), iterations=iterations, **changes)
    return dataclasses.replace(config, seed=seed, stages=dataclasses.replace(config.stages, **{stage: settings}))


def _with_dictionary(config: EmoTalkerTrain, changes: dict[str, Any]) -> EmoTalkerTrain:
    vq = config.system.vq
    vq = dataclasses.replace(vq, dictionary=dataclasses.replace(vq.dictionary, **changes))
    return dataclasses.replace(config, system=dataclasses.replace(config.system, vq=vq))


@torch.no_grad()
def codes_of(system: EmoTalkerSystem, take: Take) -> torch.Tensor:
    """(N,) codes of a take's true motion."""
    motion = stages.face_of(system, [(take, 0)], len(take))
    return system.vqvae.dictionary.nearest(system.vqvae.encode(motion))[0]


@torch.no_grad()
def reconstruction(system: EmoTalkerSystem, takes: list[Take]) -> Row:
    """Use of the codes, and how much of the motion comes back (1: all of it, 0: only its mean)."""
    indices, wrong, spread = [], 0.0, 0.0
    for take in takes:
        motion = stages.face_of(system, [(take, 0)], len(take))
        coded = system.vqvae(motion)
        indices.append(coded.quantised.indices.flatten())
        wrong += float(((coded.motion - motion) / system.vqvae.scale).square().sum())
        spread += float(((motion - system.vqvae.mean) / system.vqvae.scale).square().sum())
    use = code_use(torch.cat(indices), system.vqvae.dictionary.config.codes)
    return {"used": use.used, "perplexity": use.perplexity, "explained": 1 - wrong / spread}


def codebook(config: EmoTalkerTrain, seeds: int, iterations: int) -> dict[str, list[Row]]:
    clips, test = clips_of(config)
    out: dict[str, list[Row]] = {}
    for name, changes in CODEBOOK_ARMS.items():
        for seed in range(seeds):
            chosen = _with(_with_dictionary(config, changes), seed, "vqvae", iterations, {})
            out.setdefault(name, []).append(reconstruction(trained_codes(chosen, clips), test))
    return out


def emotion(config: EmoTalkerTrain, seeds: int, iterations: int) -> dict[str, list[Row]]:
    """Chance is an eighth. The reader is ridge regression on the mean of a clip's codes, made on training takes."""
    clips, test = clips_of(config)
    out: dict[str, list[Row]] = {}
    for name, weight in (("with emotion loss", config.stages.vqvae.emotion_weight), ("without", 0.0)):
        for seed in range(seeds):
            system = trained_codes(_with(config, seed, "vqvae", iterations, {"emotion_weight": weight}), clips)
            out.setdefault(name, []).append(
                {"read": _read_by_ridge(system, clips.train, test), **reconstruction(system, test)}
            )
    return out


def _read_by_ridge(system: EmoTalkerSystem, train: list[Take], test: list[Take]) -> float:
    def features(takes: list[Take]) -> np.ndarray:
        codes = system.vqvae.dictionary.codes.weight
        rows = np.stack([codes[codes_of(system, take)].mean(0).numpy() for take in takes])
        return np.concatenate([rows, np.ones((len(rows), 1))], axis=1)

    x, labels = features(train), np.array([take.emotion for take in train])
    wanted = np.eye(len(LABELS))[labels]
    weight = np.linalg.solve(x.T @ x + 1e-3 * len(x) * np.eye(x.shape[1]), x.T @ wanted)
    found = (features(test) @ weight).argmax(1)
    return _balanced(found, np.array([take.emotion for take in test]))


def _balanced(found: np.ndarray, truth: np.ndarray) -> float:
    """Accuracy with every emotion counting the same."""
    return float(np.mean([(found[truth == label] == label).mean() for label in np.unique(truth)]))


@torch.no_grad()
def made_from(system: EmoTalkerSystem, take: Take, settings: MotionSettings) -> np.ndarray:
    """(F, 34) motion that the system makes from a take's sound, without blinks."""
    generator = torch.Generator().manual_seed(settings.seed)
    audio = stages.heard_by(system, [(take, 0)], len(take))
    count = -(-len(take) // system.config.vq.rate)
    tokens = stages.free_running(system, audio, count, lambda out: system.chosen(out, settings, generator))
    face = system.vqvae.decode(tokens)[0, : len(take)]
    rest, open_eyes = torch.zeros(len(take), len(system.lip_columns)), torch.zeros(len(take))
    values = np.zeros((len(take), system.space.size), np.float32)
    values[:, system.face_columns] = face.numpy()
    values[:, system.lip_columns] = system.lips(take.windows(0, len(take)), face, rest, open_eyes).numpy()
    return values


def measured(takes: list[Take], motions: list[np.ndarray], *, with_landmarks: bool = True) -> Row:
    """Accuracy of the emotion shown, by emotion and level; its order by level; landmark distances to the truth."""
    reader = PrototypeReader()
    found = np.array([reader.read(mean_units(motion)) for motion in motions])
    truth, level = np.array([take.emotion for take in takes]), np.array([take.level for take in takes])
    row: Row = {"emotion": _balanced(found, truth)}
    chosen: dict[str, np.ndarray] = {f"emotion, level {number}": level == number for number in (1, 2, 3)}
    for number, label in enumerate(LABELS):
        chosen[label] = truth == number
        chosen |= {f"{label}, level {step}": (truth == number) & (level == step) for step in (1, 2, 3)}
    row |= {name: _balanced(found[rows], truth[rows]) for name, rows in chosen.items() if rows.any()}
    groups: dict[tuple[str, int], list[int]] = {}
    for number, take in enumerate(takes):
        if take.level:
            groups.setdefault((take.key, take.emotion), []).append(number)
    orders = [
        spearman(level[group], np.array([reader.strengths(mean_units(motions[n]))[truth[n] - 1] for n in group]))
        for group in groups.values()
        if len(group) == 3
    ]
    row["Spearman with level"] = float(np.mean(orders)) if orders else 0.0
    if with_landmarks:
        distances = [
            landmark_distances(_marks(take, motion), _marks(take, take.motion))
            for take, motion in zip(takes, motions, strict=True)
        ]
        row["F-LMD"], row["M-LMD"] = (float(value) for value in np.mean(distances, axis=0))
    return row


def _marks(take: Take, motion: np.ndarray) -> np.ndarray:
    return landmarks(person("test", take.person), motion, LANDMARK_STEP)


def voice(models: list[Path], takes: list[Take]) -> dict[str, list[Row]]:
    still = [np.zeros_like(take.motion) for take in takes]
    out = {"truth": [measured(takes, [take.motion for take in takes])], "still face": [measured(takes, still)]}
    for path in models:
        system, _ = load_emo_talker(path)
        motions = [made_from(system, take, MotionSettings()) for take in takes]
        out.setdefault("model", []).append(measured(takes, motions))
        head = system.space.indices("pose")
        driven = [led_by(take, motion, head) for take, motion in zip(takes, motions, strict=True)]
        distances = measured(takes, driven)
        out.setdefault("driven", []).append({name: distances[name] for name in ("F-LMD", "M-LMD")})
    return out


def led_by(take: Take, motion: np.ndarray, columns: list[int]) -> np.ndarray:
    """The motion with some coefficients taken from the driving frames, here the take's own (EmoTalker 4.5, Table 1)."""
    led = motion.copy()
    led[:, columns] = take.motion[:, columns]
    return led


def masks(config: EmoTalkerTrain, model: Path, seeds: int, iterations: int) -> dict[str, list[Row]]:
    """Ear, codes and lips are the model's; the transformer starts anew."""
    clips, test = clips_of(config)
    out: dict[str, list[Row]] = {}
    for name, changes in MASK_ARMS.items():
        tables = dataclasses.replace(
            config.system, transformer=dataclasses.replace(config.system.transformer, **changes)
        )
        for seed in range(seeds):
            chosen = _with(dataclasses.replace(config, system=tables), seed, "transformer", iterations, {})
            system, (given, _) = emotalker.start(chosen, clips), load_emo_talker(model)
            state = {**system.state_dict(), **given.state_dict()}
            fresh = {key: value for key, value in system.state_dict().items() if key.startswith("transformer.")}
            system.load_state_dict({**state, **fresh})
            with tempfile.TemporaryDirectory() as folder:
                run_stage(stages.transformer_stage(chosen, system, clips), Path(folder))
            motions = [made_from(system, take, MotionSettings()) for take in test]
            row = measured(test, motions)
            wanted = ("emotion", "Spearman with level", "F-LMD", "M-LMD")
            out.setdefault(name, []).append({key: row[key] for key in wanted})
    return out


def modes(models: list[Path], takes: list[Take]) -> dict[str, list[Row]]:
    """``diversity``: mean distance between two motions of one voice made with two seeds, in coefficients."""
    out: dict[str, list[Row]] = {}
    for path in models:
        system, _ = load_emo_talker(path)
        for mode in ("continuous", "snap", "sample"):
            first, second = (
                [made_from(system, take, MotionSettings(mode=mode, seed=seed)) for take in takes] for seed in (0, 1)
            )
            row = measured(takes, first)
            apart = [np.abs(a - b).mean() for a, b in zip(first, second, strict=True)]
            chosen = {key: row[key] for key in ("emotion", "Spearman with level", "F-LMD", "M-LMD")}
            out.setdefault(mode, []).append({**chosen, "diversity": float(np.mean(apart))})
    return out


@torch.no_grad()
def faces(model: Path, takes: list[Take]) -> np.ndarray:
    """(H, W, 3) uint8: a row per level, a column per emotion; the head is held still and the eyes open."""
    from moee_core.renderer.instant import InstantRenderer
    from moee_core.video.frames import contact_sheet
    from training.face_world.points import face_points
    from training.face_world.render import render
    from training.face_world.rig import FaceState

    system, _ = load_emo_talker(model)
    codes, space, who = system.vqvae.dictionary.codes.weight, system.space, person("test", 0)
    renderer = InstantRenderer(render(who, FaceState(), SHEET_SIDE), face_points(who, FaceState(), SHEET_SIDE))
    held = [space.index[name] for name in ("lidL", "lidR", "gaze_x", "gaze_y", "roll", "yaw", "pitch", "x", "y")]
    drawn, labels = [], []
    for level in (1, 2, 3):
        for number, label in enumerate(LABELS):
            alike = [take for take in takes if take.emotion == number and take.level == (level if number else 0)]
            mean = torch.cat([codes[codes_of(system, take)[BEGINNING:]] for take in alike]).mean(0)
            row = np.zeros(space.size, np.float32)
            row[system.face_columns] = system.vqvae.decode(mean.expand(1, 12, -1))[0, 24].numpy()
            row[held] = 0
            drawn.append(renderer.render(row))
            labels.append(f"{label} {level}" if number else label)
    return contact_sheet(drawn, len(LABELS), labels, scale=1.0)


def table(rows: dict[str, list[Row]]) -> str:
    """A line per figure, a column per arm: mean and 95 % interval over seeds."""
    names = list(dict.fromkeys(key for runs in rows.values() for run in runs for key in run))
    lines = [f"{'':24}" + "".join(f"{arm:>22}" for arm in rows)]
    for name in names:
        cells = (str(interval([run[name] for run in runs])) if name in runs[0] else "" for runs in rows.values())
        lines.append(f"{name:24}" + "".join(f"{cell:>22}" for cell in cells))
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure EmoTalker; see the head of this file.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("codebook", "emotion", "masks"):
        command = commands.add_parser(name)
        command.add_argument("config", type=Path)
        if name == "masks":
            command.add_argument("model", type=Path)
        command.add_argument("--seeds", type=int, default=3)
        command.add_argument("--iterations", type=int, default=500)
    for name in ("voice", "modes"):
        command = commands.add_parser(name)
        command.add_argument("model", type=Path, nargs="+")
        command.add_argument("--config", type=Path, default=Path(__file__).parent / "configs" / "emotalker.toml")
    command = commands.add_parser("faces")
    command.add_argument("model", type=Path)
    command.add_argument("--picture", type=Path, required=True, help="a .png or .jpg to write")
    command.add_argument("--config", type=Path, default=Path(__file__).parent / "configs" / "emotalker.toml")
    for command in commands.choices.values():
        command.add_argument("--cache", help="where takes are kept (default: the configuration's)")
        command.add_argument("--takes", type=int, default=0, help="measure only about so many test takes (0 = all)")
        command.add_argument("--out", type=Path, help="also write every value as JSON")
    options = parser.parse_args(arguments)
    try:
        config = from_table(EmoTalkerTrain, read_table(options.config), "")
        config = dataclasses.replace(config, cache=options.cache or config.cache)
        if options.command == "faces":
            write_image(options.picture, faces(options.model, _test_takes(options, config)))
            return 0
        rows = _run(options, config)
    except (MoEEError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(table(rows))
    if options.out:
        options.out.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    return 0


def _run(options: argparse.Namespace, config: EmoTalkerTrain) -> dict[str, list[Row]]:
    if options.command == "codebook":
        return codebook(config, options.seeds, options.iterations)
    if options.command == "emotion":
        return emotion(config, options.seeds, options.iterations)
    if options.command == "masks":
        return masks(config, options.model, options.seeds, options.iterations)
    takes = _test_takes(options, config)
    return voice(options.model, takes) if options.command == "voice" else modes(options.model, takes)


def _test_takes(options: argparse.Namespace, config: EmoTalkerTrain) -> list[Take]:
    takes = prepare_takes(config.data, config.seed, Path(config.cache), "test")
    if options.takes:  # whole recordings, with all their levels
        keys = list(dict.fromkeys(take.key for take in takes))
        chosen = set(keys[:: max(1, round(len(takes) / options.takes))])
        takes = [take for take in takes if take.key in chosen]
    return takes


if __name__ == "__main__":
    raise SystemExit(main())
