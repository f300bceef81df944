"""Names of the points on a portrait, and in which order they form the lines of a face.

R and L are the person's own sides; the picture is not mirrored, so R is on its left. ``REDUCED`` are the points a
person drags; ``FULL`` adds those that are derived between them when they are not given. Two pairs of optional points
mark the irises: the centre, and one point on the edge.
"""

from __future__ import annotations

SIDES = ("R", "L")

BROW = ("outer", "outer_half", "middle", "inner_half", "inner")
LID_UPPER = ("outer", "upper_outer", "upper", "upper_inner", "inner")
LID_LOWER = ("outer", "lower_outer", "lower", "lower_inner", "inner")
_OUTER_LIP = ("R", "R_half", "M", "L_half", "L")
_INNER_LIP = ("R_end", "R", "R_half", "M", "L_half", "L", "L_end")
NOSE = ("nose_R_ala", "nose_tip", "nose_base", "nose_L_ala")

LIP_LINES: dict[str, tuple[str, ...]] = {
    line: ("mouth_R", *(f"lip_{line}_{end}" for end in ends), "mouth_L")
    for line, ends in (
        ("upper_outer", _OUTER_LIP),
        ("upper_inner", _INNER_LIP),
        ("lower_inner", _INNER_LIP),
        ("lower_outer", _OUTER_LIP),
    )
}
"""Each line of the lips from the person's right corner to the left one."""

_JAW_R = ("jaw_R_ear", "jaw_R_cheek", "jaw_R_angle", "jaw_R_side", "jaw_R_chin")
JAW = (*_JAW_R, "chin", *(name.replace("_R_", "_L_") for name in reversed(_JAW_R)))


def brow(side: str) -> tuple[str, ...]:
    """Names of a brow's points from the temple to the nose."""
    return tuple(f"brow_{side}_{part}" for part in BROW)


def lid(side: str, which: str) -> tuple[str, ...]:
    """Names of a lid's points, ``which`` is upper or lower, from the outer to the inner corner."""
    return tuple(f"eye_{side}_{part}" for part in (LID_UPPER if which == "upper" else LID_LOWER))


def _unique(*groups: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for group in groups for name in group))


FULL = _unique(
    *(brow(side) for side in SIDES),
    *(lid(side, which) for side in SIDES for which in ("upper", "lower")),
    NOSE,
    *LIP_LINES.values(),
    JAW,
)
"""67 names."""

_DERIVED = {"outer_half", "inner_half", "upper_outer", "upper_inner", "lower_outer", "lower_inner"}
DERIVED = frozenset(
    name
    for name in FULL
    if (name.startswith(("brow_", "eye_")) and name.split("_", 2)[2] in _DERIVED)
    or (name.startswith("lip_") and name.endswith(("_half", "_end")))
    or name == "nose_tip"
    or (name.startswith("jaw_") and name.endswith(("_cheek", "_side")))
)
REDUCED = tuple(name for name in FULL if name not in DERIVED)
"""38 names: brows 3 + 3, eyes 4 + 4, nose 3, mouth corners 2, lips 3 + 3 + 3 + 3, jaw 7."""

IRIS = ("iris_R", "iris_R_edge", "iris_L", "iris_L_edge")
"""Optional: the centre of each iris and one point on its edge."""
