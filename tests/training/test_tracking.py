"""A face in a video as coefficients: poses and units that are known come back, and faces of the world as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from moee_core.motion.coefficients import FACE, MotionError
from moee_core.renderer.check import PointsError
from moee_core.renderer.detector import DetectorError, detected_points, meshes_of, meshes_of_landmarks
from moee_core.renderer.find import start_points
from moee_core.renderer.mesh import VERTICES, points_of_mesh
from moee_core.renderer.points import FacePoints
from moee_core.renderer.shown import shown
from moee_core.tracking import solve
from moee_core.tracking.track import motion_of_meshes
from training.face_world.performance import portrait_state
from training.face_world.points import face_points
from training.face_world.rig import AU_NAMES, FaceState
from training.face_world.splits import person

from ..fixtures import face_mesh

SIZE = 512


@pytest.fixture(scope="module")
def calm() -> FacePoints:
    return face_points(person("tune", 3), FaceState(), SIZE)


def state(viseme: tuple = (0, 0, 0, 0), blink: float = 0.0, gaze: tuple = (0, 0), **units: float) -> FaceState:
    given = np.zeros(len(AU_NAMES), np.float32)
    for name, value in units.items():
        given[AU_NAMES.index(name[2:])] = value
    return FaceState(
        action_units=given,
        viseme=np.array(viseme, np.float32),
        pose=portrait_state(np.zeros(5, np.float32)).pose,
        gaze=np.array(gaze, np.float32),
        blink=blink,
    )


def track(number: int, states: list[FaceState]) -> np.ndarray:
    """Meshes of a person in these states after half a second at rest."""
    who = person("tune", number)
    rest = [FaceState()] * 12
    return np.stack([face_mesh.mesh_of(face_points(who, one, SIZE)) for one in [*rest, *states]])


RAMP = np.sin(np.linspace(0, np.pi, 16))


@pytest.mark.parametrize(
    ("name", "kwargs", "others"),
    [
        ("open", {"viseme": (1, 0, 0, 0)}, ("AU12L", "AU15", "AU1", "lidL")),
        ("width", {"viseme": (0, 1, 0, 0)}, ("AU1", "lidL", "AU27")),
        ("lidR", {"blink": 1.0}, ("AU1", "open", "AU12L")),
        ("AU1", {"AU1": 1.0}, ("open", "lidL", "AU12L")),
        ("AU2", {"AU2": 1.0}, ("open", "lidL", "AU12L")),
        ("AU4", {"AU4": 1.0}, ("open", "AU1", "AU2")),
        ("AU5", {"AU5": 1.0}, ("open", "AU1", "lidL")),
        ("AU12L", {"AU12L": 1.0, "AU12R": 1.0}, ("AU15", "AU1", "lidL")),
        ("AU15", {"AU15": 1.0}, ("AU12L", "AU1", "lidL")),
        ("gaze_x", {"gaze": (1.0, 0)}, ("gaze_y", "open", "AU1")),
    ],
)
def test_what_a_person_of_the_world_does_is_read_from_its_points(name: str, kwargs: dict, others: tuple[str, ...]):
    def part_of(share: float) -> dict[str, Any]:
        return {k: tuple(share * v for v in x) if isinstance(x, tuple) else share * x for k, x in kwargs.items()}

    states = [state(**part_of(share)) for share in RAMP]
    motion = motion_of_meshes(track(3, states), 25.0)
    seen = motion.curve(name)[12:]
    assert np.corrcoef(seen, RAMP)[0, 1] > 0.93
    assert 0.25 < seen.max() <= 1.5
    for other in others:
        assert np.abs(motion.curve(other)[12:]).max() < 0.6 * seen.max(), other


def test_a_mouth_rounds_as_well_as_it_spreads():
    motion = motion_of_meshes(track(3, [state(viseme=(0.3 * p, -p, 0, 0)) for p in RAMP]), 25.0)
    assert np.corrcoef(motion.curve("width")[12:], -RAMP)[0, 1] > 0.95
    assert motion.curve("width")[12:].min() < -0.4


def test_a_turned_head_is_read_and_its_expression_left_alone(calm: FacePoints):
    mesh = face_mesh.mesh_of(calm)
    angles = np.zeros((40, 3))
    angles[10:20, 0], angles[20:30, 1], angles[30:40, 2] = np.linspace(0, 0.3, 10), np.linspace(0, 0.35, 10), 0.2
    motion = motion_of_meshes(np.stack([face_mesh.turned(mesh, *row) for row in angles]), 25.0)
    pose = motion.values[:, [FACE.index[name] for name in ("roll", "yaw", "pitch")]]
    expected = angles - angles[0]
    inside = [i for i in range(1, 39) if np.ptp(expected[i - 1 : i + 2], axis=0).max() < 0.05]  # smoothed elsewhere
    assert np.abs((pose - pose[0]) - expected)[inside].max() < 0.02
    expression = motion.values[:, FACE.indices("expression")]
    assert np.abs(expression).max() < 0.1


def test_shifts_are_in_eye_distances_and_nearness_follows_the_size(calm: FacePoints):
    mesh = face_mesh.mesh_of(calm)
    aside, nearer = mesh + np.array([0.5 * calm.frame.distance, 0, 0]), face_mesh.turned(mesh, 0, 0, 0, 1.1)
    steps = [mesh] * 30 + [aside] * 10 + [nearer] * 25
    motion = motion_of_meshes(np.stack(steps), 25.0)
    assert np.ptp(motion.curve("x")[[5, 35]]) == pytest.approx(0.5, abs=0.02)
    assert motion.curve("z")[-1] - motion.curve("z")[5] == pytest.approx(14 * (1 - 1 / 1.1), rel=0.1)


def test_the_rig_turned_around_gives_back_what_was_put_in(calm: FacePoints):
    face = {name: calm.frame.to_face(np.array(place)) for name, place in calm.full.items()}
    predict = solve.Prediction(face)
    for name in ("AU1", "AU2", "AU4", "AU9", "AU12L", "AU15", "open"):
        row = np.zeros(FACE.size)
        row[FACE.index[name]] = 0.7
        found = solve.solved(predict, predict(row)[None])[0]
        assert found[FACE.index[name]] == pytest.approx(0.7, abs=0.08), name
        assert np.abs(found - row).max() < 0.15, name


def test_bounded_least_squares_keeps_its_bounds_and_finds_the_minimum():
    rng = np.random.default_rng(0)
    matrix, target = rng.normal(size=(30, 4)), rng.normal(size=30)
    low, high = np.full(4, -0.05), np.full(4, 0.05)
    found = solve.bounded_least_squares(matrix, target, np.zeros(4), low, high)
    gradient = matrix.T @ (matrix @ found - target)
    assert ((found >= low) & (found <= high)).all()
    free = (found > low + 1e-9) & (found < high - 1e-9)
    assert np.abs(gradient[free]).max(initial=0) < 1e-2
    assert (gradient[found <= low + 1e-9] >= -1e-2).all()
    assert (gradient[found >= high - 1e-9] <= 1e-2).all()


def test_frames_without_a_face_are_bridged_and_most_of_them_refused():
    meshes = track(3, [state(viseme=(p, 0, 0, 0)) for p in RAMP])
    whole = motion_of_meshes(meshes, 25.0).curve("open")
    meshes[18:20] = np.nan
    assert np.abs(motion_of_meshes(meshes, 25.0).curve("open") - whole).max() < 0.25
    meshes[:20] = np.nan
    with pytest.raises(MotionError, match="no face was found in 20 of 28 frames"):
        motion_of_meshes(meshes, 25.0)


def test_the_calm_moment_can_be_named():
    smiling = [state(AU12L=1.0, AU12R=1.0)] * 20
    meshes = track(3, smiling)
    motion = motion_of_meshes(meshes, 25.0, calm_at=0.2)
    assert motion.curve("AU12L")[20:].min() > 0.5
    inside_the_smile = motion_of_meshes(meshes, 25.0, calm_at=1.0)
    assert inside_the_smile.curve("AU12L")[20:].max() < 0.1
    with pytest.raises(MotionError, match=r"calm moment must be 0 to 1.28 s"):
        motion_of_meshes(meshes, 25.0, calm_at=2.0)


def test_a_mesh_becomes_points_on_its_picture(calm: FacePoints):
    found = points_of_mesh(face_mesh.mesh_of(calm), SIZE, SIZE)
    assert not found.source, "a face at rest shows nothing to take away"
    for name, place in calm.full.items():
        assert np.allclose(found.full[name], place, atol=0.01), name
    assert found.iris("L")[:2] == pytest.approx(calm.iris("L")[:2], abs=0.01)
    assert found.iris("L")[2] == pytest.approx(calm.iris("L")[2], rel=0.01)


@pytest.mark.parametrize("number", range(8))
def test_the_expression_a_portrait_shows_is_noted(number: int):
    def noted(**given: Any) -> dict[str, float]:
        return shown(face_points(person("tune", number), state(**given), SIZE, with_source=False))

    assert noted() == {}
    smile = noted(AU12L=1.0, AU12R=1.0, AU25=0.8)
    assert min(smile["AU12L"], smile["AU12R"]) > 0.6
    assert smile["AU25"] > 0.3
    assert "AU15" not in smile
    assert noted(AU15=1.0)["AU15"] > 0.45
    speaking = noted(viseme=(0.8, 0, 0, 0))
    assert speaking["open"] > 0.4
    assert "AU12L" not in speaking
    one_sided = noted(AU12L=1.0)
    assert not one_sided or one_sided["AU12L"] > one_sided["AU12R"] + 0.3


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        (np.zeros((68, 3)), "only MediaPipe's"),
        (np.full((VERTICES, 3), np.nan), "vertex 0 is not finite"),
        (np.zeros((VERTICES, 3)), "smaller than a pixel"),
    ],
)
def test_what_is_no_mesh_is_refused(mesh: np.ndarray, message: str):
    with pytest.raises(PointsError, match=message):
        points_of_mesh(mesh, SIZE, SIZE)


def test_the_installed_detector_marks_pictures_and_videos(calm: FacePoints, monkeypatch: pytest.MonkeyPatch):
    from moee_core.renderer import detector

    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    asked = face_mesh.install(monkeypatch, lambda seen: face_mesh.mesh_of(calm) if seen.mean() < 1 else None)
    detector._for_pictures.cache_clear()
    try:
        assert np.allclose(start_points(picture).points["chin"], calm.points["chin"], atol=0.1)
        assert detected_points(picture + 200) is None
        assert asked == [{"static_image_mode": True, "max_num_faces": 1, "refine_landmarks": True}]
        found = np.stack(list(meshes_of([picture, picture + 200, picture])))
        assert np.isfinite(found[0]).all()
        assert np.isnan(found[1]).all()
        assert asked[1]["static_image_mode"] is False
        assert asked[2] == {"closed": True}
    finally:
        detector._for_pictures.cache_clear()


def test_without_a_detector_the_user_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch):
    import sys

    monkeypatch.setitem(sys.modules, "mediapipe", None)
    with pytest.raises(DetectorError, match="pip install mediapipe"):
        next(meshes_of([np.zeros((64, 64, 3), np.uint8)]))


@pytest.mark.parametrize("broken", ["no solutions", "does not start"])
def test_a_detector_that_does_not_work_is_named(broken: str, monkeypatch: pytest.MonkeyPatch):
    import sys
    import types

    def start(**_options: object) -> None:
        raise AttributeError("FieldDescriptor has no attribute 'label'")

    double: Any = types.ModuleType("mediapipe")
    if broken != "no solutions":
        double.solutions = types.SimpleNamespace(face_mesh=types.SimpleNamespace(FaceMesh=start))
    monkeypatch.setitem(sys.modules, "mediapipe", double)
    with pytest.raises(DetectorError, match=r"carries no face mesh|does not start .*FieldDescriptor"):
        next(meshes_of([np.zeros((64, 64, 3), np.uint8)]))


def landmarks(meshes: list[np.ndarray | None], width: int = SIZE, height: int = SIZE) -> dict:
    """As ComfyUI's MediaPipe node gives them: depth in the units of a crop of 192 pixels."""
    frames = [
        [] if mesh is None else [{"landmarks_xy": mesh[:, :2].astype(np.float32), "landmarks_3d": mesh * 0.37 + 5}]
        for mesh in meshes
    ]
    return {"frames": frames, "image_size": (height, width), "connection_sets": {}}


