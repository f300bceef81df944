"""Talking Portrait: Portrait, Speech."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io
from torch import Tensor

from . import conditions
from .sockets import (
    AnyEncoders,
    AudioEncoder,
    AudioEncoderOutput,
    Encoders,
    Face,
    FaceOnPicture,
    InsightFace,
    Portrait,
    Speech,
)


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
                Face.Input(
                    "face",
                    optional=True,
                    tooltip="Hallo base: where the face is, from Face Points of the same picture. Without it a face is "
                    "looked for, with mediapipe or an OpenCV before 5, where one is installed.",
                ),
                InsightFace.Input(
                    "insightface",
                    optional=True,
                    tooltip="Hallo base: whose face it is, by InsightFace (antelopev2) as other packs load it. Without "
                    "it the person is known from the picture alone.",
                ),
            ],
            outputs=[Portrait.Output(display_name="portrait")],
        )

    @classmethod
    def execute(
        cls,
        encoders: AnyEncoders,
        vae: Any,
        image: Tensor,
        face: FaceOnPicture | None = None,
        insightface: Any = None,
    ) -> io.NodeOutput:
        return io.NodeOutput(conditions.encode_portrait(encoders, vae, image, face, insightface))


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
                AudioEncoder.Input(
                    "audio_encoder",
                    optional=True,
                    tooltip="Hallo base: wav2vec2-base-960h from Load Audio Encoder, instead of speech_encoder of the "
                    "model's loader. The same numbers.",
                ),
                AudioEncoderOutput.Input(
                    "audio_encoder_output",
                    optional=True,
                    tooltip="Hallo base: the same recording through Encode Audio. Near what the base was trained on, "
                    "not the same; audio_encoder is better.",
                ),
            ],
            outputs=[
                Speech.Output(display_name="speech"),
                io.Int.Output(display_name="frames"),
                io.Float.Output(display_name="fps"),
            ],
        )

    @classmethod
    def execute(
        cls, encoders: AnyEncoders, audio: dict, audio_encoder: Any = None, audio_encoder_output: Any = None
    ) -> io.NodeOutput:
        speech = conditions.encode_recording(encoders, audio, audio_encoder, audio_encoder_output)
        return io.NodeOutput(speech, speech.num_frames, speech.fps)
