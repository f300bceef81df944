"""Measure a checkpoint, or the instant renderer, on people, voices and sentences it has never seen.

The evaluation set is a folder of one ``person-NNN.npz`` per person (written by ``training/evaluation_set.py``): the
portrait, calibration pictures for the instruments, and true clips. The instruments come from the calibration pictures
alone. Every figure stands beside what the same instrument says of the true renders. What is drawn large and reduced
(the instant renderer's frames) is read by an instrument calibrated on true renders drawn large and reduced.

Definitions, per clip, then averaged over clips:
    mouth            correlation of the opening read from the frames with the true opening
    mouth_control    the same with the truth shifted in time (should be near 0)
    gain             slope of the reading on the truth, over the slope the instrument has on true renders
    emotion          share of clips whose summed seven-way scores pick the label asked for (chance 14 %)
    identity         share of clips identified among all people of the set
    flicker          second difference over time in the face box, over that of the true render
    intensity        Spearman of {0, .25, .5, .75, 1} with the target action units, mean over people
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.read import Waveform
from ..emotion.timeline import EmotionTimeline, parse_emotion
from ..errors import MediaError
from ..motion.coefficients import Motion
from ..pipeline import SamplingSettings, animate
from ..systems.moee import MoEESystem
from .definitions import correlation, flicker, gain, psnr, shifted_correlation, spearman
from .instrument import FaceReader, IdentityReader, downsized

CONDITIONS = ("neutral", "contradicting")
"""Mood of the voice: neutral, or another emotion than the label."""
LABEL_ORDER = ("neutral", "angry", "disgusted", "fear", "happy", "sad", "surprised")
INTENSITIES = (0.0, 0.25, 0.5, 0.75, 1.0)
INTENSITY_SECONDS = 0.96

Maker = Callable[[dict[str, np.ndarray], Waveform, EmotionTimeline], np.ndarray]
"""A person of the set, a recording and an emotion -> (F, S, S, 3) uint8 frames: what is measured."""


def model_maker(system: MoEESystem, settings: SamplingSettings) -> Maker:
    """The pipeline of a checkpoint."""
    return lambda person, waveform, emotion: np.stack(
        list(animate(system, person["portrait"], waveform, emotion, settings))
    )


def instant_maker(generate: Callable[[Waveform, EmotionTimeline], Motion]) -> Maker:
    """The instant renderer on each person's large portrait and true points, moved by ``generate``."""
    from ..renderer.instant import InstantRenderer
    from ..renderer.points import parse_points

    def make(person: dict[str, np.ndarray], waveform: Waveform, emotion: EmotionTimeline) -> np.ndarray:
        if "points" not in person:
            raise MediaError("this evaluation set has no points on its faces; make a new one in another folder")
        portrait = person["portrait_large"]
        renderer = InstantRenderer(portrait, parse_points(str(person["points"]), portrait.shape[1], portrait.shape[0]))
        side = person["portrait"].shape[0]
        return np.stack([downsized(frame, side) for frame in renderer.frames(generate(waveform, emotion))])

    return make


def load_people(folder: Path, people: int = 0) -> list[dict[str, np.ndarray]]:
    """The set's people, in order. Raises ``MediaError`` when the folder holds none."""
    paths = sorted(folder.glob("person-*.npz")) if folder.is_dir() else []
    if not paths:
        raise MediaError(f"{folder} is not an evaluation set; make one: python training/evaluation_set.py {folder}")
    loaded = []
    for path in paths[: people or None]:
        with np.load(path) as data:
            loaded.append({key: data[key] for key in data.files})
    return loaded


