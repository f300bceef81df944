"""What the emotion embedder of DICE-Talk is trained on: moments of takes, as coefficients and as a voice.

Shapes (legend for this file): N frames at 25 a second, C = 20 action units, T = 2 N speech features, A their width

A speaker is one voice. Takes of one voice are performed here by one person, with that person's own expressiveness, so
that the same identity is met in many takes; which person is a hash of the voice's name. A *group* is a speaker, an
emotion and a level: what InfoNCE calls alike.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from moee_core.audio.emotion_ear import EmotionEar, described, fast
from moee_core.emotion.vocabulary import LABELS
from moee_core.motion.coefficients import UNITS
from moee_core.motion.expression import MAX_UNIT
from training.data.motion_clips import Take

PEOPLE = 60
"""Persons of a split that speakers are given."""
LEVELS = 3
UNKNOWN = -1
"""The class of what shows an emotion that nobody named; drawn as often as any other."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One take as the embedder sees it. ``units_NC``; ``voice_TQ``, statistics of the voice before the ear's own
    layers, and ``quick_T3`` beside them; ``group``, ``emotion`` (numbers ``LABELS``), ``level`` 0 to 3. ``voiced``:
    whether there is a voice; ``signed``: whether coefficients may be negative; ``known``: whether the emotion is."""

    units_NC: np.ndarray
    voice_TQ: Tensor
    quick_T3: Tensor
    speaker: str
    emotion: int
    level: int
    group: int
    voiced: bool = True
    signed: bool = False
    known: bool = True

    def __len__(self) -> int:
        return len(self.units_NC)


def scenes_of(takes: Sequence[Take], split: str, ear: EmotionEar, wide_speech: str = "") -> list[Scene]:
    """All takes; ``ear`` describes their voices."""
    from training.face_world.splits import person

    wide = _wide_voices(wide_speech) if wide_speech else []
    groups: dict[tuple[str, int, int], int] = {}
    out = []
    for take in takes:
        speaker = _speaker(take.key, wide)
        who = zlib.crc32(speaker.encode()) % PEOPLE
        gain = person(split, who).expressiveness / person(split, take.person).expressiveness
        units = np.clip(take.motion[:, : len(UNITS)] * gain, 0, MAX_UNIT).astype(np.float32)
        context = ear.config.context
        raw = torch.from_numpy(take.heard(0, len(take), context))[None]
        group = groups.setdefault((speaker, take.emotion, take.level), len(groups))
        out.append(
            Scene(
                units_NC=units,
                voice_TQ=described(raw, ear.config.pool)[0, context:-context].half(),
                quick_T3=fast(raw)[0, context:-context].half(),
                speaker=speaker,
                emotion=take.emotion,
                level=take.level,
                group=group,
            )
        )
    return out


def _speaker(key: str, wide: Sequence[str]) -> str:
    """The voice of a take's first utterance: "train-00-awb-0.92-neutral" or "wide-01598"."""
    first = key.split("+")[0]
    parts = first.split("-")
    return wide[int(parts[1])] if parts[0] == "wide" else "-".join(parts[2:-1])


def _wide_voices(folder: str) -> list[str]:
    table = json.loads(Path(folder, "index.json").read_text(encoding="utf-8"))
    return [str(entry["voice"]) for entry in table["utterances"]]


def classes() -> int:
    """Of emotion and level: neutral, and every other label at three levels."""
    return 1 + (len(LABELS) - 1) * LEVELS


def class_of(emotion: int, level: int) -> int:
    """0 for neutral, else 1 + 3 (emotion - 1) + (level - 1)."""
    return 0 if emotion == 0 else 1 + LEVELS * (emotion - 1) + level - 1


@torch.no_grad()
def voice_of(ear: EmotionEar, scene: Scene, first: int, frames: int, manner: np.ndarray | None = None) -> Tensor:
    """(T, 1, A): features of some frames, in the manner of another voice: off by ``manner`` (Q,) throughout."""
    part = slice(2 * first, 2 * (first + frames))
    described_TQ = ear.normalised(scene.voice_TQ[part].float())
    if manner is not None:
        described_TQ = described_TQ + torch.from_numpy(manner.astype(np.float32))
    return torch.cat([ear.hear(described_TQ), scene.quick_T3[part].float()], dim=-1)[:, None]


class SceneDraw:
    """Draws moments so that every group that is drawn is drawn twice, from two takes where it has two."""

    def __init__(self, scenes: Sequence[Scene]):
        self.scenes = list(scenes)
        cells: dict[int, dict[int, list[int]]] = {}
        groups: dict[int, list[int]] = {}
        for number, scene in enumerate(self.scenes):
            groups.setdefault(scene.group, []).append(number)
        for members in groups.values():
            scene = self.scenes[members[0]]
            kind = class_of(scene.emotion, scene.level) if scene.known else UNKNOWN
            cells.setdefault(kind, {})[scene.group] = members
        self._cells = [list(cells[kind].values()) for kind in sorted(cells)]

    def pair(self, rng: np.random.Generator) -> tuple[Scene, Scene]:
        """Every emotion and level as often as any other."""
        cell = self._cells[rng.integers(len(self._cells))]
        members = cell[rng.integers(len(cell))]
        first, second = rng.choice(members, 2, replace=len(members) < 2)
        return self.scenes[first], self.scenes[second]
