"""The instant renderer: a portrait that moves without any learned weights.

Shapes (legend for this file): H, W pixels of the portrait, h, w nodes of a coarse grid over what may move

One frame, from back to front: the picture without the head, its neck bent a little; the head, whose pixels come from
the picture through two fields, pose after expression, both inverted on the grid; in it the eyes, drawn beforehand on
the still picture, and the mouth, drawn strip by strip in its final place; last the folds of the skin. Pixels outside
the grid's rectangle are the portrait's own.

Raises ``MediaError`` for a picture of another kind, ``PointsError`` for points of another picture and ``MotionError``
for a row or motion of another space.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np

from ..errors import MediaError
from ..motion.coefficients import FACE, UNITS, Motion, MotionError
from . import names
from .check import PointsError
from .eyes import EyePainter, Look
from .field import Grid, smoothstep, spreading
from .layers import cut, hair_top, person_alpha
from .mouth import MouthPainter, parted
from .mouth_shape import MouthShape
from .points import FacePoints
from .pose import Head
from .refine import brought_to
from .retouch import smile_of, without_folds
from .rig import Rig
from .sampling import looked_up
from .shading import Shading
from .style import drawn_share

REACH = 0.46
"""Of the field around a control point, in eye distances."""
NODES = 15.0
"""Grid nodes in an eye distance."""
SHADE_NODES, SHADE_NODES_DRAWN = 36.0, 64.0
JAW_UNITS = ("25", "26", "27")
"""What speech moves as well: stronger, they would leave it nothing to move."""
LEVELS = 32
"""Steps between the skin with the folds of a smile and the skin without."""
LASHES_HELD, HELD_AROUND = 0.05, 0.1
"""Above an eye, and around it, the face keeps still; in eye distances."""
MARGIN = 0.55
"""How far the head may move beyond where it is, in eye distances."""


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """``strength`` scales the expression, ``folds`` the wrinkles painted on the skin, ``drawn`` 0 moves a face as
    photographs and 1 as drawings of it move; None is by the picture.

    At strength 1 a unit moves the face as far as photographs of the posed unit show. Drawn faces, small and simple,
    need more to be read: 1.5, and folds twice as dark.
    """

    strength: float | None = None
    folds: float | None = None
    drawn: float | None = None

    def __post_init__(self) -> None:
        for name, high in (("strength", 2.5), ("folds", 1.5), ("drawn", 1.0)):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= high:
                raise ValueError(f"RenderSettings.{name} must be 0 to {high}, got {value}")

    def on(self, portrait: np.ndarray, points: FacePoints) -> tuple[float, float, float]:
        """(strength, folds, drawn) for a portrait (H, W, 3) uint8."""
        drawn = drawn_share(portrait, points) if self.drawn is None else self.drawn
        strength = 1 + 0.5 * drawn if self.strength is None else self.strength
        return strength, 0.5 + 0.5 * drawn if self.folds is None else self.folds, drawn


class InstantRenderer:
    """Draws one portrait for rows of ``FACE``; see ``FaceRenderer``."""

    def __init__(self, portrait: np.ndarray, points: FacePoints, settings: RenderSettings | None = None) -> None:
        """``portrait`` (H, W, 3) or (H, W, 4) uint8; transparency is laid over mid grey and cuts out the head."""
        picture = _checked(portrait, points)
        self.portrait, self.points = picture[..., :3], points
        self._strength, folds, drawn = (settings or RenderSettings()).on(self.portrait, points)
        self._source_row = points.source_row()
        self._units = [FACE.index[f"AU{name}"] for name in UNITS]
        self._raised = [FACE.index[f"AU{name}"] for name in UNITS if name not in JAW_UNITS]
        frame = points.frame
        alpha = person_alpha(portrait, points)
        face_box = self._face_box(points)
        self._grid = Grid.over(self._moving_box(alpha, points), frame.distance / NODES)
        self._head = Head(points, self._grid, hair_top(alpha, points))
        layers = cut(picture, alpha, points, self._head, self._box_of(self._grid))
        self._under = layers.under
        self._under_padded = cv2.cvtColor(layers.under, cv2.COLOR_RGB2RGBA)  # four channels move faster than three
        rows, columns = self._grid.slices
        self._layer = np.ascontiguousarray(layers.head[rows, columns])
        self._still_layer = self._layer.copy()
        x, y, width, height = cv2.boundingRect(np.ascontiguousarray(self._layer[..., 3]))
        self._shown = (x, y, x + width, y + height)
        self._local = self._grid.pixels - np.array([self._grid.left, self._grid.top], np.float32)
        self._sources, self._moved = np.empty_like(self._local), np.empty_like(self._layer)
        self._colour, self._rest = (np.empty((*self._layer.shape[:2], 3), np.uint8) for _ in range(2))
        self._alpha = np.empty(self._layer.shape[:2], np.uint8)

        shape = MouthShape(points, drawn)
        _refine(shape, self.portrait, points)
        self._shape = shape
        self._rig = Rig(points, shape, drawn)
        nodes = frame.to_face(self._grid.nodes.reshape(-1, 2))
        near = (self._reach_of_expression(nodes) * (1 - self._held_by_eyes(nodes))).astype(np.float32)
        self._spread = np.ascontiguousarray((spreading(self._rig.places, nodes, REACH) * near[:, None]).T)
        self._mouth = MouthPainter(self.portrait, points, shape, self._layer, self._grid, drawn)
        self._skins = _Skins(self.portrait, points, self._layer, self._grid, self._mouth)
        self._looks: list[tuple[Look, int] | None] = [None, None]
        self._eyes = [EyePainter(self.portrait, points, side, drawn) for side in "RL"]
        nodes_a_unit = SHADE_NODES + drawn * (SHADE_NODES_DRAWN - SHADE_NODES)
        self._shade_grid = Grid.over(face_box, frame.distance / nodes_a_unit)
        self._shading = Shading(points, self._shade_grid, folds, drawn)
        self._neck_box = self._neck_grid_box()
        self._beside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="instant-renderer")

    # The interface.

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the frames."""
        return self.portrait.shape[1], self.portrait.shape[0]

    def render(self, row: np.ndarray) -> np.ndarray:
        """(H, W, 3) uint8 RGB for one row (34,) of ``FACE``."""
        row = np.asarray(row, np.float32)
        if row.shape != (FACE.size,) or not np.isfinite(row).all():
            raise MotionError(f"a row of the space 'face' is {FACE.size} finite numbers, got shape {row.shape}")
        row = self._scaled(row)
        grid = self._grid
        lips = self._shape(row)
        moves = self._rig.moves(row, lips).astype(np.float32) @ self.points.frame.axes.astype(np.float32)
        # Not a matrix product: for so small a one the threads of a BLAS cost more than the work.
        spread = np.einsum("nm,nc->cm", self._spread, moves).reshape(2, grid.rows, grid.columns)
        expression = cv2.merge(list(spread))
        backward = grid.inverted(expression)
        turned = self._head.moves(row)
        behind = self._beside.submit(self._behind, turned)
        pose = None
        if turned is not None:
            forward = turned * self._head.belongs[..., None]
            inverse = grid.inverted(forward, steps=5)
            backward = inverse + grid.moved(backward, inverse)
            pose = (forward, inverse)
        shades = self._beside.submit(self._shades, row, backward)
        self._skins.show(row, self._still_layer, self._layer, self._mouth)
        self._draw_eyes(row)
        # Large arrays are used again for every frame, fresh memory costs more than the arithmetic on it, and only
        # where this frame shows the head: the grid has room for the widest turn.
        sources, here = grid.enlarged(backward, self._sources), self._reached(backward)
        cv2.add(sources[here], self._local[here], dst=sources[here])
        looked_up(self._layer, sources[here], out=self._moved[here], border=cv2.BORDER_CONSTANT)
        self._mouth.paint(self._moved, sources, pose, lips)
        out = behind.result()
        view = out[grid.slices][here]
        head, colour, alpha, rest = (part[here] for part in (self._moved, self._colour, self._alpha, self._rest))
        cv2.cvtColor(head, cv2.COLOR_RGBA2RGB, dst=colour)
        cv2.extractChannel(head, 3, dst=alpha)
        cv2.cvtColor(cv2.bitwise_not(alpha, dst=alpha), cv2.COLOR_GRAY2RGB, dst=rest)
        cv2.multiply(view, rest, dst=rest, scale=1 / 255)
        cv2.add(rest, colour, dst=view)
        factors = shades.result()
        if factors is not None:
            skin = out[self._shade_grid.slices]
            cv2.multiply(skin, factors, dst=skin, scale=1 / 128)
        return out

    def frames(self, motion: Motion) -> Iterator[np.ndarray]:
        """One picture (H, W, 3) uint8 per frame of the motion."""
        if motion.space is not FACE:
            raise MotionError(f"this renderer draws the space {FACE.name!r}, the motion is of {motion.space.name!r}")
        return (self.render(row) for row in motion.values)

    # Parts of a frame.

    def _scaled(self, row: np.ndarray) -> np.ndarray:
        """Weaker throughout, or stronger as far as it goes beyond what the picture shows: its own expression stays."""
        strength, row = self._strength, row.copy()
        if strength <= 1:
            row[self._units] *= strength
        else:
            beyond = np.maximum(row[self._raised] - self._source_row[self._raised], 0)
            row[self._raised] += (strength - 1) * beyond
        return row

    def _reached(self, backward: np.ndarray) -> tuple[slice, slice]:
        """Rows and columns of the grid's rectangle whose pixels may come from the head's own rectangle."""
        x0, y0, x1, y1 = self._shown
        (low_x, low_y), (high_x, high_y) = backward.min(axis=(0, 1)).tolist(), backward.max(axis=(0, 1)).tolist()
        left, top = max(int(x0 - high_x) - 2, 0), max(int(y0 - high_y) - 2, 0)
        return slice(top, max(int(y1 - low_y) + 2, top)), slice(left, max(int(x1 - low_x) + 2, left))

    def _draw_eyes(self, row: np.ndarray) -> None:
        for i, eye in enumerate(self._eyes):
            look = eye.look(row)
            if self._looks[i] == (look, self._skins.shown):
                continue
            self._looks[i] = (look, self._skins.shown)
            x0, y0, x1, y1 = eye.box
            part = np.s_[y0 - self._grid.top : y1 - self._grid.top, x0 - self._grid.left : x1 - self._grid.left]
            still = self._still_layer[part]
            if look.still:
                self._layer[part] = still
            else:
                drawn = eye.paint(look, np.ascontiguousarray(still[..., :3]))
                self._layer[part][..., :3] = np.minimum(drawn, still[..., 3:])

    def _behind(self, turned: np.ndarray | None) -> np.ndarray:
        """(H, W, 3) uint8: the picture without the head, its neck bent a little when the head is ``turned``."""
        out = self._under.copy()
        if turned is not None:
            self._bend_neck(out, turned)
        return out

    def _bend_neck(self, out: np.ndarray, turned: np.ndarray) -> None:
        grid, box = self._grid, self._neck_box
        x0, y0, x1, y1 = box
        if x1 - x0 < 4 or y1 - y0 < 4:
            return
        forward = turned * self._head.neck[..., None]
        part = np.s_[y0 - grid.top : y1 - grid.top, x0 - grid.left : x1 - grid.left]
        places = cv2.add(grid.pixels[part], grid.enlarged(grid.inverted(forward, steps=3))[part])
        bent = looked_up(self._under_padded, places)
        out[y0:y1, x0:x1] = cv2.cvtColor(bent, cv2.COLOR_RGBA2RGB)

    def _shades(self, row: np.ndarray, backward: np.ndarray) -> np.ndarray | None:
        """(height, width, 3) uint8 of the face: what its brightness is multiplied by, 128 for one; None for nothing."""
        factors = self._shading.factors(row)
        if factors is None:
            return None
        grid = self._shade_grid
        places = cv2.add(self._grid.on(grid, backward / grid.steps), grid.index)
        moved = looked_up(factors, places, border=cv2.BORDER_CONSTANT, value=1.0)
        return cv2.cvtColor(grid.enlarged(cv2.convertScaleAbs(moved, alpha=128)), cv2.COLOR_GRAY2RGB)

    # Where things are.

    def _box_of(self, grid: Grid) -> tuple[int, int, int, int]:
        return grid.left, grid.top, grid.left + grid.width, grid.top + grid.height

    def _bounds(self, corners: np.ndarray, points: FacePoints) -> tuple[int, int, int, int]:
        pixels = points.frame.to_image(corners)
        x0, y0 = np.floor(pixels.min(axis=0)).astype(int)
        x1, y1 = np.ceil(pixels.max(axis=0)).astype(int) + 1
        return max(int(x0), 0), max(int(y0), 0), min(int(x1), points.width), min(int(y1), points.height)

    def _face_box(self, points: FacePoints) -> tuple[int, int, int, int]:
        """From over the brows to the chin, with room for a turn."""
        frame = points.frame
        face = frame.to_face(np.array(list(points.full.values())))
        low, high = face.min(axis=0) - np.array([0.25, 0.55]), face.max(axis=0) + np.array([0.25, 0.45])
        return self._bounds(np.array([low, high, [low[0], high[1]], [high[0], low[1]]]), points)

    def _moving_box(self, alpha: np.ndarray, points: FacePoints) -> tuple[int, int, int, int]:
        """The face and the hair around it, and how far they may go."""
        frame = points.frame
        face = frame.to_face(np.array(list(points.full.values())))
        low, high = face.min(axis=0), face.max(axis=0)
        x0, y0, x1, y1 = self._bounds(
            np.array([[low[0] - 1.0, -2.6], [high[0] + 1.0, high[1] + 0.3], [low[0] - 1.0, high[1] + 0.3],
                      [high[0] + 1.0, -2.6]]), points
        )  # fmt: skip
        rows, columns = np.nonzero(alpha[y0:y1, x0:x1] > 0.05)
        if len(rows):
            x0, x1, y0 = x0 + int(columns.min()), x0 + int(columns.max()) + 1, y0 + int(rows.min())
        pad = round(MARGIN * frame.distance)
        return max(x0 - pad, 0), max(y0 - pad, 0), min(x1 + pad, points.width), min(y1 + pad, points.height)

    def _neck_grid_box(self) -> tuple[int, int, int, int]:
        below = self._head.face[..., 1] > self._head.ear_y + 0.5
        moving = np.nonzero((self._head.neck > 1e-3) & below)
        if not len(moving[0]):
            return 0, 0, 0, 0
        nodes = self._grid.nodes[moving]
        x0, y0 = np.maximum(
            np.floor(nodes.min(axis=0) - self._grid.steps).astype(int), [self._grid.left, self._grid.top]
        )
        x1, y1 = np.ceil(nodes.max(axis=0) + self._grid.steps).astype(int) + 1
        return (
            int(x0), int(y0), min(int(x1), self._grid.left + self._grid.width),
            min(int(y1), self._grid.top + self._grid.height),
        )  # fmt: skip

    def _reach_of_expression(self, nodes: np.ndarray) -> np.ndarray:
        """(m,) 1 on the face, falling to 0 beyond the ears and into the hair."""
        head = self._head
        x = np.abs(nodes[:, 0] - head.centre_x) / head.half
        top = min(float(self._rig.places[:, 1].min()) + 0.1, -0.8)
        return (1 - smoothstep(x, 0.95, 1.35)) * smoothstep(nodes[:, 1], top - 0.25, top + 0.1)

    def _held_by_eyes(self, nodes: np.ndarray) -> np.ndarray:
        """(m,) 1 on the eyes and their lashes, which a brow that rises must not drag along, falling to 0 around."""
        frame, held = self.points.frame, np.zeros(len(nodes))
        for side in names.SIDES:
            upper, lower = (frame.to_face(self.points.line(names.lid(side, which))) for which in ("upper", "lower"))
            left, right = sorted((float(upper[0, 0]), float(upper[-1, 0])))
            order = np.argsort(upper[:, 0])
            top = np.interp(nodes[:, 0], upper[order, 0], upper[order, 1]) - LASHES_HELD
            bottom = np.interp(nodes[:, 0], lower[np.argsort(lower[:, 0]), 0], lower[np.argsort(lower[:, 0]), 1])
            beside = np.maximum(left - nodes[:, 0], nodes[:, 0] - right)
            away = np.maximum.reduce([top - nodes[:, 1], nodes[:, 1] - bottom, beside, np.zeros(len(nodes))])
            held = np.maximum(held, 1 - smoothstep(away, 0.0, HELD_AROUND))
        return held


