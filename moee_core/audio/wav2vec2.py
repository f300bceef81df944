"""Speech features from wav2vec 2.0, the public encoder that Hallo hears with (facebook/wav2vec2-base-960h).

Shapes (legend for this file):
    S samples at 16 kHz, T video frames at 25 a second, L layers, D width
    samples_S -> AudioFeatures.features_TLD: what every layer of the transformer gives (12 x 768), without its input

The convolutions' 50 frames a second are brought to the video's frames *before* the transformer, which so runs at 25 a
second over the whole recording at once, as Hallo was trained (Xu et al. 2024; facts from the authors' published code).

Recordings of more than a minute are heard in stretches of a minute, of which the outer ten seconds are context: memory
does not grow with length, and the numbers are near those of one pass, not the same: the transformer looks no farther
than its stretch. The first layer's norm is over the whole recording all the same, measured in a pass of its own.

A program may have the same network in its own classes (ComfyUI's audio encoder), or its finished layers, 50 times a
second (ComfyUI's AUDIO_ENCODER_OUTPUT). The first is asked for the same numbers; the second are brought to the video's
frames behind the transformer, which is not what Hallo was trained on.

The weights are read from a local folder in the layout of the Hugging Face hub, never from the network, in either
naming of the positional convolution and with or without a transcriber on top. Raises ``CheckpointError`` for a folder
that does not hold such a model.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
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
WHOLE = 1500
"""Video frames that are heard in one pass: a minute."""
CONTEXT = 250
"""Of them, on either side, that are heard and not used where a recording is longer."""
EPS = 1e-7
"""Beside the variance, as wav2vec 2.0's own preparation has it."""
TRANSCRIBER = ("lm_head.", "quantizer.", "project_q.", "project_hid.")
"""What a checkpoint may have on top, from transcription or from pretraining."""
MASK = ("masked_spec_embed",)
"""Used in training only; some files were saved without it."""


