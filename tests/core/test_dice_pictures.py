"""Face and pictures as DICE-Talk reads them: rules by hand, Pillow where it is installed, a made-up detector."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from moee_core.errors import CheckpointError
from moee_core.portrait.face_box import (
    CLIP_MEAN,
    CLIP_STD,
    FaceFinder,
    clip_picture,
    detector_grids,
    detector_size,
    faces_in,
    lanczos,
    mask_of,
    square_around,
    vae_picture,
    working_size,
)
from moee_core.renderer.check import PointsError

SCRIPTED = pytest.mark.filterwarnings("ignore::DeprecationWarning")
"""PyTorch would like everybody to export instead; the published detector is a TorchScript file."""


def speckled(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(8).integers(0, 256, (height, width, channels), dtype=np.uint8)


# ---- resizing -------------------------------------------------------------------------------------------------------


def pillow(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    image = pytest.importorskip("PIL.Image")
    return np.asarray(image.fromarray(picture).resize((width, height), image.Resampling.LANCZOS))


@pytest.mark.parametrize("size", [(70, 90), (20, 24), (20, 64), (48, 30), (97, 20), (48, 64), (1, 1)])
def test_resizing_is_pillows(size: tuple[int, int]):
    picture = speckled(48, 64)
    assert np.array_equal(lanczos(picture, *size), pillow(picture, *size))


@pytest.mark.parametrize("size", [(20, 51), (20, 50), (47, 64), (24, 100)])
def test_it_begins_with_the_height_where_that_loses_more(size: tuple[int, int]):
    version = pytest.importorskip("PIL").__version__
    if int(version.split(".")[0]) < 13:
        pytest.skip(f"Pillow 13 begins with the height where it loses much more than the width, this is {version}")
    picture = speckled(48, 64)
    assert np.array_equal(lanczos(picture, *size), pillow(picture, *size))


def test_an_edge_rings_and_an_even_picture_does_not():
    grey = np.full((50, 40, 1), 77, np.uint8)
    assert set(lanczos(grey, 31, 90).flat) == {77}
    edge = np.full((8, 40, 1), 50, np.uint8)
    edge[:, 20:] = 200
    row = lanczos(edge, 8, 100)[4, :, 0]
    assert row.min() < 50
    assert row.max() > 200


def test_what_cannot_be_resized_is_named():
    with pytest.raises(ValueError, match="float64"):
        lanczos(np.zeros((4, 4, 3)), 2, 2)
    with pytest.raises(ValueError, match="0x2"):
        lanczos(speckled(4, 4), 0, 2)


# ---- sizes and crop -------------------------------------------------------------------------------------------------


def test_working_size_is_of_whole_deepest_places():
    """640x480: 682.67 / 64 = 10.67, so 11 times 64."""
    assert working_size(480, 640) == (512, 704)
    assert working_size(600, 1500) == (512, 1280)
    assert working_size(512, 512, 256) == (256, 256)
    assert working_size(600, 600, 400) == (384, 384)
    assert working_size(100, 120, 32) == (64, 64), "never nothing"
    with pytest.raises(ValueError, match="0x5"):
        working_size(0, 5)


def test_detector_sees_416_of_the_shorter_side():
    assert detector_size(480, 640) == (416, 576)
    assert detector_size(416, 416) == (416, 416)
    assert detector_size(1000, 100) == (4160, 416)
    grids = detector_grids(416, 576)
    assert [tuple(grid.shape) for grid in grids] == [(1, 1, 52, 72, 2), (1, 1, 26, 36, 2), (1, 1, 13, 18, 2)]
    assert grids[2][0, 0, 3, 5].tolist() == [5, 3]


def test_the_crop_is_a_square_on_the_picture_that_holds_the_face():
    made = np.random.default_rng(9)
    for _ in range(200):
        height, width = (int(v) for v in made.integers(60, 800, 2))
        x0, y0 = made.uniform(0, width - 30), made.uniform(0, height - 30)
        x1, y1 = x0 + made.uniform(20, width - x0), y0 + made.uniform(20, height - y0)
        left, top, right, bottom = square_around((x0, y0, x1, y1), (height, width), 0.5)
        assert 0 <= left < right <= width
        assert 0 <= top < bottom <= height
        assert abs((right - left) - (bottom - top)) <= 1, "both ends are rounded"
        assert left <= (x0 + min(x1, width)) / 2 + 1 <= right + 2


def test_a_crop_by_hand():
    """A face of 100 x 200 grows to 200 x 400, of which 200 x 200 around its middle stay."""
    assert square_around((200, 200, 300, 400), (1000, 1000), 0.5) == (150, 200, 350, 400)
    assert square_around((0, 0, 100, 200), (1000, 1000), 0.5) == (0, 25, 150, 175)
    with pytest.raises(PointsError, match=r"the face at \(2000, 10, 2100, 90\) is not on the 1000x800 picture"):
        square_around((2000, 10, 2100, 90), (800, 1000), 0.5)


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_the_mask_is_the_grown_box():
    """Sides 100 and 40 grow to 110 and 44, halves 55 and 22 around (100, 50)."""
    mask = mask_of((50, 30, 150, 70), (128, 192), (128, 192))
    assert mask.shape == (3, 128, 192)
    assert mask.dtype == torch.float32
    expected = torch.zeros(128, 192)
    expected[28:72, 45:155] = 1
    assert torch.equal(mask, expected.expand(3, -1, -1))


def test_halves_of_the_mask_are_cut_to_whole_pixels():
    """Middle (100.7 + 50.5) // 2 = 75, half 50.2 * 1.1 // 2 = 27."""
    mask = mask_of((50.5, 50.5, 100.7, 100.7), (200, 200), (200, 200))[0]
    rows = mask.amax(dim=1).nonzero().flatten()
    assert (rows[0], rows[-1]) == (75 - 27, 75 + 27 - 1)


