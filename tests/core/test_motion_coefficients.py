"""Motions: spaces, edits, files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from moee_core.errors import MediaError
from moee_core.motion.coefficients import FACE, SADTALKER, SPACES, Motion, MotionError, joined, still
from moee_core.motion.files import export_sadtalker, read_motion, save_motion


def random_motion(frames: int = 9, space=FACE, fps: float = 25.0) -> Motion:
    return Motion(values=np.random.default_rng(3).normal(0, 1, (frames, space.size)), fps=fps, space=space)


def test_every_space_names_each_coefficient_once_with_a_unit_and_splits_lips_from_face():
    for space in SPACES.values():
        assert len(set(space.names)) == space.size == len(space.units)
        lip, face = space.indices("lip"), space.indices("face")
        assert sorted(lip + face) == space.indices("all") == list(range(space.size))
        assert sorted(space.indices("expression") + space.indices("pose")) == sorted(face)
    assert (len(SADTALKER.indices("lip")), len(SADTALKER.indices("face"))) == (13, 57), "EmoTalker's split"
    assert FACE.size == 34


@pytest.mark.parametrize(
    ("values", "fps", "message"),
    [
        (np.zeros((3, 5)), 25.0, r"shape \(frames, 34\), got \(3, 5\)"),
        (np.zeros((0, 34)), 25.0, r"got \(0, 34\)"),
        (np.full((2, 34), np.nan), 25.0, "frame 0 has nan in AU1"),
        (np.zeros((2, 34)), 0.0, "1 to 240 frames a second"),
        (np.zeros((2, 34)), float("nan"), "1 to 240 frames a second"),
    ],
)
def test_what_is_no_motion_is_refused(values, fps, message):
    with pytest.raises(MotionError, match=message):
        Motion(values=values, fps=fps)


def test_a_motion_is_not_changed_by_its_maker_nor_by_edits():
    given = np.zeros((4, FACE.size), np.float32)
    motion = Motion(values=given, fps=25)
    given[:] = 7
    assert float(motion.values.max()) == 0.0
    edited = motion.edited(AU1=0.5, yaw=np.linspace(0, 1, 4))
    assert float(motion.values.max()) == 0.0
    assert edited.curve("yaw").tolist() == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert float(edited.curve("AU1")[2]) == 0.5
    with pytest.raises(ValueError, match="read-only"):
        motion.values[0, 0] = 1
    with pytest.raises(MotionError, match="unknown coefficient 'AU99'"):
        motion.edited(AU99=1.0)


def test_resampling_keeps_time_and_passes_between_frame_centres():
    ramp = still(50, 25.0).edited(yaw=(np.arange(50) + 0.5) / 25)
    faster = ramp.resampled(60.0)
    assert len(faster) == 120
    seconds = (np.arange(120) + 0.5) / 60
    inside = (seconds > 0.02) & (seconds < 1.98)
    np.testing.assert_allclose(faster.curve("yaw")[inside], seconds[inside], atol=1e-6)
    assert len(ramp.resampled(25.0, 80)) == 80
    assert float(ramp.resampled(25.0, 80).curve("yaw")[79]) == pytest.approx(49.5 / 25), "the last frame is held"


@pytest.mark.parametrize("part", ["lip", "face", "pose", "expression", "all"])
def test_a_part_is_taken_from_another_motion_and_nothing_else(part):
    first, second = random_motion(6), still(6, 25.0, open=1.0, AU12L=1.0, yaw=0.3)
    swapped = first.with_part_of(second, part)
    inside = FACE.indices(part)
    outside = sorted(set(range(FACE.size)) - set(inside))
    np.testing.assert_array_equal(swapped.values[:, inside], second.values[:, inside])
    np.testing.assert_array_equal(swapped.values[:, outside], first.values[:, outside])


def test_between_spaces_only_the_heads_angles_have_a_common_meaning():
    ours, theirs = random_motion(5), random_motion(5, SADTALKER)
    turned = ours.with_part_of(theirs, "pose")
    np.testing.assert_array_equal(turned.curve("pitch"), theirs.curve("pitch"))
    np.testing.assert_array_equal(turned.curve("x"), ours.curve("x"))
    with pytest.raises(MotionError, match="expressions have no common meaning"):
        ours.with_part_of(theirs, "expression")
    with pytest.raises(MotionError, match="unknown part of a motion 'nose'"):
        ours.with_part_of(ours, "nose")


def test_retargeting_moves_the_difference_to_the_others_neutral_and_leaves_the_pose():
    source = np.zeros(FACE.size)
    source[FACE.index["AU12L"]] = 0.4  # a person who smiles at rest
    target = np.zeros(FACE.size)
    target[FACE.index["AU4"]] = 0.2
    motion = still(3, 25.0, AU12L=1.0, yaw=0.2)
    moved = motion.retargeted(source, target, gain=0.5)
    assert moved.curve("AU12L").tolist() == pytest.approx([0.3] * 3)
    assert moved.curve("AU4").tolist() == pytest.approx([0.2] * 3)
    assert moved.curve("yaw").tolist() == pytest.approx([0.2] * 3)
    with pytest.raises(MotionError, match="34 numbers"):
        motion.retargeted(np.zeros(3))


def test_joined_motions_agree_in_space_and_rate():
    assert len(joined([still(3, 25.0), still(4, 25.0)])) == 7
    with pytest.raises(MotionError, match="25 fps and face at 30 fps"):
        joined([still(3, 25.0), still(4, 30.0)])


@pytest.mark.parametrize("space", list(SPACES.values()), ids=lambda s: s.name)
def test_a_file_gives_back_what_was_saved(tmp_path: Path, space):
    motion = random_motion(7, space, fps=30.0)
    save_motion(tmp_path / "m.npz", motion)
    found = read_motion(tmp_path / "m.npz")
    assert (found.space.name, found.fps) == (space.name, 30.0)
    np.testing.assert_array_equal(found.values, motion.values)
    assert [p.name for p in tmp_path.iterdir()] == ["m.npz"]


def test_names_decide_where_a_column_goes_and_absent_ones_are_zero(tmp_path: Path):
    np.savez(
        tmp_path / "m.npz",
        format=np.array("moee-motion-1"),
        space=np.array("face"),
        fps=np.array(25.0),
        values=np.array([[1.0, 2.0]]),
        names=np.array(["yaw", "AU1"]),
    )
    found = read_motion(tmp_path / "m.npz")
    assert (float(found.curve("AU1")[0]), float(found.curve("yaw")[0])) == (2.0, 1.0)
    assert float(np.abs(found.values).sum()) == 3.0


def test_sadtalkers_coefficients_come_in_and_go_out(tmp_path: Path):
    whole = np.random.default_rng(0).normal(0, 1, (4, 257)).astype(np.float32)
    np.savez(tmp_path / "deep3d.npz", coeff=whole)
    found = read_motion(tmp_path / "deep3d.npz")
    assert found.space is SADTALKER
    np.testing.assert_array_equal(found.curve("exp0"), whole[:, 80])
    np.testing.assert_array_equal(found.curve("pitch"), whole[:, 224])
    np.testing.assert_array_equal(found.curve("z"), whole[:, 256])
    export_sadtalker(tmp_path / "out.npz", found)
    np.testing.assert_array_equal(np.load(tmp_path / "out.npz")["coeff_3dmm"], found.values)
    np.testing.assert_array_equal(read_motion(tmp_path / "out.npz").values, found.values)
    np.save(tmp_path / "short.npy", np.concatenate([found.values, np.ones((4, 3))], axis=1))
    np.testing.assert_array_equal(read_motion(tmp_path / "short.npy").values, found.values)
    with pytest.raises(MotionError, match="no exact map"):
        export_sadtalker(tmp_path / "no.npz", still(2, 25.0))


def test_sadtalkers_mat_files(tmp_path: Path):
    pytest.importorskip("scipy.io", reason="MATLAB files need scipy")
    motion = random_motion(3, SADTALKER)
    export_sadtalker(tmp_path / "out.mat", motion)
    np.testing.assert_array_equal(read_motion(tmp_path / "out.mat").values, motion.values)


class Harmless:
    """A pickled object must not be brought to life by reading a motion."""


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("m.npz", {"other": np.zeros(3)}, "no motion of this pack, no SadTalker coefficients; it holds other"),
        ("m.npz", {"coeff_3dmm": np.zeros((2, 9))}, r"must be \(frames, 70 or 257\), got \(2, 9\)"),
        ("m.npz", {"format": np.array("moee-motion-9")}, "format 'moee-motion-9' is not known"),
        ("m.npz", {"format": np.array("moee-motion-1")}, "has no 'space'"),
        ("m.npz", {"coeff": np.array([Harmless()], dtype=object)}, "this is no motion file"),
    ],
)
def test_foreign_and_damaged_files_are_refused_in_one_line(tmp_path: Path, name, fields, message):
    np.savez(tmp_path / name, **fields)
    with pytest.raises(MotionError, match=message) as caught:
        read_motion(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_no_file_a_text_and_a_cut_file_are_refused(tmp_path: Path):
    with pytest.raises(MediaError, match=r"no such file|does not exist"):
        read_motion(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("hello")
    with pytest.raises(MotionError, match="this is no motion file"):
        read_motion(tmp_path / "text.npz")
    save_motion(tmp_path / "m.npz", random_motion(200))
    data = (tmp_path / "m.npz").read_bytes()
    (tmp_path / "m.npz").write_bytes(data[: len(data) // 2])
    with pytest.raises(MotionError, match="this is no motion file"):
        read_motion(tmp_path / "m.npz")
