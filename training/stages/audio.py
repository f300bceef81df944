"""Stage 0b: the small speech encoder learns to name the mouth shape of every frame, and is then frozen.

Shapes: mel (B, 4 T, MELS), visemes (B, T, 4). Loss: mean square error, opening weighted most.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from moee_core.audio.encoder import SpeechEncoder
from training import parallel
from training.config import AudioStage, TrainConfig
from training.data.clips import PAD, ClipCache
from training.loop import Stage

AXIS_WEIGHT = (2.0, 1.0, 1.0, 1.0)


def make_stage(config: TrainConfig, cache: ClipCache, encoder: SpeechEncoder) -> Stage:
    settings: AudioStage = config.stages.audio
    mel = torch.from_numpy(cache.joined("mel"))
    viseme = torch.from_numpy(cache.joined("viseme"))
    clips = len(mel)
    held_out = max(1, clips // 20)
    weight = torch.tensor(AXIS_WEIGHT)

    def predict(numbers: Tensor) -> Tensor:
        features = encoder(mel[numbers].float())
        return encoder.visemes(features[:, PAD:-PAD])

    def correlations() -> dict[str, float]:
        with torch.no_grad():
            out = predict(torch.arange(clips - held_out, clips)).flatten(0, 1).numpy()
        truth = viseme[clips - held_out :].flatten(0, 1).numpy()
        names = ("open", "width", "teeth", "press")
        return {name: float(np.corrcoef(out[:, i], truth[:, i])[0, 1]) for i, name in enumerate(names)}

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        draw = np.random.default_rng([config.seed, 3, step])
        numbers = torch.tensor(parallel.share(draw.integers(0, clips - held_out, settings.batch_size).tolist()))
        error = (predict(numbers) - viseme[numbers]).square() * weight
        last = step % 500 == 499 or step + 1 == settings.iterations
        return error.mean(), correlations() if last and clips > 40 else {}

    return Stage(name="audio", module=encoder, trainable=list(encoder.named_parameters()), loss=loss, settings=settings)
