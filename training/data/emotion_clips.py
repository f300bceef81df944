"""A folder of the user's own videos, each with the emotion it shows, as a Hallo base reads them.

``clips.csv`` in the folder has a line for every clip: ``file`` (a video with sound), ``emotion`` (as anywhere: a label,
a mix, a timeline), and optional ``person`` (whose neutral clips lend their pictures as portraits) and ``face`` (x0 y0
x1 y1 in pixels of the first frame, from the hairline to the chin and from ear to ear, where no face would be found).

Shapes (legend for this file): F frames at the base's rate, Z h w latents, L layers, D width of the speech encoder
Encoded clips are kept as ``HASH.safetensors`` in the cache, one a clip, by the weights that made them and what was
read.
"""

from __future__ import annotations

import csv
import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from moee_core.audio.read import read_audio, resample_mono
from moee_core.audio.wav2vec2 import Wav2Vec2Features
from moee_core.emotion.timeline import parse_emotion
from moee_core.errors import MoEEError
from moee_core.experts.file import write_tensors
from moee_core.networks.masked_audio import SpeechRegions
from moee_core.portrait.regions import FaceBounds, find_bounds, framed
from moee_core.systems.hallo import HalloSystem
from moee_core.video.frames import num_frames, read_video, video_rate
from moee_core.weights.checkpoint import state_hash
from training.config import ConfigError

log = logging.getLogger(__name__)

TABLE = "clips.csv"
COLUMNS = {"file", "emotion"}
ENCODED_TOGETHER = 4
FACE_GROWTH = 1.0
"""Of the face's box, as Hallo was trained."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A line of the table. ``face``: (x0, y0, x1, y1), or None."""

    path: Path
    emotion: str
    person: str
    face: tuple[float, float, float, float] | None


@dataclass(frozen=True, kw_only=True)
class EmotionClip:
    """``latents`` (F, Z, h, w), ``features`` (F, L, D), ``emotion`` (F, 8); ``box`` (1, 3, H, W) and ``regions`` of the
    first frame."""

    person: str
    latents: Tensor
    features: Tensor
    emotion: Tensor
    box: Tensor
    regions: SpeechRegions

    @property
    def neutral(self) -> bool:
        return bool((self.emotion[:, 1:] == 0).all())


def read_entries(folder: Path) -> list[Entry]:
    """The table, checked. Raises ``ConfigError`` naming the line."""
    path = folder / TABLE
    if not path.is_file():
        raise ConfigError(f"{path} does not exist; write a line `file,emotion` for every clip in {folder}")
    with path.open(newline="", encoding="utf-8-sig") as stream:
        rows = csv.DictReader(stream)
        lacking = COLUMNS - set(rows.fieldnames or ())
        if lacking:
            raise ConfigError(f"{path} has no column {', '.join(sorted(lacking))}; its first line names the columns")
        return [_entry(folder, path, rows.line_num, row) for row in rows]


def _entry(folder: Path, table: Path, line: int, row: dict[str, str]) -> Entry:
    where = f"{table.name}, line {line}"
    path = folder / (row["file"] or "").strip()
    if not path.is_file():
        raise ConfigError(f"{where}: there is no file {path}")
    try:
        called = parse_emotion(row["emotion"] or "").own_names
        said = (row.get("face") or "").split()
        face = tuple(float(number) for number in said)
    except (MoEEError, ValueError) as error:
        raise ConfigError(f"{where}: {error}") from error
    if called:
        raise ConfigError(f"{where}: {called[0]} is an expert of somebody's own; say what the clip shows by labels")
    if len(face) not in (0, 4):
        raise ConfigError(f"{where}: face is {len(face)} numbers, x0 y0 x1 y1 are wanted, or none")
    person = (row.get("person") or "").strip()
    return Entry(path=path, emotion=row["emotion"], person=person, face=face or None)  # type: ignore[arg-type]