def test_the_mask_is_cut_to_the_picture_and_resized_with_it():
    mask = mask_of((-20, 10, 30, 300), (100, 80), (128, 64))
    assert mask.shape == (3, 128, 64)
    assert mask[0, 64, 0] == 1
    assert mask[0, 64, -1] == 0
    assert 0 < ((mask > 0) & (mask < 1)).float().mean() < 0.1, "soft edges"
    with pytest.raises(PointsError, match="is not on the 80x100 picture"):
        mask_of((90, 10, 120, 60), (100, 80), (128, 64))


def test_pictures_of_the_networks():
    picture = np.zeros((64, 128, 3), np.uint8)
    picture[..., 1] = 255
    seen = vae_picture(picture)
    assert seen.shape == (1, 3, 64, 128)
    assert seen[0, :, 5, 5].tolist() == [-1, 1, -1]
    clip = clip_picture(picture)
    assert clip.shape == (1, 3, 224, 224)
    expected = (torch.tensor([0.0, 1.0, 0.0]) - torch.tensor(CLIP_MEAN)) / torch.tensor(CLIP_STD)
    torch.testing.assert_close(clip[0, :, 100, 7], expected)
    for read in (vae_picture, clip_picture):
        with pytest.raises(ValueError, match=r"picture must be \(H, W, 3\) uint8"):
            read(picture.astype(np.float32))


# ---- the detector ---------------------------------------------------------------------------------------------------


def row(box: tuple[float, float, float, float], face: float, kind: float = 1.0) -> np.ndarray:
    x0, y0, x1, y1 = box
    points = np.linspace([x0, y0], [x1, y1], 5).flatten()
    return np.array([(x0 + x1) / 2, (y0 + y1) / 2, x1 - x0, y1 - y0, face, *points, kind], np.float32)


def test_rows_are_faces_of_the_picture():
    rows = np.stack([row((40, 20, 80, 100), 0.9, 0.8), row((200, 40, 300, 140), 0.95)])
    faces = faces_in(rows, seen=(416, 832), before=(208, 1664))
    assert [face.box for face in faces] == [(400, 20, 600, 70), (80, 10, 160, 50)], "the surest first"
    assert [round(face.score, 4) for face in faces] == [0.95, 0.72]
    assert faces[1].landmarks_52.tolist() == [[80, 10], [100, 20], [120, 30], [140, 40], [160, 50]]
    assert faces[0].area == 200 * 50


def test_unsure_rows_are_no_faces():
    boxes = [(40 * i, 0, 40 * i + 30, 30) for i in range(4)]
    sure = [(0.5, 1.0), (0.51, 0.99), (0.9, 0.55), (1.0, 0.51)]
    rows = np.stack([row(box, face, kind) for box, (face, kind) in zip(boxes, sure, strict=True)])
    found = faces_in(rows, (416, 416), (416, 416))
    assert [face.box for face in found] == [boxes[3], boxes[1]]
    assert faces_in(rows[:0], (416, 416), (416, 416)) == []


