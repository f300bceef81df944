"""Face Points: where a portrait's face is, edited over the picture in the browser."""

from __future__ import annotations

import json

import torch
from comfy_api.latest import io, ui
from torch import Tensor

from ..moee_core.jobs import fingerprint
from ..moee_core.renderer.check import PointsError
from ..moee_core.renderer.editor import draw_points
from ..moee_core.renderer.find import points_on, start_points
from ..moee_core.renderer.points import parse_points
from .sockets import Face, FaceOnPicture


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
                    tooltip="What the editor writes, as JSON. Empty: an average face where one is found, to drag from.",
                ),
            ],
            outputs=[Face.Output(display_name="face"), io.Image.Output(display_name="preview")],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, image: Tensor, points: str) -> io.NodeOutput:
        pixels = image[:1, ..., :3].float().cpu().clamp(0, 1)
        picture = (pixels[0] * 255).round().byte().numpy()
        face = points_on(picture, points)
        drawn = torch.from_numpy(draw_points(picture, face)).float()[None] / 255
        shown = {
            "moee_picture": ui.PreviewImage(pixels, cls=cls).values,
            "moee_points": [face.to_json()],
            "moee_start": [start_points(picture).to_json()],
        }
        key = fingerprint([picture, face.to_json()])
        return io.NodeOutput(FaceOnPicture(key=key, picture=picture, points=face), drawn, ui=shown)

    @classmethod
    def validate_inputs(cls, points: str) -> bool | str:
        return problem(points) or True


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
