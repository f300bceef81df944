"""Stage 0b: the small speech encoder learns to name the mouth shape of every frame, and is then frozen.

Every batch is cut anew from the speech bank and made to sound like other speakers and rooms: an encoder that meets
each recording a few times learns the recording and not the sounds.

Shapes: mel (B, 4 T, MELS), visemes (B, T, 4). Loss: mean square error, opening weighted most. The figures are
correlations on the tuning voice and its sentences.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from moee_core.audio.encoder import SpeechEncoder
from moee_core.audio.mel import log_mel
from training import parallel
from training.config import AudioStage, TrainConfig
from training.data.clips import FRAME_SAMPLES, PAD, heard, speech_banks
from training.face_world.speech import Utterance, load_speech
from training.face_world.visemes import VISEME_AXES, viseme_track
from training.loop import Stage

AXIS_WEIGHT = (2.0, 1.0, 1.0, 1.0)
AXIS_NAMES = ("open", "width", "teeth", "press")
EXAMPLES = 120


def mouth_shapes(utterance: Utterance, start: int, frames: int) -> np.ndarray:
    """(T, 4) of video frames ``start`` .. ``start + frames - 1``."""
    whole = max(utterance.duration, (start + frames) / 25.0)  # a track cut short would not know the next sound
    return viseme_track(utterance.phonemes, whole)[start : start + frames]


def silence(rng: np.random.Generator, frames: int) -> np.ndarray:
    """Log-mel of a quiet room."""
    samples = rng.normal(0.0, 10 ** rng.uniform(-5, -3), (frames + 2 * PAD) * FRAME_SAMPLES)
    return log_mel(torch.from_numpy(samples.astype(np.float32))).numpy()


def make_stage(config: TrainConfig, encoder: SpeechEncoder) -> Stage:
    settings: AudioStage = config.stages.audio
    frames = settings.frames
    banks = speech_banks(config.data)
    weight = torch.tensor(AXIS_WEIGHT)

    def example(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        if rng.random() < config.data.silent:
            return silence(rng, frames), np.zeros((frames, len(VISEME_AXES)), np.float32)
        utterance = banks.draw(rng)
        mel, start = heard(rng, utterance.samples, frames)
        return mel, mouth_shapes(utterance, start, frames)

    def predict(mel: Tensor) -> Tensor:
        return encoder.visemes(encoder(mel)[:, PAD:-PAD])

    def stack(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[Tensor, Tensor]:
        mels, shapes = zip(*parts, strict=True)
        return torch.from_numpy(np.stack(mels)), torch.from_numpy(np.stack(shapes))

    @torch.no_grad()
    def correlations() -> dict[str, float]:
        pool = load_speech("tune")
        rng = np.random.default_rng(config.seed)
        parts = []
        for number in range(EXAMPLES):
            utterance = pool[number % len(pool)]
            mel, start = heard(rng, utterance.samples, frames)
            parts.append((mel, mouth_shapes(utterance, start, frames)))
        mel, truth = stack(parts)
        out, truth = predict(mel).flatten(0, 1).numpy(), truth.flatten(0, 1).numpy()
        return {name: float(np.corrcoef(out[:, i], truth[:, i])[0, 1]) for i, name in enumerate(AXIS_NAMES)}

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        numbers = parallel.share(list(range(settings.batch_size)))
        mel, truth = stack([example(np.random.default_rng([config.seed, 3, step, number])) for number in numbers])
        error = (predict(mel) - truth).square() * weight
        last = step % 500 == 499 or step + 1 == settings.iterations
        return error.mean(), correlations() if last else {}

    return Stage(name="audio", module=encoder, trainable=list(encoder.named_parameters()), loss=loss, settings=settings)
