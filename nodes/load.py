"""Load Talking Portrait Model, Load Emotion Expert."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..moee_core.experts.file import inspect_expert
from . import host, models
from .sockets import Encoders

NONE = "none"


class LoadModel(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEELoadModel",
            display_name="Load Talking Portrait Model",
            category="MoEE talking portrait",
            description="Loads a talking-portrait checkpoint or a converted Hallo base: a native MODEL, the encoders "
            "around it, and its VAE.",
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=host.checkpoints(),
                    default=host.EMBEDDED,
                    tooltip="The small model that ships with the pack, or a .safetensors file in models/moee.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=["default", "fp32", "fp16", "bf16", "fp8_e4m3fn"],
                    default="default",
                    tooltip="How the denoiser's weights are stored. 'default' lets ComfyUI decide for your card.",
                ),
                io.Combo.Input(
                    "speech_encoder",
                    options=[NONE, *host.speech_encoders()],
                    default=NONE,
                    optional=True,
                    tooltip="What a Hallo base hears with: wav2vec2-base-960h in a folder of its own in "
                    "models/moee/encoders. Other models hear by themselves.",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                Encoders.Output(display_name="encoders"),
                io.Vae.Output(display_name="vae"),
            ],
        )

    @classmethod
    def execute(cls, checkpoint: str, weight_dtype: str, speech_encoder: str = NONE) -> io.NodeOutput:
        ear = None if speech_encoder == NONE else str(host.speech_encoders()[speech_encoder])
        return io.NodeOutput(*models.load(host.checkpoint_path(checkpoint), weight_dtype, ear))

    @classmethod
    def validate_inputs(cls, checkpoint: str) -> bool | str:
        try:
            models.inspect(host.checkpoint_path(checkpoint))
        except (OSError, ValueError) as error:
            return str(error)
        return True


NO_EXPERT = "none (put .safetensors files into models/moee/experts)"
"""Always a choice: a workflow saved before there was any file still loads."""


class LoadExpert(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        files = [*host.expert_files(), NO_EXPERT]
        return io.Schema(
            node_id="MoEELoadExpert",
            display_name="Load Emotion Expert",
            category="MoEE talking portrait",
            description="Changes one emotion's expert by a small file, or adds an expert of one's own, which the "
            "emotion then calls by its @name. Chain several, each with its own strength.",
            inputs=[
                io.Model.Input("model", tooltip="From Load Talking Portrait Model, or from another expert."),
                io.Combo.Input(
                    "expert", options=files, default=files[0], tooltip="What ships, or a file in models/moee/experts."
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=-2.0,
                    max=2.0,
                    step=0.05,
                    tooltip="1 as its author trained it, 0 not at all.",
                ),
            ],
            outputs=[io.Model.Output(display_name="model")],
        )

    @classmethod
    def execute(cls, model: Any, expert: str, strength: float) -> io.NodeOutput:
        if expert == NO_EXPERT or strength == 0:
            return io.NodeOutput(model)
        return io.NodeOutput(host.add_expert(model, host.expert_path(expert), strength))

    @classmethod
    def validate_inputs(cls, expert: str) -> bool | str:
        if expert == NO_EXPERT:
            return True
        try:
            inspect_expert(host.expert_path(expert))
        except (OSError, ValueError) as error:
            return str(error)
        return True