class _Skins:
    """The head with and without the folds of the picture's own smile, and how much of each is shown."""

    def __init__(
        self, picture: np.ndarray, points: FacePoints, layer: np.ndarray, grid: Grid, mouth: MouthPainter
    ) -> None:
        self._smile = smile_of(points.source_row())
        self.shown = 0
        if self._smile < 0.1:
            return
        smooth = without_folds(picture, points)
        changed = (smooth != picture).any(axis=2)
        rows, columns = np.nonzero(changed)
        if not len(rows):
            self._smile = 0.0
            return
        y0, y1 = max(rows.min(), grid.top), min(rows.max() + 1, grid.top + grid.height)
        x0, x1 = max(columns.min(), grid.left), min(columns.max() + 1, grid.left + grid.width)
        self._part = np.s_[y0 - grid.top : y1 - grid.top, x0 - grid.left : x1 - grid.left]
        whole = np.s_[y0:y1, x0:x1]
        folded = layer[self._part].copy()
        even = folded.copy()
        alpha = folded[..., 3:].astype(np.float32) / 255
        change = smooth[whole].astype(np.float32) - picture[whole]
        even[..., :3] = np.clip(np.rint(folded[..., :3] + change * alpha), 0, 255 * alpha).astype(np.uint8)
        other = layer.copy()
        other[self._part] = even
        self._heads = [folded, even]
        self._mouths = [mouth.skin[self._part].copy(), mouth.without_inside(other)[self._part]]

    def show(self, row: np.ndarray, still: np.ndarray, layer: np.ndarray, mouth: MouthPainter) -> None:
        """Bring both textures to the smile of ``row``; nothing to do while it stays."""
        if self._smile < 0.1:
            return
        share = round(float(np.clip(1 - smile_of(row) / self._smile, 0, 1)) * LEVELS)
        if share == self.shown:
            return
        self.shown = share
        new = share / LEVELS
        still[self._part] = cv2.addWeighted(self._heads[0], 1 - new, self._heads[1], new, 0)
        layer[self._part] = still[self._part]
        mouth.skin[self._part] = cv2.addWeighted(self._mouths[0], 1 - new, self._mouths[1], new, 0)


