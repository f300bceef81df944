"""Load DICE-Talk Model, DICE-Talk Sampler, DICE-Talk Conditioning."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import comfy.samplers
import comfy.utils
import folder_paths
import latent_preview
import torch
from comfy_api.latest import io
from torch import Tensor

from ..moee_core.audio.read import Waveform
from ..moee_core.jobs import StepJob, prune
from . import dice_models as dice
from . import host
from .dice_conditions import clip_of
from .dice_host import dice_config
from .dice_sampling import CHAIN, DiceSettings, branch, job_key, padded, sample_dice
from .dice_sockets import CLIP_SHOWN, ClipShown, DiceEncoders, DiceEncodersSocket, DicePriorSocket
from .emotion import problem
from .host import CHECKPOINT
from .sample import EMOTION_TIP, JOBS, KEEP_BYTES, KEEP_DAYS, room
from .sockets import ClipVision, Emotion, Face, FaceOnPicture

log = logging.getLogger(__name__)

NONE = "none"
FROM_LOADER = "From Load DICE-Talk Model."


class LoadDiceTalk(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEELoadDiceTalk",
            display_name="Load DICE-Talk Model",
            category="MoEE talking portrait",
            description="Loads DICE-Talk: a native MODEL, the networks around it, and a VAE. The published weights are "
            "for non-commercial use and need a VAE and a CLIP Vision of Stable Video Diffusion.",
            inputs=[
                io.Combo.Input(
                    "checkpoint",
                    options=list(dice.dice_files()),
                    default=host.EMBEDDED,
                    tooltip="The small model that ships, a converted file in models/moee/dice_talk, or a folder there "
                    "with the four published files.",
                ),
                io.Combo.Input(
                    "weight_dtype",
                    options=["default", *host.WEIGHT_DTYPES],
                    default="default",
                    tooltip="How the denoiser's weights are stored. 'default' lets ComfyUI decide for your card.",
                ),
                io.Combo.Input(
                    "speech_encoder",
                    options=[NONE, *dice.whisper_folders()],
                    default=NONE,
                    tooltip="What the published weights hear with: whisper-tiny in a folder of its own in "
                    "models/moee/encoders. The small model hears by itself.",
                ),
                io.Vae.Input(
                    "vae", optional=True, tooltip="Published weights: from Image Only Checkpoint Loader (svd_xt)."
                ),
                ClipVision.Input(
                    "clip_vision",
                    optional=True,
                    tooltip="Published weights: from Image Only Checkpoint Loader (svd_xt).",
                ),
            ],
            outputs=[
                io.Model.Output(display_name="model"),
                DiceEncodersSocket.Output(display_name="encoders"),
                io.Vae.Output(display_name="vae"),
                io.String.Output(display_name="licence"),
            ],
        )

    @classmethod
    def execute(
        cls, checkpoint: str, weight_dtype: str, speech_encoder: str, vae: Any = None, clip_vision: Any = None
    ) -> io.NodeOutput:
        ear = None if speech_encoder == NONE else speech_encoder
        model, encoders, own = dice.load(checkpoint, weight_dtype, ear, vae, clip_vision)
        log.info("talking portrait: %s: %s", checkpoint, encoders.licence)
        return io.NodeOutput(model, encoders, own, encoders.licence)

    @classmethod
    def validate_inputs(cls, checkpoint: str) -> bool | str:
        try:
            dice.inspect(checkpoint)
        except (OSError, ValueError) as error:
            return str(error)
        return True


def _inputs() -> list:
    """What the sampler and the conditioning both take."""
    return [
        DiceEncodersSocket.Input("encoders", tooltip=FROM_LOADER),
        io.Image.Input("image", tooltip="One face from the front; the first picture of a batch is used."),
        io.Audio.Input("audio", tooltip="One voice and little behind it. The video is as long as this."),
        io.MultiType.Input(
            io.String.Input("emotion", default="happy", tooltip=EMOTION_TIP), [Emotion, DicePriorSocket]
        ),
        io.Vae.Input("vae", optional=True, tooltip="Another VAE than the one that the loader gave to the encoders."),
        Face.Input(
            "face",
            optional=True,
            tooltip="Where the face is, from Face Points of the same picture. Without it a face is looked for, with "
            "mediapipe or an OpenCV before 5, where one is installed.",
        ),
    ]


def _guidance(name: str, default: float, tooltip: str) -> Any:
    return io.Float.Input(name, default=default, min=0.0, max=20.0, step=0.05, tooltip=tooltip)


class DiceSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        schedulers = comfy.samplers.KSampler.SCHEDULERS
        custom = [
            io.Int.Input("steps", default=25, min=1, max=1000, tooltip="Denoising steps of the whole clip."),
            io.Combo.Input(
                "sampler_name", options=comfy.samplers.KSampler.SAMPLERS, default="euler", tooltip="Core's samplers."
            ),
            io.Combo.Input(
                "scheduler",
                options=schedulers,
                default="karras",
                tooltip="'karras' gives the noise levels of Stable Video Diffusion.",
            ),
            _guidance("reference_guidance", 3.0, "Towards the portrait. Scales that are alike cost nothing more."),
            _guidance("audio_guidance", 6.0, "Towards what is spoken."),
            _guidance("emotion_guidance", 6.0, "Towards the emotion; unlike audio_guidance it takes one more pass."),
            io.Float.Input(
                "noise_sharing",
                default=0.0,
                min=0.0,
                max=0.95,
                step=0.05,
                tooltip="Part of the noise that all frames have in common: more is calmer.",
            ),
            io.Int.Input("overlap", default=0, min=0, max=24, tooltip="Frames that two windows share."),
            io.Int.Input("shift", default=7, min=0, max=1000, tooltip="Frames that windows move from step to step."),
            io.Int.Input(
                "padding",
                default=25,
                min=0,
                max=1000,
                tooltip="Silent frames behind the clip, cut off at the end: windows go round, and these keep the end "
                "from seeing the beginning.",
            ),
            io.Float.Input(
                "strength", default=1.0, min=0.05, max=1.0, step=0.05, tooltip="Part of the steps that are done."
            ),
            io.Boolean.Input(
                "mask", default=True, tooltip="Speech and emotion act within the face alone, as it was trained."
            ),
        ]
        return io.Schema(
            node_id="MoEEDiceSampler",
            display_name="DICE-Talk Sampler",
            category="MoEE talking portrait",
            description="Portrait, speech and an emotion prior become a clip, all windows together step by step. Queue "
            "the same again after a crash and it goes on behind the last step.",
            inputs=[
                io.Model.Input("model", tooltip=FROM_LOADER),
                *_inputs(),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="The same seed gives the same video.",
                ),
                io.DynamicCombo.Input(
                    "sampling",
                    options=[io.DynamicCombo.Option("recommended", []), io.DynamicCombo.Option("custom", custom)],
                    tooltip="'recommended' takes what the file says of itself, or what its authors use.",
                ),
            ],
            outputs=[
                io.Latent.Output(display_name="latent"),
                io.Audio.Output(display_name="audio"),
                io.Float.Output(display_name="fps"),
            ],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, emotion: str | None = None, sampling: object = None) -> bool | str:
        """``sampling`` must be taken: the host hands dynamic groups to every validation."""
        return problem(emotion) or True

    @classmethod
    def fingerprint_inputs(cls, **_given: object) -> str:
        """Asked anew when a file of a prior came, went or was written."""
        return dice.priors_stamp()

    @classmethod
    def execute(
        cls,
        model: Any,
        encoders: DiceEncoders,
        image: Tensor,
        audio: dict,
        emotion: Any,
        seed: int,
        sampling: dict,
        vae: Any = None,
        face: FaceOnPicture | None = None,
    ) -> io.NodeOutput:
        config = dice_config(model)
        if model.model_options.get(CHECKPOINT) != encoders.key:
            raise ValueError(
                "model and encoders are of different DICE-Talk files, which do not understand each other; connect both "
                "outputs of one Load DICE-Talk Model"
            )
        settings = dice_settings(encoders, sampling, seed)
        clip, waveform = clip_of(encoders, image, audio, emotion, face, mask=settings.mask, vae=vae)
        total = clip.frames + padded(clip, config.window_frames, settings)
        shape = (total, clip.latent_1Zhw.shape[1], clip.latent_1Zhw.shape[2], clip.latent_1Zhw.shape[3])
        key = job_key(model, encoders.key, clip, settings)
        root = Path(folder_paths.get_user_directory()) / JOBS
        prune(root, KEEP_DAYS, KEEP_BYTES, protect=key)
        room(root, (2 * total, *shape[1:]))
        job = StepJob.open(root, key, shape)
        latents = job.finished(clip.frames)
        if latents is None:
            job.finish(sample_dice(model, clip, settings, job, _preview(model, cls.hidden.unique_id)))
            latents = job.finished(clip.frames)
        return io.NodeOutput(*_outputs(latents, waveform, config.fps))


class DiceConditioning(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="MoEEDiceConditioning",
            display_name="DICE-Talk Conditioning",
            category="MoEE talking portrait",
            description="For core's own samplers: everything, the silent portrait, and nobody, with a latent of the "
            "right length. Put Shifted Windows behind the model; Dual CFG Guider is the authors' guidance.",
            inputs=[
                *_inputs(),
                io.Int.Input(
                    "padding",
                    default=25,
                    min=0,
                    max=1000,
                    tooltip="Silent frames behind the clip, so that its end does not see its beginning where windows "
                    "go round. Talking Portrait Video leaves them out.",
                ),
            ],
            outputs=[
                io.Conditioning.Output(display_name="positive"),
                io.Conditioning.Output(display_name="silent"),
                io.Conditioning.Output(display_name="negative"),
                io.Latent.Output(display_name="latent"),
                io.Audio.Output(display_name="audio"),
                io.Float.Output(display_name="fps"),
            ],
        )

    @classmethod
    def validate_inputs(cls, emotion: str | None = None) -> bool | str:
        return problem(emotion) or True

    @classmethod
    def fingerprint_inputs(cls, **_given: object) -> str:
        """Asked anew when a file of a prior came, went or was written."""
        return dice.priors_stamp()

    @classmethod
    def execute(
        cls,
        encoders: DiceEncoders,
        image: Tensor,
        audio: dict,
        emotion: Any,
        padding: int,
        vae: Any = None,
        face: FaceOnPicture | None = None,
    ) -> io.NodeOutput:
        clip, waveform = clip_of(encoders, image, audio, emotion, face, vae=vae)
        behind = max(padding, encoders.config.window_frames - clip.frames)  # a clip is at least one window long
        nobody, silent, _, everything = (branch(clip, behind, knows) for knows in CHAIN)
        latents = clip.latent_1Zhw.float().expand(clip.frames + behind, -1, -1, -1).clone()
        return io.NodeOutput(everything, silent, nobody, *_outputs(latents, waveform, encoders.config.fps))


def _outputs(latents: Tensor | None, waveform: Waveform, fps: float) -> tuple[dict, dict, float]:
    """LATENT, AUDIO and the rate at which the frames are drawn."""
    shown = ClipShown(samples=waveform.samples.shape[1], sample_rate=waveform.sample_rate, fps=fps)
    audio = {"waveform": torch.from_numpy(waveform.samples)[None], "sample_rate": waveform.sample_rate}
    return {"samples": latents, CLIP_SHOWN: shown}, audio, fps


def dice_settings(encoders: DiceEncoders, sampling: dict, seed: int) -> DiceSettings:
    """What was chosen; the rest is what the file says of itself, or what its authors use."""
    config, best = encoders.config, encoders.sampling
    plain = {
        "steps": int(best.get("num_inference_steps", 25)),
        "reference_guidance": best.get("reference_guidance", 3.0),
        "audio_guidance": best.get("audio_guidance", 6.0),
        "emotion_guidance": best.get("emotion_guidance", best.get("audio_guidance", 6.0)),
        "noise_sharing": best.get("noise_sharing", 0.0),
        "overlap": int(best.get("overlap", 0)),
        "shift": int(best.get("shift", 7)),
        "padding": int(best.get("padding", config.window_frames)),
    }
    custom = sampling if sampling.get("sampling") == "custom" else {}
    return DiceSettings(seed=seed, **{**plain, **{name: value for name, value in custom.items() if name != "sampling"}})


def _preview(model: Any, node_id: Any) -> Any:
    """Progress on the node, with a picture of what comes where a step foresees it."""
    bars: list[Any] = []
    previewer = latent_preview.get_previewer(model.load_device, model.model.latent_format)

    def preview(done: int, total: int, x0: Tensor | None) -> None:
        if not bars:
            bars.append(comfy.utils.ProgressBar(total, node_id=node_id))
        picture = previewer.decode_latent_to_preview_image("JPEG", x0) if previewer and x0 is not None else None
        bars[0].update_absolute(done, total, picture)

    return preview