def test_the_landmarks_of_comfyui_are_read(calm: FacePoints):
    mesh = face_mesh.mesh_of(calm)
    found, width, height = meshes_of_landmarks(landmarks([mesh, None], height=400))
    assert (width, height) == (SIZE, 400)
    assert np.isnan(found[1]).all()
    assert np.abs(found[0][:, :2] - mesh[:, :2]).max() < 1e-3
    assert np.abs(np.diff(found[0][:, 2]) - np.diff(mesh[:, 2])).max() < 1e-3
    two = landmarks([mesh])
    two["frames"][0].insert(0, {"landmarks_xy": mesh[:, :2] * 0.1, "landmarks_3d": mesh})
    assert np.abs(meshes_of_landmarks(two)[0][0][:, :2] - mesh[:, :2]).max() < 1e-3, "the largest face is followed"
    with pytest.raises(DetectorError, match="no face was found"):
        meshes_of_landmarks(landmarks([None, None]))
    for wrong in ({}, {"frames": [[{}]], "image_size": (1, 1)}, [], None):
        with pytest.raises(DetectorError, match="not of ComfyUI's MediaPipe node"):
            meshes_of_landmarks(wrong)


def test_the_command_line_follows_a_video(tmp_path: Path, calm: FacePoints, monkeypatch: pytest.MonkeyPatch, capsys):
    from moee_core.__main__ import main
    from moee_core.video.encode import VideoWriter

    meshes = list(track(3, [state(viseme=(p, 0, 0, 0)) for p in RAMP]))
    path, out = tmp_path / "face.mp4", tmp_path / "face.npz"
    with VideoWriter(path, width=64, height=64, fps=30.0) as writer:
        for _ in meshes:
            writer.write(np.zeros((64, 64, 3), np.uint8))
    queue = iter(meshes)
    face_mesh.install(monkeypatch, lambda _seen: next(queue))
    assert main(["motion", "--video", str(path), "--output", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "28 frames at 30 fps" in shown
    assert "open" in shown
    assert main(["motion", "--video", str(path), "--audio", str(path), "--output", str(out)]) != 0
    assert "--video, to follow a face" in capsys.readouterr().err
    assert main(["motion", "--read", str(out), "--calm-at", "1"]) != 0
    assert "--calm-at belongs to --video" in capsys.readouterr().err
