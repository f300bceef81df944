"""Talking Portrait: Portrait, Speech."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from . import conditions
from .sockets import Encoders, EncoderSet, Portrait, Speech


class EncodePortrait(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEPortrait",
            display_name="Encode Portrait",
            category="MoEE talking portrait",
            description="Reads a portrait once: its latent and the features of the reference network.",
            inputs=[
                Encoders.Input("encoders", tooltip="From Load Talking Portrait Model."),
                io.Vae.Input("vae", tooltip="The VAE of the same checkpoint."),
                io.Image.Input("image", tooltip="One face from the front; the first picture of a batch is used."),
            ],
            outputs=[Portrait.Output(display_name="portrait")],
        )

    @classmethod
    def execute(cls, encoders: EncoderSet, vae: Any, image: Tensor) -> io.NodeOutput:
        return io.NodeOutput(conditions.encode_portrait(encoders, vae, image))


class EncodeSpeech(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEESpeech",
            display_name="Encode Speech",
            category="MoEE talking portrait",
            description="Reads a recording once: features for every frame of the video.",
            inputs=[
                Encoders.Input("encoders", tooltip="From Load Talking Portrait Model."),
                io.Audio.Input("audio", tooltip="One voice and little behind it. The video is as long as this."),
            ],
            outputs=[
                Speech.Output(display_name="speech"),
                io.Int.Output(display_name="frames"),
                io.Float.Output(display_name="fps"),
            ],
        )

    @classmethod
    def execute(cls, encoders: EncoderSet, audio: dict) -> io.NodeOutput:
        speech = conditions.encode_recording(encoders, audio)
        return io.NodeOutput(speech, speech.num_frames, speech.fps)
