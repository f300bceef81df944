"""A portrait in two layers: the head, cut out softly, and the picture as it would be without the head.

Shapes (legend for this file): H, W pixels of the picture; alpha (H, W) float32 0..1

Where the head is comes from a picture's own transparency, or from GrabCut started with the points of the face, refined
by a guided filter (He, Sun and Tang 2010). Under the head, the background is painted in from around it, and the neck is
continued upwards from just below the jaw, so that the chin can slide over it. The head's layer holds what the picture
has beyond the other layer, so that laying it back on gives the picture itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from .field import smoothstep
from .fill import filled_in
from .frame import FaceFrame
from .points import FacePoints
from .pose import Head
from .sampling import looked_up, table_at

CUT_SIZE = 320
"""Longer side in pixels at which the head is searched."""
EDGE = 0.014
"""Softness of the cut along the jaw, in eye distances."""
HAIR = 1.5
"""How far hair is expected beside the middle, in half widths of the jaw; GrabCut finds out."""
NECK = 0.8
"""Half the width of a neck, at most, in half widths of the jaw."""
HALO = 0.045
"""Around the head, in eye distances: single hairs and soft edges that the cut misses."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Layers:
    """``head`` (H, W, 4) uint8 RGBA, colour times alpha; ``under`` (H, W, 3) uint8."""

    head: np.ndarray
    under: np.ndarray


def person_alpha(picture: np.ndarray, points: FacePoints) -> np.ndarray:
    """(H, W) how much of each pixel belongs to the person."""
    if picture.shape[2] == 4 and picture[..., 3].min() < 250:
        return picture[..., 3].astype(np.float32) / 255.0
    height, width = picture.shape[:2]
    ratio = min(1.0, CUT_SIZE / max(height, width))
    small = cv2.resize(picture[..., :3], None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    found = _cut(small, points.scaled(small.shape[1], small.shape[0]))
    guide = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).astype(np.float32) / 255.0
    factors = _guided(found, guide, radius=max(2, round(0.012 * max(small.shape))), epsilon=2e-4)
    big = cv2.resize(factors, (width, height), interpolation=cv2.INTER_LINEAR)
    full = cv2.cvtColor(np.ascontiguousarray(picture[..., :3]), cv2.COLOR_RGB2LAB).astype(np.float32) / 255.0
    alpha = (big[..., :3] * full).sum(axis=2) + big[..., 3]
    return np.clip((alpha - 0.08) / 0.84, 0, 1).astype(np.float32)


