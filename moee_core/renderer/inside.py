"""What is seen between parted lips: upper and lower teeth, the tongue, and the dark behind them.

Shapes (legend for this file): h, w pixels of the patch; face units (eye distances), y down.

The upper teeth belong to the skull and keep still while the lips move over them; the lower teeth and the tongue go with
the jaw. When the picture itself shows teeth, those are kept, prolonged under the lips.
"""

from __future__ import annotations

import cv2
import numpy as np

from .field import smoothstep
from .fill import filled_in
from .mouth_shape import Lips, MouthShape
from .points import FacePoints
from .sampling import looked_up, pixels_of, planes

Color = tuple[float, float, float]

CAVITY: Color = (52.0, 16.0, 20.0)
TONGUE: Color = (196.0, 92.0, 96.0)
TEETH: Color = (250.0, 246.0, 238.0)
TOOTH_WIDTH = 0.125
"""Of a middle incisor, in eye distances (8 of 63 mm)."""
DRAWN_UPPER, DRAWN_LOWER = 0.225, 0.109
"""Height of a drawing's bands of teeth when fully bared, in eye distances."""


class InsideMouth:
    """The inside of one portrait's mouth."""

    def __init__(
        self, picture: np.ndarray, points: FacePoints, shape: MouthShape, aperture: np.ndarray, drawn: float = 0.0
    ) -> None:
        """``aperture`` (H, W) uint8 marks what of the picture is inside the mouth; ``drawn`` 1 is a drawing, whose
        teeth are white bands that hang from the lips."""
        self._drawn = drawn
        self._frame = points.frame
        neutral = shape(np.zeros(len(shape.source_row), np.float32))
        self._rest_y = float(neutral.lines[1:3].mean(axis=0)[len(neutral.x) // 2])
        self._rest_x = float(neutral.corners[:, 0].mean())
        self._half = float(0.5 * (neutral.corners[1, 0] - neutral.corners[0, 0]))
        light = self._brightness(picture, points, shape)
        self._cavity = np.array(CAVITY, np.float32) * np.clip(light, 0.6, 1.0)
        self._tongue = np.array(TONGUE, np.float32) * np.clip(light, 0.55, 1.0)
        lit = float(np.clip(0.5 + 0.5 * light, 0.86, 1.0))
        self._teeth = np.array(TEETH, np.float32) * (lit + drawn * (1 - lit))
        self._own = self._own_teeth(picture, aperture, shape) if aperture.any() else None
        self._source = shape.source

    def _brightness(self, picture: np.ndarray, points: FacePoints, shape: MouthShape) -> float:
        """How bright the light on the face is, seen on the cheeks: 1 for fair skin in full light."""
        spots = [0.5 * (np.array(points.full[f"eye_{s}_lower"]) + points.full[f"mouth_{s}"]) for s in "RL"]
        radius = max(1, round(0.08 * self._frame.distance))
        values = []
        for x, y in spots:
            x, y = round(float(x)), round(float(y))
            spot = picture[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
            values.append(float(np.percentile(spot.max(axis=2), 60)))
        return 0.45 + 0.55 * max(values) / 225.0

    def _own_teeth(self, picture: np.ndarray, aperture: np.ndarray, shape: MouthShape) -> np.ndarray:
        """(H, W, 4) uint8: the picture's teeth with a soft outline, prolonged up under the lip."""
        size = 2 * max(1, round(0.012 * self._frame.distance)) + 1
        surely = cv2.erode(aperture, np.ones((size, size), np.uint8))
        surely = surely if surely.any() else aperture
        distance = self._frame.distance
        ys, xs = np.nonzero(aperture)
        pad = round(0.2 * distance)
        height, width = aperture.shape
        x0, x1 = max(xs.min() - pad, 0), min(xs.max() + pad + 1, width)
        y0, y1 = max(ys.min() - pad, 0), min(ys.max() + pad + 1, height)
        part = np.s_[y0:y1, x0:x1]
        colour = filled_in(np.ascontiguousarray(picture[part]), 1 - surely[part])
        grey = picture.max(axis=2).astype(np.float32)
        bright = float(np.percentile(grey[aperture > 0], 75))
        teeth = smoothstep(grey, 0.5 * bright, 0.75 * bright) * aperture
        if bright < 110:  # a dark opening shows no teeth
            teeth[:] = 0
        column = teeth[part].max(axis=0, keepdims=True)
        first = np.where(column > 0.3, teeth[part].argmax(axis=0), y1)
        above = (np.arange(y1 - y0)[:, None] <= first) & (np.arange(y1 - y0)[:, None] > first - 0.14 * distance)
        alpha = np.maximum(teeth[part], above * cv2.blur(column, (5, 1)))
        own = np.zeros((height, width, 4), np.uint8)
        own[part] = np.dstack([colour, cv2.GaussianBlur(alpha.astype(np.float32), (0, 0), 0.8) * 255]).astype(np.uint8)
        self._picture = cv2.cvtColor(picture, cv2.COLOR_RGB2RGBA)
        self._aperture = cv2.GaussianBlur(aperture.astype(np.float32), (0, 0), 0.7)
        return own

    def paint(
        self,
        result: np.ndarray,
        opening: np.ndarray,
        x: np.ndarray,
        y: np.ndarray,
        lines: np.ndarray,
        places: np.ndarray,
        lips: Lips,
    ) -> None:
        """Blend into ``result`` (h, w, 4) uint8 where ``opening`` (h, w) 0..1 says, in place.

        ``x, y`` are face units of the unturned head, ``places`` the same in pixels, ``lines`` (h, w, 4) of the lips.
        """
        rows, columns = np.nonzero(opening.max(axis=1))[0], np.nonzero(opening.max(axis=0))[0]
        cut = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        opening, x, y = (np.ascontiguousarray(v[cut]) for v in (opening, x, y))
        places, (lip_top, lip_bottom) = places[cut], (np.ascontiguousarray(lines[cut][..., i]) for i in (1, 2))
        right, left = (float(v) for v in lips.corners[:, 0])
        across = (x - 0.5 * (left + right)) * (2 / (left - right))  # -1..1 between the corners
        depth_top = y - lip_top
        sides = np.clip(1 - across * across, 0, 1)

        colour = np.empty((3, *x.shape), np.float32)
        colour[:] = self._cavity[:, None, None]
        self._paint_tongue(colour, x, y, lips)
        across_lips = sides.astype(np.float32) ** np.float32(0.35)
        if lips.lower_bared > 0.02:
            held = lip_bottom - np.float32(min(DRAWN_LOWER * lips.lower_bared, 0.42 * lips.opening)) * across_lips
            self._paint_lower_teeth(colour, x, y, lips, held)
        seen = min(DRAWN_UPPER * max(0.0, lips.bared - 0.08), lips.opening * (0.55 + 0.3 * lips.bared))
        self._paint_upper_teeth(colour, x, y, lips, places, lip_top + np.float32(seen) * across_lips)
        # Lips throw a shadow on what is close behind them; the corners of the mouth are dark.
        shadow = 0.80 + 0.20 * smoothstep(depth_top, 0.0, 0.04)
        corner = 0.55 + 0.25 * min(1.0, lips.bared)  # lips drawn back let light in
        shadow *= corner + (1 - corner) * smoothstep(sides, 0.0, 0.45)
        shadow = shadow + (1 - shadow) * np.float32(0.75 * self._drawn)
        if self._own is not None:  # light and shadow are in the picture already
            shadow = shadow + (1 - shadow) * self._own_share(lips)
        colour *= shadow
        if self._own is not None:
            self._keep_picture(colour, places, lips)
        view = result[cut]
        lips_there = planes(view)
        view[..., :3] = pixels_of(lips_there + (colour - lips_there) * opening)

    def _own_share(self, lips: Lips) -> float:
        """How much of the picture's own opening is shown: all of it while the lips are as they are in the picture."""
        before = self._source
        widths = [float(mouth.corners[1, 0] - mouth.corners[0, 0]) for mouth in (lips, before)]
        change = 2.5 * abs(lips.opening / before.opening - 1) + 5 * abs(widths[0] / widths[1] - 1)
        return float(np.clip(1.5 - change, 0, 1))

    def _keep_picture(self, colour: np.ndarray, places: np.ndarray, lips: Lips) -> None:
        """Near the picture's own expression its whole opening is shown, not only the teeth."""
        share = self._own_share(lips)
        if share > 0 and self._own is not None:
            own = planes(looked_up(self._picture, places))
            inside = looked_up(self._aperture, places) * np.float32(share)
            colour += (own - colour) * inside

    def _arch(self, lips: Lips) -> np.float32:
        """Half the width of what is seen of a row of teeth: lips drawn wide show more of them."""
        half = 0.5 * float(lips.corners[1, 0] - lips.corners[0, 0])
        return np.float32(max(self._half, 0.94 * half))

    def _paint_upper_teeth(
        self, colour: np.ndarray, x: np.ndarray, y: np.ndarray, lips: Lips, places: np.ndarray, drawing: np.ndarray
    ) -> None:
        """``drawing`` is where a drawing's band ends: it hangs from the lip, while teeth hang from the skull."""
        pixel = np.float32(1.0 / self._frame.distance)
        if self._own is not None:
            own = looked_up(self._own, places)
            share = own[..., 3] * np.float32((1 - 0.8 * lips.rounding) / 255)
            colour += (planes(own) - colour) * share
            return
        place = (x - self._rest_x) / self._arch(lips)
        edge = self._rest_y + 0.012 + 0.085 * lips.bared - 0.05 * place * place
        edge = edge + np.float32(self._drawn) * (drawing - edge)
        tooth = (x - self._rest_x) / np.float32(TOOTH_WIDTH)
        gap = np.abs(tooth - np.rint(tooth))
        single = np.float32(1 - self._drawn)
        edge = edge - 0.012 * single * np.exp(-((gap / 0.09) ** 2))  # rounded corners between neighbours
        width = 1.08 + 0.4 * self._drawn
        share = np.clip((edge - y) / pixel + 0.5, 0, 1) * smoothstep(width - np.abs(place), 0.0, 0.25)
        shade = 1 - single * (0.08 * np.exp(-((gap / 0.06) ** 2)) + 0.16 * np.clip(np.abs(place), 0, 1) ** 2)
        colour += (self._teeth[:, None, None] * shade - colour) * share

    def _paint_lower_teeth(
        self, colour: np.ndarray, x: np.ndarray, y: np.ndarray, lips: Lips, drawing: np.ndarray
    ) -> None:
        pixel = np.float32(1.0 / self._frame.distance)
        place = (x - self._rest_x) / self._arch(lips)
        edge = self._rest_y + 0.9 * lips.drop + 0.035 + 0.04 * (1 - lips.lower_bared) + 0.03 * place * place
        edge = edge + np.float32(self._drawn) * (drawing - edge)
        tooth = (x - self._rest_x) / np.float32(0.75 * TOOTH_WIDTH) + 0.5
        gap = np.abs(tooth - np.rint(tooth))
        width = 0.95 + 0.5 * self._drawn
        share = np.clip((y - edge) / pixel + 0.5, 0, 1) * smoothstep(width - np.abs(place), 0.0, 0.25)
        single = np.float32(1 - self._drawn)
        shade = 0.86 + 0.08 * self._drawn - 0.12 * single * np.exp(-((gap / 0.08) ** 2))
        shade = shade * (1 - 0.3 * single * np.clip(np.abs(place), 0, 1) ** 2)
        colour += (self._teeth[:, None, None] * shade - colour) * share

    def _paint_tongue(self, colour: np.ndarray, x: np.ndarray, y: np.ndarray, lips: Lips) -> None:
        show = float(smoothstep(np.array(lips.opening), 0.06, 0.2))
        if show <= 0:
            return
        half = 0.5 * float(lips.corners[1, 0] - lips.corners[0, 0])
        middle = float(lips.corners[:, 0].mean())
        across = (x - middle) / np.float32(0.66 * half)
        top = float(lips.lines[2].max()) - 0.36 * lips.opening
        rise = y - (top + 0.10 * across * across)
        share = smoothstep(rise, -0.01, 0.03) * smoothstep(1 - np.abs(across), 0.0, 0.3) * np.float32(show)
        groove = 1 - 0.10 * np.exp(-((across / 0.10) ** 2))
        light = (0.62 + 0.38 * smoothstep(rise, 0.0, 0.12)) * groove
        colour += (self._tongue[:, None, None] * light - colour) * share
