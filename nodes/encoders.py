"""Load Emotion Encoders."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from comfy_api.latest import io

from ..moee_core.emotion.frozen import FrozenEncoders
from ..moee_core.weights.frozen import load_frozen
from . import host
from .sockets import AnyEncoders, Encoders

NONE = "none"


class LoadEmotionEncoders(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEELoadEmotionEncoders",
            display_name="Load Emotion Encoders",
            category="MoEE talking portrait",
            description="Public encoders of text and voice, for a model that was trained with them. The embedded model "
            "has its own and needs none.",
            inputs=[
                Encoders.Input("encoders", tooltip="From Load Talking Portrait Model."),
                io.Combo.Input(
                    "text_encoder",
                    options=[NONE, *host.text_encoders()],
                    default=NONE,
                    tooltip="A sentence-T5 in a folder of its own in models/moee/encoders.",
                ),
                io.Combo.Input(
                    "voice_encoder",
                    options=[NONE, *host.voice_encoders()],
                    default=NONE,
                    tooltip="A HuBERT or an emotion2vec in a folder of its own in models/moee/encoders.",
                ),
            ],
            outputs=[Encoders.Output(display_name="encoders")],
        )

    @classmethod
    def execute(cls, encoders: AnyEncoders, text_encoder: str, voice_encoder: str) -> io.NodeOutput:
        text = None if text_encoder == NONE else str(host.text_encoders()[text_encoder])
        voice = None if voice_encoder == NONE else str(host.voice_encoders()[voice_encoder])
        frozen = _loaded(text, voice)
        frozen.check(encoders.emotion_config)
        return io.NodeOutput(replace(encoders, frozen=frozen))


@lru_cache(maxsize=1)
def _loaded(text: str | None, voice: str | None) -> FrozenEncoders:
    """On the CPU, as EmoTalker's HuBERT: they run once for a whole recording, and leave the card to the model."""
    return load_frozen(text, voice)
