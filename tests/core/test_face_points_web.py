"""The editor in the browser and Python agree: on names, on derived points, and on what is a face.

The part of the editor that knows faces is plain JavaScript, which Node runs without a browser.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from moee_core.renderer import names
from moee_core.renderer.check import PointsError
from moee_core.renderer.editor import COLOURS, draw_points, lines, part_of, table, table_json
from moee_core.renderer.find import find_face_box, start_points
from moee_core.renderer.points import FacePoints, parse_points

WEB = Path(__file__).resolve().parents[2] / "nodes" / "web"
NODE = shutil.which("node")
AGAIN = "write the file again: its text is what moee_core.renderer.editor.table_json() returns"
AVERAGE = FacePoints.template(512, 640, (140, 150, 372, 470))
JUDGE = """
import fs from 'node:fs';
import * as geometry from './geometry.mjs';
const [table, cases] = ['table.json', 'cases.json'].map((name) => JSON.parse(fs.readFileSync(name, 'utf8')));
const judge = ({ text, width, height, box }) => {
  if (box !== undefined) return geometry.template(width, height, box, table);
  try {
    const set = geometry.scaled(geometry.parse(text, table), width, height);
    const full = geometry.complete(set.points, table);
    const irises = ['R', 'L'].map((side) => geometry.irisOf(full, side, table));
    return { full, irises, text: geometry.serialise(set, table) };
  } catch (error) {
    return { reason: error.message, known: error instanceof geometry.PointsError };
  }
};
fs.writeFileSync('verdicts.json', JSON.stringify(cases.map(judge)));
"""


def test_the_table_beside_the_editor_is_what_python_says():
    assert (WEB / "face_points.json").read_text(encoding="utf-8") == table_json(), AGAIN
    assert json.loads(table_json()) == table()


def test_the_lines_reach_every_point():
    assert {name for line in lines() for name in line["members"]} | {"nose_tip"} == set(names.FULL)
    assert {part_of(name) for name in (*names.FULL, *names.IRIS)} == set(COLOURS)


def test_the_editor_needs_nothing_from_elsewhere():
    for path in WEB.glob("*.js"):
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 600, path.name
        for source in re.findall(r"from '([^']+)'", text):
            assert source.startswith("./face_points") or source.startswith("../../scripts/"), path.name
        assert not re.search(r"https?://|\beval\(|innerHTML|window\.\w+ =(?!=)", text), path.name


def judged(tmp_path: Path, cases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the JavaScript says of each case."""
    if NODE is None:
        pytest.skip("needs Node on the PATH")
    shutil.copy(WEB / "face_points_geometry.js", tmp_path / "geometry.mjs")
    (tmp_path / "table.json").write_text(table_json(), encoding="utf-8")
    (tmp_path / "cases.json").write_text(json.dumps(cases), encoding="utf-8")
    (tmp_path / "judge.mjs").write_text(JUDGE, encoding="utf-8")
    subprocess.run([str(NODE), "judge.mjs"], cwd=tmp_path, check=True, timeout=60)
    return json.loads((tmp_path / "verdicts.json").read_text(encoding="utf-8"))


def noted(points: dict[str, Any], width: int = 512, height: int = 640, **more: Any) -> str:
    return json.dumps({"format": "moee-points-1", "width": width, "height": height, "points": points, **more})


def shaken(seed: int) -> str:
    """An average face, turned, with an unsteady or a careless hand, and with some of the optional points."""
    random = np.random.default_rng(seed)
    template = AVERAGE
    unit = template.frame.distance
    angle = random.uniform(-0.5, 0.5)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    given = {name: np.array(point) for name, point in template.points.items()}
    for name in random.choice(sorted(names.DERIVED), random.integers(0, 8), replace=False):
        given[name] = np.array(template.full[name])
    for side in names.SIDES if random.random() < 0.5 else ():
        x, y, radius = template.iris(side)
        given[f"iris_{side}"] = np.array([x, y])
        if random.random() < 0.5:
            given[f"iris_{side}_edge"] = np.array([x + radius, y])
    reach = unit * random.choice([0.005, 0.02, 0.05, 0.15])
    middle = np.array([256.0, 310.0])
    moved = {name: (point - middle) @ turn.T + middle + random.normal(0, reach, 2) for name, point in given.items()}
    return noted({name: [round(float(v), 3) for v in point] for name, point in moved.items()})


def python_says(text: str, width: int, height: int) -> FacePoints | str:
    try:
        return parse_points(text, width, height)
    except PointsError as error:
        return str(error)


def test_both_complete_and_judge_the_same(tmp_path: Path):
    texts = [shaken(seed) for seed in range(120)]
    verdicts = judged(tmp_path, [{"text": text, "width": 512, "height": 640} for text in texts])
    reasons = set()
    faces = 0
    for text, verdict in zip(texts, verdicts, strict=True):
        said = python_says(text, 512, 640)
        if isinstance(said, str):
            assert verdict == {"reason": said, "known": True}
            reasons.add(said.split(":")[0])
            continue
        faces += 1
        assert "full" in verdict, verdict
        derived = np.array([verdict["full"][name] for name in names.FULL])
        np.testing.assert_allclose(derived, said.line(names.FULL), atol=1e-6)
        for side, iris in zip(names.SIDES, verdict["irises"], strict=True):
            assert iris == pytest.approx(said.iris(side), abs=1e-6)
        back = parse_points(verdict["text"], 512, 640)
        assert list(back.points) == list(said.points)
        np.testing.assert_allclose(list(back.points.values()), list(said.points.values()), atol=0.0051)
    assert faces > 25
    assert len(reasons) >= 4, reasons


