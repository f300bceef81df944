"""The headless sampling loop: DDIM or DPM-Solver++ on trailing time-steps, for any prediction type, with guidance.

Shapes: latents (N, Z, h, w) with the frames of a window as batch. ``predict(x, t)`` is the network with its
conditions bound; it returns what ``prediction_type`` says for every frame.

Equations: x_0 and eps from the prediction (see schedule.py); DDIM with eta 0 (Song et al. 2021, Eq. 12):
x_{t'} = alpha' x_0 + sigma' eps. DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2): with lambda = log(alpha / sigma) and
h = lambda' - lambda, x_{t'} = (sigma' / sigma) x_t + alpha' (1 - e^-h) D, where D = x_0 + h / (2 h_before) (x_0 - x_0
of the step before). D is x_0 in the first step, where lambda may be -infinity. The last step lands on x_0 itself.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .schedule import TRAIN_STEPS, trailing_timesteps

Predict = Callable[[Tensor, Tensor], Tensor]
SOLVERS = ("ddim", "dpmpp_2m")


@dataclass(frozen=True, kw_only=True)
class Savings:
    """Speed by choice: what costs less and gives other frames. Each is off by default.

    ``solver``: "ddim", or "dpmpp_2m", which uses the step before too and needs fewer of them.
    ``guidance_from``, ``guidance_until``: parts 0..1 of the way from noise to picture between which guidance acts; a
    step outside takes one pass of the network (Kynkäänniemi et al. 2024, "limited interval").
    ``reuse``: what the last up block reads from below it is worked out in every ``reuse``-th step only, and kept for
    those between (Ma et al. 2024, "DeepCache"); 1 is every step.

    Raises ``ValueError`` for values out of range.
    """

    solver: str = "ddim"
    guidance_from: float = 0.0
    guidance_until: float = 1.0
    reuse: int = 1

    def __post_init__(self) -> None:
        if self.solver not in SOLVERS:
            raise ValueError(f"unknown solver {self.solver!r}; choose {' or '.join(SOLVERS)}")
        if not 0.0 <= self.guidance_from < self.guidance_until <= 1.0:
            raise ValueError(
                "guidance acts between two parts of the way, 0 <= from < until <= 1, got "
                f"{self.guidance_from:g} and {self.guidance_until:g}"
            )
        if not 1 <= self.reuse <= 100:
            raise ValueError(f"reuse must be 1 (off) to 100 steps, got {self.reuse}")

    @property
    def guides_always(self) -> bool:
        return self.guidance_from == 0.0 and self.guidance_until == 1.0

    def guides(self, t_N: Tensor) -> bool:
        """Whether guidance acts at a time-step 999..0; the first step of every sampling stands at part 0."""
        if self.guides_always:  # without a look at what a device computes
            return True
        return self.guidance_from <= 1.0 - (int(t_N[0]) + 1) / TRAIN_STEPS < self.guidance_until


@dataclass(kw_only=True)
class DeepFeatures:
    """What a network's last up block reads from below it. ``entering`` None: to be worked out, and then kept here."""

    entering: Tensor | None = None


class Reuse:
    """The deep features of a window's conditions, worked out every ``every``-th step: to be told of every step."""

    def __init__(self, every: int):
        self.every, self.steps = every, 0
        self.kept: dict[Hashable, DeepFeatures] = {}

    def begin(self) -> None:
        """A step begins."""
        if self.steps % self.every == 0:
            self.kept = {}
        self.steps += 1

    def of(self, condition: Hashable) -> DeepFeatures | None:
        """What to hand to the network for a condition in this step; None where every step works it out."""
        return None if self.every == 1 else self.kept.setdefault(condition, DeepFeatures())


def to_x0(prediction: Tensor, x: Tensor, alpha: Tensor, sigma: Tensor, prediction_type: str) -> Tensor:
    """The clean latents a prediction implies."""
    if prediction_type == "v_prediction":
        return alpha * x - sigma * prediction
    if prediction_type == "epsilon":
        return (x - sigma * prediction) / alpha
    raise ValueError(f"unknown prediction type {prediction_type!r}; choose v_prediction or epsilon")


