"""Write an evaluation set: test people, test voices, test sentences, and the instruments' calibration pictures.

    python training/evaluation_set.py OUT [--people 50] [--first 0] [--split test|tune] [--large]
                                       [--other-voices festival]

One ``person-NNN.npz`` per person (see ``moee_core/metrics/evaluate.py``). It is a pure function of the face world, so
the instruments are fixed before any model is trained. Takes about eight seconds a person. What it holds for every way
to say an emotion is in ``evaluation_sources.py``.

``--large`` is for the instant renderer, which moves a portrait of 512 pixels: the same calibration states and true
clips are drawn at 512 as well and reduced as its frames are. A line drawn at 64 comes out wider than one drawn at 512
and reduced, and a reader calibrated on the one misreads the other, true renders too. About 15 seconds a person.

``--other-voices`` adds a recording of every person's ``source_label`` by a synthesiser that no training has heard
(``data/other_voices.py``), also to people that the folder already holds; all else is the same with and without it.

Exit code 2, with one line on standard error, when that synthesiser is missing.
"""

from __future__ import annotations

import argparse
import functools
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from moee_core.emotion.vocabulary import LABELS
from moee_core.errors import MediaError
from moee_core.metrics.evaluate import CONDITIONS, LABEL_ORDER
from moee_core.metrics.instrument import SIDE, downsized
from training.data.other_voices import SYNTHESISERS, other_utterances
from training.evaluation_sources import other_voice, sources_of
from training.face_world import performance as world
from training.face_world.points import face_points
from training.face_world.render import face_regions, render
from training.face_world.rig import FaceState
from training.face_world.speech import Utterance, load_speech
from training.face_world.splits import person, split_rng
from training.face_world.visemes import VISEME_OF

CALIBRATION = 490
IMAGE_SIZE = 128
LARGE = 512
"""Side of the portrait that the instant renderer moves."""


def calibration(
    rng: np.random.Generator, identity, pose: np.ndarray, *, large: bool = False, count: int = CALIBRATION
) -> dict[str, np.ndarray]:
    """Random speech and emotion of one person, half of it a little blurred, with the truth; ``large`` adds the same
    drawn large and reduced."""
    import cv2

    shapes = [target for targets in VISEME_OF.values() for target in targets]
    pictures, reduced, mouth, units, label = [], [], [], [], []
    for number in range(count):
        which = number % len(LABEL_ORDER)
        name = LABEL_ORDER[which]
        emotion = world.vector({} if name == "neutral" else {name: float(rng.uniform(0.5, 1.2))})
        viseme = np.array(shapes[rng.integers(len(shapes))], np.float32) * rng.uniform(0.1, 1.0)
        viseme = viseme + np.array(shapes[rng.integers(len(shapes))], np.float32) * rng.uniform(0.0, 0.4)
        viseme[0] *= 1 - min(1.0, viseme[3])
        viseme = np.clip(viseme, [0, -1, 0, 0], [1, 1, 1, 1]).astype(np.float32)
        state = FaceState(
            action_units=_units(rng, identity, emotion),
            viseme=viseme,
            pose=pose + np.array([*rng.normal(0, [0.012, 0.02, 0.016]), 0.0, 0.0], np.float32),
            gaze=np.zeros(2, np.float32),
            blink=float(rng.random() < 0.06),
        )
        blur = float(rng.uniform(0.3, 0.9)) if rng.random() < 0.5 else 0.0
        for size, kept in ((SIDE, pictures), (LARGE, reduced))[: 2 if large else 1]:
            picture = downsized(render(identity, state, size), SIDE)
            kept.append(cv2.GaussianBlur(picture, (0, 0), blur) if blur else picture)
        mouth.append(viseme[:2])
        units.append(state.action_units)
        label.append(which)
    more = {"calibration_large": np.stack(reduced)} if large else {}
    return more | {
        "calibration": np.stack(pictures),
        "mouth": np.stack(mouth),
        "units": np.stack(units),
        "label": np.array(label),
    }


def _units(rng: np.random.Generator, identity, emotion: np.ndarray) -> np.ndarray:
    units = world.emotion_action_units(emotion[None])[0] * identity.expressiveness
    units[:2] += rng.uniform(0.0, 0.2)  # brows rise with loudness, as in a performance
    return np.clip(units, 0.0, world.MAX_UNIT).astype(np.float32)


