"""The instant renderer: what moves, what must not, and that nothing tears."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import lru_cache

import cv2
import numpy as np
import pytest

from moee_core.errors import MediaError
from moee_core.motion.coefficients import FACE, SADTALKER, Motion, MotionError, still
from moee_core.renderer import names
from moee_core.renderer.instant import InstantRenderer, RenderSettings
from moee_core.renderer.layers import person_alpha
from moee_core.renderer.mouth_shape import MouthShape
from moee_core.renderer.points import FacePoints, PointsError
from moee_core.renderer.protocol import FaceRenderer
from moee_core.renderer.style import drawn_share
from training.face_world.points import face_points
from training.face_world.render import render
from training.face_world.render_head import background
from training.face_world.rig import FaceState, action_unit_vector
from training.face_world.splits import person

from ..pictures import Picture, cartoon, painting

SIZE = 224


def drawn(number: int = 1, state: FaceState | None = None, size: int = SIZE) -> Picture:
    state = state or FaceState()
    return render(person("train", number), state, size), face_points(person("train", number), state, size)


SMILE = FaceState(action_units=action_unit_vector({"12": 0.9, "25": 0.8, "6": 0.4}))
PICTURES: dict[str, Callable[[], Picture]] = {
    "drawn": drawn,
    "painting": lambda: painting(width=240),
    "cartoon": lambda: cartoon(300, 260),
    "smiling": lambda: drawn(17, SMILE),
}


@lru_cache(maxsize=8)
def renderer(name: str = "drawn") -> InstantRenderer:
    return InstantRenderer(*PICTURES[name]())


def row(**values: float) -> np.ndarray:
    values_of = np.zeros(FACE.size, np.float32)
    for name, value in values.items():
        values_of[FACE.index[name]] = value
    return values_of


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


def around(name: str, place: str, radius: float, image: np.ndarray) -> np.ndarray:
    """A square of the image about a point, ``radius`` in eye distances."""
    points = renderer(name).points
    (x, y), reach = points.full[place], radius * points.frame.distance
    return image[max(0, round(y - reach)) : round(y + reach) + 1, max(0, round(x - reach)) : round(x + reach) + 1]


def aperture(name: str, image: np.ndarray) -> int:
    """Pixels of the mouth that are as dark as what is behind the teeth, beyond those the portrait has itself."""
    dark = [
        (around(name, "lip_upper_inner_M", 0.5, one).max(axis=2) < 75).sum() for one in (image, renderer(name).portrait)
    ]
    return int(dark[0]) - int(dark[1])


@pytest.mark.parametrize("name", PICTURES)
def test_the_expression_of_the_portrait_gives_the_portrait(name: str):
    """For a neutral one that is the neutral row."""
    one = renderer(name)
    assert psnr(one.render(one.points.source_row()), one.portrait) > 40
    if not one.points.source:
        assert psnr(one.render(row()), one.portrait) > 40


def test_frames_do_not_depend_on_what_was_drawn_before():
    one = renderer()
    first = one.render(row(open=0.5, lidL=0.3))
    for other in (row(lidL=1, lidR=1, yaw=0.2), row(AU12L=1, gaze_x=1), row()):
        one.render(other)
    np.testing.assert_array_equal(one.render(row(open=0.5, lidL=0.3)), first)


@pytest.mark.parametrize(
    "turn", [{"yaw": 0.5, "x": 0.3}, {"pitch": -0.4, "roll": 0.4}, {"y": -0.3, "z": 0.3}, {"z": -0.3}]
)
def test_only_the_pixels_the_head_reaches_are_drawn_and_none_of_them_is_left_out(turn: dict[str, float]):
    """In a rectangle smaller than the grid's, which has room for every turn, the frame is the same."""
    one = InstantRenderer(renderer().portrait, renderer().points)
    motion, far = row(AU1=0.7, open=0.6, **turn), 10 * one.points.width
    x0, y0, x1, y1 = one._shown
    assert (x1 - x0) * (y1 - y0) < 0.8 * one._moved.shape[0] * one._moved.shape[1]
    less = one.render(motion)
    one._shown = (-far, -far, far, far)
    np.testing.assert_array_equal(one.render(motion), less)


