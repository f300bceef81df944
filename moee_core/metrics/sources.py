"""Measure every way to say an emotion, one at a time: labels, action units, text, voice, picture, video.

The evaluation set holds for each person what the others say (``training/evaluation_sources.py``). A clip counts as
right when the instrument of ``evaluate.py``, made from that person's calibration pictures, names the emotion that was
said; chance is one in seven. Odd-numbered people start from a portrait that already shows another emotion. Two rows say
what can be reached at all: ``truth``, and for the voice ``ear``, which names one of eight labels.

    sources     share of clips named right, by source, with the 95 % interval of Wilson; where the set has them, also of
                voices of a synthesiser that no training has heard
    truth       the same of true renders: the set's whole true clips, read by the same instrument
    ear         share of recordings whose mean mood, as the model hears it, is what was said; by emotion and voice too
    compounds   share of people in whom both parts of a compound show at least half of what its true render shows
    units       for every action unit of the face, what turning it up raises: change read in all units, mean over people
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..audio.read import Waveform
from ..emotion.condition import parse_blend
from ..emotion.source import EmotionSource, UnitTrack, as_source
from ..emotion.vocabulary import COMPOUNDS, LABELS, TRAINED_COMPOUNDS
from ..errors import MediaError
from ..motion.coefficients import UNITS
from ..motion.expression import expression, prototype
from .evaluate import CONDITIONS, LABEL_ORDER, load_people, mixed
from .instrument import FaceReader

SECONDS = 1.0
UNIT_SECONDS = 0.5
FULL = 0.9
"""How far a single action unit is turned up."""
SHOWN = 0.25
"""Units of a compound's true render weaker than this are no sign of its parts."""

Make = Callable[[dict[str, np.ndarray], Waveform, EmotionSource], np.ndarray]
ReadUnits = Callable[[np.ndarray], np.ndarray]
"""(n, S, S, 3) uint8 pictures of a face -> (n, 20) action units."""
Hear = Callable[[np.ndarray], np.ndarray]
"""(S,) float32 samples at 16 kHz -> (F, 16) mood of ``emotion/stand_ins.py``."""

PARTS = ("sources", "truth", "ear", "compounds", "units")
VOICES = {"voice": "voice_samples", "voice, other synthesiser": "other_voice_samples"}
"""Name of the source, and where its recording lies; a set need not have the second."""


def sources_of(
    person: dict[str, np.ndarray], number: int, phrasings: list[dict[str, str]], read_units: ReadUnits | None
) -> Iterator[tuple[str, str, EmotionSource, np.ndarray]]:
    """(name of the source, label said, source, recording) of one person."""
    short = person["neutral_samples"][: int(SECONDS * 16000)]
    label = str(person["source_label"])
    vector = parse_blend(label).vector()[None]
    yield "label", label, as_source(parse_blend(label)), short
    yield "action units", label, EmotionSource(units=UnitTrack(values=expression(vector))), short
    if number < len(phrasings):
        phrasing = phrasings[number]
        yield "text", phrasing["label"], EmotionSource(text=phrasing["text"]), short
    for name, samples in _voices(person):
        yield name, label, EmotionSource(voice=1.0), samples
    if read_units is not None:
        still = read_units(person["reference_picture"][None])
        yield "picture", label, EmotionSource(units=UnitTrack(values=still)), short
        track = read_units(person["reference_frames"])
        yield "video", label, EmotionSource(units=UnitTrack(values=track)), short


def _voices(person: dict[str, np.ndarray]) -> Iterator[tuple[str, np.ndarray]]:
    return ((name, person[key]) for name, key in VOICES.items() if key in person)


