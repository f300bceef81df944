"""The picture, the face's box and the regions of speech as Hallo was trained to be shown them.

Shapes (legend for this file):
    H W picture, h w its latents, l a level of the UNet

    picture (any, any, 3) uint8 --frame--> (H, W, 3) uint8
    bounds of face and lips --> box_HW uint8 (the locator reads it), maps (1, 3, h_l, w_l) in [0, 1]

    boxes    bounds of the face's outline and of the lips, rounded to pixels, 1.2 and 2 times as long and wide around
             their middle, shifted back into the picture where they leave it
    maps     each box brought to a grid of 64 cells, blurred (Gaussian over 51 cells for the face, 31 for the lips) and
             stretched to 0..255; lips as they are, face without the lips, pose 255 minus the face; then made smaller

Everything happens in 8 bits and in the order of the authors' published code (Xu et al. 2024), because each rounding is
a step of 1/255 in what the network reads. They stretch any picture to a square and blur on 64 x 64. Here a picture
keeps its shape, with 64 cells along its shorter side: a square one gives their numbers.

The bounds come from a mesh of MediaPipe's, from named points or from a box. Raises ``PointsError`` for bounds that are
not inside the picture, where no face is found, and where nothing is installed that could find one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..networks.masked_audio import SpeechRegions
from ..renderer import names
from ..renderer.check import PointsError
from ..renderer.detector import DetectorError, MediaPipeMesh, detected_points
from ..renderer.find import CASCADE, find_face_box
from ..renderer.mesh import check_mesh
from ..renderer.points import Box, FacePoints

OUTLINE = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377,
    152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109,
)  # fmt: skip
"""MediaPipe's vertices around a face."""
LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 146, 91, 181, 84, 17, 314, 405, 321, 375)
"""MediaPipe's vertices around the lips."""
FOREHEAD = 0.23
"""How far MediaPipe's outline reaches above the brows, in heights from brows to chin."""
FACE_GROWTH, LIPS_GROWTH = 1.2, 2.0
GRID = 64
FACE_BLUR, LIPS_BLUR = 51, 31
"""Cells of the grid that are blurred over."""
COEFFICIENT_BITS = 22
"""Of a weight when an 8-bit picture is resized."""
NO_FINDER = (
    "nothing that finds faces is installed (OpenCV 5 has no finder any more): mark the face (connect Face Points of "
    "the same picture in ComfyUI), or install an opencv-python before 5, or mediapipe, such as 0.10.21"
)


@dataclass(frozen=True, kw_only=True)
class FaceBounds:
    """Where face and lips are on a picture of ``width`` times ``height`` pixels: (x0, y0, x1, y1) from its left upper
    edge, 0 to ``width`` and ``height``."""

    width: int
    height: int
    face: Box
    lips: Box

    def __post_init__(self) -> None:
        for name, (x0, y0, x1, y1) in (("face", self.face), ("lips", self.lips)):
            if not (x0 < x1 and y0 < y1 and x1 > 0 and y1 > 0 and x0 < self.width and y0 < self.height):
                raise PointsError(
                    f"the {name} at {tuple(round(v) for v in (x0, y0, x1, y1))} are not on the {self.width}x"
                    f"{self.height} picture; mark them anew"
                )

    @classmethod
    def of_mesh(cls, mesh: np.ndarray, width: int, height: int) -> FaceBounds:
        """From MediaPipe's mesh (478, 3) in pixels, whose middles are whole numbers."""
        flat = check_mesh(mesh)[:, :2] + 0.5
        return cls(width=width, height=height, face=_bounds(flat[list(OUTLINE)]), lips=_bounds(flat[list(LIPS)]))

    @classmethod
    def of_points(cls, points: FacePoints) -> FaceBounds:
        """From named points, which have no forehead: MediaPipe's outline is continued above the brows."""
        jaw = points.line(names.JAW) + 0.5
        brows = min(points.full[name][1] for side in names.SIDES for name in names.brow(side)) + 0.5
        lips = points.line(tuple(name for line in names.LIP_LINES.values() for name in line)) + 0.5
        x0, _, x1, chin = _bounds(jaw)
        top = max(0.0, brows - FOREHEAD * (chin - brows))
        return cls(width=points.width, height=points.height, face=(x0, top, x1, chin), lips=_bounds(lips))

    @classmethod
    def of_box(cls, width: int, height: int, box: Box) -> FaceBounds:
        """From a box that reaches from the hairline to the chin and from ear to ear; the lips are where they are on an
        average face."""
        return cls.of_points(FacePoints.template(width, height, box))

    def cropped(self, top: int, left: int, height: int, width: int) -> FaceBounds:
        """The same face on a part of the picture."""

        def moved(box: Box) -> Box:
            return box[0] - left, box[1] - top, box[2] - left, box[3] - top

        return FaceBounds(width=width, height=height, face=moved(self.face), lips=moved(self.lips))