def _drawn_large(person: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    if "calibration_large" not in person:
        raise MediaError(
            f"{folder} has no renders drawn large, by which the instant renderer is read; make a set that has: "
            "python training/evaluation_set.py OUT --large"
        )
    names = ["calibration", *(f"{condition}_frames" for condition in CONDITIONS)]
    return person | {name: person[f"{name}_large"] for name in names}


def evaluate_folder(
    make: Maker,
    folder: Path,
    settings: dict[str, Any],
    *,
    people: int = 0,
    large: bool = False,
    mixed_portraits: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """All figures of what ``make`` makes, as nested plain dicts: {"model": {condition: {...}}, "truth": {...},
    "intensity": {...}}. With ``mixed_portraits`` every other person starts from a portrait that already shows another
    emotion. ``settings`` are noted in the report. ``large`` calibrates on, and compares with, true renders
    drawn large and reduced. Raises ``MediaError`` when the set has none."""
    everyone = load_people(folder)
    if large:
        everyone = [_drawn_large(person, folder) for person in everyone]
    identities = IdentityReader([person["calibration"] for person in everyone])
    chosen = everyone[: people or None]
    rows: dict[str, list[dict[str, float]]] = {f"{who}/{c}": [] for who in ("model", "truth") for c in CONDITIONS}
    slopes, ratios = [], []
    for number, person in enumerate(chosen):
        reader = FaceReader(person["calibration"], person["mouth"], person["units"], person["label"])
        if mixed_portraits:
            person = mixed(person, number)
        for condition in CONDITIONS:
            clip = {
                key.removeprefix(f"{condition}_"): v for key, v in person.items() if key.startswith(f"{condition}_")
            }
            made = _generate(make, person, clip["samples"], str(clip["emotion"]))
            made = made[: len(clip["frames"])]
            truth = _measure(reader, identities, clip["frames"], clip, number)
            row = _measure(reader, identities, made, clip, number)
            row["gain"] /= max(truth["gain"], 1e-6)
            row["flicker"] /= max(truth["flicker"], 1e-6)
            row["psnr"] = psnr(made, clip["frames"])
            rows[f"model/{condition}"].append(row)
            rows[f"truth/{condition}"].append(truth)
        rho, strength = _intensity(make, person, reader)
        slopes.append(rho)
        ratios.append(strength)
        if on_progress is not None:
            on_progress(number + 1, len(chosen))
    figures = {name: _mean(values) for name, values in rows.items()}
    return {
        "people": len(chosen),
        "identities": len(everyone),
        "settings": settings,
        "model": {c: figures[f"model/{c}"] for c in CONDITIONS},
        "truth": {c: figures[f"truth/{c}"] for c in CONDITIONS},
        "intensity": {
            "spearman": float(np.mean(slopes)),
            "share_at_least_0.9": float(np.mean(np.array(slopes) >= 0.9)),
            "strength_at_1": float(np.mean(ratios)),
        },
        "clips": {name: values for name, values in rows.items() if name.startswith("model")},
    }


def mixed(person: dict[str, np.ndarray], number: int) -> dict[str, np.ndarray]:
    """The person with a neutral portrait or, every other one, with an emotional one."""
    if number % 2 == 0:
        return person
    if "portrait_emotional" not in person:
        raise MediaError("this evaluation set has no emotional portraits; make a new one in another folder")
    return person | {"portrait": person["portrait_emotional"]}


def _generate(make: Maker, person: dict[str, np.ndarray], samples: np.ndarray, emotion: str) -> np.ndarray:
    waveform = Waveform(samples=samples[None].astype(np.float32), sample_rate=16000)
    return make(person, waveform, parse_emotion(emotion))


def _measure(
    reader: FaceReader, identities: IdentityReader, frames: np.ndarray, clip: dict[str, np.ndarray], number: int
) -> dict[str, float]:
    mouth, _, scores = reader.read(frames)
    opening = clip["viseme"][: len(frames), 0]
    label = LABEL_ORDER.index(str(clip["label"]))
    return {
        "mouth": correlation(mouth[:, 0], opening),
        "mouth_control": shifted_correlation(mouth[:, 0], opening),
        "width": correlation(mouth[:, 1], clip["viseme"][: len(frames), 1]),
        "gain": gain(mouth[:, 0], opening),
        "emotion": float(scores.mean(axis=0).argmax() == label),
        "identity": float(identities.identify(frames) == number),
        "flicker": flicker(frames, clip["face"]),
    }


def _intensity(make: Maker, person: dict[str, np.ndarray], reader: FaceReader) -> tuple[float, float]:
    """(Spearman of intensity with the target units' mean, strength at 1 over the truth's)."""
    label, target = str(person["intensity_label"]), person["intensity_target"]
    samples = person["neutral_samples"][: int(INTENSITY_SECONDS * 16000)]
    wanted = target > 0.3
    shown = []
    for intensity in INTENSITIES:
        frames = _generate(make, person, samples, f"{label}:{intensity:g}")
        shown.append(float(reader.read(frames)[1][:, wanted].mean()))
    strength = (shown[-1] - shown[0]) / float(target[wanted].mean())
    return spearman(np.array(INTENSITIES), np.array(shown)), strength


def _mean(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def format_report(report: dict[str, Any]) -> str:
    """A table for people."""
    lines = [f"{report['people']} people, settings {json.dumps(report['settings'])}", ""]
    names = ("mouth", "mouth_control", "gain", "width", "emotion", "identity", "flicker", "psnr")
    lines.append(f"{'':16}" + "".join(f"{c + ' voice':>22}{'truth':>8}" for c in CONDITIONS))
    for name in names:
        cells = ""
        for condition in CONDITIONS:
            truth = report["truth"][condition].get(name)
            cells += f"{report['model'][condition][name]:22.3f}" + (f"{truth:8.3f}" if truth is not None else f"{'':8}")
        lines.append(f"{name:16}{cells}")
    intensity = report["intensity"]
    lines.append("")
    lines.append(
        f"intensity: Spearman {intensity['spearman']:.3f} on average, at least 0.9 in "
        f"{100 * intensity['share_at_least_0.9']:.0f} % of people; "
        f"strength at 1: {intensity['strength_at_1']:.2f} of the truth"
    )
    return "\n".join(lines) + "\n"
