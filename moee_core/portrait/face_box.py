"""The face on a picture and the pictures of it, as DICE-Talk was trained to be shown them.

Shapes (legend for this file):
    H W picture, N rows of the detector, K faces

    picture_HW3   uint8 RGB
    box           (x0, y0, x1, y1) pixels from the left upper edge
    rows_N16      (x, y, w, h) around a middle, how sure of a face, five landmarks (x, y), how sure of the class

    picture --FaceFinder or portrait.regions--> box --square_around--> part of the picture, where a crop is wanted
    picture --lanczos to working_size--> what is animated --clip_picture, vae_picture--> what the networks see of it
    box --mask_of--> where the face is on it

Rules and numbers are those of the authors' published code (Tan et al. 2025); pictures are resized in 8 bits, by the
numbers of Pillow's Lanczos filter. The detector is YOLOv5-face; its boxes reach from the forehead to the chin.

Raises ``PointsError`` where there is no face or a box is not on its picture, ``CheckpointError`` for a file that is not
the detector, ``ValueError`` for arrays of other shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from ..renderer.check import PointsError
from ..renderer.points import Box

DETECTOR_SIDE = 416  # pixels of the shorter side, as the detector was trained
STRIDES = (8, 16, 32)
"""Pixels between the places of the detector's three grids."""
ROW = 16
SURE = 0.5
OVERLAP = 0.45
"""Of two boxes' union that they may share and still be two faces."""
SHORTER_SIDE = 512  # pixels
MULTIPLE = 64  # pixels; eight to a latent, eight of these to the deepest level
FACE_GROWTH = 1.1
CLIP_SIDE = 224  # pixels
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
LOBES = 3
"""Of the Lanczos filter, to each side."""
COEFFICIENT_BITS = 22
"""Of a weight when an 8-bit picture is resized."""

Size = tuple[int, int]
"""(height, width)"""


@dataclass(frozen=True, kw_only=True, eq=False)
class FoundFace:
    """``landmarks_52``: eyes, nose and corners of the mouth, (x, y) pixels. ``score`` in [0, 1]."""

    box: Box
    score: float
    landmarks_52: np.ndarray

    @property
    def area(self) -> float:
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)


class FaceFinder:
    """YOLOv5-face from a TorchScript file (``yoloface_v5m.pt``).

    A TorchScript file is a program. It is run by PyTorch's own interpreter, which knows tensors and little else, but
    PyTorch's authors do not promise that it is safe: unlike weights, this one should come from a source you trust.
    ``regions.find_bounds`` finds a face without it.
    """

    def __init__(self, path: str | Path, device: Any = "cpu"):
        self.path, self.device = Path(path), device
        if not self.path.is_file():
            raise CheckpointError(f"there is no file {quote(path, 120)}; give yoloface_v5m.pt of DICE-Talk")
        try:
            self.network = torch.jit.load(str(self.path), map_location=device).eval()
        except RuntimeError as error:
            raise CheckpointError(
                f"{self.path.name} is damaged, or no TorchScript file: {quote(error, 80)}; copy or download it again"
            ) from error

    def faces(self, picture_HW3: np.ndarray) -> list[FoundFace]:
        """Every face, the surest first."""
        import cv2

        _check_picture(picture_HW3)
        before = (picture_HW3.shape[0], picture_HW3.shape[1])
        height, width = detector_size(*before)
        seen = cv2.resize(np.ascontiguousarray(picture_HW3), (width, height), interpolation=cv2.INTER_LINEAR)
        seen_13HW = torch.from_numpy(seen).to(self.device).permute(2, 0, 1)[None].float() / 255
        grids = [grid.to(self.device) for grid in detector_grids(height, width)]
        with torch.no_grad():
            try:
                rows = self.network(seen_13HW, grids)
            except torch.cuda.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise CheckpointError(
                    f"{self.path.name} is not DICE-Talk's face detector, it cannot read a picture and three grids: "
                    f"{quote(error, 80)}; give yoloface_v5m.pt"
                ) from error
        if not isinstance(rows, Tensor) or rows.ndim != 3 or rows.shape[0] != 1 or rows.shape[2] != ROW:
            found = tuple(rows.shape) if isinstance(rows, Tensor) else type(rows).__name__
            raise CheckpointError(
                f"{self.path.name} is not DICE-Talk's face detector: it gives {found} for one picture, not "
                f"(1, N, {ROW}); give yoloface_v5m.pt"
            )
        return faces_in(rows[0].float().cpu().numpy(), (height, width), before)

    def largest(self, picture_HW3: np.ndarray) -> FoundFace:
        """The face to animate. Raises ``PointsError`` where there is none."""
        found = self.faces(picture_HW3)
        if not found:
            raise PointsError(
                "no face was found on this picture; mark it (Face Points in ComfyUI), or take one from the front that "
                "fills half of the picture"
            )
        return max(found, key=lambda one: one.area)


