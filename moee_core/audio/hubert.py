"""Emotion features from HuBERT, the public model EmoTalker uses (superb/hubert-base-superb-er, 768 numbers).

Shapes: samples (S,) 16 kHz mono -> last hidden states (n, 768), 50 a second, frame i centred on sample 320 i + 160.

The weights are read from a local folder in the layout of the Hugging Face hub (config.json beside the weights), never
from the network, and no code of theirs is run. A checkpoint with a classifier on top is accepted, its classifier left
aside; a weight that is missing is an error. HuBERT attends to everything it is given, so a long recording is read in
chunks with two seconds of context.

Raises ``CheckpointError`` for a folder that does not hold a HuBERT model.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..weights.hub_folder import load_folder, normalises, settings_of
from .emotion_features import FRAME_SAMPLES

CONTEXT_FRAMES = 100
EDGE = 40
"""Samples either side of a frame's 320 that HuBERT's convolutions read."""
EPS = 1e-7
"""Beside the variance, as HuBERT's own preparation has it."""
CLASSIFIER = ("projector.", "classifier.", "layer_weights")
"""What a classification checkpoint has on top."""


class HubertFeatures:
    """A frozen HuBERT. ``width`` is its hidden size."""

    kind = "hubert"

    def __init__(self, model: Any, *, normalise: bool = True):
        self.model = model.eval().requires_grad_(False)
        self.normalise = normalise

    @property
    def width(self) -> int:
        return int(self.model.config.hidden_size)

    def to(self, device: Any) -> HubertFeatures:
        self.model.to(device)
        return self

    @torch.no_grad()
    def frames(self, samples: Tensor, first: int, last: int, gain: float) -> Tensor:
        wave, lead = stretch(samples, first, last, gain, EPS if self.normalise else None)
        parameter = next(self.model.parameters())
        states = self.model(wave[None].to(parameter.device, parameter.dtype)).last_hidden_state[0]
        return states[first - lead : last - lead].float().cpu()


def stretch(samples: Tensor, first: int, last: int, gain: float, eps: float | None) -> tuple[Tensor, int]:
    """The sound of some frames with their context, and the number of the first frame that comes out of it.

    With ``eps`` what lies inside the recording is brought to mean 0 and variance 1; outside it there is silence.
    """
    begin = (first - CONTEXT_FRAMES) * FRAME_SAMPLES - EDGE
    end = (last + CONTEXT_FRAMES) * FRAME_SAMPLES + EDGE
    begin, end = max(begin, -EDGE), min(end, max(samples.shape[0], last * FRAME_SAMPLES) + EDGE)
    lead = (begin + EDGE) // FRAME_SAMPLES
    inside = samples[max(0, begin) : end].float() * gain
    if eps is not None:
        inside = (inside - inside.mean()) / (inside.var(correction=0) + eps).sqrt()
    left = max(0, -begin)
    return F.pad(inside, (left, end - begin - left - inside.shape[0])), lead


def load_hubert(folder: str | Path) -> HubertFeatures:
    """The model of a local folder, in float32."""
    folder = Path(folder)
    settings_of(folder, "hubert", "HuBERT model")
    model = load_folder("HubertModel", folder, "HuBERT", CLASSIFIER)
    logging.getLogger(__name__).info("emotion features from %s", folder)
    return HubertFeatures(model, normalise=normalises(folder))
