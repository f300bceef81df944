"""Sampling a DICE-Talk clip with the host's samplers: guidance as a chain, shifted windows, a job that goes on.

Shapes: T frames of a clip and its padding, Z h w latents.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import comfy.samplers
import torch
from torch import Tensor

from ..moee_core.diffusion.shifting import chain_weights
from ..moee_core.jobs import StepJob, fingerprint
from ..moee_core.systems.dice_pipeline import dice_noise, frames_behind
from ..moee_core.systems.dice_talk import DiceSampling
from .contents import model_contents
from .dice_host import FRAMES, READ, DiceClip, DiceRead, dice_config
from .guidance import is_told, say_what_is_left_out, told
from .windows import HANDLER, ShiftedWindows, shifted

RESUMED = ("euler", "heun", "dpm_2", "ddim")
"""Samplers that remember nothing of the step before: a job of theirs goes on with the same frames."""
CHAIN = ((False, False, False), (True, False, False), (True, True, False), (True, True, True))
"""What each branch of guidance knows: picture, speech, emotion."""


@dataclass(frozen=True, kw_only=True)
class DiceSettings:
    """What the sampler node asks for; see ``moee_core.systems.dice_talk.DiceSampling``."""

    seed: int
    steps: int = 25
    sampler_name: str = "euler"
    scheduler: str = "karras"
    reference_guidance: float = 3.0
    audio_guidance: float = 6.0
    emotion_guidance: float = 6.0
    noise_sharing: float = 0.0
    overlap: int = 0
    shift: int = 7
    padding: int = 25
    strength: float = 1.0
    mask: bool = True

    def weights(self) -> tuple[float, ...]:
        return chain_weights((self.reference_guidance, self.audio_guidance, self.emotion_guidance))


def branch(clip: DiceClip, padding: int, knows: tuple[bool, bool, bool]) -> list:
    """CONDITIONING of one branch for a clip and its padding."""
    picture, speech, emotion = knows
    read = DiceRead(clip=clip, picture=picture, speech=speech, emotion=emotion)
    return [[None, {FRAMES: torch.arange(clip.frames + padding), READ: read}]]


class ChainGuider(comfy.samplers.CFGGuider):
    """v_0 + sum_i s_i (v_i - v_{i-1}) over ``CHAIN``; a branch that weighs nothing is not computed, unless
    functions behind guidance are told of it."""

    def set_chain(self, clip: DiceClip, padding: int, weights: tuple[float, ...]) -> None:
        self.weights = weights
        self.inner_set_conds({f"moee_{at}": branch(clip, padding, knows) for at, knows in enumerate(CHAIN)})

    def predict_noise(
        self, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: int | None = None
    ) -> Tensor:
        options = model_options or {}
        last = len(self.weights) - 1
        needed = {0, last} if is_told(options) else set()
        asked = [at for at, weight in enumerate(self.weights) if weight or at in needed]
        conds = [self.conds[f"moee_{at}"] for at in asked]
        out = comfy.samplers.calc_cond_batch(self.inner_model, conds, x, timestep, options)
        total = torch.zeros_like(out[0])
        for at, one in zip(asked, out, strict=True):
            total.add_(one, alpha=self.weights[at])
        return told(
            total,
            x,
            timestep,
            self.inner_model,
            options,
            scale=self.weights[last],
            everything=(conds[-1], out[-1]),
            nothing=(conds[0], out[0]),
        )


def padded(clip: DiceClip, window: int, settings: DiceSettings) -> int:
    """Frames behind a clip."""
    plan = DiceSampling(steps=settings.steps, overlap=settings.overlap, padding=settings.padding)
    return frames_behind(clip.frames, window, plan)


def job_key(model: Any, encoders_key: str, clip: DiceClip, settings: DiceSettings) -> str:
    """Everything that shapes the frames."""
    said = [clip.image_1D, clip.latent_1Zhw, clip.located_1Chw, clip.audio_TKD, clip.emotion_UKD, clip.emotion_T]
    masked = clip.mask_1HW if clip.mask_1HW is not None else "no mask"
    contents = model_contents(model, settings.scheduler, settings.steps)
    return fingerprint([*contents, encoders_key, *said, masked, sorted(asdict(settings).items())])


def _sampler(name: str, state: Tensor | None) -> Any:
    """One of the host's; ``state`` is what it begins with in the place of noise, where a job goes on."""
    sampler = comfy.samplers.sampler_object(name)
    if state is not None:
        function = sampler.sampler_function

        def go_on(network: Any, x: Tensor, *given: Any, **named: Any) -> Tensor:
            return function(network, state.to(x), *given, **named)

        sampler.sampler_function = go_on
    return sampler


def sample_dice(
    model: Any,
    clip: DiceClip,
    settings: DiceSettings,
    job: StepJob,
    preview: Callable[[int, int, Tensor | None], None],
) -> Tensor:
    """(frames, Z, h, w) latents as a LATENT has them. ``preview`` is told of windows that are done, all windows, and
    the clean latents that a step foresees."""
    config = dice_config(model)
    padding = padded(clip, config.window_frames, settings)
    total = clip.frames + padding
    handler = model.model_options.get(HANDLER)
    if handler is None:
        model = shifted(model, config.window_frames, settings.shift, settings.overlap)
    elif isinstance(handler, ShiftedWindows):  # a handler of this run's own: the MODEL's belongs to other nodes too
        model = shifted(model, handler.context_length, handler.shift, handler.context_overlap)
    handler = model.model_options[HANDLER]
    say_what_is_left_out(model.model_options)
    sigmas = comfy.samplers.calculate_sigmas(
        model.get_model_object("model_sampling"), settings.scheduler, settings.steps
    )
    skipped = settings.steps - min(int(settings.steps * settings.strength), settings.steps)
    sigmas = sigmas[skipped:]
    steps = len(sigmas) - 1
    if steps < 1:
        raise ValueError(f"{settings.steps} steps at a strength of {settings.strength:g} leave none; raise one of them")
    guider = ChainGuider(model)
    guider.set_chain(clip, padding, settings.weights())
    shape = (clip.latent_1Zhw.shape[1], clip.latent_1Zhw.shape[2], clip.latent_1Zhw.shape[3])
    begin = job.done if settings.sampler_name in RESUMED and job.state is not None and job.done < steps else 0
    noise = dice_noise(settings.seed, total, shape, settings.noise_sharing)
    start = clip.latent_1Zhw.float().expand(total, -1, -1, -1).clone()
    count = handler.windows_of(total) if isinstance(handler, ShiftedWindows) else 1
    seen = begin * count

    def one_window() -> None:
        nonlocal seen
        seen = min(seen + 1, steps * count)
        preview(seen, steps * count, None)

    def behind(step: int, x0: Tensor, x: Tensor, _total: int) -> None:
        nonlocal seen
        seen = (begin + step + 1) * count
        preview(seen, steps * count, x0)
        # told before the step is made: what is kept is where it begins
        if step and settings.sampler_name in RESUMED:
            job.add(begin + step, x)

    if isinstance(handler, ShiftedWindows):
        handler.begin, handler.on_window = begin, one_window
    preview(seen, steps * count, None)
    found = guider.sample(
        noise,
        start,
        _sampler(settings.sampler_name, job.state if begin else None),
        sigmas[begin:],
        callback=behind,
        disable_pbar=True,
        seed=settings.seed,
    )
    return found[: clip.frames]
