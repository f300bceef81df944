"""Draws one eye: lids that close with their own skin, and an eyeball whose iris stays round wherever it looks.

Shapes (legend for this file): h, w pixels of the patch around the eye; face units (eye distances), y down.

All is drawn on the still picture, before the head moves. A lid is followed column by column: the lashes go with its
edge unchanged, the skin above them follows. The eyeball is the picture's own; its hidden parts are completed, the iris
by its colours at equal distance from the centre, the white by what is seen of it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import cv2
import numpy as np

from ..motion.coefficients import FACE
from . import names
from .curves import arch
from .field import smoothstep
from .fill import filled_in
from .points import FacePoints
from .refine import brought_to
from .sampling import looked_up, pixels_of, planes, table_at

LASHES = (0.02, 0.10)
"""Least and greatest height of the lashes above the lid's edge, in eye distances."""
SEARCH_UPPER, SEARCH_LOWER, SEARCH_LASHES = 0.05, 0.03, 0.045
"""How far from where they are expected the edges of lids and lashes are looked for."""
WIDENING = 0.072
"""How far unit 5 raises the upper lid."""
PRESSING = 0.055
"""How far a lowered brow presses the inner half of the lid down."""
LOWER_LID = {"AU7": 0.26, "AU6": 0.44, "AU9": 0.18}
MOST_SQUINT = 0.55
NARROWING_DRAWN = 0.4
"""How much of the eye's opening units take from below, and the most of it."""
GAZE = (0.11, 0.055)
"""How far the iris goes to the side and up or down."""


@dataclass(frozen=True, kw_only=True)
class Look:
    """What an eye does: closure 0..1, widening, lower lid's rise, a frown's weight, gaze x and y in -1..1."""

    shut: float
    wide: float
    squint: float
    press: float
    gaze_x: float
    gaze_y: float

    @classmethod
    def of(cls, row: np.ndarray, side: str, narrowing: float = 1.0) -> Look:
        """``narrowing`` scales what units do to an eye but for shutting and widening it."""
        value = {name: float(row[i]) for name, i in FACE.index.items()}
        units = {name: min(max(value[f"AU{name}"], 0.0), 1.5) for name in ("1", "4", "5", "6", "7", "9")}
        shut = min(max(value[f"lid{side}"], 0.0), 1.0)
        narrowed = 0.20 * units["7"] + 0.12 * units["6"] + 0.14 * units["9"]
        narrowed = min(0.45, narrowing * narrowed * (1 - 0.5 * min(units["5"], 1.0)))
        return cls(
            shut=shut + (1 - shut) * narrowed,
            wide=units["5"] * (1 - shut),
            squint=min(MOST_SQUINT, narrowing * sum(share * units[unit[2:]] for unit, share in LOWER_LID.items())),
            press=units["4"] * (1 - min(1.0, 1.25 * units["1"])) * (1 - shut),
            gaze_x=min(max(value["gaze_x"], -1.0), 1.0),
            gaze_y=min(max(value["gaze_y"], -1.0), 1.0),
        )

    def beyond(self, source: Look) -> Look:
        """What is to be done to a picture that already shows ``source``; what it hides cannot be uncovered."""
        return Look(
            shut=float(np.clip((self.shut - source.shut) / max(1 - source.shut, 0.05), 0.0, 1.0)),
            wide=max(0.0, self.wide - source.wide),
            squint=max(0.0, self.squint - source.squint),
            press=max(0.0, self.press - source.press),
            gaze_x=self.gaze_x - source.gaze_x,
            gaze_y=self.gaze_y - source.gaze_y,
        )

    def rounded(self) -> Look:
        """In steps of a two-hundredth, so that an eye at rest is drawn once."""
        return Look(**{name: round(value * 200) / 200 for name, value in dataclasses.asdict(self).items()})

    @property
    def still(self) -> bool:
        return max(abs(v) for v in dataclasses.astuple(self)) < 2e-3


