"""Emotion Contact Sheet, Effect Meter, Gate Viewer: see what an emotion does to a portrait before a long job."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.utils
import numpy as np
import torch
from comfy_api.latest import io

from ..moee_core.audio.read import Waveform
from ..moee_core.emotion.condition import parse_blend
from ..moee_core.emotion.source import EmotionSource, as_source
from ..moee_core.emotion.timeline import parse_emotion
from ..moee_core.emotion.vocabulary import EXPERTS, quote
from ..moee_core.experts.view import GateRecorder, gate_picture
from ..moee_core.jobs import Job
from ..moee_core.metrics.effect import effect_picture, measure
from ..moee_core.networks.expression_reader import ExpressionReader
from ..moee_core.video.frames import contact_sheet
from ..moee_core.weights.expression_reader import load_expression_reader
from . import conditions
from .emotion import problem
from .sample import EMOTION_TIP, recommended
from .sampling import sample_clip
from .sockets import AnyEncoders, Emotion, EmotionTrack, Encoders, Portrait, PortraitCondition, SpeechFeatures

MOST_CELLS = 60
PROBE_SECONDS = 1.0


@lru_cache(maxsize=1)
def expression_reader() -> ExpressionReader:
    """On the CPU: half a million weights."""
    return load_expression_reader()


def _shared_inputs() -> list[io.Input]:
    return [
        io.Model.Input("model", tooltip="From Load Talking Portrait Model, or from an expert."),
        Encoders.Input("encoders", tooltip="From Load Talking Portrait Model."),
        io.Vae.Input("vae", tooltip="The checkpoint's VAE."),
        io.MultiType.Input("portrait", [io.Image, Portrait], tooltip="A picture, or Encode Portrait."),
    ]


def _seed() -> io.Input:
    return io.Int.Input(
        "seed", default=0, min=0, max=0xFFFFFFFF, control_after_generate=io.ControlAfterGenerate.fixed,
        tooltip="The same seed gives the same frames.",
    )  # fmt: skip


def _face(encoders: AnyEncoders, vae: Any, portrait: Any) -> PortraitCondition:
    return portrait if isinstance(portrait, PortraitCondition) else conditions.encode_portrait(encoders, vae, portrait)


def _frames(
    model: Any,
    encoders: AnyEncoders,
    vae: Any,
    face: PortraitCondition,
    speech: SpeechFeatures,
    track: EmotionTrack,
    seed: int,
) -> np.ndarray:
    """(F, S, S, 3) uint8 of one emotion, sampled as recommended; nothing is left on disk."""
    latent = face.latent
    shape = (speech.num_frames, encoders.config.unet.latent_channels, latent.shape[-2], latent.shape[-1])
    with tempfile.TemporaryDirectory() as folder:
        job = Job.open(Path(folder), "probe", shape)
        sample_clip(model, encoders, face, speech, track, recommended(encoders, seed), job, lambda *_: None)
        latents = job.latents().clone()
        job.close()
    pictures = vae.decode(latents)
    return (pictures.float().cpu().clamp(0, 1) * 255).round().byte().numpy()


def _quiet(encoders: AnyEncoders, frames: int) -> SpeechFeatures:
    """A recording in which nobody speaks."""
    samples = torch.zeros(1, 1, round(frames / encoders.config.fps * 16000))
    return conditions.encode_recording(encoders, {"waveform": samples, "sample_rate": 16000})


def _image(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).float()[None] / 255


def read_list(text: str, what: str) -> list[str]:
    """Entries between commas. Raises ``ValueError`` for none."""
    entries = [entry.strip() for entry in text.replace(";", ",").split(",") if entry.strip()]
    if not entries:
        raise ValueError(f"there are no {what}; separate several by commas")
    return entries


def read_sheet(emotions: str, intensities: str) -> tuple[list[str], list[float]]:
    """What the sheet's rows and columns are. Raises ``ValueError`` for what no emotion or intensity is."""
    labels = read_list(emotions, "emotions")
    for label in labels:
        parse_blend(label)
    values = []
    for entry in read_list(intensities, "intensities"):
        try:
            values.append(float(entry))
        except ValueError as error:
            raise ValueError(f"the intensity {quote(entry)} is not a number; write them like 0.5, 1") from error
        for label in labels:
            parse_blend(label).scaled(values[-1])
    if len(labels) * len(values) > MOST_CELLS:
        raise ValueError(f"{len(labels)} emotions at {len(values)} intensities are more than {MOST_CELLS} pictures")
    return labels, values