def find_bounds(picture: np.ndarray) -> FaceBounds:
    """Of the largest face on a picture, by the landmark detector that is installed, else by OpenCV's cascade.

    Raises ``PointsError`` where none is found: a face in the wrong place would speak with its forehead. The picture is
    not blamed where there is nothing that could have found one.
    """
    found = seen_bounds(picture)
    if found is None and not finder_installed():
        raise PointsError(NO_FINDER)
    if found is None:
        raise PointsError(
            "no face was found on this picture; mark it (Face Points in ComfyUI), or take one from the front that "
            "fills half of the picture"
        )
    return found


def seen_bounds(picture: np.ndarray) -> FaceBounds | None:
    """As ``find_bounds``, None where no face is found for whatever reason."""
    points = detected_points(picture)
    if points is not None:
        return FaceBounds.of_points(points)
    box = find_face_box(picture)
    return None if box is None else FaceBounds.of_box(picture.shape[1], picture.shape[0], box)


def finder_installed() -> bool:
    """Whether there is anything that could find a face: a landmark detector that starts, or OpenCV's cascade."""
    import cv2

    folder = getattr(getattr(cv2, "data", None), "haarcascades", "")
    if hasattr(cv2, "CascadeClassifier") and (Path(folder) / CASCADE).is_file():
        return True
    try:
        MediaPipeMesh(video=False).close()
    except DetectorError:
        return False
    return True


