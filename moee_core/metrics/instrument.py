"""Reading a face back: mouth, action units and emotion of a known person, and who it is among many.

Shapes (legend for this file):
    n calibration pictures, F frames, P pixels of the crop, U action units
    calibration: (n, 64, 64, 3) uint8 pictures of one person with known opening and width of the mouth, action units
    and emotion; frames (F, S, S, 3) uint8 of the same person at any size

``FaceReader`` is analysis by synthesis: kernel ridge regression (linear plus Gaussian kernel, its width the median
distance) from the inner face of one person to the truth. ``IdentityReader`` is a linear discriminant over all people.
Both are fixed functions of the calibration pictures: nothing about them depends on the model that is measured.
"""

from __future__ import annotations

import numpy as np

CROP = (slice(12, 60), slice(8, 56))
"""Rows and columns of the inner face in a 64-pixel picture: brows to chin."""
SIDE = 64
RIDGE = 0.02
LINEAR_SHARE = 0.3


def downsized(picture: np.ndarray, side: int) -> np.ndarray:
    """(S, S, 3) uint8 -> (side, side, 3) uint8, by averaging; a picture of that size is returned as it is."""
    import cv2

    if picture.shape[0] == side:
        return picture
    return cv2.resize(picture, (side, side), interpolation=cv2.INTER_AREA)


def small(frames: np.ndarray) -> np.ndarray:
    """(F, S, S, 3) uint8 -> (F, 64, 64, 3) float32 in [0, 1], by averaging."""
    return np.stack([downsized(frame, SIDE) for frame in frames]).astype(np.float32) / 255


def features(frames: np.ndarray) -> np.ndarray:
    """(F, S, S, 3) uint8 -> (F, P) float32."""
    return small(frames)[:, CROP[0], CROP[1]].reshape(len(frames), -1)


class FaceReader:
    """One person's reader. ``mouth`` (n, 2) opening and width, ``units`` (n, U), ``label`` (n,) emotion 0..6."""

    def __init__(self, pictures: np.ndarray, mouth: np.ndarray, units: np.ndarray, label: np.ndarray):
        x = features(pictures)
        self.mean = x.mean(axis=0)
        self.x = x - self.mean
        self.units = units.shape[1]
        squared = self._squared(self.x, self.x)
        self.scale = 1.0 / np.median(squared[np.triu_indices(len(x), 1)])
        targets = np.concatenate([mouth, units, 2.0 * np.eye(7)[label] - 1.0], axis=1)
        self.offset = targets.mean(axis=0)
        kernel = self._kernel(self.x, squared)
        self.weights = np.linalg.solve(kernel + RIDGE * np.eye(len(x)), targets - self.offset)

    @staticmethod
    def _squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.maximum((a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T, 0.0)

    def _kernel(self, a: np.ndarray, squared: np.ndarray) -> np.ndarray:
        return np.exp(-0.35 * self.scale * squared) + LINEAR_SHARE * self.scale * (a @ self.x.T)

    def read(self, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Frames -> mouth (F, 2), action units (F, U), emotion scores (F, 7)."""
        x = features(frames) - self.mean
        out = self._kernel(x, self._squared(x, self.x)) @ self.weights + self.offset
        return out[:, :2], out[:, 2 : 2 + self.units], out[:, 2 + self.units :]


class IdentityReader:
    """Linear discriminant on principal components of the inner face: who is it among the people given?"""

    def __init__(self, pictures: list[np.ndarray], components: int = 80, shrink: float = 0.1):
        people = [features(p) for p in pictures]
        x = np.concatenate(people)
        self.mean = x.mean(axis=0)
        _, _, basis = np.linalg.svd(x[:: max(1, len(x) // 1500)] - self.mean, full_matrices=False)
        self.basis = basis[:components].T
        projected = [(p - self.mean) @ self.basis for p in people]
        centres = np.stack([p.mean(axis=0) for p in projected])
        within = np.mean([np.cov(p.T) for p in projected], axis=0)
        within += shrink * np.trace(within) / len(within) * np.eye(len(within))
        self.whiten = np.linalg.cholesky(np.linalg.inv(within))
        self.centres = centres @ self.whiten

    def distances(self, frames: np.ndarray) -> np.ndarray:
        """(F, people): squared Mahalanobis distance to each person."""
        x = ((features(frames) - self.mean) @ self.basis) @ self.whiten
        return ((x[:, None] - self.centres[None]) ** 2).sum(axis=2)

    def identify(self, frames: np.ndarray) -> int:
        """The person nearest to the clip as a whole."""
        return int(self.distances(frames).mean(axis=0).argmin())
