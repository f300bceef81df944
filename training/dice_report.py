"""DICE-Talk's claims, measured on the face world, each a command that prints a table and writes its figures.

    python -m training.dice_report ablation CONFIG MODEL SET OUT [--seeds 3] [--people 0] [--arms …]
    python -m training.dice_report clusters CONFIG OUT [--seeds 3]
    python -m training.dice_report strength CONFIG MODEL OUT
    python -m training.dice_report map      MODEL OUT [--people 30] [--first 770]
    python -m training.dice_report between  MODEL SET OUT [--people 0]
    python -m training.dice_report schedule MODEL SET OUT [--people 0]
    python -m training.dice_report emotions MODEL SET OUT [--people 0]

CONFIG is a training configuration of DICE-Talk, MODEL a trained file, SET an evaluation set
(``training/evaluation_set.py``), OUT a folder. What each measures is said in ``benchmarks/dice_registration_*.md``.
ablation: networks that carry emotion start fresh in every arm, everything else from MODEL. clusters: the embedder
alone, trained once for each seed; strength: that of a finished model. map: a picture of the priors by emotion and
intensity. What is finished is not repeated; a folder holds figures of one configuration, model and set only. Training
takes one process here: ``processes`` is for ``train.py``.
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
import logging
import math
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from moee_core.emotion.vocabulary import LABELS
from moee_core.errors import MoEEError
from moee_core.metrics.clusters import clustering_strength
from moee_core.metrics.definitions import correlation, spearman
from moee_core.metrics.evaluate import LABEL_ORDER, load_people
from moee_core.metrics.sources import named
from moee_core.motion.expression import expression
from moee_core.systems.dice_talk import DiceTalkSystem
from moee_core.systems.moee import MoEESystem
from moee_core.video.frames import write_image
from moee_core.weights.checkpoint import state_hash
from moee_core.weights.dice_file import load_dice_file
from training import dice_talk
from training.ablation_gates import T_95
from training.config import ConfigError, from_table, read_table, to_dict
from training.data.clips import prepare_clips
from training.data.dice_clips import DiceClips, prepare_dice_clips
from training.data.motion_clips import prepare_takes
from training.data.prior_clips import LEVELS, Scene, scenes_of
from training.dice_config import DiceTrain
from training.dice_measure import Readers, emotions_and_identity, maker, named_prior, video_prior
from training.loop import run_stage
from training.run import claim, set_up_logging, settle_precision
from training.stages.dice_denoiser import denoiser_stage
from training.stages.dice_embedder import MODALITIES, embedder_stage, priors_of

log = logging.getLogger(__name__)

ARMS: dict[str, dict[str, Any]] = {
    "full": {},
    "mean prior": {"prior": "mean"},
    "no bank": {"form": "direct", "vq": 0.0},
    "no objective": {"discrimination": 0.0},
    "learnable": {"whole_bank": 1.0, "vq": 0.0, "update": "naive"},
}
FIGURES = ("named", "video", "identity", "F-SIM[discriminant]")
PLACES = 9
CONCERNED = 0.3
"""Difference of an action unit between two emotions from which it is one by which they are told."""
PAIRS = (("neutral", "happy"), ("neutral", "angry"), ("neutral", "surprised"), ("sad", "happy"), ("angry", "fear"))
SCHEDULE_SECONDS, EASE_SECONDS = 3.0, 0.4
INTENSITIES = (0.35, 0.7, 1.05)


def with_interval(values: list[float]) -> tuple[float, float]:
    """Mean and half of the 95 % interval (Student's t)."""
    mean = float(np.mean(values))
    if len(values) not in T_95:
        return mean, math.nan
    return mean, T_95[len(values)] * float(np.std(values, ddof=1)) / math.sqrt(len(values))


# ---- ablation -------------------------------------------------------------------------------------------------------


def arm_of(config: DiceTrain, arm: str, seed: int, model: str) -> DiceTrain:
    """The configuration of an arm."""
    changes = dict(ARMS[arm])
    bank = dataclasses.replace(
        config.system.bank,
        form=changes.pop("form", "bank"),
        update=changes.pop("update", config.system.bank.update),
    )
    stages = dataclasses.replace(config.stages, denoiser=dataclasses.replace(config.stages.denoiser, **changes))
    system = dataclasses.replace(config.system, bank=bank)
    return dataclasses.replace(config, seed=seed, system=system, stages=stages, start_from=model, fresh_emotion=True)


def ablation(options: argparse.Namespace) -> str:
    config = _begun(options)
    around, model = dice_talk.load_around(config), load_dice_file(options.model)
    people = load_people(options.set, options.people)
    _belongs(options.out, {"model": state_hash(model.state_dict()), "people": _named(people)})
    readers = Readers.of(people)
    clips = _clips(config, around, model)
    rows: list[dict[str, Any]] = []
    for seed in range(1, options.seeds + 1):  # all arms of a seed before the next: what is cut short stays balanced
        for arm in options.arms:
            name = f"{arm.replace(' ', '_')}-{seed}"
            path = options.out / f"{name}.json"
            if not path.exists():
                wanted = arm_of(config, arm, seed, options.model)
                system = dice_talk.start(wanted, around).to(config.device)
                stage = denoiser_stage(wanted, system, around.autoencoder.to(config.device), clips)
                run_stage(dataclasses.replace(stage, validate=None), _folder(options.out / name))
                around.cpu()
                system.cpu().eval().requires_grad_(False)
                figures = emotions_and_identity(maker(system, around), system, around, people, readers, 3)
                _write(path, {"arm": arm, "seed": seed, **figures})
                (options.out / name / "state.pt").unlink(missing_ok=True)
                log.info("%s, seed %d: %s", arm, seed, figures)
            rows.append(json.loads(path.read_text(encoding="utf-8")))
    return arms_table(rows)


def arms_table(rows: list[dict[str, Any]]) -> str:
    """Means by arm; of the full one their intervals, of the others those of the differences from it."""
    lines = [f"{'arm':14}" + "".join(f"{name:>26}" for name in FIGURES)]
    full = {row["seed"]: row for row in rows if row["arm"] == "full"}
    for arm in ARMS:
        mine = {row["seed"]: row for row in rows if row["arm"] == arm}
        if not mine:
            continue
        cells = ""
        for name in FIGURES:
            mean, half = with_interval([row[name] for row in mine.values()])
            cell = f"{mean:.3f}" if arm != "full" or math.isnan(half) else f"{mean:.3f} ± {half:.3f}"
            both = sorted(set(mine) & set(full))
            if arm != "full" and both:
                mean, half = with_interval([mine[seed][name] - full[seed][name] for seed in both])
                cell += f" ({mean:+.3f} ± {half:.3f})"
            cells += f"{cell:>26}"
        lines.append(f"{arm:14}{cells}")
    return "\n".join(lines) + "\n"


def _clips(config: DiceTrain, around: MoEESystem, model: DiceTalkSystem) -> DiceClips:
    cache = Path(config.cache)
    scenes = _scenes(config, around, "train")
    prepared = prepare_clips(config.data, config.data_seed, cache)
    return prepare_dice_clips(prepared, around, model.embedder, scenes, config.data_seed)


def _scenes(config: DiceTrain, around: MoEESystem, split: str) -> list[Scene]:
    assert around.ear is not None  # load_around asked for it
    takes = prepare_takes(config.takes, config.data_seed, Path(config.cache), split)
    return scenes_of(takes, split, around.ear, config.takes.wide_speech if split == "train" else "")


# ---- clusters -------------------------------------------------------------------------------------------------------


def clusters(options: argparse.Namespace) -> str:
    config = _begun(options)
    around = dice_talk.load_around(config)
    assert around.ear is not None  # load_around asked for it
    train, tune, test = (_scenes(config, around, split) for split in ("train", "tune", "test"))
    rows: list[dict[str, dict[str, float]]] = []
    for seed in range(1, options.seeds + 1):
        path = options.out / f"clusters-{seed}.json"
        if not path.exists():
            seeded = dataclasses.replace(config, seed=seed)
            system = dice_talk.start(seeded, around).to(config.device)
            stage = embedder_stage(seeded, system, around.ear, train, tune)
            run_stage(stage, _folder(options.out / f"embedder-{seed}"))
            system.cpu()
            _write(path, {name: strengths(system, around, test, name) for name in MODALITIES})
            (options.out / f"embedder-{seed}" / "state.pt").unlink(missing_ok=True)
        rows.append(json.loads(path.read_text(encoding="utf-8")))
    return strengths_table(rows)


def strength(options: argparse.Namespace) -> str:
    """Of a finished model's embedder, by all test takes and by those at full level alone: where levels of one emotion
    are groups of their own, they stand apart within their label."""
    config, system = _config(options.config), load_dice_file(options.model)
    around, tables = dice_talk.load_around(config), []
    test = _scenes(config, around, "test")
    full = [scene for scene in test if scene.emotion == 0 or scene.level == LEVELS]
    found: dict[str, Any] = {}
    for name, scenes in (("all levels", test), ("full level", full)):
        found[name] = {looked_at: strengths(system, around, scenes, looked_at) for looked_at in MODALITIES}
        tables.append(f"{name}\n{strengths_table([found[name]])}")
    _write(_folder(options.out) / "strength.json", found)
    return "".join(tables)


def strengths_table(rows: list[dict[str, dict[str, float]]]) -> str:
    """Means over seeds by what is looked at, over all labels and for each."""
    lines = [f"{'':10}{'strength':>16}" + "".join(f"{label:>11}" for label in LABELS)]
    for name in MODALITIES:
        mean, half = with_interval([float(np.mean(list(row[name].values()))) for row in rows])
        said = f"{mean:.2f}" if math.isnan(half) else f"{mean:.2f} ± {half:.2f}"
        by_label = ([row[name][label] for row in rows if label in row[name]] for label in LABELS)
        cells = "".join(f"{np.mean(values or [math.nan]):11.2f}" for values in by_label)
        lines.append(f"{name:10}{said:>16}{cells}")
    return "\n".join(lines) + "\n"


def strengths(system: DiceTalkSystem, around: MoEESystem, scenes: list[Scene], looked_at: str) -> dict[str, float]:
    """Label -> clustering strength, for each voice and then averaged. Voices of a single emotion say nothing of it, and
    of their labels none that is there once. Raises ``ValueError`` where nothing is left."""
    assert around.ear is not None  # load_around asked for it
    means, _ = priors_of(system.embedder, around.ear, scenes, looked_at)
    labels = np.array([scene.emotion for scene in scenes])
    found: dict[int, list[float]] = {}
    for speaker in sorted({scene.speaker for scene in scenes}):
        own = np.array([scene.speaker == speaker for scene in scenes])
        if len(set(labels[own].tolist())) < 2:
            continue
        for label, value in clustering_strength(means[own], labels[own]).items():
            found.setdefault(label, []).append(value)
    if not found:
        raise ValueError(
            f"no voice of {len(scenes)} takes says two emotions, and one of them twice; set takes.takes higher"
        )
    return {LABELS[label]: float(np.mean(values)) for label, values in sorted(found.items())}


# ---- the map --------------------------------------------------------------------------------------------------------


def prior_map(options: argparse.Namespace) -> str:
    from training.face_world import performance as world
    from training.face_world.render import render
    from training.face_world.splits import person, split_rng

    model = load_dice_file(options.model)
    around = dice_talk.load_embedded()
    points: list[tuple[str, float, np.ndarray]] = []
    for number in range(options.first, options.first + options.people):
        identity, rng = person("test", number), split_rng("test", number, purpose=51)
        pose = world.reference_pose(rng)
        for label in LABELS:
            for intensity in INTENSITIES if label != "neutral" else INTENSITIES[:1]:
                vector = world.vector({} if label == "neutral" else {label: intensity})
                state = world.portrait_state(pose, vector, identity.expressiveness)
                picture = render(identity, state, 128)
                prior = video_prior(model, around, picture[None].repeat(8, axis=0), None).mean_BD[0].numpy()
                points.append((label, intensity, prior))
    middle = np.mean([prior for label, _, prior in points if label == "neutral"], axis=0)
    lines = ["Spearman of the distance to neutral with intensity, by emotion"]
    figures: dict[str, float] = {}
    for label in LABELS[1:]:
        mine = [
            (intensity, float(np.linalg.norm(prior - middle))) for name, intensity, prior in points if name == label
        ]
        figures[label] = spearman(*(np.array(values) for values in zip(*mine, strict=True)))
        lines.append(f"{label:12}{figures[label]:8.3f}")
    _folder(options.out)
    (options.out / "map.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write_image(options.out / "map.png", drawn_map(points))
    return "\n".join(lines) + "\n"


COLOURS = {
    "neutral": (120, 120, 120), "angry": (205, 45, 45), "disgusted": (95, 140, 40), "fear": (120, 70, 170),
    "happy": (235, 165, 20), "sad": (50, 100, 190), "surprised": (25, 170, 170), "contempt": (160, 90, 60),
}  # fmt: skip


def drawn_map(points: list[tuple[str, float, np.ndarray]], side: int = 900) -> np.ndarray:
    """(side, side, 3) uint8: two principal components, a colour for each emotion, larger is stronger."""
    import cv2

    priors = np.stack([prior for _, _, prior in points])
    centred = priors - priors.mean(axis=0)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    places = centred @ axes[:2].T
    low, high = places.min(axis=0), places.max(axis=0)
    places = (places - low) / (high - low) * (side - 160) + 60
    sheet = np.full((side, side, 3), 255, np.uint8)
    for (label, intensity, _), (x, y) in zip(points, places, strict=True):
        radius = 4 if label == "neutral" else round(2 + 5 * intensity)
        cv2.circle(sheet, (round(float(x)), round(float(y))), radius, COLOURS[label], -1, cv2.LINE_AA)
    for row, (label, colour) in enumerate(COLOURS.items()):
        cv2.circle(sheet, (side - 130, 24 + 24 * row), 7, colour, -1, cv2.LINE_AA)
        cv2.putText(sheet, label, (side - 115, 30 + 24 * row), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 1, cv2.LINE_AA)
    return sheet


# ---- between two priors, and a schedule -----------------------------------------------------------------------------


def concerned(first: str, second: str) -> np.ndarray:
    """Columns of the action units by which two emotions are told apart."""
    a, b = (expression(np.eye(len(LABELS), dtype=np.float32)[LABELS.index(name)][None])[0] for name in (first, second))
    return np.flatnonzero(np.abs(a - b) >= CONCERNED)


def between(options: argparse.Namespace) -> str:
    system, around, people, readers = _measured(options)
    make = maker(system, around)
    found: dict[str, list[float]] = {}
    for number, person in enumerate(people):
        samples = person["neutral_samples"][:9600].astype(np.float32)
        first, second = PAIRS[number % len(PAIRS)]
        ends = [named_prior(system, name) for name in (first, second)]
        read = []
        for place in np.linspace(0, 1, PLACES):
            prior = ends[0] + float(place) * (ends[1] - ends[0])
            read.append(readers.units(make(person, samples, prior), number).mean(axis=0))
        units = np.stack(read)
        a, b = (expression(np.eye(len(LABELS), dtype=np.float32)[LABELS.index(n)][None])[0] for n in (first, second))
        for column in concerned(first, second):
            sign = math.copysign(1.0, b[column] - a[column])
            rho = spearman(np.arange(PLACES), sign * units[:, column])
            found.setdefault(f"{first} to {second}", []).append(rho)
    everything = [rho for values in found.values() for rho in values]
    _folder(options.out)
    (options.out / "between.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    lines = [f"{name:24}{np.mean(values):8.3f}  ({len(values)} units)" for name, values in found.items()]
    lines.append(f"{'all':24}{np.mean(everything):8.3f}  at least 0.9 in {np.mean(np.array(everything) >= 0.9):.0%}")
    return "Spearman of action units with the place between two priors\n" + "\n".join(lines) + "\n"


def schedule_of(fps: float, first: str, second: str) -> np.ndarray:
    """(F, 8) emotion vectors: neutral, one emotion, another, neutral, easing in between."""
    frames = round(SCHEDULE_SECONDS * fps)
    order = ["neutral", first, second, "neutral"]
    starts = np.arange(len(order)) * SCHEDULE_SECONDS / len(order)
    eye = np.eye(len(LABELS), dtype=np.float32)
    out = np.tile(eye[0], (frames, 1))
    times = np.arange(frames) / fps
    for start, name in zip(starts[1:], order[1:], strict=True):
        t = np.clip((times - start) / EASE_SECONDS, 0, 1)[:, None]
        ease = t * t * (3 - 2 * t)
        out = (out * (1 - ease) + eye[LABELS.index(name)] * ease).astype(np.float32)
    return out


def schedule(options: argparse.Namespace) -> str:
    system, around, people, readers = _measured(options)
    make = maker(system, around)
    found: list[float] = []
    for number, person in enumerate(people):
        first, second = LABEL_ORDER[1 + number % 6], LABEL_ORDER[1 + (number + 2) % 6]
        vectors = schedule_of(system.config.fps, first, second)
        samples = np.resize(person["neutral_samples"].astype(np.float32), int(SCHEDULE_SECONDS * 16000))
        priors = torch.from_numpy(vectors) @ system.priors.weight
        read = readers.units(make(person, samples, priors.detach()), number)
        asked = expression(vectors)
        columns = np.union1d(concerned("neutral", first), concerned("neutral", second))
        found.append(float(np.mean([correlation(read[:, c], asked[:, c]) for c in columns])))
    _folder(options.out)
    (options.out / "schedule.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    mean, spread = float(np.mean(found)), float(np.std(found, ddof=1)) / math.sqrt(len(found))
    return f"correlation of action units with a schedule: {mean:.3f} ± {1.96 * spread:.3f}, least {min(found):.3f}\n"


LABELS_EACH = 3


def emotions(options: argparse.Namespace) -> str:
    system, around, people, readers = _measured(options)
    make = maker(system, around)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ("label", "face", "face and voice", "voice")}
    who, alike, mouth = [], [], []
    for number, person in enumerate(people):
        samples = person["neutral_samples"][:16000].astype(np.float32)
        label, voice = str(person["source_label"]), person["voice_samples"].astype(np.float32)
        frames = person["reference_frames"]
        cut = voice[: len(frames) * 640]
        asked = [("label", LABEL_ORDER[(LABELS_EACH * number + turn) % 7]) for turn in range(LABELS_EACH)]
        priors = [(name, said, named_prior(system, said)) for name, said in asked]
        for name, face, heard in (("face", frames, None), ("face and voice", frames, cut), ("voice", None, voice)):
            priors.append((name, label, video_prior(system, around, face, heard).mean_BD))
        for name, said, prior in priors:
            made = make(person, samples, prior)
            rows[name].append({"said": said, "read": readers.emotion(made, number)})
            who.append(readers.who.identify(made) == number)
            alike.append(readers.similarity(made, number))
        truth = person["neutral_viseme"][:, 0]
        spoken = make(person, person["neutral_samples"].astype(np.float32), named_prior(system, "neutral"))
        read = readers.faces[number].read(spoken)[0][:, 0]
        mouth.append(correlation(read[: len(truth)], truth[: len(read)]))
    report: dict[str, Any] = {name: named(clips) for name, clips in rows.items()}
    report |= {"identity": float(np.mean(who)), "F-SIM[discriminant]": float(np.mean(alike))}
    report |= {"mouth": float(np.mean(mouth)), "clips": rows}
    _folder(options.out)
    (options.out / "emotions.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    lines = [
        f"by {name:16}{row['right']:6.1%}  ({row['low']:.0%} to {row['high']:.0%}, {row['clips']} clips)"
        for name, row in report.items()
        if name in rows
    ]
    for name in ("identity", "F-SIM[discriminant]", "mouth"):
        lines.append(f"{name:20}{report[name]:.3f}")
    return "\n".join(lines) + "\n"


def _measured(options: argparse.Namespace) -> tuple[DiceTalkSystem, MoEESystem, list[dict[str, np.ndarray]], Readers]:
    people = load_people(options.set, options.people)
    return load_dice_file(options.model), dice_talk.load_embedded(), people, Readers.of(people)


def _config(path: str) -> DiceTrain:
    return from_table(DiceTrain, read_table(path), "")


def _folder(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


def _begun(options: argparse.Namespace) -> DiceTrain:
    """The configuration, with the precision that OUT was begun with. Raises ``ConfigError`` where OUT holds figures of
    another one."""
    config = settle_precision(_config(options.config), _folder(options.out))
    claim(options.out, config)
    _belongs(options.out, {"stages": to_dict(config)["stages"]})
    return config


def _named(people: list[dict[str, np.ndarray]]) -> str:
    """What tells one evaluation set from another."""
    found = hashlib.sha256()
    for person in people:
        found.update(np.ascontiguousarray(person["portrait"]).tobytes())
    return f"{len(people)} people, {found.hexdigest()[:12]}"


def _belongs(out: Path, settings: dict[str, Any]) -> None:
    """Figures in a folder are all of the same model, people and lengths, or those that are there already would pass
    for others."""
    path = out / "measured.json"
    begun = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    unlike = [key for key, value in settings.items() if begun.get(key, value) != value]
    if unlike:
        raise ConfigError(f"{out} holds figures of other {', '.join(unlike)}; name another folder, or delete it")
    _write(path, begun | settings)


def _write(path: Path, table: dict[str, Any]) -> None:
    """Whole or not at all."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    temporary.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], str], tuple[str, ...]]] = {
    "ablation": (ablation, ("config", "model", "set", "out")),
    "clusters": (clusters, ("config", "out")),
    "strength": (strength, ("config", "model", "out")),
    "map": (prior_map, ("model", "out")),
    "between": (between, ("model", "set", "out")),
    "schedule": (schedule, ("model", "set", "out")),
    "emotions": (emotions, ("model", "set", "out")),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Measure DICE-Talk's claims on the face world.")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, places) in COMMANDS.items():
        command = commands.add_parser(name)
        for place in places:
            command.add_argument(place, type=Path if place in ("set", "out") else str)
        if name in ("ablation", "clusters"):
            command.add_argument("--seeds", type=int, default=3)
        if name == "ablation":
            command.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS))
        if name == "map":
            command.add_argument("--first", type=int, default=770, help="number of the first person")
        if name not in ("clusters", "strength"):
            command.add_argument("--people", type=int, default=30 if name == "map" else 0)
    options = parser.parse_args(arguments)
    set_up_logging()
    try:
        text = COMMANDS[options.command][0](options)
    except (MoEEError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(text)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
