"""Emotion from Text, Emotion from Voice, Action Units, Reference Expression: other ways to say an emotion, alone or
joined to one another."""

from __future__ import annotations

from typing import Any

import numpy as np
from comfy_api.latest import io
from torch import Tensor

from ..moee_core.emotion.reference import picture_source, video_source
from ..moee_core.emotion.source import MAX_STRENGTH, EmotionSource
from ..moee_core.emotion.units import parse_units, unit_track
from .look import expression_reader
from .sockets import Emotion

BESIDE = "Another emotion to show at the same time, from any Emotion node."


def _beside() -> io.Input:
    return Emotion.Input("emotion", optional=True, tooltip=BESIDE)


def _output(source: EmotionSource, beside: EmotionSource | None) -> io.NodeOutput:
    """The emotion, and in words what it says."""
    joined = source if beside is None else beside.joined(source)
    return io.NodeOutput(joined, joined.explain())


class EmotionFromText(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEEmotionFromText",
            display_name="Emotion from Text",
            category="MoEE talking portrait",
            description="An emotion in plain words. What was understood comes out as text, unknown words named.",
            inputs=[
                io.String.Input(
                    "text",
                    multiline=True,
                    default="beaming with joy, eyebrows slightly raised",
                    tooltip="What the face should show, in English. Degrees (a bit) and negation (not angry) count.",
                ),
                _beside(),
            ],
            outputs=[Emotion.Output(display_name="emotion"), io.String.Output(display_name="understood")],
        )

    @classmethod
    def execute(cls, text: str, emotion: EmotionSource | None = None) -> io.NodeOutput:
        return _output(EmotionSource(text=text.strip()), emotion)

    @classmethod
    def validate_inputs(cls, text: str | None = None) -> bool | str:
        if text is not None and not text.strip():
            return "the text is empty; write what the face should show, such as: beaming with joy"
        return True


class EmotionFromVoice(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEEmotionFromVoice",
            display_name="Emotion from Voice",
            category="MoEE talking portrait",
            description="The face shows the mood that the recording itself is spoken in.",
            inputs=[
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.05,
                    max=MAX_STRENGTH,
                    step=0.05,
                    tooltip="1 as strong as it is heard, up to 1.5.",
                ),
                _beside(),
            ],
            outputs=[Emotion.Output(display_name="emotion"), io.String.Output(display_name="understood")],
        )

    @classmethod
    def execute(cls, strength: float, emotion: EmotionSource | None = None) -> io.NodeOutput:
        return _output(EmotionSource(voice=strength), emotion)


class ActionUnitsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEActionUnits",
            display_name="Action Units",
            category="MoEE talking portrait",
            description="Single movements of the face by their number in the Facial Action Coding System, alone or "
            "beside an emotion.",
            inputs=[
                io.String.Input(
                    "units",
                    default="12:0.8, 6:0.5",
                    tooltip="Number and strength from 0 to 1: 1 inner brow up, 2 outer brow up, 4 brow down, 5 eyes "
                    "wide, 6 cheeks up, 9 nose wrinkled, 12 smile, 15 corners down, 26 jaw drop … R14: one side only.",
                ),
                _beside(),
            ],
            outputs=[Emotion.Output(display_name="emotion"), io.String.Output(display_name="understood")],
        )

    @classmethod
    def execute(cls, units: str, emotion: EmotionSource | None = None) -> io.NodeOutput:
        return _output(EmotionSource(units=unit_track(parse_units(units))), emotion)

    @classmethod
    def validate_inputs(cls, units: str | None = None) -> bool | str:
        try:
            if units is not None:
                unit_track(parse_units(units))
        except ValueError as error:
            return str(error)
        return True


class ReferenceExpression(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEReferenceExpression",
            display_name="Reference Expression",
            category="MoEE talking portrait",
            description="The expression of another face, from one picture or from the frames of a video. Only what the "
            "face does is taken over, not who it is.",
            inputs=[
                io.Image.Input("image", tooltip="A face that fills the picture; several pictures are a video."),
                io.Float.Input(
                    "strength", default=1.0, min=0.05, max=1.5, step=0.05, tooltip="1 as strong as it is seen."
                ),
                io.Float.Input(
                    "fps",
                    default=25.0,
                    min=1.0,
                    max=120.0,
                    step=0.01,
                    tooltip="Frames a second of a video; a picture has none.",
                ),
                io.Boolean.Input(
                    "with_speech",
                    default=False,
                    tooltip="Of a video: take over the lips as well, which otherwise speak the new words alone.",
                ),
                _beside(),
            ],
            outputs=[Emotion.Output(display_name="emotion"), io.String.Output(display_name="understood")],
        )

    @classmethod
    def execute(
        cls, image: Tensor, strength: float, fps: float, with_speech: bool, emotion: EmotionSource | None = None
    ) -> io.NodeOutput:
        reader = expression_reader()
        pictures = (_picture(row) for row in image)
        if len(image) == 1:
            return _output(picture_source(reader, next(pictures), strength), emotion)
        return _output(video_source(reader, pictures, fps, strength, with_speech=with_speech), emotion)


def _picture(row: Any) -> np.ndarray:
    """(H, W, C) in 0..1 -> (H, W, 3) uint8."""
    return (row[..., :3].float().cpu().clamp(0, 1) * 255).round().byte().numpy()
