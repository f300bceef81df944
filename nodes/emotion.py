"""Emotion, Emotion Timeline, Emotion to Latents."""

from __future__ import annotations

from comfy_api.latest import io

from ..moee_core.emotion.condition import MAX_INTENSITY
from ..moee_core.emotion.source import EmotionSource, as_source
from ..moee_core.emotion.timeline import parse_emotion
from ..moee_core.emotion.vocabulary import COMPOUNDS, LABELS
from . import conditions
from .sockets import AnyEncoders, Emotion, EmotionLatents, Encoders, Speech, SpeechFeatures

CHOICES = [*LABELS, *COMPOUNDS]


class EmotionNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEEmotion",
            display_name="Emotion",
            category="MoEE talking portrait",
            description="One emotion, or a compound such as happily surprised, as strong as you like.",
            inputs=[
                io.Combo.Input(
                    "emotion", options=CHOICES, default="happy", tooltip="A basic emotion or a compound of two."
                ),
                io.Float.Input(
                    "intensity",
                    default=1.0,
                    min=0.0,
                    max=MAX_INTENSITY,
                    step=0.05,
                    tooltip="0 is neutral, 1 as strong as the model was trained, up to 1.5.",
                ),
            ],
            outputs=[Emotion.Output(display_name="emotion")],
        )

    @classmethod
    def execute(cls, emotion: str, intensity: float) -> io.NodeOutput:
        text = f"{emotion} {intensity:g}" if emotion != "neutral" else emotion
        return io.NodeOutput(as_source(parse_emotion(text)))


class EmotionTimelineNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEEmotionTimeline",
            display_name="Emotion Timeline",
            category="MoEE talking portrait",
            description="Emotions that mix and change as the speech goes on, as one line of text or as JSON.",
            inputs=[
                io.String.Input(
                    "timeline",
                    multiline=True,
                    default="0 neutral; 1 happy ease 0.4; 3 surprised",
                    tooltip="seconds emotion [weight] [+ emotion weight] [ease seconds]; next key …",
                ),
            ],
            outputs=[Emotion.Output(display_name="emotion")],
        )

    @classmethod
    def execute(cls, timeline: str) -> io.NodeOutput:
        return io.NodeOutput(as_source(parse_emotion(timeline)))

    @classmethod
    def validate_inputs(cls, timeline: str) -> bool | str:
        return problem(timeline) or True


class EmotionToLatentsNode(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEEmotionToLatents",
            display_name="Emotion to Latents",
            category="MoEE talking portrait",
            description="The emotion of every frame of a recording, worked out once and used many times.",
            inputs=[
                Encoders.Input("encoders", tooltip="From Load Talking Portrait Model."),
                Emotion.Input("emotion", tooltip="From any Emotion node."),
                Speech.Input("speech", tooltip="Says how many frames there are, and in what mood."),
            ],
            outputs=[EmotionLatents.Output(display_name="emotion_latents")],
        )

    @classmethod
    def execute(cls, encoders: AnyEncoders, emotion: EmotionSource, speech: SpeechFeatures) -> io.NodeOutput:
        return io.NodeOutput(conditions.encode_emotion(encoders, emotion, speech))


def problem(text: str | None) -> str:
    """What is wrong with an emotion text, or nothing; a linked input is None and judged when it arrives."""
    if text is None:
        return ""
    try:
        parse_emotion(text)
    except ValueError as error:
        return str(error)
    return ""
