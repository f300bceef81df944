"""Face Points: where a portrait's face is, edited over the picture in the browser."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..moee_core.jobs import fingerprint
from ..moee_core.renderer.check import PointsError
from ..moee_core.renderer.detector import meshes_of_landmarks
from ..moee_core.renderer.editor import draw_points
from ..moee_core.renderer.find import start_points
from ..moee_core.renderer.mesh import points_of_mesh
from ..moee_core.renderer.points import FacePoints, parse_points
from .sockets import Face, FaceOnPicture, LandmarksSocket


class FacePointsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEFacePoints",
            display_name="Face Points",
            category="MoEE talking portrait",
            description="Marks brows, eyes, nose, lips and jaw of a portrait; Edit points opens an editor over it.",
            inputs=[
                io.Image.Input("image", tooltip="One face from the front; the first picture of a batch is used."),
                io.String.Input(
                    "points",
                    multiline=True,
                    default="",
                    tooltip="What the editor writes, as JSON. Empty: landmarks where a detector gives them, else an "
                    "average face to drag from.",
                ),
                LandmarksSocket.Input(
                    "face_landmarks",
                    optional=True,
                    tooltip="From ComfyUI's Detect Face Landmarks (MediaPipe): where to start while 'points' is empty.",
                ),
            ],
            outputs=[Face.Output(display_name="face"), io.Image.Output(display_name="preview")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image: Tensor, points: str, face_landmarks: Any = None) -> io.NodeOutput:
        pixels = image[:1, ..., :3].float().cpu().clamp(0, 1)
        picture = (pixels[0] * 255).round().byte().numpy()
        start = start_points(picture) if face_landmarks is None else _landmarks_on(picture, face_landmarks)
        face = parse_points(points, picture.shape[1], picture.shape[0]) if points.strip() else start
        drawn = torch.from_numpy(draw_points(picture, face)).float()[None] / 255
        shown = {
            "moee_picture": ui.PreviewImage(pixels, cls=cls).values,
            "moee_points": [face.to_json()],
            "moee_start": [start.to_json()],
        }
        key = fingerprint([picture, face.to_json()])
        return io.NodeOutput(FaceOnPicture(key=key, picture=picture, points=face), drawn, ui=shown)

    @classmethod
    def validate_inputs(cls, points: str) -> bool | str:
        return problem(points) or True


def _landmarks_on(picture: np.ndarray, given: Any) -> FacePoints:
    """Points from the landmarks of the first picture of a batch."""
    meshes, width, height = meshes_of_landmarks(given)
    if (width, height) != (picture.shape[1], picture.shape[0]):
        raise PointsError(
            f"the face landmarks are of a {width}x{height} picture, this one has {picture.shape[1]}x"
            f"{picture.shape[0]} pixels: connect both to the same picture"
        )
    if not np.isfinite(meshes[0]).all():
        raise PointsError("the face landmarks have no face for this picture: choose a clearer one, or mark it by hand")
    return points_of_mesh(meshes[0], width, height)


def problem(text: str | None) -> str:
    """What is wrong with a text of points, or nothing; a linked input is None and judged when it arrives."""
    if not (text or "").strip():
        return ""
    try:
        noted = json.loads(str(text))
        size = [noted[side] if isinstance(noted[side], int) else 1 for side in ("width", "height")]
    except (ValueError, TypeError, KeyError, RecursionError):
        size = [1, 1]  # the text is refused below, in the library's words
    try:
        parse_points(str(text), *size)
    except PointsError as error:
        return str(error)
    return ""