def detector_size(height: int, width: int) -> Size:
    """Of what the detector sees: the shorter side 416 pixels, both made up to multiples of 32 by stretching."""
    factor = DETECTOR_SIDE / min(height, width)
    coarsest = STRIDES[-1]
    tall, wide = (int(side * factor + coarsest - 1) // coarsest * coarsest for side in (height, width))
    return tall, wide


def detector_grids(height: int, width: int) -> list[Tensor]:
    """(1, 1, rows, columns, 2) float32 for every stride: the number of the column and of the row."""
    grids = []
    for stride in STRIDES:
        rows, columns = torch.arange(height // stride), torch.arange(width // stride)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        grids.append(torch.stack([x, y], dim=-1)[None, None].float())
    return grids


def faces_in(rows_N16: np.ndarray, seen: Size, before: Size) -> list[FoundFace]:
    """What the detector's rows mean on the picture: those it is sure of, of overlapping ones the surest, by falling
    score. ``seen`` is the size the detector saw, ``before`` that of the picture; boxes are not cut to it."""
    if rows_N16.ndim != 2 or rows_N16.shape[1] != ROW:
        raise ValueError(f"the detector's rows must be (N, {ROW}), got {rows_N16.shape}")
    rows = rows_N16[rows_N16[:, 4] > SURE].astype(np.float32)
    scores = rows[:, 15] * rows[:, 4]
    rows, scores = rows[scores > SURE], scores[scores > SURE]
    middle, half = rows[:, 0:2], rows[:, 2:4] / 2
    boxes = np.concatenate([middle - half, middle + half], axis=1)
    per_pixel = np.array([before[1] / seen[1], before[0] / seen[0]])
    return [
        FoundFace(
            box=tuple(float(v) for v in (boxes[index].reshape(2, 2) * per_pixel).flatten()),  # type: ignore[arg-type]
            score=float(scores[index]),
            landmarks_52=rows[index, 5:15].reshape(5, 2) * per_pixel,
        )
        for index in _surest(boxes, scores)
    ]


def _surest(boxes_K4: np.ndarray, scores_K: np.ndarray) -> list[int]:
    """Greedily by falling score: a box that shares too much with one that was taken is the same face."""
    area = (boxes_K4[:, 2] - boxes_K4[:, 0]) * (boxes_K4[:, 3] - boxes_K4[:, 1])
    left = np.argsort(-scores_K, kind="stable")
    taken: list[int] = []
    while len(left):
        one, left = int(left[0]), left[1:]
        taken.append(one)
        corner = np.maximum(boxes_K4[one, :2], boxes_K4[left, :2])
        sides = np.minimum(boxes_K4[one, 2:], boxes_K4[left, 2:]) - corner
        shared = np.clip(sides, 0, None).prod(axis=1)
        # not divided by the union, which may be empty
        left = left[shared <= OVERLAP * (area[one] + area[left] - shared)]
    return taken


def square_around(box: Box, size: Size, expand_ratio: float) -> tuple[int, int, int, int]:
    """The part (x0, y0, x1, y1) that DICE-Talk's crop keeps of a picture: the box, larger by ``expand_ratio`` of its
    sides at every end and cut to the picture; of that the largest square, as near to the face's middle as it goes."""
    height, width = size
    x0, y0, x1, y1 = box
    left, right = max(x0 - expand_ratio * (x1 - x0), 0), min(x1 + expand_ratio * (x1 - x0), width)
    top, bottom = max(y0 - expand_ratio * (y1 - y0), 0), min(y1 + expand_ratio * (y1 - y0), height)
    if left >= right or top >= bottom:
        raise _not_on_picture(box, size)
    half = min(right - left, bottom - top) / 2
    x, y = _nearest((x0 + x1) / 2, left, right, half), _nearest((y0 + y1) / 2, top, bottom, half)
    return round(x - half), round(y - half), round(x + half), round(y + half)


def _nearest(wanted: float, low: float, high: float, half: float) -> float:
    """The middle nearest to ``wanted`` of a part 2 * ``half`` long that stays between ``low`` and ``high``."""
    room = (high - low) / 2 - half
    middle = (low + high) / 2
    return middle + min(max(wanted - middle, -room), room)


def working_size(height: int, width: int, shorter: int = SHORTER_SIDE) -> Size:
    """(height, width) that DICE-Talk animates: the shorter side about ``shorter`` pixels, both multiples of 64, and no
    limit to the longer one. The picture is stretched to it, by less than 32 pixels of a side."""
    if min(height, width, shorter) < 1 or shorter < MULTIPLE // 2:
        raise ValueError(f"a picture and a shorter side of at least 32 pixels, got {height}x{width} and {shorter}")
    factor = shorter / min(height, width)
    tall, wide = (max(MULTIPLE, round(side * factor / MULTIPLE) * MULTIPLE) for side in (height, width))
    return tall, wide


def mask_of(box: Box, size_before: Size, size_after: Size, growth: float = FACE_GROWTH) -> Tensor:
    """(3, H, W) float32 in [0, 1], three times the same: 1 in the face's box, ``growth`` times as long and wide, on a
    picture that is resized from one (height, width) to the other. Middle and halves are cut to whole pixels, like the
    authors'; resizing leaves soft edges that ring a little."""
    height, width = size_before
    (left, right), (top, bottom) = _grown(box[0], box[2], width, growth), _grown(box[1], box[3], height, growth)
    if left >= right or top >= bottom:
        raise _not_on_picture(box, size_before)
    mask = np.zeros((height, width, 1), np.uint8)
    mask[top:bottom, left:right] = 255
    return torch.from_numpy(lanczos(mask, *size_after)).permute(2, 0, 1).float().div(255).repeat(3, 1, 1)


def _grown(low: float, high: float, length: int, growth: float) -> Size:
    middle, half = (low + high) // 2, (high - low) * growth // 2
    return int(max(middle - half, 0)), int(min(middle + half, length))


def _not_on_picture(box: Sequence[float], size: Size) -> PointsError:
    corners = tuple(round(v) for v in box)
    return PointsError(f"the face at {corners} is not on the {size[1]}x{size[0]} picture; mark it anew")


def clip_picture(picture_HW3: np.ndarray) -> Tensor:
    """(1, 3, 224, 224) float32 for CLIP: squashed to a square, whatever its shape, less CLIP's mean, over its
    deviation."""
    _check_picture(picture_HW3)
    small = torch.from_numpy(lanczos(picture_HW3, CLIP_SIDE, CLIP_SIDE)).permute(2, 0, 1)[None].float() / 255
    mean, deviation = (torch.tensor(values).view(3, 1, 1) for values in (CLIP_MEAN, CLIP_STD))
    return (small - mean) / deviation


def vae_picture(picture_HW3: np.ndarray) -> Tensor:
    """(1, 3, H, W) float32 in [-1, 1] for the autoencoder."""
    _check_picture(picture_HW3)
    return torch.from_numpy(np.ascontiguousarray(picture_HW3)).permute(2, 0, 1)[None].float() / 127.5 - 1


def lanczos(picture_HWC: np.ndarray, height: int, width: int) -> np.ndarray:
    """An 8-bit picture at another size, rounded to 8 bits after each direction. These are the numbers of Pillow's
    LANCZOS from release 13 on, which begins with the height where that loses more than twice the pixels that the width
    loses; earlier releases always began with the width, a difference of one step at some pixels."""
    if picture_HWC.ndim != 3 or picture_HWC.dtype != np.uint8 or 0 in picture_HWC.shape or min(height, width) < 1:
        raise ValueError(
            f"an (H, W, C) uint8 picture and a size of at least 1x1, got {picture_HWC.shape} {picture_HWC.dtype} and "
            f"{height}x{width}"
        )
    high, wide = picture_HWC.shape[:2]
    if height < high and high - height > 2 * (wide - width):
        return np.ascontiguousarray(_along_rows(_along_first(picture_HWC, height), width))
    return np.ascontiguousarray(_along_first(_along_rows(picture_HWC, width), height))


def _along_rows(x_HWC: np.ndarray, width: int) -> np.ndarray:
    return _along_first(x_HWC.transpose(1, 0, 2), width).transpose(1, 0, 2)


def _along_first(x_LMC: np.ndarray, count: int) -> np.ndarray:
    """(count, M, C): the first axis at another length, by weights of whole numbers."""
    length = x_LMC.shape[0]
    if length == count:
        return x_LMC
    places, whole = _lanczos_weights(length, count)
    flat = x_LMC.reshape(length, -1).astype(np.int32)
    total = np.full((count, flat.shape[1]), 1 << (COEFFICIENT_BITS - 1), np.int32)
    for tap in range(places.shape[1]):
        total += whole[:, tap, None] * flat[places[:, tap]]
    return np.clip(total >> COEFFICIENT_BITS, 0, 255).astype(np.uint8).reshape(count, *x_LMC.shape[1:])


def _lanczos_weights(length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(count, taps) places and weights; where it shrinks the filter is as much wider."""
    step = length / count
    wider = max(step, 1.0)
    middles = (np.arange(count) + 0.5) * step
    first = np.maximum((middles - LOBES * wider + 0.5).astype(np.int64), 0)
    last = np.minimum((middles + LOBES * wider + 0.5).astype(np.int64), length)
    places = first[:, None] + np.arange(int((last - first).max()))
    off = (places - middles[:, None] + 0.5) / wider
    weights = np.where((off >= -LOBES) & (off < LOBES), np.sinc(off) * np.sinc(off / LOBES), 0.0)
    weights[places >= last[:, None]] = 0.0
    weights /= weights.sum(axis=1, keepdims=True)
    scaled = weights * (1 << COEFFICIENT_BITS)
    whole = np.trunc(scaled + np.copysign(0.5, scaled)).astype(np.int32)
    return np.minimum(places, length - 1), whole


def _check_picture(picture_HW3: np.ndarray) -> None:
    if picture_HW3.ndim != 3 or picture_HW3.shape[2] != 3 or picture_HW3.dtype != np.uint8 or 0 in picture_HW3.shape:
        raise ValueError(f"picture must be (H, W, 3) uint8, got {picture_HW3.shape} {picture_HW3.dtype}")