def test_overlapping_rows_are_one_face():
    """Moved by d of 100 pixels, two squares share (100 - d) / (100 + d) of their union: 0.45 is d = 37.93."""
    rows = np.stack([row((0, 0, 100, 100), 0.8), row((37, 0, 137, 100), 0.9), row((75.5, 0, 175.5, 100), 0.7)])
    found = faces_in(rows, (416, 416), (416, 416))
    assert [round(face.score, 2) for face in found] == [0.9, 0.7]
    nothing = np.stack([row((5, 5, 5, 5), 0.9), row((5, 5, 5, 5), 0.8)])
    assert len(faces_in(nothing, (416, 416), (416, 416))) == 2, "what has no area overlaps nothing"


class Told(nn.Module):
    """A detector that finds all of what it sees, as sure as its brightest channel: by the grids, it knows the size."""

    def forward(self, x: Tensor, grids: list[Tensor]) -> Tensor:
        size = (grids[2].amax(dim=(0, 1, 2, 3)) + 1) * 32
        sure = x.mean(dim=(0, 2, 3)).amax()[None]
        small, points = torch.cat([size / 2, size / 4, sure]), torch.zeros(10)
        whole = torch.cat([size / 2, size, sure * 0.9])
        return torch.stack([torch.cat([one, points, torch.ones(1)]) for one in (small, whole)])[None]


class Pair(nn.Module):
    def forward(self, x: Tensor, grids: list[Tensor]) -> Tensor:
        return x.mean() + grids[0]


class One(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def traced(module: nn.Module, path: Path) -> Path:
    seen: tuple = (torch.zeros(1, 3, 416, 416), detector_grids(416, 416))
    torch.jit.trace(module, seen if not isinstance(module, One) else seen[:1]).save(str(path))  # type: ignore[union-attr]
    return path


@SCRIPTED
def test_the_largest_face_is_taken(tmp_path: Path):
    finder = FaceFinder(traced(Told(), tmp_path / "yoloface_v5m.pt"))
    picture = np.zeros((300, 500, 3), np.uint8)
    picture[..., 2] = 250
    found = finder.faces(picture)
    assert [face.box for face in found] == [(187.5, 112.5, 312.5, 187.5), (0, 0, 500, 300)]
    assert finder.largest(picture).box == (0, 0, 500, 300)
    assert finder.largest(picture).score == pytest.approx(0.9 * 250 / 255)


@SCRIPTED
def test_where_there_is_no_face_it_says_so(tmp_path: Path):
    finder = FaceFinder(traced(Told(), tmp_path / "yoloface_v5m.pt"))
    assert finder.faces(np.zeros((300, 500, 3), np.uint8)) == []
    with pytest.raises(PointsError, match="no face was found on this picture"):
        finder.largest(np.zeros((300, 500, 3), np.uint8))
    with pytest.raises(ValueError, match="picture must be"):
        finder.faces(np.zeros((300, 500), np.uint8))


@SCRIPTED
def test_another_program_is_refused(tmp_path: Path):
    picture = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(CheckpointError, match=r"other\.pt is not DICE-Talk's face detector: it gives \(1, 1, 52"):
        FaceFinder(traced(Pair(), tmp_path / "other.pt")).faces(picture)
    with pytest.raises(CheckpointError, match="cannot read a picture and three grids"):
        FaceFinder(traced(One(), tmp_path / "one.pt")).faces(picture)


@SCRIPTED
def test_a_file_that_is_no_program_is_refused(tmp_path: Path):
    with pytest.raises(CheckpointError, match="there is no file"):
        FaceFinder(tmp_path / "yoloface_v5m.pt")
    torch.save({"a": torch.ones(1)}, tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"weights\.pt is damaged, or no TorchScript file"):
        FaceFinder(tmp_path / "weights.pt")


def test_what_a_detector_never_gives_is_named():
    with pytest.raises(ValueError, match=r"must be \(N, 16\), got \(2, 6\)"):
        faces_in(np.zeros((2, 6)), (416, 416), (416, 416))
