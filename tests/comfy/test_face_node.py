"""Face Points, against the recorded APIs of the oldest and the newest host; no ComfyUI needed."""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from moee_core.renderer.points import FacePoints

from ..fixtures.face_mesh import mesh_of
from ..fixtures.host_double import PACK, ROOT, VERSIONS, host

WIDTH, HEIGHT = 320, 400


@pytest.fixture(params=VERSIONS)
def face(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """``nodes/face.py`` as that host imports it."""
    with host(request.param, tmp_path):
        module = importlib.import_module(f"{PACK}.nodes.face")
        saved = SimpleNamespace(values=[{"filename": "a.png", "subfolder": "", "type": "temp"}])
        monkeypatch.setattr(module.ui, "PreviewImage", lambda *_args, **_given: saved, raising=False)
        yield module


@pytest.fixture
def image() -> torch.Tensor:
    """(2, H, W, 3): a batch, of which the first picture counts."""
    return torch.rand(2, HEIGHT, WIDTH, 3)


def template(face: ModuleType, **sizes: int) -> dict[str, Any]:
    picture = np.zeros((sizes.get("height", HEIGHT), sizes.get("width", WIDTH), 3), np.uint8)
    return json.loads(face.start_points(picture).to_json())


def test_the_schema_and_the_signatures_agree(face: ModuleType):
    schema = face.FacePointsNode.define_schema()
    assert schema.node_id == "MoEEFacePoints"
    names = [one.id for one in schema.inputs]
    assert names == ["image", "points", "face_landmarks"]
    assert list(inspect.signature(face.FacePointsNode.execute).parameters) == names
    assert list(inspect.signature(face.FacePointsNode.validate_inputs).parameters) == ["points"]
    assert [one.io_type for one in schema.outputs] == ["MOEE_FACE", "IMAGE"]
    assert all(len(one.tooltip) > 15 for one in schema.inputs)
    assert schema.is_output_node, "it can be run alone, to see the picture in the editor"


def test_the_help_page_has_its_title(face: ModuleType):
    page = (ROOT / "nodes" / "web" / "docs" / "MoEEFacePoints.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {face.FacePointsNode.define_schema().display_name}\n")


def test_an_empty_text_is_the_average_face(face: ModuleType, image: torch.Tensor):
    made = face.FacePointsNode.execute(image, " ")
    found, preview = made.args
    assert found.picture.shape == (HEIGHT, WIDTH, 3)
    assert found.picture.dtype == np.uint8
    assert len(found.points.points) == 38
    assert preview.shape == (1, HEIGHT, WIDTH, 3)
    assert 0 <= float(preview.min()) <= float(preview.max()) <= 1
    changed = (preview[0] - image[0]).abs().amax(dim=-1) > 2 / 255
    assert 0.005 < changed.float().mean() < 0.2, "points are drawn, and the face is not covered"
    assert made.ui["moee_picture"] == [{"filename": "a.png", "subfolder": "", "type": "temp"}]
    assert made.ui["moee_points"] == made.ui["moee_start"] == [found.points.to_json()]


def test_the_text_is_the_truth(face: ModuleType, image: torch.Tensor):
    start = face.FacePointsNode.execute(image, "")
    noted = template(face)
    noted["points"]["chin"][1] += 7
    made = face.FacePointsNode.execute(image, json.dumps(noted))
    assert made.args[0].points.points["chin"] == tuple(noted["points"]["chin"])
    assert made.ui["moee_points"] != made.ui["moee_start"] == start.ui["moee_start"]
    assert made.args[0].key != start.args[0].key
    assert made.args[0].key == face.FacePointsNode.execute(image, json.dumps(noted)).args[0].key


def test_points_of_the_same_picture_at_another_size_fit(face: ModuleType, image: torch.Tensor):
    noted = template(face, width=2 * WIDTH, height=2 * HEIGHT)
    points = face.FacePointsNode.execute(image, json.dumps(noted)).args[0].points
    assert points.points["chin"] == pytest.approx([v / 2 for v in noted["points"]["chin"]])
    with pytest.raises(face.PointsError, match="mark it anew"):
        face.FacePointsNode.execute(image[:, :WIDTH], json.dumps(noted))


def test_a_text_is_judged_before_the_queue_starts(face: ModuleType):
    check = face.FacePointsNode.validate_inputs
    noted = template(face)
    for good in (None, "", "  \n", json.dumps(noted)):
        assert check(points=good) is True
    assert "not JSON" in check(points="{")
    assert "expected 'moee-points-1'" in check(points="[1]")
    assert "width and height" in check(points=json.dumps({**noted, "width": "wide"}))
    assert "width and height" in check(points=json.dumps({**noted, "width": True}))
    crossed = {**noted, "points": {**noted["points"], "lip_upper_outer_M": noted["points"]["chin"]}}
    assert "lips are crossed" in check(points=json.dumps(crossed))
    del noted["points"]["chin"]
    assert "for example 'chin'" in check(points=json.dumps(noted))


def test_each_reason_is_one_line(face: ModuleType):
    for text in ("{", "[]", '{"format": "moee-points-1"}', "\x00"):
        assert "\n" not in face.FacePointsNode.validate_inputs(points=text)


def test_landmarks_are_where_an_empty_text_starts(face: ModuleType, image: torch.Tensor):
    marked = FacePoints.template(WIDTH, HEIGHT, (60, 60, 260, 320))
    mesh = mesh_of(marked)
    given = {"frames": [[{"landmarks_xy": mesh[:, :2], "landmarks_3d": mesh}], []], "image_size": (HEIGHT, WIDTH)}
    found, _ = face.FacePointsNode.execute(image, "", given).args
    assert found.points.points["chin"] == pytest.approx(marked.points["chin"], abs=0.1)
    by_hand = FacePoints.template(WIDTH, HEIGHT)
    kept, _ = face.FacePointsNode.execute(image, by_hand.to_json(), given).args
    assert kept.points.to_json() == by_hand.to_json(), "a text counts more than a detector"
    given["image_size"] = (HEIGHT, WIDTH + 4)
    with pytest.raises(ValueError, match="connect both to the same picture"):
        face.FacePointsNode.execute(image, "", given)
    given["frames"][0], given["image_size"] = [], (HEIGHT, WIDTH)
    with pytest.raises(RuntimeError, match="no face was found"):
        face.FacePointsNode.execute(image, "", given)
