"""The headless sampling loop: DDIM on trailing time-steps, for any prediction type, with guidance.

Shapes: latents (N, Z, h, w) with the frames of a window as batch. ``predict(x, t)`` is the network with its
conditions bound; it returns what ``prediction_type`` says for every frame.

Equations: x_0 and eps from the prediction (see schedule.py); DDIM with eta 0 (Song et al. 2021, Eq. 12):
x_{t'} = alpha' x_0 + sigma' eps. The last step lands on x_0 itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .schedule import trailing_timesteps

Predict = Callable[[Tensor, Tensor], Tensor]


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


def sample_ddim(
    predict: Predict,
    noise: Tensor,
    alphas_cumprod: Tensor,
    *,
    num_inference_steps: int,
    prediction_type: str,
    on_step: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Noise (N, Z, h, w) -> clean latents. ``on_step(i, n)`` is called after every step and may raise to cancel."""
    steps = trailing_timesteps(num_inference_steps)
    table = alphas_cumprod.to(noise.device, torch.float32)
    x = noise
    for index, step in enumerate(steps):
        alpha, sigma = table[step].sqrt(), (1 - table[step]).sqrt()
        timestep = torch.full((x.shape[0],), step, device=x.device)
        x0 = to_x0(predict(x, timestep), x, alpha, sigma, prediction_type)
        if index + 1 < len(steps):
            later = table[steps[index + 1]]
            epsilon = (x - alpha * x0) / sigma
            x = later.sqrt() * x0 + (1 - later).sqrt() * epsilon
        else:
            x = x0
        if on_step is not None:
            on_step(index + 1, len(steps))
    return x
