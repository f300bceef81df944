"""Motion coefficients: the movement of a face as named numbers per frame, and the file that holds them.

Shapes (legend for this file): F frames at ``fps``, D coefficients of a space

Two spaces exist. ``FACE`` is ours and what the instant renderer draws: action units, mouth, lids, gaze and head pose.
``SADTALKER`` is the 70 numbers of Deep3DFaceRecon that SadTalker's renderer takes (64 expression, 3 angles, 3
translation; EmoTalker 4.1). Both name which numbers belong to the lips and which to the rest of the face (EmoTalker's
split) and which are the head's pose. There is no exact map from one space's expression to the other's, so none is
offered: what both have in common is the pose (``with_pose_of``).

Sides and signs of ``FACE``: L and R are the person's own; the picture is not mirrored, so L is on its right. Positive
roll turns the head clockwise in the picture, positive yaw turns the nose to the right of the picture, positive pitch
lowers it; positive gaze looks to the right and down in the picture; x grows to the right, y down, z towards the viewer.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np

from ..errors import MoEEError

UNITS = (
    "1", "2", "4", "5", "6", "7", "9", "10", "12L", "12R", "14L", "14R", "15", "17", "20", "23", "24", "25", "26", "27",
)  # fmt: skip
"""Action units of ``FACE``; lids have coefficients of their own instead of unit 43."""
MOUTH = ("open", "width", "teeth", "press")
POSE = ("roll", "yaw", "pitch", "x", "y", "z")


class MotionError(MoEEError, ValueError):
    """A motion that cannot be read, or does not fit what was asked of it."""


@dataclass(frozen=True)
class MotionSpace:
    """Names and units of a space's coefficients; ``lip`` and ``pose`` name its two special parts."""

    name: str
    names: tuple[str, ...]
    units: tuple[str, ...]
    lip_names: tuple[str, ...]
    pose_names: tuple[str, ...]

    @cached_property
    def index(self) -> Mapping[str, int]:
        return MappingProxyType({name: i for i, name in enumerate(self.names)})

    @property
    def size(self) -> int:
        return len(self.names)

    def indices(self, part: str) -> list[int]:
        """Positions of ``part``: lip, face (all but the lips), pose, expression (face without pose), or all.

        Raises ``MotionError`` for another part.
        """
        lip, pose = set(self.lip_names), set(self.pose_names)
        wanted = {
            "lip": lambda n: n in lip,
            "face": lambda n: n not in lip,
            "pose": lambda n: n in pose,
            "expression": lambda n: n not in lip and n not in pose,
            "all": lambda n: True,
        }
        if part not in wanted:
            raise MotionError(f"unknown part of a motion {part[:20]!r}; choose one of: {', '.join(wanted)}")
        return [i for i, name in enumerate(self.names) if wanted[part](name)]

    def entries(self, text: str) -> list[tuple[str, bool, float]]:
        """``name = number`` and ``name += number`` as (name, whether it adds, number). Raises ``MotionError``."""
        found = []
        for entry in filter(None, (part.strip() for part in re.split(r"[;\n]", text))):
            match = re.fullmatch(r"(\w+)\s*(\+?=)\s*(\S+)", entry)
            try:
                amount = float(match[3]) if match else math.nan
            except ValueError:
                amount = math.nan
            if match is None or not math.isfinite(amount):
                raise MotionError(f"cannot read {entry[:40]!r}; write a coefficient and a number, like AU12L = 0.5")
            if match[1] not in self.index:
                raise MotionError(
                    f"unknown coefficient {match[1][:20]!r}; the names are: {', '.join(self.names)[:180]}"
                )
            found.append((match[1], match[2] == "+=", amount))
        return found

    def problem(self, text: str) -> str:
        """What is wrong with such a text, or nothing."""
        try:
            self.entries(text)
        except MotionError as error:
            return str(error)
        return ""


FACE = MotionSpace(
    name="face",
    names=(*(f"AU{unit}" for unit in UNITS), *MOUTH, "lidL", "lidR", "gaze_x", "gaze_y", *POSE),
    units=(*("0 absent .. 1 full",) * len(UNITS), "0 shut .. 1 open", "-1 rounded .. 1 spread", "0 hidden .. 1 showing",
           "0 .. 1 pressed", *("0 open .. 1 shut",) * 2, *("-1 .. 1",) * 2, *("radian",) * 3,
           *("eye distance",) * 3),
    lip_names=MOUTH,
    pose_names=POSE,
)  # fmt: skip
"""34 numbers: 20 action units, 4 of the mouth that speech moves, 2 lids, 2 of gaze, 6 of pose."""

_LIP_13 = (0, 1, 2, 3, 4, 5, 7, 9, 10, 11, 12, 13, 14)
SADTALKER = MotionSpace(
    name="sadtalker",
    names=(*(f"exp{i}" for i in range(64)), "pitch", "yaw", "roll", "x", "y", "z"),
    units=(*("3DMM",) * 64, *("radian",) * 3, *("3DMM",) * 3),
    lip_names=tuple(f"exp{i}" for i in _LIP_13),
    pose_names=("pitch", "yaw", "roll", "x", "y", "z"),
)
"""70 numbers: expression, angles and translation of Deep3DFaceRecon; the 13 lip numbers are EmoTalker's."""

SPACES: Mapping[str, MotionSpace] = MappingProxyType({space.name: space for space in (FACE, SADTALKER)})