class ContactSheet(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEContactSheet",
            display_name="Emotion Contact Sheet",
            category="MoEE talking portrait",
            description="What every emotion looks like on this portrait, at several intensities.",
            inputs=[
                *_shared_inputs(),
                io.String.Input(
                    "emotions", default=", ".join(EXPERTS), tooltip="Emotions, compounds or blends, between commas."
                ),
                io.String.Input("intensities", default="0.3, 0.6, 1.0, 1.4", tooltip="From 0 to 1.5, between commas."),
                _seed(),
            ],
            outputs=[io.Image.Output(display_name="sheet")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, emotions: str | None = None, intensities: str | None = None) -> bool | str:
        try:
            read_sheet("happy" if emotions is None else emotions, "1" if intensities is None else intensities)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls, model: Any, encoders: AnyEncoders, vae: Any, portrait: Any, emotions: str, intensities: str, seed: int
    ) -> io.NodeOutput:
        labels, values = read_sheet(emotions, intensities)
        face = _face(encoders, vae, portrait)
        speech = _quiet(encoders, encoders.config.window_frames)
        bar = comfy.utils.ProgressBar(len(labels) * len(values), node_id=cls.hidden.unique_id)
        cells, names = [], []
        for label in labels:
            for value in values:
                mm.throw_exception_if_processing_interrupted()
                source = as_source(parse_blend(label).scaled(value))
                track = conditions.encode_emotion(encoders, source, speech)
                cells.append(_frames(model, encoders, vae, face, speech, track, seed)[-1])
                names.append(f"{label} {value:g}")
                bar.update(1)
        return io.NodeOutput(_image(contact_sheet(cells, len(values), names)))


def _probe_inputs() -> list[io.Input]:
    return [
        *_shared_inputs(),
        io.MultiType.Input(io.String.Input("emotion", default="happy", tooltip=EMOTION_TIP), [Emotion]),
        _seed(),
        io.Audio.Input("audio", optional=True, tooltip="Its first second is spoken; without it the face keeps silent."),
    ]


def _probe(
    model: Any, encoders: AnyEncoders, vae: Any, portrait: Any, emotion: Any, seed: int, audio: dict | None
) -> tuple[PortraitCondition, np.ndarray, EmotionTrack]:
    """One second of the emotion on the portrait."""
    source = emotion if isinstance(emotion, EmotionSource) else as_source(parse_emotion(emotion))
    face = _face(encoders, vae, portrait)
    if audio is None:
        speech = _quiet(encoders, round(PROBE_SECONDS * encoders.config.fps))
    else:
        waveform: Waveform = conditions.waveform_of(audio)
        first = waveform.samples[:, : round(PROBE_SECONDS * waveform.sample_rate)]
        speech = conditions.encode_recording(
            encoders, {"waveform": torch.from_numpy(first)[None], "sample_rate": waveform.sample_rate}
        )
    track = conditions.encode_emotion(encoders, source, speech)
    return face, _frames(model, encoders, vae, face, speech, track, seed), track


class EffectMeter(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEEffectMeter",
            display_name="Effect Meter",
            category="MoEE talking portrait",
            description="Makes one second and reads it back: which action units the emotion asks for, and which the "
            "face then shows.",
            inputs=_probe_inputs(),
            outputs=[
                io.Image.Output(display_name="chart"),
                io.String.Output(display_name="report"),
                io.Float.Output(display_name="share"),
            ],
        )

    @classmethod
    def validate_inputs(cls, emotion: str | None = None) -> bool | str:
        return problem(emotion) or True

    @classmethod
    def execute(
        cls,
        model: Any,
        encoders: AnyEncoders,
        vae: Any,
        portrait: Any,
        emotion: Any,
        seed: int,
        audio: dict | None = None,
    ) -> io.NodeOutput:
        face, frames, track = _probe(model, encoders, vae, portrait, emotion, seed, audio)
        before = vae.decode(face.latent)
        still = (before[0].float().cpu().clamp(0, 1) * 255).round().byte().numpy()
        settled = frames[len(frames) // 4 :]  # the first frames are still on their way from the portrait
        effect = measure(expression_reader(), still, list(settled), track.rows)
        return io.NodeOutput(_image(effect_picture(effect)), effect.text(), effect.share)


class GateViewer(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEGateViewer",
            display_name="Gate Viewer",
            category="MoEE talking portrait",
            description="How much every emotion expert is called (g), and where on the face it acts (s).",
            inputs=_probe_inputs(),
            outputs=[io.Image.Output(display_name="gates"), io.String.Output(display_name="report")],
        )

    @classmethod
    def validate_inputs(cls, emotion: str | None = None) -> bool | str:
        return problem(emotion) or True

    @classmethod
    def execute(
        cls,
        model: Any,
        encoders: AnyEncoders,
        vae: Any,
        portrait: Any,
        emotion: Any,
        seed: int,
        audio: dict | None = None,
    ) -> io.NodeOutput:
        with GateRecorder(model.model.diffusion_model) as recorder:
            _, frames, _ = _probe(model, encoders, vae, portrait, emotion, seed, audio)
        view = recorder.view()
        return io.NodeOutput(_image(gate_picture(view, frames[-1], scale=256 / frames.shape[2])), view.text())
