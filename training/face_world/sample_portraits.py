"""The sample portraits that ship with the pack, and their points: `python -m training.face_world.sample_portraits OUT`.

They are people of the test split, so no model trained here has seen them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from moee_core.video.frames import write_image
from training.face_world.performance import portrait_state, reference_pose
from training.face_world.points import face_points
from training.face_world.render import render
from training.face_world.splits import person, split_rng

PEOPLE = {"mira": 133, "theo": 128, "amara": 121, "otto": 112, "june": 129}
SIZE = 512


def main() -> int:
    if len(sys.argv) != 2:
        sys.stderr.write("usage: python -m training.face_world.sample_portraits OUT\n")
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, number in PEOPLE.items():
        pose = reference_pose(split_rng("test", number, purpose=7))
        state = portrait_state(pose)
        write_image(folder / f"{name}.png", render(person("test", number), state, SIZE))
        points = face_points(person("test", number), state, SIZE)
        (folder / f"{name}.points.json").write_text(points.to_json() + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