@dataclass(frozen=True, kw_only=True, eq=False)
class Motion:
    """``values`` (F, D) float32 at ``fps`` frames a second, in ``space``. ``about`` says where it came from.

    Raises ``MotionError`` for values of another shape, not finite, or a rate out of 1..240.
    """

    values: np.ndarray
    fps: float
    space: MotionSpace = FACE
    about: str = ""

    def __post_init__(self) -> None:
        values = np.ascontiguousarray(self.values, dtype=np.float32)
        if values.ndim != 2 or values.shape[1] != self.space.size or not len(values):
            raise MotionError(
                f"a motion in the space {self.space.name!r} has shape (frames, {self.space.size}), got {values.shape}"
            )
        if not np.isfinite(values).all():
            frame, column = (int(i) for i in np.argwhere(~np.isfinite(values))[0])
            raise MotionError(f"the motion's frame {frame} has {values[frame, column]} in {self.space.names[column]}")
        if not 1 <= self.fps <= 240:  # also refuses NaN
            raise MotionError(f"a motion's rate must be 1 to 240 frames a second, got {self.fps}")
        values = values if values is not self.values else values.copy()
        values.setflags(write=False)
        object.__setattr__(self, "values", values)

    def __len__(self) -> int:
        return len(self.values)

    @property
    def seconds(self) -> float:
        return len(self.values) / self.fps

    def curve(self, name: str) -> np.ndarray:
        """(F,) of one coefficient. Raises ``MotionError`` for an unknown name."""
        if name not in self.space.index:
            raise MotionError(f"unknown coefficient {name[:20]!r}; the names are: {', '.join(self.space.names)[:180]}")
        return self.values[:, self.space.index[name]]

    def edited(self, **changes: float | np.ndarray) -> Motion:
        """A copy with coefficients replaced: ``motion.edited(lidL=1.0, lidR=curve)``."""
        values = self.values.copy()
        for name, value in changes.items():
            self.curve(name)
            values[:, self.space.index[name]] = value
        return dataclasses.replace(self, values=values)

    def with_text(self, text: str) -> Motion:
        """A copy edited by a text: ``AU12L = 0.5; yaw += 0.1``, entries split by ``;`` or lines.

        Raises ``MotionError`` for what is no such entry, an unknown name or a number that is not finite.
        """
        values = self.values.copy()
        for name, adds, amount in self.space.entries(text):
            column = self.space.index[name]
            values[:, column] = values[:, column] + amount if adds else amount
        return dataclasses.replace(self, values=values)

    def scaled(self, part: str, factor: float) -> Motion:
        """A copy with one part's movement times ``factor``."""
        values = self.values.copy()
        values[:, self.space.indices(part)] *= factor
        return dataclasses.replace(self, values=values)

    def resampled(self, fps: float, frames: int | None = None) -> Motion:
        """At another rate, linearly between frame centres; ``frames`` cuts or holds the last one."""
        count = frames if frames is not None else max(1, round(self.seconds * fps))
        at = (np.arange(count) + 0.5) / fps * self.fps - 0.5
        source = np.arange(len(self.values))
        values = np.stack([np.interp(at, source, column) for column in self.values.T], axis=1)
        return dataclasses.replace(self, values=values, fps=fps)

    def with_part_of(self, other: Motion, part: str) -> Motion:
        """A copy with ``part`` taken from ``other`` (EmoTalker 4.5: driven pose, lips or expression).

        The other motion is brought to this one's rate and length; a shorter one holds its last frame. Spaces must be
        the same, but for the pose, whose angles both have. Raises ``MotionError``.
        """
        other = other.resampled(self.fps, len(self))
        values = self.values.copy()
        if other.space is self.space:
            columns = self.space.indices(part)
            values[:, columns] = other.values[:, columns]
        elif part == "pose":
            for name in ("roll", "yaw", "pitch"):  # translations have different units
                values[:, self.space.index[name]] = other.curve(name)
        else:
            raise MotionError(
                f"{part} cannot be taken from the space {other.space.name!r} into {self.space.name!r}: their "
                "expressions have no common meaning; only the pose has"
            )
        return dataclasses.replace(self, values=values)

    def retargeted(self, neutral_from: np.ndarray, neutral_to: np.ndarray | None = None, gain: float = 1.0) -> Motion:
        """For another person: the difference to the source's neutral (D,), times ``gain``, on the target's neutral.

        ``neutral_to`` None is the zero of the space. Pose is left as it is.
        """
        base = np.zeros(self.space.size, np.float32) if neutral_to is None else np.asarray(neutral_to, np.float32)
        if np.shape(neutral_from) != (self.space.size,) or base.shape != (self.space.size,):
            raise MotionError(f"a neutral face of the space {self.space.name!r} has {self.space.size} numbers")
        values = base + gain * (self.values - np.asarray(neutral_from, np.float32))
        pose = self.space.indices("pose")
        values[:, pose] = self.values[:, pose]
        return dataclasses.replace(self, values=values)


def still(frames: int, fps: float, **coefficients: float) -> Motion:
    """The neutral face of ``FACE`` for ``frames`` frames, with the coefficients given."""
    return Motion(values=np.zeros((frames, FACE.size)), fps=fps).edited(**coefficients)


def joined(parts: Sequence[Motion]) -> Motion:
    """One after the other; all of one space and rate. Raises ``MotionError``."""
    if not parts:
        raise MotionError("no motion to join")
    first = parts[0]
    for part in parts[1:]:
        if part.space is not first.space or part.fps != first.fps:
            raise MotionError(
                f"motions to join must agree: {first.space.name} at {first.fps:g} fps and {part.space.name} at "
                f"{part.fps:g} fps"
            )
    return dataclasses.replace(first, values=np.concatenate([part.values for part in parts]))