@dataclass(frozen=True, kw_only=True, eq=False)
class FramedFace:
    """A portrait as the networks read it: ``picture_HW3`` and ``box_HW`` uint8, ``maps`` in [0, 1] for every level."""

    picture_HW3: np.ndarray
    box_HW: np.ndarray
    maps: tuple[Tensor, ...] = field(repr=False)

    def picture(self) -> Tensor:
        """(1, 3, H, W) in [-1, 1]."""
        return torch.from_numpy(self.picture_HW3).permute(2, 0, 1)[None].float() / 127.5 - 1

    def located(self) -> Tensor:
        """(1, 3, H, W) in [0, 1]: the face's box, three times."""
        return torch.from_numpy(self.box_HW)[None, None].expand(1, 3, -1, -1).float() / 255

    def regions(self, strengths: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> SpeechRegions:
        return SpeechRegions(levels=self.maps, strengths=strengths)


def framed(
    picture: np.ndarray,
    bounds: FaceBounds,
    size: int,
    *,
    patch: int = 8,
    levels: int = 4,
    square: bool = False,
    growth: float = FACE_GROWTH,
) -> FramedFace:
    """A picture (any, any, 3) uint8 and its face, brought to about ``size`` x ``size`` pixels.

    The shape is kept, to a multiple of ``patch`` pixels: what is too much is cut off equally at both ends. ``square``
    stretches it to a square instead, as Hallo's authors do. ``growth`` of the face's box is theirs.
    """
    if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8 or 0 in picture.shape:
        raise ValueError(f"picture must be (H, W, 3) uint8, got {picture.shape} {picture.dtype}")
    if picture.shape[:2] != (bounds.height, bounds.width):
        raise PointsError(
            f"the face is marked on a {bounds.width}x{bounds.height} picture, this one has {picture.shape[1]}x"
            f"{picture.shape[0]} pixels: mark it on the same picture"
        )
    height = width = size
    if not square:
        height, width = fitting_size(bounds.height, bounds.width, size, patch)
        top, left, tall, wide = _part(bounds.height, bounds.width, height, width)
        picture = picture[top : top + tall, left : left + wide]
        bounds = bounds.cropped(top, left, tall, wide)
    face, lips = _filled(bounds, bounds.face, growth), _filled(bounds, bounds.lips, LIPS_GROWTH)
    small = [(-(-height // patch // 2**level), -(-width // patch // 2**level)) for level in range(levels)]
    maps = _maps(face, lips, height, width)
    return FramedFace(
        picture_HW3=resized(picture, height, width),
        box_HW=resized(face[..., None], height, width)[..., 0],
        maps=tuple(torch.from_numpy(resized(maps, *one)).permute(2, 0, 1)[None].float() / 255 for one in small),
    )


def fitting_size(height: int, width: int, size: int, patch: int) -> tuple[int, int]:
    """(height, width) of the shape of a picture with about ``size`` x ``size`` pixels, multiples of ``patch``."""
    factor = size / (height * width) ** 0.5
    tall, wide = (max(patch, round(side * factor / patch) * patch) for side in (height, width))
    return tall, wide


def _part(height: int, width: int, tall: int, wide: int) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the largest part in the middle that has the shape ``tall`` to ``wide``."""
    rows = min(height, round(width * tall / wide))
    columns = min(width, round(height * wide / tall))
    return (height - rows) // 2, (width - columns) // 2, rows, columns


def _bounds(points_N2: np.ndarray) -> Box:
    (x0, y0), (x1, y1) = points_N2.min(axis=0), points_N2.max(axis=0)
    return float(x0), float(y0), float(x1), float(y1)


def _filled(bounds: FaceBounds, box: Box, growth: float) -> np.ndarray:
    """(height, width) uint8: 255 inside the grown box."""
    mask = np.zeros((bounds.height, bounds.width), np.uint8)
    left, right = _grown(box[0], box[2], bounds.width, growth)
    top, bottom = _grown(box[1], box[3], bounds.height, growth)
    mask[top:bottom, left:right] = 255
    return mask


def _grown(low: float, high: float, length: int, growth: float) -> tuple[int, int]:
    """First and last edge of a side that is ``growth`` times as long. Halves are cut to whole pixels, like theirs."""
    low, high = float(np.round(low)), float(np.round(high))
    middle, half = (low + high) // 2, (high - low) * growth // 2
    low, high = middle - half, middle + half
    if low < 0:
        low, high = 0.0, high - low
    if high > length:
        low, high = low - (high - length), float(length)
    return max(0, round(low)), round(high)


def _maps(face: np.ndarray, lips: np.ndarray, height: int, width: int) -> np.ndarray:
    """(gh, gw, 3) uint8: around the face, the face without the lips, the lips."""
    import cv2

    shorter = min(height, width)
    grid = (round(GRID * width / shorter), round(GRID * height / shorter))

    def blurred(mask: np.ndarray, cells: int) -> np.ndarray:
        soft = cv2.GaussianBlur(cv2.resize(mask, grid), (cells, cells), 0)
        return cv2.normalize(soft, np.empty_like(soft), 0, 255, cv2.NORM_MINMAX)

    soft_face, soft_lips = blurred(face, FACE_BLUR), blurred(lips, LIPS_BLUR)
    around = ((1.0 - soft_face / 255.0) * 255.0).astype(
        np.uint8
    )  # cut, not rounded: sometimes one less than 255 - face
    return np.stack([around, cv2.subtract(soft_face, soft_lips), soft_lips], axis=2)


def resized(image_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """An 8-bit picture at another size: bilinear where it grows, averaged under a triangle where it shrinks, rounded
    after each direction. These are the numbers of Pillow, which Hallo's pictures went through; from release 13 on it
    begins with the direction that leaves less, which makes a difference of one step where a picture is stretched."""
    high, wide = image_HWC.shape[:2]
    if height < high and height * wide < high * width:
        return _along_rows(_along_columns(image_HWC, height), width)
    return _along_columns(_along_rows(image_HWC, width), height)


def _along_columns(image_HWC: np.ndarray, height: int) -> np.ndarray:
    return _along_rows(image_HWC.transpose(1, 0, 2), height).transpose(1, 0, 2)


def _along_rows(image_HWC: np.ndarray, width: int) -> np.ndarray:
    length = image_HWC.shape[1]
    if length == width:
        return image_HWC
    step = length / width
    reach = max(step, 1.0)
    centres = (np.arange(width) + 0.5) * step
    first = np.maximum((centres - reach + 0.5).astype(np.int64), 0)
    last = np.minimum((centres + reach + 0.5).astype(np.int64), length)
    places = first[:, None] + np.arange(int((last - first).max()))
    weights = np.clip(1.0 - np.abs(places - centres[:, None] + 0.5) / reach, 0.0, None)
    weights[places >= last[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    whole = (weights * (1 << COEFFICIENT_BITS) + 0.5).astype(np.int64)
    total = np.full((image_HWC.shape[0], width, image_HWC.shape[2]), 1 << (COEFFICIENT_BITS - 1), np.int64)
    for tap in range(places.shape[1]):
        total += whole[:, tap, None] * image_HWC[:, np.minimum(places[:, tap], length - 1)]
    return np.clip(total >> COEFFICIENT_BITS, 0, 255).astype(np.uint8)
