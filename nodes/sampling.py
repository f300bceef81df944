"""Sampling window by window with the host's samplers, and guidance with a scale per condition.

Shapes: F frames of a window; noise and latents (F, Z, h, w).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

import comfy.model_management as mm
import comfy.sample
import comfy.samplers
import comfy.utils
import torch
from torch import Tensor

from ..moee_core.diffusion.sampler import Reuse, Savings, frame_noise, guided_in_silence, spoken_passes
from ..moee_core.jobs import Job, fingerprint, keep_speed
from .conditions import conditioning
from .contents import model_contents
from .guidance import is_told, say_what_is_left_out, told
from .host import CHECKPOINT, DEEP
from .sockets import AnyEncoders, EmotionTrack, PortraitCondition, SpeechFeatures

NO_SAVINGS = Savings()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the sampler node asks for."""

    seed: int
    steps: int
    sampler_name: str
    scheduler: str
    emotion_guidance: float
    audio_guidance: float
    noise_sharing: float
    savings: Savings = field(default_factory=Savings)
    carry_latents: bool = False

    @property
    def branches(self) -> int:
        """Passes of the network in every step: one, two with guidance of the audio, three with that of the emotion."""
        return len(spoken_passes(self.emotion_guidance, self.audio_guidance))


class ConditionGuider(comfy.samplers.CFGGuider):
    """Guidance with a scale per condition (``guided_in_silence``); a scale of 1 costs nothing, where nobody is told of
    the branch that knows nothing. Made anew for every window."""

    def set_conditions(
        self,
        conditions: dict[str, list],
        *,
        emotion: float,
        audio: float,
        savings: Savings = NO_SAVINGS,
        sampler_name: str = "",
    ) -> None:
        self.emotion, self.audio, self.savings = emotion, audio, savings
        self.reuse = Reuse(savings.reuse)
        self.passes = spoken_passes(emotion, audio)
        names = [*self.passes, *(["negative"] if is_told(self.model_options, sampler_name) else [])]
        self.inner_set_conds({"positive" if name == "full" else name: conditions[name] for name in names})

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: int | None = None
    ) -> Tensor:
        passes, scales = self.passes, {"emotion": self.emotion, "audio": self.audio}
        if not self.savings.guides(self._time(timestep)):
            passes, scales = ("full",), {"emotion": 1.0, "audio": 1.0}
        options = dict(model_options or {})
        if is_told(options) and "negative" in self.conds and "negative" not in passes:
            passes = (*passes, "negative")
        conds = [self.conds["positive" if name == "full" else name] for name in passes]
        self.reuse.begin()
        if self.savings.reuse > 1 and options.get("context_handler") is None:  # whose windows are calls of one shape
            options["transformer_options"] = {**options.get("transformer_options", {}), DEEP: self.reuse}
        out = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, options)
        return told(
            guided_in_silence(dict(zip(passes, out, strict=True)), **scales),
            x,
            timestep,
            self.inner_model,
            model_options or {},  # without what is kept of deep layers: a function may ask the network for more
            scale=scales["audio"],
            everything=(conds[0], out[0]),
            nothing=(conds[-1], out[-1]),
        )

    def _time(self, sigma_N: Tensor) -> Tensor:
        """(1,) the time-step 0..999 of the host's sigmas; not looked up where nobody asks."""
        if self.savings.guides_always:
            return sigma_N[:1]
        return self.inner_model.model_sampling.timestep(sigma_N[:1])


def job_key(
    model: Any, portrait: PortraitCondition, speech: SpeechFeatures, emotion: EmotionTrack, settings: Settings
) -> str:
    """Everything that shapes the frames: weights and their patches, inputs, settings."""
    weights = model_contents(model, settings.scheduler, settings.steps)
    return fingerprint([*weights, portrait.key, speech.key, emotion.key, sorted(asdict(settings).items())])


def machine(model: Any) -> str:
    """What a speed is true for: weights, their type, and the device."""
    checkpoint = model.model_options.get(CHECKPOINT, "")
    return f"{checkpoint[:16]} {model.model.get_dtype()} {mm.get_torch_device_name(model.load_device)}"


def window_memory(model: Any, settings: Settings, shape_FZhw: tuple[int, ...]) -> int:
    """Bytes one window needs beside the weights, as the host reckons."""
    frames, *rest = shape_FZhw
    return int(model.memory_required([frames * settings.branches, *rest]))


def sample_clip(
    model: Any,
    encoders: AnyEncoders,
    portrait: PortraitCondition,
    speech: SpeechFeatures,
    emotion: EmotionTrack,
    settings: Settings,
    job: Job,
    preview: Callable[[int, int, Any], None],
) -> None:
    """Fill ``job`` window after window; what it holds already stays. Interruption leaves finished windows in place."""
    unet = encoders.config.unet
    window, total = encoders.config.window_frames, speech.num_frames
    sampler = comfy.samplers.sampler_object(settings.sampler_name)
    sigmas = comfy.samplers.calculate_sigmas(
        model.get_model_object("model_sampling"), settings.scheduler, settings.steps
    )
    shape = (unet.latent_channels, portrait.latent.shape[-2], portrait.latent.shape[-1])
    say_what_is_left_out(model.model_options)
    preview(job.done, total, None)
    while not job.finished:
        start, began = job.done, time.monotonic()
        # the last window is filled up with the recording's end, so that the network always sees a whole window
        frames = torch.arange(start, start + window).clamp_max(total - 1)
        motion = job.last(unet.motion_frames) if start else None
        conditions = conditioning(
            encoders, portrait, speech, emotion, frames, motion, carry_latents=settings.carry_latents
        )
        guider = ConditionGuider(model)
        guider.set_conditions(
            conditions,
            emotion=settings.emotion_guidance,
            audio=settings.audio_guidance,
            savings=settings.savings,
            sampler_name=settings.sampler_name,
        )
        noise = frame_noise(settings.seed, start, window, shape, settings.noise_sharing)
        steps = len(sigmas) - 1

        def callback(step: int, x0: Tensor, _x: Tensor, _total: int, start: int = start, steps: int = steps) -> None:
            preview(start + min(window, total - start) * (step + 1) // steps, total, x0)

        latents = guider.sample(
            noise,
            torch.zeros_like(noise),
            sampler,
            sigmas,
            callback=callback,
            disable_pbar=True,
            seed=settings.seed,
        )
        job.add(latents[: min(window, total - start)])
        if settings.savings != NO_SAVINGS:
            continue  # some of its passes are left out or shorter: no measure for others
        # the last window of a job is the one that loading weights and warming up cost least
        keep_speed(job.folder.parent, machine(model), (time.monotonic() - began) / (steps * settings.branches))