def clip(
    rng: np.random.Generator, identity, pose: np.ndarray, label: str, utterance: Utterance, *, large: bool
) -> dict[str, np.ndarray]:
    """One true performance of a label at full intensity."""
    frames = int(np.ceil(utterance.duration * world.FPS))
    emotion = np.tile(world.vector({} if label == "neutral" else {label: 1.0}), (frames, 1))
    act = world.perform(rng, identity, emotion, samples=utterance.samples, phonemes=utterance.phonemes, base_pose=pose)
    more = {}
    if large:
        more["frames_large"] = np.stack([downsized(frame, IMAGE_SIZE) for frame in act.render(identity, LARGE)])
    return more | {
        "samples": utterance.samples.astype(np.float16),
        "frames": act.render(identity, IMAGE_SIZE),
        "viseme": act.viseme,
        "emotion": np.array(label),
        "label": np.array(label),
        "mood": np.array(utterance.mood),
        "face": np.array(face_regions(identity, world.portrait_state(pose), IMAGE_SIZE)["face"], np.float32),
    }


def make_person(split: str, number: int, utterances: list[Utterance], *, large: bool = False) -> dict[str, np.ndarray]:
    """Everything about one test person."""
    rng = split_rng(split, number, purpose=7)
    identity = person(split, number)
    pose = world.reference_pose(rng)
    state = world.portrait_state(pose)
    out = {"portrait": render(identity, state, IMAGE_SIZE), "portrait_large": render(identity, state, LARGE)}
    out["points"] = np.array(face_points(identity, state, LARGE).to_json())
    out |= calibration(rng, identity, pose, large=large)
    for offset, condition in enumerate(CONDITIONS):
        label = LABEL_ORDER[(number + 3 * offset) % len(LABEL_ORDER)]
        if condition == "neutral":
            pool = [u for u in utterances if u.mood == "neutral"]
        else:
            pool = [u for u in utterances if u.mood not in ("neutral", label)]
        chosen = clip(rng, identity, pose, label, pool[rng.integers(len(pool))], large=large)
        out |= {f"{condition}_{key}": value for key, value in chosen.items()}
    label = LABELS[1 + number % 6]
    out["intensity_label"] = np.array(label)
    out["intensity_target"] = world.emotion_action_units(world.vector({label: 1.0})[None])[0] * identity.expressiveness
    taken = {str(out[f"{condition}_label"]) for condition in CONDITIONS}
    return out | sources_of(split, number, utterances, taken, pose)


def save_arrays(path: Path, arrays: dict[str, np.ndarray], *, add: bool = False) -> None:
    """Write named arrays as .npz, which is a zip of .npy files, or ``add`` them to those of a file."""
    with zipfile.ZipFile(path, "a" if add else "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as stream:
                np.lib.format.write_array(stream, np.asanyarray(array), allow_pickle=False)


def write_person(path: Path, make: Callable[[], dict[str, np.ndarray]], more: dict[str, np.ndarray]) -> bool:
    """A person's file appears whole or not at all; one that exists is given what it lacks of ``more``. False when it
    lacks nothing."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.npz")
    if path.exists():
        with np.load(path) as data:
            more = {name: values for name, values in more.items() if name not in data.files}
        if not more:
            return False
        shutil.copyfile(path, temporary)
        save_arrays(temporary, more, add=True)
    else:
        save_arrays(temporary, make() | more)
    os.replace(temporary, path)
    return True


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write an evaluation set of the face world.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--people", type=int, default=50)
    parser.add_argument("--first", type=int, default=0, help="number of the first person")
    parser.add_argument("--split", choices=("tune", "test"), default="test")
    parser.add_argument("--large", action="store_true", help="for `evaluate --renderer instant`; 15 s a person")
    parser.add_argument("--other-voices", choices=SYNTHESISERS, help="also voices of a synthesiser never trained on")
    options = parser.parse_args(arguments)
    utterances = load_speech(options.split)
    try:
        others = other_utterances(options.split, utterances) if options.other_voices else []
    except MediaError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    options.out.mkdir(parents=True, exist_ok=True)
    for number in range(options.first, options.first + options.people):
        path = options.out / f"person-{number:03d}.npz"
        more = other_voice(options.split, number, others) if others else {}
        make = functools.partial(make_person, options.split, number, utterances, large=options.large)
        if write_person(path, make, more):
            sys.stderr.write(f"\rperson {number - options.first + 1}/{options.people}")
    sys.stderr.write("\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