class EyePainter:
    """One eye of one portrait."""

    def __init__(self, picture: np.ndarray, points: FacePoints, side: str, drawn: float = 0.0) -> None:
        """``picture`` (H, W, 3) uint8; ``drawn`` 0 is a photograph, 1 a drawing."""
        frame = points.frame
        self._narrowing = 1 - NARROWING_DRAWN * drawn
        self._side, self._frame = side, frame
        self._source = Look.of(points.source_row(), side, self._narrowing)
        upper = frame.to_face(points.line(names.lid(side, "upper")))
        lower = frame.to_face(points.line(names.lid(side, "lower")))
        brow = frame.to_face(points.line(names.brow(side)))
        left, right = sorted((float(upper[0, 0]), float(upper[-1, 0])))
        top = max(float(upper[:, 1].min()) - 0.30, float(brow[:, 1].max()) - 0.02)
        top = min(top, float(upper[:, 1].min()) - 0.06)
        rim = frame.to_image(np.array([(a, b) for a in (left - 0.1, right + 0.1)
                                       for b in (top - 0.05, float(lower[:, 1].max()) + 0.24)]))  # fmt: skip
        height, width = picture.shape[:2]
        x0, y0 = np.clip(np.floor(rim.min(axis=0)).astype(int), 0, [width - 2, height - 2])
        x1, y1 = np.clip(np.ceil(rim.max(axis=0)).astype(int) + 1, [x0 + 2, y0 + 2], [width, height])
        self.box = (int(x0), int(y0), int(x1), int(y1))
        self.patch = np.ascontiguousarray(picture[y0:y1, x0:x1])
        ys, xs = np.mgrid[y0:y1, x0:x1].astype(np.float32)
        face = frame.to_face(np.stack([xs, ys], axis=-1)).astype(np.float32)
        self._x, self._y = (np.ascontiguousarray(face[..., i]) for i in (0, 1))
        self._corner = np.array([x0, y0], np.float32)

        grey = cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)
        columns = np.linspace(left, right, 48)
        edge = brought_to(grey, frame, columns, _along(upper, columns), "dark above", SEARCH_UPPER)
        low = brought_to(grey, frame, columns, _along(lower, columns), "dark below", SEARCH_LOWER)
        lashes = brought_to(grey, frame, columns, edge - 0.055, "dark below", SEARCH_LASHES)
        self._upper = np.interp(self._x, columns, edge).astype(np.float32)
        self._lower = np.interp(self._x, columns, low).astype(np.float32)
        self._lashes = np.interp(self._x, columns, np.clip(edge - lashes + 0.008, *LASHES)).astype(np.float32)
        self._lower = np.maximum(self._lower, self._upper + 0.004)
        share = np.clip((self._x - left) / (right - left), 0, 1)
        self._arch = (4 * share * (1 - share)) ** 0.7
        self._arch_wide = self._arch**0.3
        outside = np.maximum(left - self._x, self._x - right)
        self._within = smoothstep(outside, 0.06, 0.02)
        self._arch_even = 4 * share * (1 - share)
        inner = share if side == "R" else 1 - share  # the person's right is on the picture's left
        self._arch_inner = self._arch_even * smoothstep(inner, 0.1, 0.8)
        # The lid's fold: as far above the edge as the eye is open, but under the brow.
        brow = brow[np.argsort(brow[:, 0])]
        brow_y = np.interp(self._x, brow[:, 0], brow[:, 1]).astype(np.float32)
        crease = np.maximum(self._upper - 0.16, brow_y + 0.06)
        self._crease = np.minimum(crease, self._upper - self._lashes - 0.03)
        self._pixel = np.float32(1.0 / frame.distance)
        top, bottom = self._y - self._upper + self._lashes, self._lower - self._y
        self._outline = smoothstep(top, -0.02, 0.0) * smoothstep(bottom, -0.045, -0.025)
        self._smooth = self._smoothed_lid()
        self._index = _index(*self._y.shape)
        self._down = (frame.down * frame.distance).astype(np.float32)
        self._lash_colour = self._darkest_lashes()
        self._eyeball = _Eyeball(self.patch, self._x, self._y, self._upper, self._lower, points, side)

    def _smoothed_lid(self) -> np.ndarray:
        """The skin above the lashes without their dark, smoothed along the lid: what a closing lid brings along."""
        skin = (self._y < self._upper - self._lashes) | (self._y > self._lower + 0.03)
        filled = filled_in(self.patch, (~skin).astype(np.uint8))
        return cv2.GaussianBlur(filled, (0, 0), max(1.0, 0.035 * self._frame.distance))

    def _darkest_lashes(self) -> np.ndarray:
        """(3,) colour of the lashes."""
        band = (np.abs(self._y - self._upper + 0.01) < 0.02) & (self._within > 0.9)
        pixels = self.patch[band]
        if len(pixels) < 4:
            return np.array([40.0, 28.0, 26.0], np.float32)
        dark = pixels[np.argsort(pixels.sum(axis=1))[: max(1, len(pixels) // 4)]]
        return dark.mean(axis=0).astype(np.float32)

    def _sampled(self, image: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(3, h, w) of the image at heights ``y`` (face units) of each pixel's column."""
        shift = y - self._y
        places = np.stack([shift * self._down[0], shift * self._down[1]], axis=-1)
        places += self._index
        return planes(looked_up(image, places))

    def look(self, row: np.ndarray) -> Look:
        """What the eye is asked to do beyond the picture, in steps too small to see."""
        return Look.of(row, self._side, self._narrowing).beyond(self._source).rounded()

    def paint(self, look: Look, patch: np.ndarray) -> np.ndarray:
        """(h, w, 3) uint8 for ``box``; ``patch`` (h, w, 3) is the skin there now."""
        y, shut = self._y, look.shut
        squint = np.float32(min(look.squint * (1 - 0.6 * shut) + 0.16 * shut, 0.6))
        low = self._lower - squint * (self._lower - self._upper) * self._arch_wide
        up = self._upper + np.float32(shut) * (low - self._upper + np.float32(0.006 * shut))
        up = up - np.float32(WIDENING * look.wide) * self._arch_even
        up = up + np.float32(PRESSING * look.press) * self._arch_inner
        up = np.minimum(up, low + np.float32(0.006))

        source, newly = self._lid_sources(up, low, shut)
        lids = self._sampled(patch, source)
        if shut > 0:
            self._close(lids, up, source, newly, shut)
        above = np.clip((up - y) / self._pixel + 0.5, 0, 1)
        below = np.clip((y - low) / self._pixel + 0.5, 0, 1)
        covered = np.maximum(above, below)
        drawn = self._eyeball.seen(look, patch, up)
        drawn += (lids - drawn) * covered
        skin = planes(patch)
        drawn = skin + (drawn - skin) * self._within
        return pixels_of(drawn)

    def _lid_sources(self, up: np.ndarray, low: np.ndarray, shut: float) -> tuple[np.ndarray, np.ndarray]:
        """(h, w) twice: from which height a pixel of the lids comes, and how much of it was never seen."""
        y, crease = self._y, self._crease
        edge, now = self._upper - self._lashes, up - self._lashes  # where the lashes begin, before and now
        stretch = np.where(now > edge, np.float32(1 + 0.3 * shut), (now - crease) / np.maximum(edge - crease, 1e-3))
        follow = crease + np.maximum(y - crease, 0) / np.maximum(stretch, 0.2)
        newly = np.clip((follow - edge) / 0.03, 0, 1)
        upper = np.where(y < crease, y, np.minimum(follow, edge))
        lashes = y > now
        newly[lashes] = 0
        upper = np.where(lashes, self._upper + (y - up), upper)
        bottom = self._lower + np.float32(0.16)
        share = (y - low) / np.maximum(bottom - low, 1e-3)
        lower = np.where(y < bottom, self._lower + share * (bottom - self._lower), y)
        return np.where(y < 0.5 * (up + low), upper, lower), newly

    def _close(self, lids: np.ndarray, up: np.ndarray, source: np.ndarray, newly: np.ndarray, shut: float) -> None:
        """Draw the skin that a closing lid brings along, and its lashes, into ``lids`` (3, h, w) in place."""
        y = self._y
        plain = self._sampled(self._smooth, np.minimum(source, self._upper - self._lashes))
        # A closed lid is a ball under skin: lighter in its middle, darker where it meets the fold and the lashes.
        reach = np.clip((y - self._crease) / np.maximum(up - self._crease, 1e-3), 0, 1)
        plain *= 1 + np.float32(0.24 * shut) * (reach * (1 - reach) - np.float32(0.12)) * self._arch
        lids += (plain - lids) * newly
        # The fold smooths out: what is darker than the lid between it and the lashes is lifted.
        folded = np.float32(0.75 * shut) * self._arch * (y > self._crease) * (y < up - self._lashes)
        lids += np.maximum(0.96 * plain - lids, 0) * folded
        if shut <= 0.25:
            return
        # What is left of the open eye's outline goes; then the lashes are drawn along the edge.
        clean = float(smoothstep(np.array(shut), 0.3, 0.85))
        lids += (plain - lids) * (self._outline * np.float32(clean))
        line = np.exp(-(((y - up + np.float32(0.012)) / np.float32(0.016)) ** 2)) * smoothstep(self._arch, 0.0, 0.25)
        lids += (self._lash_colour[:, None, None] - lids) * (line * np.float32(0.8 * clean))


def _along(line: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Heights of a marked lid (n, 2) at ``columns``."""
    order = np.argsort(line[:, 0], kind="stable")
    knots = np.maximum.accumulate(line[order, 0] + np.arange(len(line)) * 1e-5)
    return arch(knots, line[order, 1], columns)


class _Eyeball:
    """White and iris of one eye, complete also where lids hide them."""

    def __init__(
        self, patch: np.ndarray, x: np.ndarray, y: np.ndarray, upper: np.ndarray, lower: np.ndarray,
        points: FacePoints, side: str,
    ) -> None:  # fmt: skip
        frame = points.frame
        self._frame = frame
        iris_x, iris_y, radius = points.iris(side)
        centre = frame.to_face(np.array([iris_x, iris_y]))
        radius = radius / frame.distance
        pixel = 1.0 / frame.distance
        self._upper, self._y, self._pixel = upper, y, np.float32(pixel)
        distance = np.hypot(x - centre[0], y - centre[1]).astype(np.float32)
        visible = (y > upper + 0.5 * pixel) & (y < lower - 0.5 * pixel)
        trusted = (y > upper + 0.022) & (y < lower - 0.012)
        self._disc = smoothstep(distance, radius + 1.2 * pixel, radius - 1.2 * pixel).astype(np.float32)
        grey = patch.max(axis=2)
        white = trusted & (distance > 1.08 * radius)
        if white.sum() > 12:
            white &= grey > 0.72 * np.percentile(grey[white], 80)
        if white.sum() < 6:
            self._white = np.broadcast_to(np.array([226, 220, 216], np.uint8), patch.shape).copy()
        else:
            self._white = filled_in(patch, (~white).astype(np.uint8))
            self._white = cv2.GaussianBlur(self._white, (0, 0), max(0.6, 0.01 * frame.distance))
            self._white = np.rint(0.95 * self._white).astype(np.uint8)  # what a lid or the iris hid lies in shade
        # The picture's own white with its shadows, where it is seen; only the iris is taken out of it.
        ring = smoothstep(distance, 1.0 * radius, 1.15 * radius)[..., None] * (y > upper + 0.5 * pixel)[..., None]
        self._seen_white = self._white + (patch - self._white.astype(np.float32)) * ring
        iris = _radial(patch, distance / radius, trusted & (distance < 1.02 * radius))
        keep = (smoothstep(y - upper, 0.0, 0.03) * smoothstep(lower - y, 0.0, 0.015))[..., None]
        full = patch.astype(np.float32) * keep + iris * (1 - keep)
        self._iris = np.dstack([full * self._disc[..., None], self._disc * 255])
        self._own = visible.astype(np.float32)
        self._white, self._seen_white = (np.ascontiguousarray(v.transpose(2, 0, 1), np.float32)
                                         for v in (self._white, self._seen_white))  # fmt: skip
        self._iris = np.ascontiguousarray(self._iris, np.float32)

    def seen(self, look: Look, patch: np.ndarray, up: np.ndarray) -> np.ndarray:
        """(3, h, w) float32 of the whole eyeball, lids not yet drawn."""
        moving = min(1.0, 25.0 * max(abs(look.gaze_x), abs(look.gaze_y), 0.5 * look.wide))
        if moving <= 0:
            return planes(patch)
        opened = min(1.0, 4 * look.wide)
        ball = self._seen_white.copy()
        if opened > 0:  # the shadow under the old edge of the lid goes
            ball += (self._white - ball) * (smoothstep(self._y - self._upper, 0.06, 0.03) * np.float32(opened))
        shift = np.array([look.gaze_x * GAZE[0], look.gaze_y * GAZE[1]]) @ self._frame.axes
        matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
        rows, columns = self._y.shape
        moved = cv2.split(cv2.warpAffine(self._iris, matrix, (columns, rows), flags=cv2.INTER_LINEAR))
        ball *= 1 - moved[3] * np.float32(1 / 255)
        ball += np.array(moved[:3])
        if opened > 0:  # the lid's shadow goes with the lid
            ball *= 1 - np.float32(0.22 * opened) * np.exp(-np.maximum(self._y - up, 0) / np.float32(0.028))
        if moving < 1:  # starts from the picture itself, so that the smallest movement is a small change
            ball += (planes(patch) - ball) * (self._own * np.float32(1 - moving))
        return ball


def _radial(patch: np.ndarray, distance: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """(h, w, 3) float32: for every distance from the centre the middle colour of what is seen there."""
    bins = 10
    place = np.minimum((distance * bins).astype(np.int32), bins)
    table = np.zeros((bins + 1, 3), np.float32)
    known = np.zeros(bins + 1, bool)
    for i in range(bins + 1):
        pixels = patch[seen & (place == i)]
        if len(pixels) >= 3:
            table[i], known[i] = np.median(pixels, axis=0), True
    if not known.any():
        return np.broadcast_to(np.array([60, 44, 36], np.float32), patch.shape)
    at = np.nonzero(known)[0]
    full = np.stack([np.interp(np.arange(bins + 1), at, table[at, c]) for c in range(3)], axis=1).astype(np.float32)
    return table_at(full, np.minimum(distance * bins - 0.5, bins))


def _index(rows: int, columns: int) -> np.ndarray:
    y, x = np.mgrid[0:rows, 0:columns].astype(np.float32)
    return np.stack([x, y], axis=-1)