@pytest.mark.parametrize("name", ["drawn", "painting"])
def test_the_far_background_is_untouched(name: str):
    one = renderer(name)
    frame = one.points.frame
    y, x = np.mgrid[0 : one.points.height, 0 : one.points.width]
    face = frame.to_face(np.stack([x, y], axis=-1))
    far = (np.abs(face[..., 0]) > 1.75) & (face[..., 1] < 1.0)
    assert far.sum() > 100
    for motion in (row(AU1=1, AU2=1, AU26=1, AU25=1), row(AU12L=1, AU12R=1, lidL=1), row(open=1)):
        np.testing.assert_array_equal(one.render(motion)[far], one.portrait[far])


@pytest.mark.parametrize("name", ["drawn", "painting", "cartoon"])
def test_closed_lids_hide_the_eyeball(name: str):
    """No white of the eye and nothing of the iris is left on either side."""
    one = renderer(name)
    shut = one.render(row(lidL=1, lidR=1))
    for side in names.SIDES:
        x, y, radius = one.points.iris(side)
        reach = round(0.7 * radius)
        part = np.s_[round(y) - reach : round(y) + reach + 1, round(x) - reach : round(x) + reach + 1]
        skin = around(name, "nose_base", 0.3, one.portrait)
        brightest = np.percentile(skin.max(axis=2), 99)
        assert (shut[part].min(axis=2) > brightest - 10).mean() < 0.02  # white has all channels bright
        change = np.abs(shut[part].astype(int) - one.portrait[part]).max(axis=2)
        assert (change > 12).mean() > 0.7


def test_one_lid_closes_alone_on_the_persons_side():
    one = renderer()
    wink = one.render(row(lidL=1))
    before = one.portrait
    assert psnr(around("drawn", "eye_L_lower", 0.2, wink), around("drawn", "eye_L_lower", 0.2, before)) < 25
    assert psnr(around("drawn", "eye_R_lower", 0.2, wink), around("drawn", "eye_R_lower", 0.2, before)) > 45
    assert one.points.full["eye_L_lower"][0] > one.points.full["eye_R_lower"][0]


@pytest.mark.parametrize("name", ["drawn", "painting", "cartoon"])
def test_the_mouth_opens_with_speech_and_closes_when_pressed(name: str):
    one = renderer(name)
    sizes = [aperture(name, one.render(row(open=value))) for value in (0.0, 0.4, 1.0)]
    assert sizes[0] < sizes[1] < sizes[2]
    assert sizes[2] > 0.02 * one.points.frame.distance**2
    assert aperture(name, one.render(row(open=1.0, press=1.0))) < 0.1 * sizes[2]


def test_teeth_show_only_when_asked():
    one = renderer()

    def white(motion: np.ndarray) -> int:
        return int((around("drawn", "lip_upper_inner_M", 0.35, one.render(motion)).min(axis=2) > 185).sum())

    assert white(row(open=0.4, teeth=1.0)) > white(row(open=0.4)) + 20


def test_lips_never_cross_whatever_the_row():
    rng = np.random.default_rng(1)
    for points in (renderer("drawn").points, renderer("smiling").points):
        shape = MouthShape(points)
        for _ in range(200):
            lips = shape(rng.uniform(0, 1.5, FACE.size).astype(np.float32) * rng.integers(0, 2, FACE.size))
            assert (np.diff(lips.lines, axis=0) > -1e-6).all()
            assert lips.corners[0, 0] < lips.corners[1, 0]


