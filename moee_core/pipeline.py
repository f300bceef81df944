"""Portrait + recording + emotion -> video frames: the whole chain, window by window.

Shapes: portrait (H, W, 3) uint8 RGB -> an iterator of (S, S, 3) uint8 frames, ceil(seconds * fps) of them, where S is
the model's picture size. Memory does not grow with the length of the recording, except for the speech features
(about 20 kB a second).

    portrait --> autoencoder --> ReferenceNet ----------------.
    recording -> speech encoder --> windows --> audio tokens --+--> denoiser, sampled per window --> decoder --> frames
    emotion ---> rows per frame ----> Emotion-to-Latents ------'        ^ last k frames of the previous window
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from .audio.encoder import encode_speech
from .audio.projector import window_indices
from .audio.read import Waveform, resample_mono
from .diffusion.sampler import Reuse, Savings, frame_noise, guided_in_silence, sample, spoken_passes
from .diffusion.schedule import alphas_cumprod
from .emotion.source import EmotionSource, as_source
from .emotion.timeline import EmotionTimeline
from .networks.portrait_unet import EmotionContext
from .networks.reference_net import ReferenceFeatures
from .portrait.image import fit_square
from .systems.moee import MoEESystem
from .video.frames import num_frames

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class SamplingSettings:
    """How a clip is sampled. Guidance scales of 1 are off and cost nothing.

    ``emotion_guidance`` moves away from the neutral face, both silent; ``audio_guidance`` from the silent one. The
    second costs one more pass of the network in every step, the first two, both together two. ``savings``: speed by
    choice.
    """

    num_inference_steps: int = 4
    seed: int = 0
    emotion_guidance: float = 1.0
    audio_guidance: float = 1.0
    noise_sharing: float = 0.2
    savings: Savings = field(default_factory=Savings)

    def __post_init__(self) -> None:
        if not 0.0 <= self.noise_sharing < 1.0:
            raise ValueError(f"noise_sharing must be at least 0 and below 1, got {self.noise_sharing:g}")
        if not 1 <= self.num_inference_steps <= 1000:
            raise ValueError(f"num_inference_steps must be 1 to 1000, got {self.num_inference_steps}")
        for name in ("emotion_guidance", "audio_guidance"):
            value = getattr(self, name)
            if not 0.0 <= value <= 10.0:
                raise ValueError(f"{name} must be between 0 and 10, got {value:g}")


def to_model(image: np.ndarray) -> Tensor:
    """(H, W, 3) uint8 -> (1, 3, H, W) float32 in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 127.5 - 1


def to_frames(images_N3HW: Tensor) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] -> (N, H, W, 3) uint8."""
    scaled = (images_N3HW.float().clamp(-1, 1) + 1) * 127.5
    return scaled.round().byte().permute(0, 2, 3, 1).cpu().numpy()


@torch.no_grad()
def reconstruction_error(system: MoEESystem, portrait: np.ndarray) -> float:
    """Root mean square error (0..255) of the portrait through the autoencoder: large outside the model's domain."""
    device = next(system.parameters()).device
    image = to_model(fit_square(portrait, system.config.image_size)).to(device)
    out = system.autoencoder.decode(system.autoencoder.encode(image)).clamp(-1, 1)
    return float((out - image).square().mean().sqrt() * 127.5)


@torch.no_grad()
def animate(
    system: MoEESystem,
    portrait: np.ndarray,
    waveform: Waveform,
    emotion: EmotionSource | EmotionTimeline,
    settings: SamplingSettings = SamplingSettings(),
    on_progress: Progress | None = None,
) -> Iterator[np.ndarray]:
    """Yield the frames of the talking portrait, computed where the system's weights are.

    ``on_progress(frames done, frames in all)`` may raise to cancel.

    Raises ``ValueError`` for settings out of range, ``MediaError`` for a recording without samples and
    ``EmotionError`` for a source of emotion that the model was not trained on.
    """
    config = system.config
    device = next(system.parameters()).device
    total = num_frames(waveform.samples.shape[1], waveform.sample_rate, config.fps)
    mono = torch.from_numpy(resample_mono(waveform, in_file=True))
    features = encode_speech(system.speech_encoder, mono, total, config.fps).features_TLD
    source = as_source(emotion)
    rows = system.rows(source, mono, total)
    latent = system.autoencoder.encode(to_model(fit_square(portrait, config.image_size)).to(device))
    sites = system.reference_net(latent)
    motion_latents = latent.expand(config.unet.motion_frames, -1, -1, -1)
    for start in range(0, total, config.window_frames):
        # the last window is filled up with the recording's end, so that the network always sees a whole window
        wanted = torch.arange(start, start + config.window_frames).clamp_max(total - 1)
        motion = tuple(tokens[None] for tokens in system.reference_net(motion_latents))
        reference = ReferenceFeatures(sites=sites, latent=latent, motion=motion)
        tokens = _audio_tokens(system, features, wanted)
        context = system.emotion_context(system.signals(rows.take(wanted.numpy())))
        window = _sample_window(system, reference, tokens, context, start, settings)
        keep = min(config.window_frames, total - start)
        yield from to_frames(system.autoencoder.decode(window[:keep]))
        motion_latents = window[-config.unet.motion_frames :]
        if on_progress is not None:
            on_progress(start + keep, total)


def _audio_tokens(system: MoEESystem, features_TLD: Tensor, frames: Tensor) -> Tensor:
    """(F, S, A) tokens of the given frames, each from its window of features."""
    windows = window_indices(len(features_TLD), system.config.audio.margin)[frames]
    return system.audio_projector(features_TLD[windows])


def _sample_window(
    system: MoEESystem,
    reference: ReferenceFeatures,
    tokens_FSA: Tensor,
    emotion: EmotionContext,
    start: int,
    settings: SamplingSettings,
) -> Tensor:
    """(F, Z, h, w) clean latents of the window whose first frame is ``start``."""
    unet = system.config.unet
    frames = len(tokens_FSA)
    height, width = reference.latent.shape[-2:]
    shape = (unet.latent_channels, height, width)
    noise = frame_noise(settings.seed, start, frames, shape, settings.noise_sharing).to(tokens_FSA.device)
    silent = torch.zeros_like(tokens_FSA)
    conditions = {"full": (tokens_FSA, emotion), "without_audio": (silent, emotion), "negative": (silent, None)}
    savings, emotional, spoken = settings.savings, settings.emotion_guidance, settings.audio_guidance
    reuse = Reuse(savings.reuse)

    def predict(x: Tensor, t: Tensor) -> Tensor:
        emotion_scale, audio_scale = (emotional, spoken) if savings.guides(t) else (1.0, 1.0)
        predictions = {}
        reuse.begin()
        for name in spoken_passes(emotion_scale, audio_scale):
            audio, context = conditions[name]
            predictions[name] = system.denoiser(
                x, t, frames=frames, reference=reference, audio_NSA=audio, emotion=context, deep=reuse.of(name)
            )
        return guided_in_silence(predictions, emotion=emotion_scale, audio=audio_scale)

    return sample(
        predict,
        noise,
        alphas_cumprod(unet.beta_schedule, zero_snr=unet.zero_snr),
        num_inference_steps=settings.num_inference_steps,
        prediction_type=unet.prediction_type,
        solver=savings.solver,
    )