def test_both_refuse_the_same_texts(tmp_path: Path):
    good = {name: list(point) for name, point in FacePoints.template(512, 640).points.items()}

    def but(**changes: Any) -> dict[str, Any]:
        return {**good, **changes}

    swapped = {name.translate(str.maketrans("RL", "LR")): point for name, point in good.items()}
    texts = [
        noted(good),
        noted(good, source={"AU12L": 1.0, "gaze_x": -0.5}),
        noted(good, source={"AU12L": 2.5}),
        noted(good, source={"AU12L": -0.1}),
        noted(good, source={"yaw": 0.1}),
        noted(but(ear=[1, 2])),
        noted({name: point for name, point in good.items() if not name.startswith("lip")}),
        noted(but(chin=[255.0, 640.2])),
        noted(but(chin=[-0.6, 400.0])),
        noted(swapped),
        noted(but(mouth_R=good["mouth_L"], mouth_L=good["mouth_R"])),
        noted(but(eye_R_upper=[good["eye_R_upper"][0], good["eye_R_lower"][1] + 20])),
        noted(but(brow_L_middle=[good["brow_L_middle"][0], good["eye_L_lower"][1] + 20])),
        noted(but(eye_L_inner=good["eye_L_outer"])),
        noted(but(nose_base=good["chin"])),
        noted(but(nose_base=[256.0, 10.0])),
        noted(but(chin=[256.0, 200.0])),
        noted({name: [x / 20, y / 20] for name, (x, y) in good.items()}, 512, 640),
        noted(good, 1024, 1280),
        noted(good, 512, 512),
        noted(good, 0, 640),
        json.dumps({"format": "moee-points-2"}),
    ]
    loose = [  # refused by both, in words of their own
        "",
        "{",
        "[]",
        "7",
        json.dumps({"points": good}),
        noted(good).replace('"width": 512', '"width": "512"'),
        noted(but(chin=["a", 1])),
        noted(but(chin=[1])),
        noted(but(chin=None)),
        noted([]),  # type: ignore[arg-type]
        noted(good, source=[1]),
    ]
    verdicts = judged(tmp_path, [{"text": text, "width": 512, "height": 640} for text in (*texts, *loose)])
    for text, verdict in zip(texts, verdicts, strict=False):
        said = python_says(text, 512, 640)
        assert verdict.get("reason", "") == (said if isinstance(said, str) else ""), text[-300:]
    for text, verdict in zip(loose, verdicts[len(texts) :], strict=True):
        assert isinstance(python_says(text, 512, 640), str)
        assert verdict["known"] is True, text[:100]


def test_both_place_the_same_average_face(tmp_path: Path):
    cases = [(512, 512, None), (300, 800, None), (801, 433, None), (512, 640, (100.0, 90.5, 400.0, 500.0))]
    verdicts = judged(tmp_path, [{"width": w, "height": h, "box": box} for w, h, box in cases])
    for (width, height, box), verdict in zip(cases, verdicts, strict=True):
        said = FacePoints.template(width, height, box)
        assert {name: pytest.approx(point, abs=1e-3) for name, point in verdict["points"].items()} == said.points


# What Python does for the editor.


def test_points_are_drawn_on_a_copy():
    picture = np.full((400, 320, 3), 90, np.uint8)
    drawn = draw_points(picture, FacePoints.template(320, 400))
    assert (picture == 90).all()
    assert drawn.shape == picture.shape
    changed = (drawn != picture).any(axis=-1)
    assert changed[150:320, 60:260].any()
    assert changed.mean() < 0.1


def test_no_face_is_found_on_an_empty_picture():
    assert find_face_box(np.full((200, 160, 3), 128, np.uint8)) is None


@pytest.fixture
def _cascade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An OpenCV whose cascade finds two faces, one of them reaching over the edge."""
    import cv2

    class Cascade:
        def __init__(self, path: str):
            assert Path(path).is_file()

        def detectMultiScale(self, grey: np.ndarray, **_more: Any) -> np.ndarray:  # noqa: N802
            assert grey.ndim == 2
            return np.array([[4, 4, 30, 30], [200, 150, 240, 240]], np.int32)

    (tmp_path / "haarcascade_frontalface_default.xml").touch()
    monkeypatch.setattr(cv2, "data", SimpleNamespace(haarcascades=f"{tmp_path}/"), raising=False)
    monkeypatch.setattr(cv2, "CascadeClassifier", Cascade, raising=False)


@pytest.mark.usefixtures("_cascade")
def test_the_largest_face_is_taken_and_kept_inside_the_picture():
    picture = np.zeros((360, 420, 3), np.uint8)
    x0, y0, x1, y1 = find_face_box(picture) or (0, 0, 0, 0)
    assert 200 < x0 < 240
    assert 150 < y0 < 180
    assert (x1, y1) == (419, 359)
    eyes = start_points(picture).frame.origin
    assert x0 < eyes[0] < x1
    assert y0 < eyes[1] < y1


def test_a_picture_too_small_for_a_face_is_named():
    with pytest.raises(PointsError, match="use a larger picture"):
        start_points(np.zeros((48, 48, 3), np.uint8))