def measure_sources(
    make: Make,
    folder: Path,
    *,
    people: int = 0,
    phrasings: list[dict[str, str]] | None = None,
    read_units: ReadUnits | None = None,
    hear: Hear | None = None,
    unit_people: int = 10,
    parts: Collection[str] = PARTS,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """All figures as nested plain dicts. ``phrasings``: one text for each of the first people. Without ``hear`` there
    are no rows of the ear. Raises ``ValueError`` for a part that is none of ``PARTS``, ``MediaError`` for a set that
    was made before there were sources."""
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"unknown part {part!r}; choose from: {', '.join(PARTS)}")
    everyone = load_people(folder, people)
    if "source_label" not in everyone[0]:
        raise MediaError(f"{folder} was made before emotions had other sources; make a new set in another folder")
    clips: list[dict[str, Any]] = []
    true_clips: list[dict[str, Any]] = []
    heard: list[dict[str, Any]] = []
    shares: dict[str, list[float]] = {}
    changes: list[np.ndarray] = []
    for number, person in enumerate(everyone):
        told = mixed(person, number)
        reader = FaceReader(person["calibration"], person["mouth"], person["units"], person["label"])
        if "sources" in parts:
            for name, label, source, samples in sources_of(person, number, phrasings or [], read_units):
                clips.append(_read(reader, name, label, _made(make, told, samples, source)))
        if "truth" in parts:
            for condition in (c for c in CONDITIONS if f"{c}_frames" in person):
                label, frames = str(person[f"{condition}_label"]), person[f"{condition}_frames"]
                true_clips.append(_read(reader, f"{condition} voice", label, frames))
        if "ear" in parts and hear is not None:
            for name, samples in _voices(person):
                mood = hear(samples.astype(np.float32))[:, : len(LABELS)].mean(axis=0)
                row = {"source": name, "said": str(person["source_label"]), "read": LABELS[int(mood.argmax())]}
                known = name != "voice" and "other_voice" in person
                heard.append(row | ({"voice": str(person["other_voice"])} if known else {}))
        if "compounds" in parts:
            for name, share in _compound_shares(make, told, reader).items():
                shares.setdefault(name, []).append(share)
        if "units" in parts and number < unit_people:
            changes.append(_unit_changes(make, told))
        if on_progress is not None:
            on_progress(number + 1, len(everyone))
    report: dict[str, Any] = {"people": len(everyone)}
    if clips:
        report["sources"] = _by(clips, "source")
        report["clips"] = clips
    if true_clips:
        report["truth"] = named(true_clips)
    if heard:
        report["ear"] = _ear_report(heard)
        report["heard"] = heard
    if shares:
        report["compounds"] = {
            name: {"people": len(values), "both_at_half": float(np.mean(np.array(values) >= 0.5)),
                   "weaker_part": float(np.mean(values)), "trained": name in TRAINED_COMPOUNDS}
            for name, values in shares.items()
        }  # fmt: skip
    if changes:
        report["units"] = _units_report(np.mean(changes, axis=0), len(changes))
    return report


def _made(make: Make, person: dict[str, np.ndarray], samples: np.ndarray, source: EmotionSource) -> np.ndarray:
    waveform = Waveform(samples=samples[None].astype(np.float32), sample_rate=16000)
    return make(person, waveform, source)


def _read(reader: FaceReader, source: str, said: str, frames: np.ndarray) -> dict[str, Any]:
    scores = reader.read(frames)[2].mean(axis=0)
    return {"source": source, "said": said, "read": LABEL_ORDER[int(scores.argmax())]}


def named(clips: Sequence[dict[str, Any]]) -> dict[str, float]:
    """How many clips there are, the share in which what was read is what was said, and its 95 % interval."""
    right = sum(clip["said"] == clip["read"] for clip in clips)
    low, high = wilson(right, len(clips))
    return {"clips": len(clips), "right": right / len(clips), "low": low, "high": high}


def _by(clips: Sequence[dict[str, Any]], key: str) -> dict[str, dict[str, Any]]:
    """The figures of ``named`` for every value of ``key``, in the order they come; clips without it are left out."""
    values = dict.fromkeys(clip[key] for clip in clips if key in clip)
    return {value: named([clip for clip in clips if clip.get(key) == value]) for value in values}


