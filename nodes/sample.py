"""Talking Portrait Sampler, and the conditioning for core's samplers."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import comfy.model_management as mm
import comfy.samplers
import comfy.utils
import folder_paths
import latent_preview
import torch
from comfy_api.latest import io

from ..moee_core.diffusion.sampler import Savings
from ..moee_core.emotion.source import EmotionSource, as_source
from ..moee_core.emotion.timeline import parse_emotion
from ..moee_core.jobs import Job, bytes_needed, known_speed, prune, spoken_time
from . import conditions
from .emotion import problem
from .sampling import Settings, job_key, machine, sample_clip, window_memory
from .sockets import (
    AnyEncoders,
    Emotion,
    EmotionLatents,
    EmotionTrack,
    Encoders,
    Portrait,
    PortraitCondition,
    Speech,
    SpeechFeatures,
)

log = logging.getLogger(__name__)

JOBS = "moee_jobs"
KEEP_DAYS, KEEP_BYTES = 7.0, 20 << 30
SPARE_DISK = 256 << 20
DEFAULTS = {"num_inference_steps": 8.0, "emotion_guidance": 1.0, "audio_guidance": 1.0, "noise_sharing": 0.2}
EMOTION_TIP = "An emotion (happy), a mix (happy 0.6 + sad 0.3), a timeline (0 neutral; 2 happy), or an Emotion node."


def _inputs() -> list:
    """What the sampler and the conditioning both take."""
    return [
        Encoders.Input("encoders", tooltip="From Load Talking Portrait Model."),
        io.MultiType.Input(
            "portrait", [io.Image, Portrait], tooltip="A picture, or one that Encode Portrait has read already."
        ),
        io.MultiType.Input(
            "speech", [io.Audio, Speech], tooltip="A recording, or one that Encode Speech has read already."
        ),
        io.MultiType.Input(io.String.Input("emotion", default="happy", tooltip=EMOTION_TIP), [Emotion, EmotionLatents]),
    ]


class Sampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        custom = [
            io.Int.Input("steps", default=4, min=1, max=1000, tooltip="Denoising steps for every window."),
            io.Combo.Input(
                "sampler_name",
                options=comfy.samplers.KSampler.SAMPLERS,
                default="euler",
                tooltip="Core's samplers.",
            ),
            io.Combo.Input(
                "scheduler",
                options=comfy.samplers.KSampler.SCHEDULERS,
                default="simple",
                tooltip="'simple' gives the time-steps the model was trained for.",
            ),
            io.Float.Input(
                "emotion_guidance",
                default=1.0,
                min=0.0,
                max=10.0,
                step=0.05,
                tooltip="Away from the neutral face. 1 is off; anything else takes three passes a step instead of one.",
            ),
            io.Float.Input(
                "audio_guidance",
                default=1.0,
                min=0.0,
                max=10.0,
                step=0.05,
                tooltip="Away from the silent face. 1 is off; anything else takes two passes a step, three with both.",
            ),
            io.Float.Input(
                "noise_sharing",
                default=0.2,
                min=0.0,
                max=0.95,
                step=0.05,
                tooltip="Part of the noise that all frames have in common: more is calmer.",
            ),
            io.Float.Input(
                "guidance_from",
                default=0.0,
                min=0.0,
                max=1.0,
                step=0.05,
                tooltip="Guidance acts from this part of the way from noise to picture; outside it is off.",
            ),
            io.Float.Input(
                "guidance_until", default=1.0, min=0.0, max=1.0, step=0.05, tooltip="Up to this part of the way."
            ),
            io.Int.Input(
                "reuse",
                default=1,
                min=1,
                max=100,
                tooltip="Work out deep features every so many evaluations only: faster and coarser. 1 is off.",
            ),
            io.Boolean.Input(
                "carry_latents",
                default=False,
                tooltip="A Hallo base: hand the last latents to the next window as they are, not decoded and encoded.",
            ),
        ]
        return io.Schema(
            node_id="MoEESampler",
            display_name="Talking Portrait Sampler",
            category="MoEE talking portrait",
            description="Portrait, speech and emotion become a video, window after window. What is finished is kept: "
            "queue the same again after a crash and it goes on where it stopped.",
            inputs=[
                io.Model.Input("model", tooltip="From Load Talking Portrait Model."),
                *_inputs(),
                io.Vae.Input("vae", optional=True, tooltip="The checkpoint's VAE; needed when portrait is a picture."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,  # so that a job that stopped is found again
                    tooltip="The same seed gives the same video.",
                ),
                io.DynamicCombo.Input(
                    "sampling",
                    options=[io.DynamicCombo.Option("recommended", []), io.DynamicCombo.Option("custom", custom)],
                    tooltip="'recommended' takes what the checkpoint was tuned for.",
                ),
            ],
            outputs=[io.Latent.Output(display_name="latent"), io.Audio.Output(display_name="audio")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, emotion: str | None = None, sampling: object = None) -> bool | str:
        """``sampling`` must be taken: the host hands dynamic groups to every validation."""
        return problem(emotion) or True

    @classmethod
    def execute(
        cls,
        model: Any,
        encoders: AnyEncoders,
        portrait: Any,
        speech: Any,
        emotion: Any,
        seed: int,
        sampling: dict,
        vae: Any = None,
    ) -> io.NodeOutput:
        face, voice, track = _read(encoders, portrait, speech, emotion, vae)
        settings = _settings(encoders, sampling, seed)
        shape = (voice.num_frames, encoders.config.unet.latent_channels, face.latent.shape[-2], face.latent.shape[-1])
        key = job_key(model, face, voice, track, settings)
        root = Path(folder_paths.get_user_directory()) / JOBS
        prune(root, KEEP_DAYS, KEEP_BYTES, protect=key)
        room(root, shape)
        job = Job.open(root, key, shape)
        _preflight(job, model, settings, encoders.config.window_frames)
        bar = comfy.utils.ProgressBar(voice.num_frames, node_id=cls.hidden.unique_id)
        previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

        def preview(done: int, total: int, x0: torch.Tensor | None) -> None:
            picture = previewer.decode_latent_to_preview_image("JPEG", x0) if previewer and x0 is not None else None
            bar.update_absolute(done, total, picture)

        sample_clip(model, encoders, face, voice, track, settings, job, preview)
        waveform = voice.waveform
        audio = {"waveform": torch.from_numpy(waveform.samples)[None], "sample_rate": waveform.sample_rate}
        return io.NodeOutput({"samples": job.latents()}, audio)


class Conditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEConditioning",
            display_name="Talking Portrait Conditioning",
            category="MoEE talking portrait",
            description="For core's own samplers: positive, negative and an empty latent of the right length. Every "
            "frame is sampled at once; only the Talking Portrait Sampler chains windows for long recordings.",
            inputs=[
                *_inputs(),
                io.Vae.Input("vae", optional=True, tooltip="The checkpoint's VAE; needed when portrait is a picture."),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"),
                io.Audio.Output(display_name="audio"),
            ],
        )

    @classmethod
    def validate_inputs(cls, emotion: str | None = None) -> bool | str:
        return problem(emotion) or True

    @classmethod
    def execute(cls, encoders: AnyEncoders, portrait: Any, speech: Any, emotion: Any, vae: Any = None) -> io.NodeOutput:
        face, voice, track = _read(encoders, portrait, speech, emotion, vae)
        made = conditions.conditioning(encoders, face, voice, track, torch.arange(voice.num_frames))
        shape = (voice.num_frames, encoders.config.unet.latent_channels, face.latent.shape[-2], face.latent.shape[-1])
        waveform = voice.waveform
        audio = {"waveform": torch.from_numpy(waveform.samples)[None], "sample_rate": waveform.sample_rate}
        return io.NodeOutput(made["full"], made[conditions.opposite(encoders)], {"samples": torch.zeros(shape)}, audio)


def _read(
    encoders: AnyEncoders, portrait: Any, speech: Any, emotion: Any, vae: Any
) -> tuple[PortraitCondition, SpeechFeatures, EmotionTrack]:
    """Whatever was connected, as the three things the denoiser needs, from one and the same checkpoint."""
    if not isinstance(portrait, PortraitCondition):
        if vae is None:
            raise ValueError("connect vae: a picture has to be encoded; or use Encode Portrait and connect its output")
        portrait = conditions.encode_portrait(encoders, vae, portrait)
    if not isinstance(speech, SpeechFeatures):
        speech = conditions.encode_recording(encoders, speech)
    if isinstance(emotion, str):
        emotion = as_source(parse_emotion(emotion))
    if isinstance(emotion, EmotionSource):
        emotion = conditions.encode_emotion(encoders, emotion, speech)
    if len(emotion.rows) != speech.num_frames:
        raise ValueError(
            f"the emotion has {len(emotion.rows)} frames and the speech {speech.num_frames}; "
            "connect the same speech to Emotion to Latents"
        )
    return portrait, speech, emotion


def _settings(encoders: AnyEncoders, sampling: dict, seed: int) -> Settings:
    best = {**DEFAULTS, **encoders.sampling}
    custom = sampling if sampling.get("sampling") == "custom" else {}
    return Settings(
        seed=seed,
        steps=int(custom.get("steps", best["num_inference_steps"])),
        sampler_name=str(custom.get("sampler_name", "euler")),
        scheduler=str(custom.get("scheduler", "simple")),
        emotion_guidance=float(custom.get("emotion_guidance", best["emotion_guidance"])),
        audio_guidance=float(custom.get("audio_guidance", best["audio_guidance"])),
        noise_sharing=float(custom.get("noise_sharing", best["noise_sharing"])),
        savings=Savings(
            guidance_from=float(custom.get("guidance_from", 0.0)),
            guidance_until=float(custom.get("guidance_until", 1.0)),
            reuse=int(custom.get("reuse", 1)),
        ),
        carry_latents=bool(custom.get("carry_latents", False)),
    )


def recommended(encoders: AnyEncoders, seed: int) -> Settings:
    """As the checkpoint is best sampled."""
    return _settings(encoders, {"sampling": "recommended"}, seed)


def _preflight(job: Job, model: Any, settings: Settings, window: int) -> None:
    """Say what the job will take; refuse what cannot end well."""
    frames, *rest = job.shape
    windows = -(-(frames - job.done) // window)
    seconds = known_speed(job.folder.parent, machine(model))
    spoken = "not known before the first run here"
    if seconds is not None:
        spoken = f"about {spoken_time(windows * settings.steps * settings.branches * seconds)}"
    memory, device = window_memory(model, settings, (window, *rest)), model.load_device
    whole = mm.get_total_memory(device)
    log.info(
        "talking portrait: %d of %d frames left, %d windows of %d, %d passes each; time %s; memory %.0f MB of %.1f GB "
        "on %s; disk %.1f MB of %.1f GB free",
        frames - job.done,
        frames,
        windows,
        window,
        settings.steps * settings.branches,
        spoken,
        memory / 1e6,
        whole / 1e9,
        device,
        bytes_needed(job.shape) / 1e6,
        shutil.disk_usage(job.folder).free / 1e9,
    )
    if memory > whole:
        raise ValueError(
            f"one window needs about {memory / 1e6:.0f} MB and {device} has {whole / 1e6:.0f} MB in all; switch "
            "guidance off (1.0), use a smaller checkpoint, or start ComfyUI with --cpu"
        )


def room(root: Path, shape: tuple[int, ...]) -> None:
    """Refuse a job that the disk cannot hold, before anything is written."""
    root.mkdir(parents=True, exist_ok=True)
    needed, free = bytes_needed(shape), shutil.disk_usage(root).free
    if needed + SPARE_DISK > free:
        raise ValueError(
            f"the disk of {root} has {free / 1e6:.0f} MB free, this recording needs {needed / 1e6:.0f} MB and some "
            "room for the video; free some space, or use a shorter recording"
        )