def _cut(small: np.ndarray, points: FacePoints) -> np.ndarray:
    """(h, w) float32 0 or 1 from GrabCut: the face is sure, what is far above and beside it is background."""
    frame, full = points.frame, points.full
    height, width = small.shape[:2]
    unit, chin = frame.distance, frame.to_face(np.array(full["chin"]))
    jaw = np.array([full[name] for name in ("jaw_R_ear", "jaw_R_angle", "jaw_R_chin", "chin", "jaw_L_chin",
                                            "jaw_L_angle", "jaw_L_ear")])  # fmt: skip
    half = 0.5 * float(np.linalg.norm(jaw[-1] - jaw[0]))
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    face_x, face_y = np.moveaxis(frame.to_face(np.stack([x, y], axis=-1)), -1, 0)
    beside = np.abs(face_x) * unit / half
    mask = np.full((height, width), cv2.GC_PR_BGD, np.uint8)
    # Hair hangs down beside the face: its colours must not be learned as the background's.
    mask[(beside < HAIR) & (face_y > 0)] = cv2.GC_PR_FGD
    tilt = float(np.degrees(np.arctan2(frame.right[1], frame.right[0])))
    middle = frame.to_image(np.array([0.0, 0.0]))

    def ellipse(place: np.ndarray, radii: tuple[float, float], value: int) -> None:
        cv2.ellipse(
            mask, tuple(round(float(v)) for v in place), tuple(round(r) for r in radii), tilt, 0, 360, value, -1
        )

    # Shoulders are guessed, so that their colours are learned as the person's; they need not be found exactly.
    ellipse(frame.to_image(chin + np.array([0, 2.0])), (1.9 * half, 1.75 * unit), cv2.GC_PR_FGD)
    ellipse(middle, (HAIR * half, 2.1 * unit), cv2.GC_PR_FGD)
    face = np.concatenate([jaw, [full["brow_L_outer"], full["brow_R_outer"]]])
    cv2.fillConvexPoly(mask, cv2.convexHull(np.rint(face).astype(np.int32)), cv2.GC_FGD)
    neck = frame.to_image(
        np.array([chin + offset for offset in np.array([(-0.35, -0.3), (0.35, -0.3), (0.3, 0.3), (-0.3, 0.3)])])
    )
    cv2.fillConvexPoly(mask, np.rint(neck).astype(np.int32), cv2.GC_FGD)
    rim = np.minimum(x, width - 1 - x) < 0.025 * width
    mask[((beside > 1.75) | (rim & (beside > 1.3))) & (face_y < chin[1] + 0.1)] = cv2.GC_BGD
    mask[: max(1, height // 60)] = cv2.GC_BGD
    if not (mask == cv2.GC_BGD).any():
        mask[0] = cv2.GC_BGD
    cv2.setRNGSeed(7)
    background, foreground = np.zeros((1, 65)), np.zeros((1, 65))
    bgr = np.ascontiguousarray(small[..., ::-1])
    cv2.grabCut(bgr, mask, (0, 0, 1, 1), background, foreground, 4, cv2.GC_INIT_WITH_MASK)
    found = ((mask == cv2.GC_FGD) | (mask == cv2.GC_PR_FGD)).astype(np.uint8)
    found = cv2.morphologyEx(found, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    found = cv2.morphologyEx(found, cv2.MORPH_CLOSE, np.ones((5, 5), np.uint8))
    return _without_islands(found, full["nose_base"])


def _without_islands(found: np.ndarray, inside: tuple[float, float]) -> np.ndarray:
    """Only the part that holds the face, without holes."""
    _, labels = cv2.connectedComponents(found)
    x, y = round(inside[0]), round(inside[1])
    kept = (labels == labels[min(max(y, 0), labels.shape[0] - 1), min(max(x, 0), labels.shape[1] - 1)]).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - kept)
    for i in range(1, count):
        if stats[i, cv2.CC_STAT_AREA] < 0.004 * kept.size:
            kept[labels == i] = 1
    return kept.astype(np.float32)


def _guided(mask: np.ndarray, guide: np.ndarray, *, radius: int, epsilon: float) -> np.ndarray:
    """(h, w, 4) factors of the guided filter: the mask as a local linear function of the guide's three channels."""
    size = (2 * radius + 1, 2 * radius + 1)
    mean = cv2.blur(guide, size)
    mean_mask = cv2.blur(mask, size)
    covariance = cv2.blur(guide * mask[..., None], size) - mean * mean_mask[..., None]
    products = guide[..., :, None] * guide[..., None, :]
    flat = cv2.blur(products.reshape(*mask.shape, 9), size).reshape(*mask.shape, 3, 3)
    variance = flat - mean[..., :, None] * mean[..., None, :] + epsilon * np.eye(3, dtype=np.float32)
    slope = np.linalg.solve(variance, covariance[..., None])[..., 0]
    offset = mean_mask - (slope * mean).sum(axis=2)
    return cv2.blur(np.concatenate([slope, offset[..., None]], axis=2).astype(np.float32), size)


def hair_top(alpha: np.ndarray, points: FacePoints) -> float:
    """Height of the highest part of the head in face units; a plausible one when the person fills the picture."""
    frame = points.frame
    rows, columns = np.nonzero(alpha[::4, ::4] > 0.5)
    if not len(rows):
        return -1.9
    face = frame.to_face(np.stack([columns * 4.0, rows * 4.0], axis=1))
    near = face[np.abs(face[:, 0]) < 1.0]
    return float(np.clip(near[:, 1].min() if len(near) else -1.9, -2.6, -1.2))


def cut(
    picture: np.ndarray, alpha: np.ndarray, points: FacePoints, head: Head, box: tuple[int, int, int, int]
) -> Layers:
    """The two layers; ``alpha`` is the person's, ``box`` (x0, y0, x1, y1) the part of the picture that may move."""
    frame = points.frame
    x0, y0, x1, y1 = box
    rows, columns = np.mgrid[y0:y1, x0:x1].astype(np.float32)
    face = frame.to_face(np.stack([columns, rows], axis=-1)).astype(np.float32)
    person = alpha[y0:y1, x0:x1]
    own = person * _is_head(face, person, head, frame, (x0, y0))
    own[own < 0.03] = 0.0
    area = np.ascontiguousarray(picture[y0:y1, x0:x1, :3])
    x, y = face[..., 0], face[..., 1]
    # How far each pixel is outside the head; hairs that the cut misses are in the halo around it.
    outside = cv2.distanceTransform((own <= 0).astype(np.uint8), cv2.DIST_L2, 3) / frame.distance
    rim = cv2.GaussianBlur((own <= 0).astype(np.float32), (0, 0), 0.04 * frame.distance) + 1e-4
    skin = cv2.GaussianBlur(np.where(own <= 0, person, 0.0).astype(np.float32), (0, 0), 0.04 * frame.distance) / rim
    # Only the neck: beside it, what skin the marked jaw leaves over belongs to the cheek and the ear.
    on_skin = (y - head.jaw_height(x) > -0.1) & (skin > 0.6) & (np.abs(x - head.centre_x) < NECK * head.half)
    halo = np.where(on_skin, 0.0, smoothstep(outside, HALO, 0.3 * HALO)).astype(np.float32)
    below = _without_head(area, own, np.maximum(person, halo), face, head, frame)
    # The lower layer is the picture itself where the head ends in skin or hardly moves, so that no seam shows there.
    still = smoothstep(head.membership(x, y), 0.12, 0.03)
    kept = np.where(on_skin, 1 - own, 1 - halo)
    kept = np.maximum(kept, still)[..., None]
    under = np.rint(area * kept + below * (1 - kept)).astype(np.uint8)
    needed = cv2.GaussianBlur(_needed(area, under), (0, 0), max(0.8, 0.012 * frame.distance))
    own = np.where((own > 0) | (halo > 0), np.maximum(own, needed), 0.0)
    soft = np.rint(255 * own)[..., None]
    rest = area.astype(np.float32) - (1 - soft / 255) * under.astype(np.float32)
    layer = np.zeros((*picture.shape[:2], 4), np.uint8)
    layer[y0:y1, x0:x1] = np.concatenate([np.clip(np.rint(rest), 0, soft), soft], axis=2).astype(np.uint8)
    whole = picture[..., :3].copy()
    whole[y0:y1, x0:x1] = under
    return Layers(head=layer, under=whole)


def _needed(area: np.ndarray, under: np.ndarray) -> np.ndarray:
    """(h, w) the least opacity with which some colour over ``under`` gives ``area``."""
    above, below = area.astype(np.float32), under.astype(np.float32)
    lighter = (above - below) / np.maximum(255 - below, 1)
    darker = (below - above) / np.maximum(below, 1)
    return np.clip(np.maximum(lighter, darker).max(axis=2), 0, 1)


def _is_head(face: np.ndarray, person: np.ndarray, head: Head, frame: FaceFrame, corner: tuple[int, int]) -> np.ndarray:
    """(h, w) 0..1: above the jaw's edge, or hair that hangs down beside it; neck and shoulders are not."""
    x, y = face[..., 0], face[..., 1]
    aside = (x - head.centre_x) / head.half
    # At its sides the jaw stands against hair or background, and a marked edge may lie a little inside.
    edge = head.jaw_height(x) + EDGE + 0.10 * smoothstep(np.abs(aside), 0.5, 0.95)
    above = smoothstep(edge - y, -EDGE, EDGE) * smoothstep(np.abs(aside), 1.12, 1.02)
    # Hair reaches down without a gap from beside the ear; a collar or a chair does not. Close to the jaw, where a
    # cheek would hide the gap, what is a little further out decides.
    unbroken = np.minimum.accumulate(np.where(y > head.ear_y, person, 1.0), axis=0).astype(np.float32)
    out = np.where(np.abs(aside) < 1.06, np.sign(aside) * 1.06, aside) * head.half + head.centre_x
    places = frame.to_image(np.stack([out, y], axis=-1)) - np.array(corner)
    beside = looked_up(unbroken, places.astype(np.float32))
    hanging = smoothstep(np.abs(aside), 0.85, 0.97) * beside * smoothstep(head.membership(x, y), 0.0, 0.06)
    return np.maximum(above, hanging).astype(np.float32)


def _without_head(
    area: np.ndarray, own: np.ndarray, person: np.ndarray, face: np.ndarray, head: Head, frame: FaceFrame
) -> np.ndarray:
    """(h, w, 3) uint8: the background where the head is, and before it the neck, continued up behind the jaw."""
    hole = cv2.dilate((own > 0).astype(np.uint8), np.ones((3, 3), np.uint8))
    background = filled_in(area, np.maximum(hole, (person > 0.03).astype(np.uint8)))
    x, y = face[..., 0], face[..., 1]
    aside = (x - head.centre_x) / head.half
    below = y - head.jaw_height(x)
    neck = (hole == 0) & (below > 0) & (below < 0.30) & (person > 0.6) & (np.abs(aside) < NECK)
    if neck.sum() < 20:
        return background
    skin = filled_in(area, (~neck).astype(np.uint8))
    # Its sides go straight up from where it is seen under the jaw.
    bins = 96
    place = np.clip((aside + 1.1) / 2.2 * bins, 0, bins - 1).astype(np.int32)
    band = neck & (below < 0.2)
    counts = np.bincount(place[band], minlength=bins)
    seen = (counts > 0.2 * max(1, counts.max())).astype(np.float32)
    position = ((aside + 1.1) / 2.2 * bins - 0.5).astype(np.float32)
    inside = table_at(cv2.GaussianBlur(seen[None], (0, 0), 1.0).reshape(-1, 1), position)
    share = (inside * smoothstep(y, head.chin[1] - 1.3, head.chin[1] - 1.1))[..., None]
    return np.clip(np.rint(background * (1 - share) + skin * share), 0, 255).astype(np.uint8)
