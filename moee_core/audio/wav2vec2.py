"""Speech features from wav2vec 2.0, the public encoder that Hallo hears with (facebook/wav2vec2-base-960h).

Shapes (legend for this file):
    S samples at 16 kHz, T video frames at 25 a second, L layers, D width
    samples_S -> AudioFeatures.features_TLD: what every layer of the transformer gives (12 x 768), without its input

The convolutions' 50 frames a second are brought to the video's frames *before* the transformer, which so runs at 25 a
second over the whole recording at once, as Hallo was trained (Xu et al. 2024; facts from the authors' published code).

The weights are read from a local folder in the layout of the Hugging Face hub, never from the network, in either
naming of the positional convolution and with or without a transcriber on top. Raises ``CheckpointError`` for a folder
that does not hold such a model.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from ..weights.hub_folder import load_folder, normalises, settings_of
from .encoder import AudioFeatures

FPS = 25.0
FRAME_SAMPLES = 640
EPS = 1e-7
"""Beside the variance, as wav2vec 2.0's own preparation has it."""
TRANSCRIBER = ("lm_head.", "quantizer.", "project_q.", "project_hid.")
"""What a checkpoint may have on top, from transcription or from pretraining."""
MASK = ("masked_spec_embed",)
"""Used in training only; some files were saved without it."""


class Wav2Vec2Features:
    """A frozen wav2vec 2.0."""

    def __init__(self, model: Any, *, normalise: bool = True):
        self.model = model.eval().requires_grad_(False)
        self.normalise = normalise

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def layers(self) -> int:
        return int(self.model.config.num_hidden_layers)

    def to(self, device: Any) -> Wav2Vec2Features:
        self.model.to(device)
        return self

    @torch.no_grad()
    def features(self, samples_S: Tensor, num_frames: int | None = None) -> AudioFeatures:
        """Of a whole recording, 16 kHz mono. More ``num_frames`` than it lasts are filled with silence behind it."""
        own = -(-samples_S.shape[0] // FRAME_SAMPLES)
        frames = own if num_frames is None else num_frames
        if not 0 < own <= frames:
            raise ValueError(f"the recording lasts {own} video frames, features for {frames} were asked for")
        wave = samples_S.float()
        if self.normalise:
            wave = (wave - wave.mean()) / (wave.var(correction=0) + EPS).sqrt()
        wave = F.pad(wave, (0, FRAME_SAMPLES * (frames - own)))
        parameter = next(self.model.parameters())
        sound_1DT = self.model.feature_extractor(wave[None].to(parameter.device, parameter.dtype))
        sound_1DT = F.interpolate(sound_1DT, size=frames, mode="linear", align_corners=True)
        hidden, _ = self.model.feature_projection(sound_1DT.transpose(1, 2))
        return AudioFeatures(features_TLD=torch.stack(self._layers(hidden), dim=1).float(), fps=FPS)

    def _layers(self, hidden_1TD: Tensor) -> list[Tensor]:
        """(T, D) out of every layer; heard at the layers themselves, because releases of the library differ in how they
        hand it on."""
        given: list[Tensor] = []

        def hear(_module: Any, _inputs: Any, output: Any) -> None:
            given.append((output if isinstance(output, Tensor) else output[0])[0])

        hooks = [layer.register_forward_hook(hear) for layer in self.model.encoder.layers]
        try:
            self.model.encoder(hidden_1TD)
        finally:
            for hook in hooks:
                hook.remove()
        return given


def load_wav2vec2(folder: str | Path) -> Wav2Vec2Features:
    """The model of a local folder, in float32."""
    folder = Path(folder)
    settings = settings_of(folder, "wav2vec2", "wav2vec 2.0")
    if settings.get("do_stable_layer_norm"):
        raise CheckpointError(f"{quote(folder, 120)} holds a large wav2vec 2.0; Hallo hears with the base one")
    model = load_folder("Wav2Vec2Model", folder, "wav2vec 2.0", TRANSCRIBER, may_lack=MASK)
    logging.getLogger(__name__).info("speech features from %s", folder)
    return Wav2Vec2Features(model, normalise=normalises(folder))
