"""Picture, face box and regions of speech as Hallo reads them, against the numbers of its authors' code.

Tolerance: 1e-4, less than a fortieth of one step of 1/255: every rounding has to be the same.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from moee_core.portrait.image import read_portrait
from moee_core.portrait.regions import FaceBounds, find_bounds, finder_installed, fitting_size, framed, resized
from moee_core.renderer.check import PointsError
from moee_core.renderer.detector import _for_pictures
from moee_core.renderer.points import FacePoints, parse_points

from ..fixtures.face_mesh import install, mesh_of
from ..fixtures.hallo_parity import FOLDER
from ..fixtures.parity import equals

PORTRAITS = Path(__file__).parents[2] / "moee_core" / "assets" / "portraits"


def stored(case: str) -> dict[str, torch.Tensor]:
    found = load_file(FOLDER / "portrait.safetensors")
    return {key.removeprefix(f"{case}."): value for key, value in found.items() if key.startswith(f"{case}.")}


@pytest.mark.parametrize(("case", "growth"), [("square", 1.2), ("wider_box", 1.5), ("tall", 1.2)])
def test_a_portrait_is_prepared_as_the_authors_do(case: str, growth: float):
    expected = stored(case)
    image = expected["image"].numpy()
    mesh = np.zeros((478, 3))
    mesh[:, :2] = expected["landmarks"].numpy() - 0.5
    bounds = FaceBounds.of_mesh(mesh, image.shape[1], image.shape[0])
    found = framed(image, bounds, 64, square=True, growth=growth)

    def close(made: torch.Tensor, wanted: torch.Tensor, name: str) -> None:
        equals(made, wanted, 1e-4, f"hallo portrait {case}.{name}")

    close(found.picture()[0], expected["pixels"].float() / 127.5 - 1, "pixels")
    close(found.located()[0], expected["face"].float().expand(3, -1, -1) / 255, "face")
    for level, maps in enumerate(found.regions().levels):
        for number, name in enumerate(("full", "face", "lip")):
            wanted = expected[f"{name}_mask.{level}"].float()[0] / 255
            close(maps[0, number].flatten(), wanted, f"{name}_mask.{level}")
    if case != "tall":  # a square keeps its shape, so the default is the same to the bit
        kept = framed(image, bounds, 64, growth=growth)
        assert np.array_equal(kept.picture_HW3, found.picture_HW3)
        assert all(torch.equal(a, b) for a, b in zip(kept.maps, found.maps, strict=True))


@pytest.mark.parametrize(("height", "width"), [(7, 90), (90, 7), (64, 64), (33, 64), (128, 5)])
def test_a_picture_is_resized_to_the_numbers_of_pillow(height: int, width: int):
    pillow = pytest.importorskip("PIL.Image")
    image = np.random.default_rng(0).integers(0, 256, (64, 48, 3), dtype=np.uint8)
    expected = np.asarray(pillow.fromarray(image).resize((width, height), pillow.Resampling.BILINEAR))
    difference = np.abs(resized(image, height, width).astype(int) - expected.astype(int))
    major = int(pytest.importorskip("PIL").__version__.split(".")[0])
    assert difference.max() <= (major < 13), "before release 13, a step where one side shrinks and the other grows"


@pytest.mark.parametrize(
    ("height", "width", "size", "expected"),
    [(600, 600, 512, (512, 512)), (800, 600, 512, (592, 440)), (90, 160, 512, (384, 680)), (4, 4000, 64, (8, 2024))],
)
def test_a_size_keeps_the_shape_and_the_number_of_pixels(height: int, width: int, size: int, expected: tuple[int, int]):
    assert fitting_size(height, width, size, 8) == expected


def test_a_picture_of_three_to_four_keeps_its_shape():
    """Nothing is stretched: what does not fit is cut off equally, and the face stays where it was."""
    image = np.zeros((400, 300, 3), np.uint8)
    image[100:250, 90:210] = 255
    bounds = FaceBounds(width=300, height=400, face=(90, 100, 210, 250), lips=(130, 200, 170, 220))
    found = framed(image, bounds, 128, growth=1.0)
    assert found.picture_HW3.shape == (144, 112, 3)
    assert [tuple(x.shape[-2:]) for x in found.maps] == [(18, 14), (9, 7), (5, 4), (3, 2)]
    assert found.regions().frames(3).levels[0].shape == (3, 3, 18, 14)
    difference = found.box_HW.astype(int) - found.picture_HW3[..., 0].astype(int)
    assert abs(difference).max() < 40, "the box is drawn where the picture is white, to a fraction of a pixel"
    pose, face, lips = found.maps[0][0]
    assert pose[8, 7] < 0.2 < pose[0, 0]
    assert face[8, 7] > face[9, 7], "the lips are taken out of the face"
    assert lips.flatten().argmax() // 14 == 9


@pytest.mark.parametrize("name", ["mira", "otto", "lena_surprised"])
def test_bounds_come_from_marked_points(name: str):
    picture = read_portrait(PORTRAITS / f"{name}.png")
    height, width = picture.shape[:2]
    points = parse_points((PORTRAITS / f"{name}.points.json").read_text(encoding="utf-8"), width, height)
    found = FaceBounds.of_points(points)
    (left, top, right, chin), lips = found.face, found.lips
    at = {place: np.array(points.full[place]) + 0.5 for place in points.full}
    assert (left, right, chin) == pytest.approx((at["jaw_R_ear"][0], at["jaw_L_ear"][0], at["chin"][1]), abs=4)
    brows = min(at["brow_R_middle"][1], at["brow_L_middle"][1])
    assert 0.15 < (brows - top) / (chin - brows) < 0.3
    assert lips == pytest.approx((at["mouth_R"][0], lips[1], at["mouth_L"][0], at["lip_lower_outer_M"][1]), abs=4)
    assert lips[1] == pytest.approx(min(y for n, (_, y) in at.items() if n.startswith("lip_upper_outer")), abs=0.01)


def test_a_box_is_enough():
    """From hairline to chin and ear to ear; the lips of an average face lie in its lower third."""
    found = FaceBounds.of_box(200, 200, (50, 40, 150, 180))
    assert found.face == pytest.approx((50.5, 51, 150, 180.5), abs=1.5)
    assert found.lips[1] > 130
    assert found.lips[3] < 170


def test_a_face_is_found_by_the_detector_that_is_there(monkeypatch: pytest.MonkeyPatch):
    """And where it sees nothing a picture without a face is refused."""
    picture = read_portrait(PORTRAITS / "mira.png")
    height, width = picture.shape[:2]
    points = parse_points((PORTRAITS / "mira.points.json").read_text(encoding="utf-8"), width, height)
    with monkeypatch.context() as patch:
        install(patch, lambda seen: mesh_of(points) if seen.shape == picture.shape else None)
        _for_pictures.cache_clear()
        found = find_bounds(picture)
        with pytest.raises(PointsError, match="no face was found on this picture; mark it"):
            find_bounds(np.full((200, 200, 3), 128, np.uint8))
    _for_pictures.cache_clear()
    assert found.lips == pytest.approx(FaceBounds.of_points(points).lips, abs=6)


def test_where_nothing_could_find_a_face_the_picture_is_not_blamed(monkeypatch: pytest.MonkeyPatch):
    """OpenCV 5 has no cascade, and a landmark detector need not be installed."""
    monkeypatch.delattr(cv2, "CascadeClassifier", raising=False)
    monkeypatch.setitem(sys.modules, "mediapipe", None)  # as if it were not installed
    _for_pictures.cache_clear()
    assert not finder_installed()
    with pytest.raises(PointsError, match=r"nothing that finds faces is installed .*Face Points.*mediapipe") as caught:
        find_bounds(read_portrait(PORTRAITS / "mira.png"))
    assert "no face was found" not in str(caught.value)
    _for_pictures.cache_clear()


def test_a_box_that_leaves_the_picture_is_shifted_back():
    bounds = FaceBounds(width=100, height=100, face=(0, 60, 40, 100), lips=(10, 80, 30, 90))
    box = framed(np.zeros((100, 100, 3), np.uint8), bounds, 100, patch=4).box_HW
    rows, columns = np.flatnonzero(box.any(axis=1)), np.flatnonzero(box.any(axis=0))
    assert (rows[0], rows[-1], columns[0], columns[-1]) == (52, 99, 0, 47)


def test_bounds_larger_than_the_picture_fill_it():
    bounds = FaceBounds(width=50, height=50, face=(1, 1, 49, 49), lips=(20, 30, 30, 35))
    assert (framed(np.zeros((50, 50, 3), np.uint8), bounds, 48).box_HW == 255).all()


def test_what_is_not_on_the_picture_is_refused():
    with pytest.raises(PointsError, match=r"the lips at \(120, 10, 130, 20\) are not on the 100x100 picture"):
        FaceBounds(width=100, height=100, face=(10, 10, 90, 90), lips=(120, 10, 130, 20))
    bounds = FaceBounds.of_points(FacePoints.template(100, 100))
    with pytest.raises(PointsError, match="marked on a 100x100 picture, this one has 90x100 pixels"):
        framed(np.zeros((100, 90, 3), np.uint8), bounds, 64)
    with pytest.raises(ValueError, match=r"picture must be \(H, W, 3\) uint8"):
        framed(np.zeros((100, 100, 3), np.float32), bounds, 64)
    assert replace(bounds, face=(-5, -5, 105, 105)).face[0] == -5, "a face may reach beyond the edge"
