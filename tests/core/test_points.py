"""Face points: their JSON form, what is derived, what is refused."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from moee_core.motion.coefficients import FACE
from moee_core.renderer import names
from moee_core.renderer.curves import arch, monotone
from moee_core.renderer.points import FacePoints, PointsError, parse_points, read_points
from training.face_world.points import face_points
from training.face_world.rig import FaceState, action_unit_vector
from training.face_world.splits import person

from ..pictures import cartoon

FACE_WORLD = face_points(person("train", 3), FaceState(), 256)


def reduced(points: FacePoints) -> FacePoints:
    kept = {name: point for name, point in points.points.items() if name in names.REDUCED}
    return FacePoints(width=points.width, height=points.height, points=kept, source=points.source)


def changed(points: FacePoints, **moves: tuple[float, float] | None) -> dict[str, object]:
    """The JSON data with points moved by so many eye distances, or left out."""
    data = json.loads(points.to_json())
    for name, move in moves.items():
        if move is None:
            del data["points"][name]
        else:
            x, y = data["points"][name]
            data["points"][name] = [x + move[0] * points.frame.distance, y + move[1] * points.frame.distance]
    return data


def parse(data: object, size: tuple[int, int] = (256, 256)) -> FacePoints:
    return parse_points(json.dumps(data), *size)


def test_there_are_67_points_of_which_38_are_dragged():
    assert (len(names.FULL), len(set(names.FULL)), len(names.REDUCED)) == (67, 67, 38)
    assert set(names.REDUCED) < set(names.FULL)


def test_json_round_trip_keeps_points_and_source():
    given = FacePoints.template(300, 400)
    given = FacePoints(width=300, height=400, points=given.points, source={"AU12L": 1.0, "width": -0.5})
    back = parse_points(given.to_json(), 300, 400)
    assert back.source == given.source
    assert max(math.dist(back.points[name], given.points[name]) for name in given.points) < 0.01
    row = back.source_row()
    assert row[FACE.index["AU12L"]] == 1.0
    assert np.count_nonzero(row) == 2


def test_the_reduced_set_completes_to_nearly_the_full_one():
    """Three points of a lid say where its line runs, to a thirtieth of the eye distance."""
    small = reduced(FACE_WORLD)
    assert (len(small.points), len(small.full)) == (38, 67)
    lids = [names.lid(side, which) for side in names.SIDES for which in ("upper", "lower")]
    for line in (*lids, *map(names.brow, names.SIDES), *names.LIP_LINES.values()):
        true = FACE_WORLD.line(line)
        true = true[np.argsort(true[:, 0])]
        for x, y in small.line(line):
            assert abs(y - np.interp(x, *true.T)) < 0.035 * small.frame.distance, line


def test_given_points_are_never_replaced_by_derived_ones():
    for name in names.FULL:
        assert FACE_WORLD.full[name] == FACE_WORLD.points[name]


def test_points_move_with_the_picture_size():
    twice = parse_points(FACE_WORLD.to_json(), 512, 512)
    assert twice.frame.distance == pytest.approx(2 * FACE_WORLD.frame.distance, rel=1e-3)
    assert twice.iris("L")[2] == pytest.approx(2 * FACE_WORLD.iris("L")[2], rel=1e-2)


def test_the_template_is_a_face_inside_its_box_and_symmetric():
    points = FacePoints.template(640, 360, (100, 40, 300, 320))
    places = np.array(list(points.full.values()))
    assert (places >= [100, 40]).all()
    assert (places <= [300, 320]).all()
    assert points.asymmetry() < 1e-6
    with pytest.raises(PointsError, match="not inside the 640x360"):
        FacePoints.template(640, 360, (100, 40, 700, 320))


def test_a_tilted_face_has_a_tilted_frame():
    _, points = cartoon(tilt=10.0)
    assert math.degrees(math.atan2(*points.frame.right[::-1])) == pytest.approx(10.0, abs=0.5)
    assert points.asymmetry() < 0.1


def test_asymmetry_tells_a_turned_head_from_a_straight_one():
    turned = face_points(person("train", 3), FaceState(pose=np.array([0, 0.35, 0, 0, 0], np.float32)), 256)
    assert FACE_WORLD.asymmetry() < 0.02 < 0.15 < turned.asymmetry()


def test_mirroring_twice_gives_the_same_points_and_swaps_sides_once():
    state = FaceState(action_units=action_unit_vector({"12L": 0.8}))
    smirk = face_points(person("train", 3), state, 256)
    other = smirk.mirrored()
    assert dict(other.source) == {"AU12R": pytest.approx(0.8)}
    assert other.points["mouth_R"] == pytest.approx((255 - smirk.points["mouth_L"][0], smirk.points["mouth_L"][1]))
    back = other.mirrored()
    assert max(math.dist(back.points[name], smirk.points[name]) for name in smirk.points) < 1e-9


def test_an_unmarked_iris_lies_in_the_eye():
    small = reduced(FACE_WORLD)
    for side in names.SIDES:
        x, y, radius = small.iris(side)
        true_x, true_y, true_radius = FACE_WORLD.iris(side)
        assert math.dist((x, y), (true_x, true_y)) < 0.06 * small.frame.distance
        assert 0.6 < radius / true_radius < 1.4


@pytest.mark.parametrize(
    ("moves", "message"),
    [
        ({"chin": None}, "1 of 38 points are missing, for example 'chin'"),
        ({"chin": (9.0, 0.0)}, "'chin' at .* is outside the 256x256 picture"),
        ({"eye_L_upper": (0.0, 0.4)}, "eyelids are crossed"),
        ({"lip_upper_inner_M": (0.0, 0.3)}, "lines of the lips are crossed: 'lip_upper_inner_M'"),
        ({"lip_lower_outer_L": (0.0, -0.3)}, "lines of the lips are crossed"),
        ({"brow_R_middle": (0.0, 0.5)}, "the brow is under the eye"),
        ({"mouth_R": (1.0, 0.0)}, "left and right are swapped: 'mouth_R'"),
        ({"nose_base": (0.0, 0.7)}, "the mouth is above the nose"),
        ({"eye_R_inner": (-0.5, 0.0)}, "eye R: the corners are swapped"),
    ],
)
def test_what_is_no_face_is_refused_by_name(moves: dict[str, tuple[float, float] | None], message: str):
    with pytest.raises(PointsError, match=message) as caught:
        parse(changed(FACE_WORLD, **moves))
    assert "\n" not in str(caught.value)


def test_swapped_sides_are_noticed():
    data = json.loads(FACE_WORLD.to_json())
    swapped = str.maketrans("RL", "LR")
    data["points"] = {name.translate(swapped): point for name, point in data["points"].items()}
    with pytest.raises(PointsError, match="left and right are swapped"):
        parse(data)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "expected 'moee-points-1'"),
        ('{"format": "moee-points-2"}', "'moee-points-2', expected"),
        ('{"format": "moee-points-1", "width": 0, "height": 5, "points": {}}', "width and height"),
        ('{"format": "moee-points-1", "width": 5, "height": 5, "points": []}', '"points"'),
        ('{"format": "moee-points-1", "width": 5, "height": 5, "points": {"nose": [1, 1]}}', "unknown point 'nose'"),
    ],
)
def test_text_that_is_not_points_is_refused(text: str, message: str):
    with pytest.raises(PointsError, match=message):
        parse_points(text, 256, 256)


def test_values_that_are_no_places_are_refused():
    data = json.loads(FACE_WORLD.to_json())
    data["points"]["chin"] = ["low", 3]
    with pytest.raises(PointsError, match="'chin' must be two numbers"):
        parse(data)
    data["points"]["chin"] = [float("nan"), 3]
    with pytest.raises(PointsError, match="'chin' is not finite"):
        parse(data)


@pytest.mark.parametrize(
    ("source", "message"),
    [({"yaw": 0.2}, "'yaw' is not an expression"), ({"AU12": 1}, "'AU12'"), ({"AU6": 2}, "AU6 must be 0 to 1.5")],
)
def test_a_source_names_expressions_only(source: dict[str, float], message: str):
    data = json.loads(FACE_WORLD.to_json()) | {"source": source}
    with pytest.raises(PointsError, match=message):
        parse(data)


def test_points_of_another_shape_of_picture_are_refused(tmp_path):
    path = tmp_path / "points.json"
    path.write_text(FACE_WORLD.to_json(), encoding="utf-8")
    assert read_points(path, 256, 256).points.keys() == FACE_WORLD.points.keys()
    with pytest.raises(PointsError, match="256x256 picture, this one has 512x300"):
        read_points(path, 512, 300)
    with pytest.raises(PointsError, match=r"'none.json': cannot be read"):
        read_points(tmp_path / "none.json", 256, 256)


def test_curves_pass_through_their_points_and_never_beyond():
    knots, values = np.array([0.0, 1.0, 1.5, 4.0]), np.array([0.0, 2.0, 2.0, -1.0])
    for curve in (monotone, arch):
        np.testing.assert_allclose(curve(knots, values, knots), values, atol=1e-9)
        dense = curve(knots, values, np.linspace(0, 4, 200))
        assert dense.max() <= 2.0 + 1e-9
        assert dense.min() >= -1.0 - 1e-9
    with pytest.raises(ValueError, match="rising"):
        monotone(np.array([0.0, 0.0]), np.array([1.0, 2.0]), np.array([0.5]))