def test_the_lips_of_the_portraits_own_expression_are_its_own():
    points = renderer("smiling").points
    shape = MouthShape(points)
    np.testing.assert_allclose(shape.source.lines, shape.lines, atol=1e-9)
    neutral = shape(row())
    assert neutral.opening < 0.2 * shape.source.opening
    assert neutral.corners[1, 0] - neutral.corners[0, 0] < shape.corners[1, 0] - shape.corners[0, 0]


def test_a_smile_lifts_the_corners_and_a_frown_sinks_them():
    shape = MouthShape(renderer().points)
    rest = shape(row()).corners[:, 1]
    assert (shape(row(AU12L=1, AU12R=1)).corners[:, 1] < rest - 0.05).all()
    assert (shape(row(AU15=1)).corners[:, 1] > rest + 0.05).all()
    right, left = shape(row(AU12L=1)).corners[:, 1] - rest
    assert left < -0.05 < -0.01 < right


def shift_of(name: str, place: str, motion: np.ndarray) -> np.ndarray:
    """(2,) pixels by which what is around a point of the portrait has moved, found by matching."""
    one = renderer(name)
    radius, reach = 0.14 * one.points.frame.distance, 0.5 * one.points.frame.distance
    x, y = one.points.full[place]
    pattern = one.portrait[round(y - radius) : round(y + radius) + 1, round(x - radius) : round(x + radius) + 1]
    left, top = max(0, round(x - reach)), max(0, round(y - reach))
    area = one.render(motion)[top : round(y + reach) + 1, left : round(x + reach) + 1]
    found = cv2.minMaxLoc(cv2.matchTemplate(area, pattern, cv2.TM_CCOEFF_NORMED))[3]
    return np.array([found[0] + left - round(x - radius), found[1] + top - round(y - radius)], np.float64)


@pytest.mark.parametrize("name", ["drawn", "cartoon"])
def test_the_head_turns_the_way_the_pose_says(name: str):
    distance = renderer(name).points.frame.distance
    for sign in (-1, 1):
        assert sign * shift_of(name, "nose_base", row(yaw=0.26 * sign))[0] > 0.12 * distance
        assert sign * shift_of(name, "nose_base", row(pitch=0.2 * sign))[1] > 0.08 * distance
        assert sign * shift_of(name, "nose_base", row(x=0.2 * sign))[0] == pytest.approx(0.2 * distance, rel=0.3)
        upper = shift_of(name, "brow_L_middle", row(roll=0.1 * sign))[0]
        assert sign * upper > 0.04 * distance  # clockwise takes what is above the neck to the right


def test_a_turn_has_parallax():
    """The nose is nearer than the brows, so it goes further."""
    turn = row(yaw=0.26)
    assert shift_of("drawn", "nose_base", turn)[0] > shift_of("drawn", "brow_L_middle", turn)[0]


def test_gaze_moves_the_iris_and_keeps_it_round():
    one = renderer("cartoon")
    x, y, radius = one.points.iris("L")
    dark = []
    for gaze in (-1.0, 0.0, 1.0):
        image = one.render(row(gaze_x=gaze))
        part = image[round(y - 2 * radius) : round(y + 2 * radius), round(x - 3 * radius) : round(x + 3 * radius)]
        green = (part[..., 1].astype(int) - part[..., 0] > 30) & (part[..., 1] > 80)
        columns, rows = np.nonzero(green)[::-1]
        dark.append((columns.mean(), np.ptp(columns), np.ptp(rows)))
    assert dark[0][0] + 2 < dark[1][0] < dark[2][0] - 2
    assert all(wide < 1.6 * high for _, wide, high in dark)


