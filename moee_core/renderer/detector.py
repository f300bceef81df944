"""Landmarks of a face by a detector that the user has installed; none is required.

Shapes: pictures (H, W, 3) uint8 RGB; meshes (478, 3) as ``mesh.py`` describes them.

Known are the package ``mediapipe`` with its bundled face mesh (``pip install mediapipe``; releases that no longer
carry ``solutions.face_mesh`` do not count) and, in a graph, the FACE_LANDMARKS that ComfyUI's own MediaPipe node gives.
Only the largest face is followed.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import MoEEError
from .check import PointsError
from .mesh import VERTICES, check_mesh, points_of_mesh
from .points import FacePoints


class DetectorError(MoEEError, RuntimeError):
    """No landmark detector is installed, or what it gave is not understood."""


class MediaPipeMesh:
    """MediaPipe's face mesh, for pictures that have nothing to do with one another or, in order, for a video's."""

    def __init__(self, *, video: bool) -> None:
        """Raises ``DetectorError`` where ``mediapipe`` or its face mesh is missing, or does not start."""
        try:
            module = importlib.import_module("mediapipe").solutions.face_mesh
        except ImportError as error:
            raise DetectorError(
                "no landmark detector is installed; install one with: pip install mediapipe, or connect the face "
                "landmarks of ComfyUI's MediaPipe node"
            ) from error
        except AttributeError as error:
            raise DetectorError(
                "the installed mediapipe carries no face mesh; install a release that does, such as 0.10.21, or "
                "connect the face landmarks of ComfyUI's MediaPipe node"
            ) from error
        try:
            self._net = module.FaceMesh(static_image_mode=not video, max_num_faces=1, refine_landmarks=True)
        except Exception as error:  # what it stands on, protobuf above all, often does not fit it
            reason = f"{type(error).__name__}: {error}".splitlines()[0][:100]
            raise DetectorError(f"the installed mediapipe does not start ({reason}); install it anew") from error

    def __call__(self, picture: np.ndarray) -> np.ndarray | None:
        """The mesh of the face on the picture, or None where it sees none."""
        found = self._net.process(np.ascontiguousarray(picture)).multi_face_landmarks
        if not found:
            return None
        height, width = picture.shape[:2]
        mesh = np.array([(p.x, p.y, p.z) for p in found[0].landmark], np.float64) * [width, height, width]
        return mesh - [0.5, 0.5, 0.0]  # its pixels begin at their edge, ours at their middle

    def close(self) -> None:
        self._net.close()


def meshes_of(pictures: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
    """(478, 3) of every frame of a video, all NaN where no face is seen. Raises ``DetectorError``."""
    detector = MediaPipeMesh(video=True)
    try:
        for picture in pictures:
            mesh = detector(picture)
            yield np.full((VERTICES, 3), np.nan) if mesh is None else mesh
    finally:
        detector.close()


@lru_cache(maxsize=1)
def _for_pictures() -> MediaPipeMesh | None:
    try:
        return MediaPipeMesh(video=False)
    except DetectorError:
        return None


def detected_points(picture: np.ndarray) -> FacePoints | None:
    """Points by the installed detector; None where there is none, or it sees no face that could be moved."""
    detector = _for_pictures()
    mesh = detector(picture) if detector else None
    if mesh is None:
        return None
    try:
        return points_of_mesh(mesh, picture.shape[1], picture.shape[0])
    except PointsError:
        return None


def meshes_of_landmarks(given: Any) -> tuple[np.ndarray, int, int]:
    """((F, M, 3), width, height) of ComfyUI's FACE_LANDMARKS, frames without a face NaN.

    That is ``{"frames": [[face, ...], ...], "image_size": (H, W)}`` with ``landmarks_xy`` (M, 2) in pixels of the
    picture and ``landmarks_3d`` (M, 3) in those of the detector's crop. Raises ``DetectorError`` for anything else.
    """
    try:
        frames, (height, width) = given["frames"], given["image_size"]
        meshes = [_mesh_of_face(max(faces, key=_extent)) if faces else None for faces in frames]
    except (TypeError, KeyError, ValueError, IndexError) as error:
        raise DetectorError(f"face landmarks are not of ComfyUI's MediaPipe node ({str(error)[:80]})") from error
    known = [mesh for mesh in meshes if mesh is not None]
    if not known:
        raise DetectorError("no face was found in any of the pictures; use one face, seen from the front and well lit")
    none = np.full_like(known[0], np.nan)
    return np.stack([none if mesh is None else mesh for mesh in meshes]), int(width), int(height)


def _extent(face: Mapping[str, Any]) -> float:
    return float(np.prod(np.ptp(np.asarray(face["landmarks_xy"], np.float64), axis=0)))


def _mesh_of_face(face: Mapping[str, Any]) -> np.ndarray:
    flat = np.asarray(face["landmarks_xy"], np.float64)
    deep = np.asarray(face["landmarks_3d"], np.float64)

    def spread(points: np.ndarray) -> float:
        return float(np.sqrt(((points - points.mean(axis=0)) ** 2).sum()))

    scale = spread(flat) / max(spread(deep[:, :2]), 1e-9)
    return check_mesh(np.concatenate([flat, deep[:, 2:] * scale], axis=1))