class EmotionClips:
    """The clips of a folder, encoded where they are not yet; read from the cache one by one."""

    def __init__(self, folder: Path, cache: Path, system: HalloSystem, ear: Wav2Vec2Features, made_by: str, size: int):
        """``made_by``: what the weights are that encode; ``size``: pixels a side of a square, of pictures of another
        shape as many in all."""
        self.entries = read_entries(folder)
        if not self.entries:
            raise ConfigError(f"{folder / TABLE} lists no clip")
        self.paths: list[Path] = []
        made_by = f"{made_by} {state_hash(ear.model.state_dict())} {ear.normalise}"
        cache.mkdir(parents=True, exist_ok=True)
        for number, entry in enumerate(self.entries, 1):
            stat = entry.path.stat()
            what = [made_by, size, str(entry.path), stat.st_size, stat.st_mtime_ns, entry.emotion, entry.face]
            path = cache / f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]}.safetensors"
            if not path.exists():
                log.info("encoding clip %d of %d: %s", number, len(self.entries), entry.path.name)
                write_tensors(path, encode(entry, system, ear, size), {"clip": entry.path.name})
            self.paths.append(path)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, number: int) -> EmotionClip:
        found = load_file(self.paths[number])
        levels = tuple(found[key] for key in sorted(found) if key.startswith("regions."))
        return EmotionClip(
            person=self.entries[number].person,
            latents=found["latents"],
            features=found["features"],
            emotion=found["emotion"],
            box=found["box"][None, None].expand(1, 3, -1, -1).float() / 255,
            regions=SpeechRegions(levels=levels),
        )


@torch.no_grad()
def encode(entry: Entry, system: HalloSystem, ear: Wav2Vec2Features, size: int) -> dict[str, Tensor]:
    """What is kept of a clip. Raises ``ConfigError`` for one that has no face, or is shorter than it sounds."""
    fps, config = system.config.fps, system.config
    where = next(system.autoencoder.parameters())
    sound = read_audio(entry.path)
    mono = torch.from_numpy(resample_mono(sound))
    count = num_frames(sound.samples.shape[1], sound.sample_rate, fps)
    bounds: FaceBounds | None = None
    first = None
    latents: list[Tensor] = []
    waiting: list[Tensor] = []

    def flush() -> None:
        if waiting:
            latents.append(system.autoencoder.encode(torch.cat(waiting).to(where)).half().cpu())
            waiting.clear()

    for frame in at_rate(read_video(entry.path), video_rate(entry.path), fps, count):
        if bounds is None:
            bounds = _bounds(entry, frame)
        one = framed(
            frame,
            bounds,
            size,
            patch=config.autoencoder.patch,
            levels=len(config.unet.block_widths),
            growth=FACE_GROWTH,
        )
        first = first or one
        waiting.append(one.picture())
        if len(waiting) == ENCODED_TOGETHER:
            flush()
    flush()
    assert first is not None  # a video without a frame is refused where it is read
    encoded = torch.cat(latents)
    frames = len(encoded)
    features = ear.features(mono, max(count, frames)).features_TLD[:frames]
    emotion = torch.from_numpy(parse_emotion(entry.emotion).sample(frames, fps)).float()
    kept = {"latents": encoded, "features": features.half().cpu(), "emotion": emotion}
    kept |= {f"regions.{level}": maps.float() for level, maps in enumerate(first.maps)}
    return {key: value.contiguous() for key, value in (kept | {"box": torch.from_numpy(first.box_HW)}).items()}


def at_rate(frames: Iterator[np.ndarray], rate: float, fps: float, count: int) -> Iterator[np.ndarray]:
    """The frame that is shown at each i / fps, ``count`` at most; fewer where the video ends before."""
    wanted, last = 0, None
    for number, frame in enumerate(frames):
        while wanted < count and int(wanted / fps * rate + 1e-6) <= number:
            if int(wanted / fps * rate + 1e-6) == number:
                last = frame
            assert last is not None
            yield last
            wanted += 1
        if wanted >= count:
            return


def _bounds(entry: Entry, frame: np.ndarray) -> FaceBounds:
    height, width = frame.shape[:2]
    try:
        return find_bounds(frame) if entry.face is None else FaceBounds.of_box(width, height, entry.face)
    except MoEEError as error:
        raise ConfigError(f"{entry.path.name}: {error}; or give `face` in {TABLE}") from error
