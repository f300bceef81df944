"""The sample portraits that ship with the pack, and their points: `python -m training.face_world.sample_portraits OUT`.

They are people of the test split, so no model trained here has seen them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from moee_core.video.frames import write_image
from training.face_world.performance import portrait_state, reference_pose, vector
from training.face_world.points import face_points
from training.face_world.render import render
from training.face_world.splits import person, split_rng

PEOPLE = {"mira": 133, "theo": 128, "amara": 121, "otto": 112, "june": 129}
EXPRESSIVE = {"lena_surprised": (110, {"surprised": 1.0})}
"""And one who already shows something: to take an expression from, and to see it taken back."""
SIZE = 512


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m training.face_world.sample_portraits OUT\n")
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    shown = {name: (number, {}) for name, number in PEOPLE.items()} | EXPRESSIVE
    for name, (number, emotion) in shown.items():
        pose = reference_pose(split_rng("test", number, purpose=7))
        state = portrait_state(pose, vector(emotion) if emotion else None, person("test", number).expressiveness)
        write_image(folder / f"{name}.png", render(person("test", number), state, SIZE))
        points = face_points(person("test", number), state, SIZE)
        (folder / f"{name}.points.json").write_text(points.to_json() + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