def _refine(shape: MouthShape, picture: np.ndarray, points: FacePoints) -> None:
    """Closed lips meet where the picture has its dark line."""
    source = shape.source
    if parted(source):
        return
    grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
    middle = source.lines[1:3].mean(axis=0)
    thin = float(np.minimum(middle - source.lines[0], source.lines[3] - middle).max())
    shape.refine(brought_to(grey, points.frame, source.x, middle, "dark line", min(0.035, 0.5 * thin)))


def _checked(portrait: np.ndarray, points: FacePoints) -> np.ndarray:
    """(H, W, 3) uint8, transparency laid over mid grey."""
    if portrait.ndim != 3 or portrait.shape[2] not in (3, 4) or portrait.dtype != np.uint8:
        raise MediaError(f"a portrait is (H, W, 3) or (H, W, 4) uint8, got {portrait.shape} {portrait.dtype}")
    height, width = portrait.shape[:2]
    if (width, height) != (points.width, points.height):
        raise PointsError(
            f"points are for a {points.width}x{points.height} picture, this one has {width}x{height} pixels"
        )
    if portrait.shape[2] == 3:
        return np.ascontiguousarray(portrait)
    alpha = portrait[..., 3:].astype(np.float32) / 255
    return np.rint(portrait[..., :3] * alpha + 128.0 * (1 - alpha)).astype(np.uint8)