def roughness(image: np.ndarray) -> float:
    """How jagged: the 99.9th percentile of the smallest second difference over directions."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY).astype(np.float32)
    bends = [
        np.abs(grey - 0.5 * (np.roll(grey, step, axis) + np.roll(grey, -step, axis))) for axis, step in ((0, 1), (1, 1))
    ]
    return float(np.percentile(np.minimum(*bends), 99.9))


@pytest.mark.parametrize("name", ["drawn", "painting"])
def test_points_two_percent_off_do_not_tear_the_face(name: str):
    one = renderer(name)
    rng = np.random.default_rng(3)
    deviation = 0.02 * one.points.frame.distance / np.sqrt(2)
    noisy = {
        place: (float(point[0] + rng.normal(0, deviation)), float(point[1] + rng.normal(0, deviation)))
        for place, point in one.points.points.items()
    }
    other = InstantRenderer(one.portrait, FacePoints(width=one.points.width, height=one.points.height, points=noisy))
    for motion in (row(open=0.8), row(AU12L=1, AU12R=1, AU25=0.8), row(lidL=1, lidR=1), row(AU1=1, AU2=1, yaw=0.15)):
        assert psnr(other.render(motion), one.render(motion)) > 24
        assert roughness(other.render(motion)) < 1.6 * roughness(one.render(motion)) + 4


@pytest.mark.parametrize("number", range(4))
def test_closed_lips_marked_two_percent_off_are_not_taken_for_an_open_mouth(number: int):
    """Or the picture would be asked for teeth that it does not show, and a smile would be dark."""
    portrait, points = drawn()
    rng = np.random.default_rng(number)
    deviation = 0.02 * points.frame.distance / np.sqrt(2)
    noisy = {
        place: (float(point[0] + rng.normal(0, deviation)), float(point[1] + rng.normal(0, deviation)))
        for place, point in points.points.items()
    }
    other = InstantRenderer(portrait, FacePoints(width=points.width, height=points.height, points=noisy))
    smiling = row(AU12L=1, AU12R=1, AU25=0.8, open=0.3, teeth=1.0)
    shown = [
        int((around("drawn", "lip_upper_inner_M", 0.35, one.render(smiling)).min(axis=2) > 185).sum())
        for one in (renderer(), other)
    ]
    assert shown[1] > 0.6 * shown[0] > 20


def test_the_reduced_points_draw_nearly_the_same_face():
    one = renderer("painting")
    small = {place: point for place, point in one.points.points.items() if place in names.REDUCED}
    other = InstantRenderer(one.portrait, FacePoints(width=one.points.width, height=one.points.height, points=small))
    for motion in (row(open=0.8), row(AU12L=1, AU12R=1), row(AU4=1, yaw=0.15)):
        assert psnr(other.render(motion), one.render(motion)) > 28


@pytest.mark.parametrize(("width", "height"), [(300, 150), (140, 320)])
def test_any_aspect_ratio(width: int, height: int):
    points = FacePoints.template(width, height)
    picture = np.full((height, width, 3), 90, np.uint8)
    cv2.ellipse(picture, (width // 2, height // 2), (35, 45), 0, 0, 360, (220, 180, 150), -1)
    one = InstantRenderer(picture, points)
    assert one.size == (width, height)
    assert one.render(row(open=1, yaw=0.4, pitch=-0.4, roll=0.5, x=2, y=-2, z=2)).shape == (height, width, 3)


def test_transparency_cuts_out_the_head_and_lies_on_grey():
    picture, points = drawn()
    alpha = np.zeros(picture.shape[:2], np.uint8)
    cv2.ellipse(alpha, (SIZE // 2, SIZE // 2), (90, 110), 0, 0, 360, 255, -1)
    image = InstantRenderer(np.dstack([picture, alpha]), points).render(row())
    assert image.shape == picture.shape
    assert (image[0, 0] == 128).all()
    centre = np.s_[60:150, 70:150]
    assert psnr(image[centre], picture[centre]) > 40


def test_strength_scales_the_expression_but_not_the_pose():
    half = InstantRenderer(*drawn(), RenderSettings(strength=0.5))
    whole = InstantRenderer(*drawn(), RenderSettings(strength=1.0))
    assert psnr(half.render(row(AU26=0.8, yaw=0.1)), whole.render(row(AU26=0.4, yaw=0.1))) > 45


def test_more_strength_raises_what_the_picture_does_not_show_and_leaves_the_jaw_to_speech():
    strong, plain = (InstantRenderer(*drawn(), RenderSettings(strength=value)) for value in (2.0, 1.0))
    assert psnr(strong.render(row(AU1=0.4, yaw=0.1)), plain.render(row(AU1=0.8, yaw=0.1))) > 45
    assert psnr(strong.render(row(AU1=0.4)), plain.render(row(AU1=0.4))) < 40
    np.testing.assert_array_equal(strong.render(row(AU26=0.4, open=0.5)), plain.render(row(AU26=0.4, open=0.5)))
    np.testing.assert_array_equal(strong.render(row(lidL=0.4, gaze_x=0.3)), plain.render(row(lidL=0.4, gaze_x=0.3)))


def test_frames_follow_a_motion_and_are_made_when_asked_for():
    one: FaceRenderer = renderer()
    motion = still(3, 25.0).edited(open=np.array([0.0, 0.5, 1.0]))
    images = list(one.frames(motion))
    assert len(images) == 3
    np.testing.assert_array_equal(images[2], one.render(motion.values[2]))
    assert len(list(itertools.islice(one.frames(still(10**5, 25.0)), 2))) == 2


def test_what_does_not_fit_is_refused():
    picture, points = drawn()
    with pytest.raises(MediaError, match="uint8"):
        InstantRenderer(picture.astype(np.float32), points)
    with pytest.raises(MediaError, match=r"\(224, 224\)"):
        InstantRenderer(picture[..., 0], points)
    with pytest.raises(PointsError, match="224x224 picture, this one has 200x224"):
        InstantRenderer(picture[:, :200], points)
    with pytest.raises(MotionError, match="34 finite numbers"):
        renderer().render(np.zeros(70, np.float32))
    with pytest.raises(MotionError, match="34 finite numbers"):
        renderer().render(row(yaw=float("nan")))
    with pytest.raises(MotionError, match="of 'sadtalker'"):
        renderer().frames(Motion(values=np.zeros((2, 70)), fps=25, space=SADTALKER))
    with pytest.raises(ValueError, match="folds must be 0 to"):
        RenderSettings(folds=-1)
    with pytest.raises(ValueError, match=r"drawn must be 0 to 1\.0, got 2"):
        RenderSettings(drawn=2)


def test_drawn_faces_are_told_from_textured_ones_and_given_stronger_expressions():
    portrait, at = painting()
    assert drawn_share(portrait, at) < 0.2
    cartoon_picture, cartoon_points = cartoon()
    assert drawn_share(cartoon_picture, cartoon_points) > 0.9
    assert RenderSettings().on(portrait, at) == (1.0, 0.5, 0.0)
    assert RenderSettings().on(cartoon_picture, cartoon_points) == (1.5, 1.0, 1.0)
    assert RenderSettings(strength=0.7, folds=0.0).on(cartoon_picture, cartoon_points) == (0.7, 0.0, 1.0)
    assert RenderSettings(strength=0.7).on(cartoon_picture, cartoon_points) == (0.7, 1.0, 1.0)
    assert RenderSettings(drawn=0.0).on(cartoon_picture, cartoon_points) == (1.0, 0.5, 0.0)
    noisy = np.clip(cartoon_picture + np.random.default_rng(0).normal(0, 8, cartoon_picture.shape), 0, 255)
    assert drawn_share(noisy.astype(np.uint8), cartoon_points) == 0.0


def of_drawn(share: float, **values: float) -> np.ndarray:
    """One face moved as a photograph (0) or as a drawing (1), all else the same."""
    settings = RenderSettings(strength=1.0, folds=1.0, drawn=share)
    return InstantRenderer(*drawn(size=384), settings).render(row(**values))


def test_a_drawing_has_one_band_of_teeth_and_a_photograph_single_ones():
    at = drawn(size=384)[1]
    (x, y), reach = at.full["lip_upper_inner_M"], 0.16 * at.frame.distance
    uneven = []
    for share in (0.0, 1.0):
        image = of_drawn(share, open=0.4, width=0.8, teeth=0.9)
        mouth = image[round(y) : round(y + reach), round(x - reach) : round(x + reach)]
        line = mouth[np.argmax(mouth.min(axis=2).mean(axis=1))]  # the row with the most teeth in it
        assert line.min(axis=1).mean() > 150
        uneven.append(float(line.astype(np.float64).std(axis=0).mean()))
    assert uneven[1] < 0.5 * uneven[0]


def test_a_drawing_opens_wider_and_smiles_with_corners_less_far_out():
    at = drawn(size=384)[1]
    photograph, drawing = (MouthShape(at, share) for share in (0.0, 1.0))
    gaps = [float(np.diff(shape(row(open=1.0)).lines[1:3], axis=0).max()) for shape in (photograph, drawing)]
    assert gaps[1] > 1.1 * gaps[0]
    smiles = [float(np.ptp(shape(row(AU12L=1.0, AU12R=1.0)).x)) for shape in (photograph, drawing)]
    assert smiles[1] < smiles[0]
    between = float(np.ptp(MouthShape(at, 0.5)(row(AU12L=1.0, AU12R=1.0)).x))
    assert smiles[1] < between < smiles[0]


@pytest.mark.parametrize("name", ["drawn", "cartoon", "painting"])
def test_raised_brows_leave_the_eyes_where_they_are(name):
    raised, portrait = renderer(name).render(row(AU1=1.0, AU2=1.0)), renderer(name).portrait
    for side in names.SIDES:
        assert (
            np.abs(
                around(name, f"eye_{side}_lower", 0.06, raised).astype(int)
                - around(name, f"eye_{side}_lower", 0.06, portrait)
            ).mean()
            < 3
        )
        brow = names.brow(side)[len(names.brow(side)) // 2]
        assert np.abs(around(name, brow, 0.1, raised).astype(int) - around(name, brow, 0.1, portrait)).mean() > 6


def without_person(number: int, size: int) -> np.ndarray:
    who = person("train", number)
    return background(who.background_kind, *who.background_colors, size)


@pytest.mark.parametrize("number", [0, 7, 11, 23])
def test_hair_is_found_with_the_head_and_a_disc_behind_it_is_not(number):
    """Long hair hangs down to the shoulders; behind 11 and 23 there is a disc of another colour."""
    size = 512
    portrait, at = drawn(number, size=size)
    truth = np.abs(portrait.astype(int) - without_person(number, size)).max(axis=2) > 12
    found = person_alpha(portrait, at) > 0.5
    above = slice(0, round(at.full["chin"][1]))
    both, either = (found & truth)[above].sum(), (found | truth)[above].sum()
    assert both / either > 0.95


@pytest.mark.parametrize("number", [9, 12, 14, 22])
def test_a_head_that_turns_leaves_nothing_of_ear_and_cheek_behind(number):
    size = 512
    portrait, at = drawn(number, size=size)
    left, right = min(at.full.values())[0], max(at.full.values())[0]
    turned = InstantRenderer(portrait, at).render(row(roll=0.16, x=0.2)).astype(int)
    # The head went to the right: where its right ear and cheek were is what was behind them.
    x = slice(round(left - 0.1 * (right - left)), round(left + 0.06 * (right - left)))
    y = slice(round(at.full["nose_tip"][1]), round(at.full["chin"][1] - 0.1 * (right - left)))
    behind = without_person(number, size)[y, x]
    assert np.abs(portrait[y, x].astype(int) - behind).max() > 30
    assert np.abs(turned[y, x] - behind).max() < 12
