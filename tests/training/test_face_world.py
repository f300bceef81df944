"""The face world: what a person does is what the picture shows, and nothing else."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from training.face_world.identity import Beard, Glasses, HairStyle, Identity, sample_identity
from training.face_world.render import MIN_SIZE, face_regions, render
from training.face_world.render_mouth import shape_mouth
from training.face_world.rig import AU_NAMES, VISEME_AXES, FaceState, action_unit_vector

SIZE = 128
UPPER_FACE = ("1", "2", "4", "5", "7", "43")
LOWER_FACE = ("14L", "14R", "15", "17", "20", "23", "24", "25", "26", "27")
NEUTRAL = FaceState()


def units(strengths: dict[str, float], blink: float = 0.0) -> FaceState:
    return FaceState(action_units=action_unit_vector(strengths), blink=blink)


def speaking(**axes: float) -> FaceState:
    return FaceState(viseme=np.array([axes.get(axis, 0.0) for axis in VISEME_AXES], np.float32))


def change(identity: Identity, first: FaceState, second: FaceState) -> np.ndarray:
    """(SIZE, SIZE) largest difference of a channel."""
    difference = render(identity, first, SIZE).astype(int) - render(identity, second, SIZE).astype(int)
    return np.abs(difference).max(axis=2)


def cut(picture: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    x0, y0, x1, y1 = (round(v) for v in box)
    return picture[y0:y1, x0:x1].astype(float)


@pytest.fixture(scope="module")
def people() -> list[Identity]:
    rng = np.random.default_rng(7)
    return [sample_identity(rng) for _ in range(24)]


@pytest.fixture(scope="module")
def person(people: list[Identity]) -> Identity:
    return next(
        one for one in people if not one.glasses and one.beard == Beard.NONE and one.hair_style != HairStyle.BANGS
    )


@pytest.fixture
def one_thread() -> Iterator[None]:
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    yield
    cv2.setNumThreads(before)


# Who


def test_the_same_seed_gives_the_same_person():
    assert sample_identity(np.random.default_rng(3)) == sample_identity(np.random.default_rng(3))
    assert sample_identity(np.random.default_rng(3)) != sample_identity(np.random.default_rng(4))


def test_a_person_survives_pickling(person: Identity):
    assert pickle.loads(pickle.dumps(person)) == person


def test_what_hides_an_expression_is_rare():
    rng = np.random.default_rng(0)
    crowd = [sample_identity(rng) for _ in range(2000)]
    assert np.mean([one.hair_style == HairStyle.BANGS for one in crowd]) < 0.06
    assert np.mean([one.beard == Beard.FULL for one in crowd]) < 0.06
    assert 0.16 < np.mean([one.glasses != Glasses.NONE for one in crowd]) < 0.24
    assert {one.hair_style for one in crowd} == set(HairStyle)


def test_expressiveness_can_mostly_be_read_off_visible_traits():
    rng = np.random.default_rng(1)
    crowd = [sample_identity(rng) for _ in range(500)]
    gain = np.array([one.expressiveness for one in crowd])
    traits = np.array([(one.age, one.lip_fullness, one.brow_thickness, 1.0) for one in crowd])
    residual = gain - traits @ np.linalg.lstsq(traits, gain, rcond=None)[0]
    assert gain.min() >= 0.85
    assert gain.max() <= 1.15
    assert residual.std() < 0.5 * gain.std()


# The rig


def test_a_bare_smile_means_both_sides():
    vector = action_unit_vector({"12": 0.8, "1": 1.0})
    assert {AU_NAMES[i]: round(float(vector[i]), 3) for i in np.flatnonzero(vector)} == {
        "1": 1.0,
        "12L": 0.8,
        "12R": 0.8,
    }


def test_an_unknown_unit_names_the_choices():
    with pytest.raises(ValueError, match="12L"):
        action_unit_vector({"99": 1.0})


def test_a_state_of_the_wrong_shape_is_named():
    with pytest.raises(ValueError, match="viseme"):
        FaceState(viseme=np.zeros(3, np.float32))


# Drawing


@pytest.mark.parametrize("size", [MIN_SIZE, 100, SIZE, 200])
def test_a_picture_has_the_asked_size(person: Identity, size: int):
    picture = render(person, NEUTRAL, size)
    assert picture.shape == (size, size, 3)
    assert picture.dtype == np.uint8


def test_too_small_is_an_error(person: Identity):
    with pytest.raises(ValueError, match="at least 48"):
        render(person, NEUTRAL, MIN_SIZE - 1)


def test_drawing_is_deterministic(people: list[Identity]):
    state = units({"12": 0.7, "6": 0.4}, blink=0.3)
    for one in people[:6]:
        np.testing.assert_array_equal(render(one, state, SIZE), render(one, state, SIZE))


def test_sizes_show_the_same_drawing(person: Identity):
    small, large = render(person, NEUTRAL, 96), render(person, NEUTRAL, 192)
    reduced = cv2.resize(large, (96, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(small.astype(float) - reduced).mean() < 2.5


@pytest.mark.parametrize("name", AU_NAMES)
def test_every_unit_shows_on_everybody(people: list[Identity], name: str):
    for one in people[:8]:
        changed = change(one, NEUTRAL, units({name: 1.0}))
        assert (changed > 20).sum() > 15, one


def test_no_two_units_look_alike(person: Identity):
    pictures = np.stack([render(person, units({name: 1.0}), SIZE).astype(float) for name in AU_NAMES])
    for i, name in enumerate(AU_NAMES):
        for j in range(i):
            assert np.abs(pictures[i] - pictures[j]).max() > 40, (name, AU_NAMES[j])


@pytest.mark.parametrize("name", UPPER_FACE)
def test_units_of_the_upper_face_leave_the_lower_face_alone(people: list[Identity], name: str):
    for one in people[:8]:
        mouth = face_regions(one, NEUTRAL, SIZE)["mouth"]
        assert change(one, NEUTRAL, units({name: 1.0}))[int(mouth[1]) - 4 :].max() == 0


@pytest.mark.parametrize("name", LOWER_FACE)
def test_units_of_the_lower_face_leave_eyes_and_brows_alone(people: list[Identity], name: str):
    for one in people[:8]:
        eyes = face_regions(one, NEUTRAL, SIZE)["left_eye"]
        assert change(one, NEUTRAL, units({name: 1.0}))[: int(eyes[3])].max() <= 6


def test_sides_are_the_persons_own(person: Identity):
    left, right = change(person, NEUTRAL, units({"12L": 1.0})), change(person, NEUTRAL, units({"12R": 1.0}))
    middle = SIZE // 2
    assert left[:, middle:].sum() > 2 * left[:, :middle].sum()
    assert right[:, :middle].sum() > 2 * right[:, middle:].sum()


@pytest.mark.parametrize("name", ["1", "4", "5", "12L", "15", "20", "26", "43"])
def test_a_stronger_unit_changes_more(person: Identity, name: str):
    amounts = [change(person, NEUTRAL, units({name: strength})).sum() for strength in (0.25, 0.5, 0.75, 1.0)]
    assert amounts == sorted(amounts)
    assert amounts[0] > 0


def test_smiles_lift_and_sorrow_lowers_the_corners(people: list[Identity]):
    for one in people:
        smile, neutral, frown = (shape_mouth(one, units(unit)).upper for unit in ({"12": 1.0}, {}, {"15": 1.0}))
        assert smile[0, 1] < neutral[0, 1] - 0.05
        assert frown[0, 1] > neutral[0, 1] + 0.05
        assert smile[-1, 0] > neutral[-1, 0] > smile[0, 0] + 0.1


def test_a_mouth_never_turns_inside_out(people: list[Identity]):
    rng = np.random.default_rng(11)
    for one in people:
        state = FaceState(
            action_units=rng.uniform(0, 1.5, len(AU_NAMES)).astype(np.float32),
            viseme=rng.uniform((0, -1, 0, 0), 1).astype(np.float32),
        )
        mouth = shape_mouth(one, state)
        for above, below in (
            (mouth.upper_outer, mouth.upper),
            (mouth.upper, mouth.lower),
            (mouth.lower, mouth.lower_outer),
        ):
            assert (above[:, 1] <= below[:, 1] + 1e-6).all()
        assert (np.diff(mouth.upper[:, 0]) > 0).all()


def test_the_mouth_opens_with_the_viseme(people: list[Identity]):
    for one in people:
        areas = []
        for opening in (0.0, 0.25, 0.5, 0.75, 1.0):
            state = speaking(open=opening)
            # The dark inside is the only paint with so little green next to its red; tongue and lips are lighter.
            inside = cut(render(one, state, SIZE), face_regions(one, state, SIZE)["mouth"])
            areas.append(int(((inside[..., 0] < 110) & (inside[..., 1] < 45)).sum()))
        assert areas[0] < areas[2] < areas[4], areas
        assert areas[4] > 60


def test_the_shape_of_the_mouth_follows_the_viseme(people: list[Identity]):
    for one in people:
        boxes = {w: face_regions(one, speaking(open=0.4, width=w), SIZE)["mouth"] for w in (-1.0, 0.0, 1.0)}
        widths = [boxes[w][2] - boxes[w][0] for w in (-1.0, 0.0, 1.0)]
        assert widths[0] < widths[1] - 3
        assert widths[1] < widths[2] - 1


def test_teeth_are_white_and_a_press_shuts_the_mouth(person: Identity):
    spread = speaking(open=0.3, width=0.8, teeth=1.0)
    region = cut(render(person, spread, SIZE), face_regions(person, spread, SIZE)["mouth"])
    assert (region.min(axis=2) > 215).sum() > 30
    shut, pressed = speaking(press=1.0), speaking(open=1.0, teeth=1.0, press=1.0)
    assert face_regions(person, pressed, SIZE)["mouth"][3] < face_regions(person, speaking(open=1.0), SIZE)["mouth"][3]
    region = cut(render(person, pressed, SIZE), face_regions(person, pressed, SIZE)["mouth"])
    assert (region.min(axis=2) > 215).sum() == 0
    assert change(person, NEUTRAL, shut).max() > 20


def test_a_blink_hides_the_iris(people: list[Identity]):
    for one in people:
        for name in ("left_eye", "right_eye"):
            box = face_regions(one, NEUTRAL, SIZE)[name]
            opened, closed = cut(render(one, NEUTRAL, SIZE), box), cut(render(one, FaceState(blink=1.0), SIZE), box)
            assert (opened.min(axis=2) > 225).sum() > 5  # the white of the eye
            assert (closed.min(axis=2) > 225).sum() == 0
    gaze = np.array([1.0, 0.0], np.float32)
    assert change(people[0], FaceState(blink=1.0), FaceState(blink=1.0, gaze=gaze)).max() == 0
    assert change(people[0], NEUTRAL, FaceState(gaze=gaze)).max() > 60


def test_gaze_and_pose_move_the_picture_the_way_they_say(person: Identity):
    def mouth_x(pose: tuple[float, ...]) -> float:
        box = face_regions(person, FaceState(pose=np.array(pose, np.float32)), SIZE)["mouth"]
        return (box[0] + box[2]) / 2

    straight = mouth_x((0, 0, 0, 0, 0))
    assert mouth_x((0, 0.2, 0, 0, 0)) > straight + 3
    assert mouth_x((0, 0, 0, 0.05, 0)) == pytest.approx(straight + 0.05 * SIZE, abs=0.1)


def test_people_differ_more_than_expressions_do(people: list[Identity]):
    faces = [render(one, NEUTRAL, SIZE).astype(float) for one in people]
    between = [np.abs(faces[i] - faces[j]).mean() for i in range(len(faces)) for j in range(i)]
    assert min(between) > 12
    surroundings = np.ones((SIZE, SIZE), bool)
    for one in people[:6]:
        x0, y0, x1, y1 = (int(v) for v in face_regions(one, NEUTRAL, SIZE)["face"])
        surroundings[y0 + 12 : y1 + 14, x0:x1] = False
    for one, face in zip(people[:6], faces, strict=False):
        for strengths in ({"12": 1.0, "6": 1.0}, {"4": 1.0, "23": 1.0}, {"1": 1.0, "15": 1.0}):
            other = render(one, units(strengths), SIZE).astype(float)
            assert np.abs(other - face)[surroundings].mean() < 0.5 < min(between)


def test_regions_lie_inside_the_picture(people: list[Identity]):
    rng = np.random.default_rng(5)
    for one in people:
        state = FaceState(
            action_units=rng.uniform(0, 1.5, len(AU_NAMES)).astype(np.float32),
            viseme=rng.uniform((0, -1, 0, 0), 1).astype(np.float32),
            pose=rng.uniform(-0.35, 0.35, 5).astype(np.float32),
            blink=float(rng.random()),
        )
        render(one, state, SIZE)
        boxes = face_regions(one, state, SIZE)
        assert set(boxes) == {"face", "mouth", "left_eye", "right_eye", "brows"}
        for x0, y0, x1, y1 in boxes.values():
            assert 0 <= x0 < x1 <= SIZE
            assert 0 <= y0 < y1 <= SIZE


def test_the_persons_left_eye_is_on_the_right_of_the_picture(person: Identity):
    boxes = face_regions(person, NEUTRAL, SIZE)
    assert boxes["left_eye"][0] > boxes["right_eye"][2]


@pytest.mark.usefixtures("one_thread")
def test_one_core_draws_eighty_frames_a_second(people: list[Identity]):
    states = [
        NEUTRAL,
        units({"12": 1.0, "6": 1.0, "25": 1.0}),
        speaking(open=0.8),
        units({"1": 1.0, "9": 1.0, "15": 1.0}),
    ]
    for one in people[:8]:
        render(one, NEUTRAL, SIZE)  # fills the cache of backgrounds
    best = 0.0
    for _ in range(3):
        begin = time.process_time()
        for one in people[:8]:
            for state in states:
                render(one, state, SIZE)
        best = max(best, 32 / (time.process_time() - begin))
    assert best >= 80
