"""Coefficient files of the user's own for the emotion embedder: motions, with or without their recordings.

A folder with ``files.csv``: one row a clip, with the columns
    motion     a motion file (``moee_core/motion/files.py``), relative to the folder: ours, or 3DMM coefficients
    audio      its recording; may be empty, and the clip then only has a face
    identity   who it is; empty is nobody else's
    emotion    one of the labels; empty where it is not known
    level      1 to 3; empty is 3. Neutral has none
Only ``motion`` must be there. Separated by commas, semicolons or tabs, as spreadsheets write them.
Clips of one identity, emotion and level are alike (as in MEAD). A clip whose emotion is not known is alike to other
moments of itself only (as in HDTF). Read at 25 frames a second.

Shapes: (N, C) coefficients, C = 20 action units of the space ``face`` or the 64 expression numbers of ``sadtalker``.

Raises ``ConfigError`` naming the file and the row.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import torch

from moee_core.audio import prosody
from moee_core.audio.emotion_ear import EmotionEar, described, fast
from moee_core.audio.mel import level_gain
from moee_core.audio.read import read_audio, resample_mono
from moee_core.emotion.vocabulary import LABELS
from moee_core.errors import MoEEError
from moee_core.motion.coefficients import FACE, UNITS
from moee_core.motion.files import read_motion
from training.config import ConfigError
from training.data.prior_clips import LEVELS, Scene

NAME = "files.csv"
COLUMNS = ("motion", "audio", "identity", "emotion", "level")
FPS = 25.0
EXPRESSION = 64
"""Numbers of a 3DMM's expression, the first of the space ``sadtalker``."""


def load_scenes(folder: str | Path, ear: EmotionEar, coefficients: int) -> list[Scene]:
    """All clips of a folder. ``coefficients``: how many the embedder reads."""
    table = Path(folder) / NAME
    groups: dict[tuple[object, ...], int] = {}
    silences: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    scenes = []
    for number, given in _rows(table):
        where = f"{table}, line {number}"
        emotion, level = _emotion(given["emotion"], given["level"], where)
        if not given["motion"]:
            raise ConfigError(f"{where}: no motion is named; every clip needs its motion file")
        try:
            values = _coefficients(table.parent / given["motion"], coefficients)
            if given["audio"]:
                voice, quick = _voice(table.parent / given["audio"], len(values), ear)
            else:
                if len(values) not in silences:
                    silences[len(values)] = _voice(None, len(values), ear)
                voice, quick = silences[len(values)]
        except (MoEEError, ValueError) as error:
            raise ConfigError(f"{where}: {error}") from error
        speaker = given["identity"] or f"line {number}"
        alike = (speaker, emotion, level) if emotion is not None else ("alone", number, 0)
        scenes.append(
            Scene(
                units_NC=values,
                voice_TQ=voice,
                quick_T3=quick,
                speaker=speaker,
                emotion=0 if emotion is None else emotion,
                level=level,
                group=groups.setdefault(alike, len(groups)),
                voiced=bool(given["audio"]),
                signed=coefficients != len(UNITS),
                known=emotion is not None,
            )
        )
    return scenes


def _rows(table: Path) -> list[tuple[int, dict[str, str]]]:
    """(line, what its columns say) of all rows, lines as an editor counts them."""
    try:
        text = table.read_text(encoding="utf-8-sig")  # spreadsheets put a mark before what they write as UTF-8
    except OSError as error:
        raise ConfigError(f"{table} cannot be read: {error.strerror}; it lists the clips, see {__name__}") from error
    except UnicodeDecodeError as error:
        line = table.read_bytes()[: error.start].count(b"\n") + 1
        raise ConfigError(f"{table}, line {line}: this is not UTF-8; save the table as UTF-8") from error
    head = text.partition("\n")[0]
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count))
    header = [name.strip() for name in next(reader, [])]
    allowed = f"its columns are {', '.join(COLUMNS)}"
    unknown = [name for name in header if name not in COLUMNS]
    if unknown or "motion" not in header:
        raise ConfigError(f"{table} has {f'a column {unknown[0]!r}' if unknown else 'no column motion'}; {allowed}")
    rows = []
    for cells in reader:
        if len(cells) > len(header):
            raise ConfigError(f"{table}, line {reader.line_num}: {len(cells)} cells under {len(header)} columns")
        if any(cell.strip() for cell in cells):
            said = dict(zip(header, (cell.strip() for cell in cells), strict=False))
            rows.append((reader.line_num, {name: said.get(name, "") for name in COLUMNS}))
    if not rows:
        raise ConfigError(f"{table} has no rows; {allowed}")
    return rows


def _emotion(label: str, level: str, where: str) -> tuple[int | None, int]:
    if not label:
        return None, 0
    if label not in LABELS:
        raise ConfigError(f"{where}: unknown emotion {label[:40]!r}; the labels are: {', '.join(LABELS)}")
    number = LABELS.index(label)
    if number == 0:
        if level not in ("", "0"):
            raise ConfigError(f"{where}: neutral has no level, got {level[:20]!r}; leave it empty")
        return 0, 0
    if level not in ("", *map(str, range(1, LEVELS + 1))):
        raise ConfigError(f"{where}: level is 1 to {LEVELS}, or empty, got {level[:20]!r}")
    return number, int(level or LEVELS)


def _coefficients(path: Path, wanted: int) -> np.ndarray:
    motion = read_motion(path).resampled(FPS)
    count = len(UNITS) if motion.space is FACE else EXPRESSION
    if count != wanted:
        raise ConfigError(
            f"{path.name} is in the space {motion.space.name!r}, which has {count} expression coefficients; the "
            f"embedder reads {wanted}: set system.embedder.coefficients, or leave the file out"
        )
    return motion.values[:, :count].copy()


def _voice(path: Path | None, frames: int, ear: EmotionEar) -> tuple[torch.Tensor, torch.Tensor]:
    """Statistics (2 N, Q) and contours (2 N, 3) of a recording; of silence where there is none."""
    samples = torch.zeros(1) if path is None else torch.from_numpy(resample_mono(read_audio(path)))
    context = ear.config.context
    gain = level_gain(samples) if path is not None else 1.0
    raw = prosody.descriptors(samples, -context, 2 * frames + context, gain)[None]
    inside = slice(context, context + 2 * frames)
    return described(raw, ear.config.pool)[0, inside].half(), fast(raw)[0, inside].half()