def _ear_report(heard: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    rows = _by(heard, "source")
    for name, row in rows.items():
        mine = [clip for clip in heard if clip["source"] == name]
        ordered = sorted(mine, key=lambda clip: LABEL_ORDER.index(clip["said"]))
        row |= {"by_emotion": _by(ordered, "said"), "by_voice": _by(mine, "voice")}
    return rows


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    share, spread = right / count, z * z / count
    middle = (share + spread / 2) / (1 + spread)
    half = z / (1 + spread) * ((share * (1 - share) + spread / 4) / count) ** 0.5
    return max(0.0, middle - half), min(1.0, middle + half)  # rounding may step outside


def signs_of(name: str) -> tuple[list[int], list[int]]:
    """Columns of the units by which each part of a compound is told: in that part's prototype, not in the other's, and
    in the compound's own."""
    first, second = (np.array(prototype(label)) for label in COMPOUNDS[name])
    own = prototype(name) >= SHOWN
    only_first = own & (first >= SHOWN) & (second < SHOWN)
    only_second = own & (second >= SHOWN) & (first < SHOWN)
    return np.flatnonzero(only_first).tolist(), np.flatnonzero(only_second).tolist()


def _compound_shares(make: Make, person: dict[str, np.ndarray], reader: FaceReader) -> dict[str, float]:
    """Compound -> how much of the true render's sign of its weaker part is shown."""
    out = {}
    for key in [key for key in person if key.startswith("compound_") and key != "compound_samples"]:
        name = key.removeprefix("compound_")
        made = _made(make, person, person["compound_samples"], as_source(parse_blend(name)))
        shown, true = (reader.read(frames)[1].mean(axis=0) for frames in (made, person[key]))
        parts = []
        for columns in signs_of(name):
            if columns and true[columns].mean() > 0.1:
                parts.append(float(shown[columns].mean() / true[columns].mean()))
        if parts:
            out[name] = min(parts)
    return out


UNIT_NUMBERS = tuple(dict.fromkeys(unit.rstrip("LR") for unit in UNITS))


def whole(units: np.ndarray) -> np.ndarray:
    """(..., 20) -> (..., 18): both sides of 12 and 14 as one, their mean."""
    columns = [[i for i, unit in enumerate(UNITS) if unit.rstrip("LR") == number] for number in UNIT_NUMBERS]
    return np.stack([units[..., members].mean(axis=-1) for members in columns], axis=-1)


def _unit_changes(make: Make, person: dict[str, np.ndarray]) -> np.ndarray:
    """(18, 18): what turning a unit up (row) changes in the reading of every unit (column)."""
    count = len(person["unit_truth"])
    reader = FaceReader(
        person["unit_calibration"], np.zeros((count, 2)), person["unit_truth"], np.zeros(count, np.int64)
    )
    samples = person["neutral_samples"][: int(UNIT_SECONDS * 16000)]

    def read(values: np.ndarray) -> np.ndarray:
        frames = _made(make, person, samples, EmotionSource(units=UnitTrack(values=values[None])))
        return whole(reader.read(frames)[1].mean(axis=0))

    still = read(np.zeros(len(UNITS), np.float32))
    rows = []
    for number in UNIT_NUMBERS:
        values = np.array([FULL if unit.rstrip("LR") == number else 0.0 for unit in UNITS], np.float32)
        rows.append(read(values) - still)
    return np.stack(rows)


def _units_report(changes: np.ndarray, people: int) -> dict[str, Any]:
    most = changes.argmax(axis=1)
    return {
        "people": people,
        "names": list(UNIT_NUMBERS),
        "raised_most": float(np.mean(most == np.arange(len(changes)))),
        "own": np.diag(changes).round(3).tolist(),
        "strongest": [UNIT_NUMBERS[i] for i in most],
        "changes": changes.round(3).tolist(),
    }


def format_sources(report: dict[str, Any]) -> str:
    """Tables for people."""
    lines = [f"{report['people']} people, every other one with an emotional portrait", ""]
    for name, row in report.get("sources", {}).items():
        lines.append(_line(name, row, "clips; chance 14.3"))
    if "truth" in report:
        lines.append(_line("true renders", report["truth"], "clips"))
    for name, row in report.get("ear", {}).items():
        lines.append(_line(f"ear, {name}", row, "recordings; chance 12.5"))
        for shares in (row["by_emotion"], row["by_voice"]):
            if shares:
                lines.append("  " + ", ".join(f"{key} {100 * part['right']:.0f}" for key, part in shares.items()))
    for name, row in report.get("compounds", {}).items():
        kind = "" if row["trained"] else " (not trained)"
        lines.append(
            f"{name + kind:38}both parts at half or more in {100 * row['both_at_half']:5.1f} % of {row['people']}; "
            f"weaker part {row['weaker_part']:.2f} of the true render"
        )
    units = report.get("units")
    if units:
        lines.append(
            f"the unit asked for is raised most in {100 * units['raised_most']:.0f} % of {len(units['names'])} units"
        )
        for name, own, strongest in zip(units["names"], units["own"], units["strongest"], strict=True):
            lines.append(
                f"  AU{name:4} raised by {own:5.2f}" + ("" if strongest == name else f", less than AU{strongest}")
            )
    return "\n".join(lines) + "\n"


def _line(name: str, row: dict[str, float], what: str) -> str:
    interval = f"({100 * row['low']:.0f} to {100 * row['high']:.0f}, {row['clips']} {what})"
    return f"{name:29}{100 * row['right']:6.1f} %  {interval}"


def load_phrasings(path: Path) -> list[dict[str, str]]:
    """A JSON list of {"text", "label"}."""
    entries = json.loads(path.read_text(encoding="utf-8"))
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or entry.get("label") not in LABELS or not entry.get("text"):
            raise MediaError(f"{path}[{number}]: a phrasing has a text and one of the labels {', '.join(LABELS)}")
    return entries