class Wav2Vec2Features:
    """A frozen wav2vec 2.0, of transformers or of a program with the same parts. ``time_last``: its convolutions give
    (1, channels, time), as those of transformers; else (1, time, channels). ``dtype``: what it is handed, None for its
    weights' own."""

    def __init__(self, model: Any, *, normalise: bool = True, time_last: bool = True, dtype: torch.dtype | None = None):
        self.model = model.eval().requires_grad_(False)
        self.normalise = normalise
        self.time_last = time_last
        self.dtype = dtype

    @property
    def width(self) -> int:
        return int(self.model.encoder.layer_norm.weight.shape[0])

    @property
    def layers(self) -> int:
        return len(self.model.encoder.layers)

    def to(self, device: Any) -> Wav2Vec2Features:
        self.model.to(device)
        return self

    @torch.no_grad()
    def features(
        self, samples_S: Tensor, num_frames: int | None = None, *, whole: int = WHOLE, context: int = CONTEXT
    ) -> AudioFeatures:
        """Of a whole recording, 16 kHz mono. More ``num_frames`` than it lasts are filled with silence behind it.

        ``whole`` frames are heard in one pass; longer recordings in stretches of so many, each without ``context``
        frames at the ends where others follow.
        """
        own = -(-samples_S.shape[0] // FRAME_SAMPLES)
        frames = own if num_frames is None else num_frames
        if not 0 < own <= frames:
            raise ValueError(f"the recording lasts {own} video frames, features for {frames} were asked for")
        if not 0 <= 2 * context < whole:
            raise ValueError(f"a stretch of {whole} frames cannot have {context} frames of context at either end")
        mean, spread = torch.zeros(()), torch.ones(())
        if self.normalise:
            heard = samples_S.float()
            mean, spread = heard.mean(), (heard.var(correction=0) + EPS).sqrt()

        def wave(start: int, stop: int) -> Tensor:
            """Samples of the normalised recording, silence behind it."""
            inside = (samples_S[start:stop].float() - mean) / spread
            return F.pad(inside, (0, stop - start - len(inside)))

        total = samples_S.shape[0] + FRAME_SAMPLES * (frames - own)
        pieces = stretches(frames, whole, context)
        if len(pieces) == 1:
            return AudioFeatures(features_TLD=self._heard(wave(0, total), frames), fps=FPS)
        step = (self._sounds(total) - 1) / (frames - 1)  # sounds from one video frame to the next, 2 or a little less
        parts = []
        with self._norm_over(wave, total, whole * FRAME_SAMPLES):
            for start, stop, first, last in pieces:
                begin = max(0, start - 1)  # a frame more, which the first one's place reaches into
                places = torch.arange(start, stop) * step - 2 * begin
                heard = self._heard(wave(begin * FRAME_SAMPLES, min(stop * FRAME_SAMPLES, total)), stop - start, places)
                parts.append(heard[first - start : last - start])
        return AudioFeatures(features_TLD=torch.cat(parts), fps=FPS)

    def _sounds(self, samples: int) -> int:
        """How many frames the convolutions make of so many samples."""
        for layer in self.model.feature_extractor.conv_layers:
            samples = (samples - layer.conv.kernel_size[0]) // layer.conv.stride[0] + 1
        return samples

    def _given(self, wave_S: Tensor) -> Tensor:
        parameter = next(self.model.parameters())
        return wave_S[None].to(parameter.device, self.dtype or parameter.dtype)

    def _heard(self, wave_S: Tensor, frames: int, places_T: Tensor | None = None) -> Tensor:
        """(T, L, D) of a stretch in one pass. ``places_T``: where its video frames are among its sounds; None lays them
        from the first to the last."""
        sound = self.model.feature_extractor(self._given(wave_S))
        sound_1DT = sound if self.time_last else sound.transpose(1, 2)
        if places_T is None:
            sound_1DT = F.interpolate(sound_1DT, size=frames, mode="linear", align_corners=True)
        else:
            places_T = places_T.clamp(0, sound_1DT.shape[-1] - 1)
            low_T = places_T.floor().long()
            share_T = (places_T - low_T).to(sound_1DT)
            low, high = low_T.to(sound_1DT.device), (low_T + 1).clamp_max(sound_1DT.shape[-1] - 1).to(sound_1DT.device)
            sound_1DT = (1 - share_T) * sound_1DT[..., low] + share_T * sound_1DT[..., high]
        hidden = self.model.feature_projection(sound_1DT.transpose(1, 2))
        hidden = hidden if isinstance(hidden, Tensor) else hidden[0]
        return torch.stack(self._layers(hidden), dim=1).float().cpu()

    @contextlib.contextmanager
    def _norm_over(self, wave: Callable[[int, int], Tensor], total: int, piece: int) -> Iterator[None]:
        """While this lasts, the norm of the first convolution is over ``total`` samples and not over what it is given.
        Its channels are groups of their own, so two numbers each are all that is needed of the rest."""
        first = self.model.feature_extractor.conv_layers[0]
        conv, norm = first.conv, first.layer_norm
        kernel, stride = conv.kernel_size[0], conv.stride[0]
        outputs, step = (total - kernel) // stride + 1, max(1, piece // stride)
        sums = squares = torch.zeros((), dtype=torch.float64)
        for begin in range(0, outputs, step):
            end = min(outputs, begin + step)
            heard_CT = conv(self._given(wave(begin * stride, (end - 1) * stride + kernel))[:, None])[0].double()
            sums, squares = sums + heard_CT.sum(dim=1).cpu(), squares + heard_CT.square().sum(dim=1).cpu()
        mean_C1 = (sums / outputs)[:, None]
        scale_C1 = (squares[:, None] / outputs - mean_C1.square() + norm.eps).rsqrt()

        def normed(module: Any, inputs: tuple[Tensor, ...], _output: Tensor) -> Tensor:
            x = inputs[0]
            weight, bias = (part[:, None].to(x) for part in (module.weight, module.bias))
            return (x - mean_C1.to(x)) * scale_C1.to(x) * weight + bias

        hook = norm.register_forward_hook(normed)
        try:
            yield
        finally:
            hook.remove()

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


def stretches(frames: int, whole: int, context: int) -> list[tuple[int, int, int, int]]:
    """(start, stop, first, last) of every stretch of a recording: it is heard from start to stop, and used from first
    to last."""
    if frames <= whole:
        return [(0, frames, 0, frames)]
    found = []
    first = 0
    while first < frames:
        start = max(0, first - context)
        stop = min(frames, start + whole)
        last = frames if stop == frames else stop - context
        found.append((start, stop, first, last))
        first = last
    return found


def features_of_layers(layers: Sequence[Tensor], num_frames: int) -> AudioFeatures:
    """From what every layer of a transformer gave, each (1, T, D) at any rate, its input first and left out."""
    if len(layers) < 2 or any(one.ndim != 3 or one.shape != layers[0].shape for one in layers):
        raise ValueError(
            f"layers of an audio encoder are (1, time, width) each, all alike, the input first; got "
            f"{[tuple(one.shape) for one in layers][:3]}"
        )
    stacked_LDT = torch.cat([one[:1].float() for one in layers[1:]]).transpose(1, 2)
    brought_LDT = F.interpolate(stacked_LDT, size=num_frames, mode="linear", align_corners=True)
    return AudioFeatures(features_TLD=brought_LDT.permute(2, 0, 1), fps=FPS)


def load_wav2vec2(folder: str | Path) -> Wav2Vec2Features:
    """The model of a local folder, in float32."""
    folder = Path(folder)
    settings = settings_of(folder, "wav2vec2", "wav2vec 2.0")
    if settings.get("do_stable_layer_norm"):
        raise CheckpointError(f"{quote(folder, 120)} holds a large wav2vec 2.0; Hallo hears with the base one")
    model = load_folder("Wav2Vec2Model", folder, "wav2vec 2.0", TRANSCRIBER, may_lack=MASK)
    logging.getLogger(__name__).info("speech features from %s", folder)
    return Wav2Vec2Features(model, normalise=normalises(folder))
