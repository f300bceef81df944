"""Contact sheets of the instant renderer: what a portrait looks like in the expressions and poses that matter.

``python benchmarks/renderer_sheet.py --face-world 3 --out sheet.png`` draws a person of the face world,
``--picture FILE --points JSON`` any portrait. Exit code 0, or 2 with one line on standard error.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

from moee_core.emotion.action_units import PROTOTYPES  # noqa: E402
from moee_core.errors import MoEEError  # noqa: E402
from moee_core.motion.coefficients import FACE  # noqa: E402
from moee_core.portrait.image import read_portrait  # noqa: E402
from moee_core.renderer.instant import InstantRenderer, RenderSettings  # noqa: E402
from moee_core.renderer.points import FacePoints, read_points  # noqa: E402

POSES: dict[str, dict[str, float]] = {
    "mouth half": {"open": 0.5, "teeth": 0.3},
    "mouth open": {"open": 1.0, "teeth": 0.4},
    "round": {"open": 0.35, "width": -1.0, "teeth": 0.1},
    "ee": {"open": 0.34, "width": 0.8, "teeth": 0.8},
    "f": {"open": 0.1, "width": 0.12, "teeth": 0.95},
    "pressed": {"press": 1.0},
    "eyes half": {"lidL": 0.5, "lidR": 0.5},
    "eyes shut": {"lidL": 1.0, "lidR": 1.0},
    "wide eyes": {"AU5": 1.0},
    "look right": {"gaze_x": 1.0},
    "look up left": {"gaze_x": -0.8, "gaze_y": -0.8},
    "yaw -15": {"yaw": -0.262},
    "yaw +15": {"yaw": 0.262},
    "pitch +11": {"pitch": 0.2},
    "pitch -11": {"pitch": -0.2},
    "roll +9": {"roll": 0.16, "yaw": 0.1},
    "happy, talking": {"AU12L": 0.8, "AU12R": 0.8, "AU6": 0.5, "AU25": 0.5, "open": 0.6, "teeth": 0.5, "yaw": -0.12},
}


def rows() -> dict[str, np.ndarray]:
    """Name -> row (34,) of every picture of a sheet after the first."""
    named: dict[str, dict[str, float]] = {}
    for emotion in ("neutral", "happy", "sad", "angry", "surprised", "disgusted", "fear", "contempt"):
        values: dict[str, float] = {}
        for unit, strength in PROTOTYPES[emotion].items():
            if unit[0] in "RL":
                values[f"AU{unit[1:]}{unit[0]}"] = strength
            elif unit in ("12", "14"):
                values |= {f"AU{unit}L": strength, f"AU{unit}R": strength}
            else:
                values[f"AU{unit}"] = strength
        named[emotion] = values
    found = {}
    for name, values in (named | POSES).items():
        found[name] = np.zeros(FACE.size, np.float32)
        for key, value in values.items():
            found[name][FACE.index[key]] = value
    return found


def sheet(
    renderer: InstantRenderer, chosen: dict[str, np.ndarray], *, columns: int, cell: int, zoom: float
) -> np.ndarray:
    """The portrait and a labelled cell for each row, cut to the face; ``zoom`` 1 shows head and shoulders."""
    portrait, points = renderer.portrait, renderer.points
    frame, chin = points.frame, np.array(points.full["chin"])
    middle = frame.origin + 0.28 * (chin - frame.origin)
    half = 2.6 * frame.distance / zoom
    x0, y0 = (max(0, round(float(v - half))) for v in middle)
    x1, y1 = min(points.width, round(float(middle[0] + half))), min(points.height, round(float(middle[1] + half)))
    cells = []
    for name, image in [("source", portrait), *((k, renderer.render(row)) for k, row in chosen.items())]:
        part = np.ascontiguousarray(image[y0:y1, x0:x1])
        size = (cell, max(1, round(cell * part.shape[0] / part.shape[1])))
        method = cv2.INTER_AREA if part.shape[1] > cell else cv2.INTER_CUBIC
        small = cv2.resize(part, size, interpolation=method)
        cv2.putText(small, name, (5, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (0, 0, 0), 3, cv2.LINE_AA)
        cv2.putText(small, name, (5, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.5, (255, 255, 255), 1, cv2.LINE_AA)
        cells.append(small)
    cells += [np.zeros_like(cells[0])] * (-len(cells) % columns)
    return np.vstack([np.hstack(cells[i : i + columns]) for i in range(0, len(cells), columns)])


def measure(portrait: np.ndarray, points: FacePoints, frames: int = 200) -> str:
    """CPU seconds of set-up, and what talking frames take: CPU milliseconds each, and how many in a second of clock."""
    start = time.process_time()
    renderer = InstantRenderer(portrait, points)
    ready = time.process_time()
    row = np.zeros(FACE.size, np.float32)
    for name, value in {"AU1": 0.5, "AU12L": 0.4, "AU12R": 0.4, "open": 0.5, "yaw": 0.1, "pitch": 0.05}.items():
        row[FACE.index[name]] = value
    renderer.render(row)
    begun, clock = time.process_time(), time.perf_counter()
    for i in range(frames):
        row[FACE.index["open"]], row[FACE.index["lidL"]] = 0.5 + 0.4 * np.sin(i), 0.2
        row[FACE.index["gaze_x"]] = 0.1
        renderer.render(row)
    spent, passed = time.process_time() - begun, time.perf_counter() - clock
    width, height = renderer.size
    return (
        f"{width}x{height}: set-up {ready - start:.2f} s and {1000 * spent / frames:.1f} ms a frame of CPU time, "
        f"{frames / passed:.0f} frames/s on the clock"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--picture", type=Path)
    parser.add_argument("--points", type=Path, help="points of the picture, in the form moee-points-1")
    parser.add_argument("--face-world", type=int, metavar="N", help="person N of the split 'train', not a picture")
    parser.add_argument("--size", type=int, default=512, help="pixels of the face world's picture")
    parser.add_argument("--columns", type=int, default=7)
    parser.add_argument("--cell", type=int, default=280, help="width of a cell in pixels")
    parser.add_argument("--zoom", type=float, default=1.0)
    parser.add_argument("--folds", type=float, help="default: by the picture")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(rows()), help="some of the cells")
    parser.add_argument("--measure", action="store_true", help="print the time of a frame")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    cv2.setNumThreads(1)
    try:
        if arguments.face_world is not None:
            from training.face_world.points import face_points
            from training.face_world.render import render
            from training.face_world.rig import FaceState
            from training.face_world.splits import person

            who = person("train", arguments.face_world)
            portrait = render(who, FaceState(), arguments.size)
            points = face_points(who, FaceState(), arguments.size)
        elif arguments.picture and arguments.points:
            portrait = read_portrait(arguments.picture)
            points = read_points(arguments.points, portrait.shape[1], portrait.shape[0])
        else:
            parser.error("give --picture and --points, or --face-world")
        if arguments.measure:
            print(measure(portrait, points))
        renderer = InstantRenderer(portrait, points, RenderSettings(folds=arguments.folds))
        chosen = {name: row for name, row in rows().items() if not arguments.only or name in arguments.only}
        drawn = sheet(renderer, chosen, columns=arguments.columns, cell=arguments.cell, zoom=arguments.zoom)
    except MoEEError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    if not cv2.imwrite(str(arguments.out), drawn[..., ::-1]):
        sys.stderr.write(f"cannot write {arguments.out.name}\n")
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
