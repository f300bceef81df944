"""A motion as a picture: curves by group, over time.

Shapes: a ``Motion`` of F frames -> (H, W, 3) uint8 RGB.
"""

from __future__ import annotations

import numpy as np

from .coefficients import FACE, MOUTH, POSE, Motion

BACKGROUND, GRID, TEXT = (28, 28, 30), (62, 62, 66), (225, 225, 225)
COLOURS = (
    (255, 159, 64), (94, 190, 255), (255, 99, 132), (126, 217, 87), (190, 140, 255), (255, 221, 87),
    (64, 224, 208), (240, 128, 190), (160, 160, 160), (205, 133, 63),
)  # fmt: skip
LEFT, TOP, GAP, LEGEND = 52, 26, 26, 150
_FONT_SCALE = 0.42
_LEAST = 0.02
"""A curve that stays under this is left out, unless the whole group is silent."""


def groups(motion: Motion) -> dict[str, list[str]]:
    """Title of a panel -> coefficients in it, the liveliest first, at most ten; the neutral face has its mouth."""
    space = motion.space
    if space is FACE:
        units = [name for name in space.names if name.startswith("AU")]
        wanted = {"mouth": list(MOUTH), "action units": units, "lids and gaze": ["lidL", "lidR", "gaze_x", "gaze_y"]}
        wanted["head"] = list(POSE)
    else:
        inside = {part: [space.names[i] for i in space.indices(part)] for part in ("lip", "expression", "pose")}
        wanted = {"lips": inside["lip"], "expression": inside["expression"], "head": inside["pose"]}
    chosen = {}
    for title, names in wanted.items():
        reach = {name: float(np.abs(motion.curve(name)).max()) for name in names}
        lively = sorted((name for name in names if reach[name] > _LEAST), key=lambda name: -reach[name])
        chosen[title] = lively[: len(COLOURS)]
    return {title: names for title, names in chosen.items() if names} or {"mouth": list(wanted[next(iter(wanted))])[:4]}


def plot(motion: Motion, width: int = 960, panel: int = 150) -> np.ndarray:
    """Curves of everything that moves; seconds along the bottom. Raises ``ValueError`` under 320 x 60 pixels."""
    import cv2

    if width < 320 or panel < 60:
        raise ValueError(f"a plot needs at least 320 pixels of width and 60 a panel, got {width} and {panel}")
    panels = groups(motion)
    height = TOP + len(panels) * (panel + GAP)
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    right = width - LEGEND
    seconds = (np.arange(len(motion)) + 0.5) / motion.fps
    x = LEFT + seconds / max(motion.seconds, 1e-6) * (right - LEFT)

    def write(text: str, at: tuple[int, int], colour: tuple[int, int, int] = TEXT) -> None:
        cv2.putText(image, text, at, cv2.FONT_HERSHEY_SIMPLEX, _FONT_SCALE, colour, 1, cv2.LINE_AA)

    for row, (title, names) in enumerate(panels.items()):
        top = TOP + row * (panel + GAP)
        curves = np.stack([motion.curve(name) for name in names])
        low, high = min(0.0, float(curves.min())), max(0.1, float(curves.max()))
        scale = (panel - 8) / (high - low)
        cv2.rectangle(image, (LEFT, top), (right, top + panel), GRID, 1)
        zero = round(top + panel - 4 + low * scale)
        cv2.line(image, (LEFT, zero), (right, zero), GRID, 1)
        write(title, (LEFT, top - 6))
        write(f"{high:.2f}", (6, top + 12))
        write(f"{low:.2f}", (6, top + panel))
        for i, (name, curve) in enumerate(zip(names, curves, strict=True)):
            y = top + panel - 4 - (curve - low) * scale
            points = np.stack([x, y], axis=1) * 16  # 4 bits after the point
            cv2.polylines(image, [points.round().astype(np.int32)], False, COLOURS[i], 1, cv2.LINE_AA, 4)
            write(name, (right + 12, top + 12 + i * 14), COLOURS[i])
    bottom = height - GAP + 16
    for step in range(int(motion.seconds) + 1):
        if motion.seconds <= 20 or step % (int(motion.seconds) // 10) == 0:
            at = round(LEFT + step / max(motion.seconds, 1e-6) * (right - LEFT))
            write(f"{step} s", (at, bottom))
    return image