def frame_noise(seed: int, start: int, count: int, shape: tuple[int, int, int], sharing: float) -> Tensor:
    """(count, *shape) unit noise for the absolute frames ``start`` .. ``start + count - 1``, from CPU generators.

    A frame's noise depends on the seed and its own number only, so windows, devices and resumed jobs agree.
    ``sharing`` in [0, 1) is the part of the variance that all frames have in common.
    """
    if not 0.0 <= sharing < 1.0:
        raise ValueError(f"noise sharing must be in [0, 1), got {sharing}")

    def draw(number: int) -> Tensor:
        generator = torch.Generator().manual_seed((seed * 1_000_003 + number) % (1 << 63))
        return torch.randn(shape, generator=generator)

    common = draw(-1)
    own = torch.stack([draw(start + i) for i in range(count)])
    return (1.0 - sharing) ** 0.5 * own + sharing**0.5 * common


def guided(predictions: dict[str, Tensor], scales: dict[str, float]) -> Tensor:
    """full + sum over conditions of (scale - 1) (full - without that condition). Scale 1 is off."""
    full = predictions["full"]
    out = full
    for name, scale in scales.items():
        out = out + (scale - 1.0) * (full - predictions[name])
    return out


def spoken_passes(emotion: float, audio: float) -> tuple[str, ...]:
    """The conditions of the passes that ``guided_in_silence`` needs at these scales: 1, 2 (audio) or 3 (emotion)."""
    if emotion != 1.0:
        return ("full", "without_audio", "negative")
    return ("full", "without_audio") if audio != 1.0 else ("full",)


def guided_in_silence(predictions: Mapping[str, Tensor], *, emotion: float, audio: float) -> Tensor:
    """full + (audio - 1) (full - without_audio) + (emotion - 1) (without_audio - negative).

    Guidance with a scale per condition, nested as in InstructPix2Pix (Brooks et al. 2023, Eq. 3): the audio is
    withdrawn first, then the emotion, and ``negative`` is without either. So what the emotion is exaggerated by is the
    same whatever is being said: emotion held against neutral *while speaking* also exaggerates how the emotion narrows
    the lips' movement, frame by frame, and the mouth loses the sound (ADR 18).
    """
    out = predictions["full"]
    if audio != 1.0:
        out = out + (audio - 1.0) * (predictions["full"] - predictions["without_audio"])
    if emotion != 1.0:
        out = out + (emotion - 1.0) * (predictions["without_audio"] - predictions["negative"])
    return out


def sample(
    predict: Predict,
    noise: Tensor,
    alphas_cumprod: Tensor,
    *,
    num_inference_steps: int,
    prediction_type: str,
    solver: str = "ddim",
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Noise (N, Z, h, w) -> clean latents. ``on_step(i, n)`` is called after every step and may raise to cancel."""
    steps = trailing_timesteps(num_inference_steps)
    table = alphas_cumprod.to(noise.device, torch.float32)
    x, h_before = noise, torch.ones(())
    before: Tensor | None = None
    for index, step in enumerate(steps):
        alpha, sigma = table[step].sqrt(), (1 - table[step]).sqrt()
        timestep = torch.full((x.shape[0],), step, device=x.device)
        x0 = to_x0(predict(x, timestep), x, alpha, sigma, prediction_type)
        if index + 1 == len(steps):
            x = x0
        elif solver == "dpmpp_2m":
            later = table[steps[index + 1]]
            ahead = (later / (1 - later)).sqrt().log()
            h = ahead - (alpha / sigma).log()
            direction = x0 if before is None else x0 + h / (2 * h_before) * (x0 - before)
            x = ((1 - later).sqrt() / sigma) * x - later.sqrt() * torch.expm1(-h) * direction
            before, h_before = x0, h
        else:
            later = table[steps[index + 1]]
            epsilon = (x - alpha * x0) / sigma
            x = later.sqrt() * x0 + (1 - later).sqrt() * epsilon
        if on_step is not None:
            on_step(index + 1, len(steps))
    return x
