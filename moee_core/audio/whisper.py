"""Speech features from Whisper's encoder, the public network that DICE-Talk hears with (openai/whisper-tiny).

Shapes (legend for this file):
    S samples at 16 kHz, T tokens at 50 a second, M mel bands, L layers of hidden states, D width
    samples_S -> features_TLD (T, L, D) float32: what enters the transformer, and what each of its layers gives, the
    last one behind the closing norm, as transformers counts hidden states (whisper-tiny: 5 x 384)

Whisper hears 30 seconds at a time, each by itself: a log-mel spectrogram of (M, 3000), whose floor depends on the
loudest place of those 30 seconds, becomes 1500 tokens. A last stretch is filled up with silence. So memory does not
grow with the recording beyond the result itself, which is 0.4 MB a second at the published size.

Which tokens count: by default every one that a sample of the recording falls into, ceil(S / 320). The authors' code
counts video frames of 640 samples that are complete and keeps two tokens of each, 2 floor(S / 640), which loses the
last part of a frame (Tan et al. 2025; facts from the authors' published code). Behind these tokens there is silence.

The weights are read from a local folder in the layout of the Hugging Face hub, never from the network: all of the
encoder's, and no others but the decoder's, which are left aside. Raises ``CheckpointError`` for a folder that does not
hold such a model, ``ValueError`` for a recording without samples.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from ..weights.checkpoint import check_keys
from ..weights.hallo import check_floating
from ..weights.hub_folder import settings_of
from ..weights.tables import read_table
from .mel import SAMPLE_RATE

BLOCK = 30 * SAMPLE_RATE
"""Samples that are heard in one pass."""
TOKEN_SAMPLES = 320
FRAME_SAMPLES = 640
"""Of a video frame at 25 a second, by which the authors count."""
FILES = ("model.safetensors", "pytorch_model.bin")
ASIDE = ("decoder.", "proj_out.")
"""Whisper's writing half, which is not used."""


class WhisperFeatures:
    """A frozen Whisper encoder of transformers, with the extractor of its spectrograms."""

    def __init__(self, encoder: Any, extractor: Any):
        self.encoder = encoder.eval().requires_grad_(False)
        self.extractor = extractor

    @property
    def width(self) -> int:
        return int(self.encoder.config.d_model)

    @property
    def layers(self) -> int:
        """Of hidden states: one more than the transformer has."""
        return len(self.encoder.layers) + 1

    def to(self, device: Any) -> WhisperFeatures:
        self.encoder.to(device)
        return self

    @torch.no_grad()
    def features(self, samples_S: Tensor, *, official: bool = False) -> Tensor:
        """(T, L, D) of a whole recording, on the CPU. ``official``: only the tokens that the authors keep."""
        if samples_S.ndim != 1 or not len(samples_S):
            raise ValueError(f"a recording is (S,) samples at 16 kHz, at least one; got {tuple(samples_S.shape)}")
        size = len(samples_S)
        tokens = 2 * (size // FRAME_SAMPLES) if official else -(-size // TOKEN_SAMPLES)
        features_TLD = torch.empty(tokens, self.layers, self.width)
        for begin in range(0, tokens * TOKEN_SAMPLES, BLOCK):
            first = begin // TOKEN_SAMPLES
            states_TLD = self.states(self.mel(samples_S[begin : begin + BLOCK]))
            features_TLD[first : first + len(states_TLD)] = states_TLD[: tokens - first].float().cpu()
        return features_TLD

    def mel(self, samples_S: Tensor) -> Tensor:
        """(M, 3000) log-mel of at most 30 seconds, filled up with silence."""
        heard = samples_S.detach().float().cpu().numpy()
        found = self.extractor(heard, sampling_rate=SAMPLE_RATE, return_tensors="np")["input_features"]
        return torch.from_numpy(found[0])

    @torch.no_grad()
    def states(self, mel_MT: Tensor) -> Tensor:
        """(1500, L, D) of one spectrogram; heard at the layers themselves, because releases of the library differ in
        how they hand it on."""
        given: list[Tensor] = []

        def before(_module: Any, inputs: tuple[Tensor, ...]) -> None:
            given.append(inputs[0][0])

        def behind(_module: Any, _inputs: Any, output: Tensor) -> None:
            given.append(output[0])

        hooks = [layer.register_forward_pre_hook(before) for layer in self.encoder.layers]
        hooks.append(self.encoder.layer_norm.register_forward_hook(behind))
        parameter = next(self.encoder.parameters())
        try:
            self.encoder(mel_MT[None].to(parameter.device, parameter.dtype))
        finally:
            for hook in hooks:
                hook.remove()
        return torch.stack(given, dim=1)


def load_whisper(folder: str | Path, device: Any = "cpu") -> WhisperFeatures:
    """The encoder of a local folder, in float32."""
    folder = Path(folder)
    settings = settings_of(folder, "whisper", "Whisper")
    try:
        from transformers import WhisperConfig, WhisperFeatureExtractor
        from transformers.models.whisper.modeling_whisper import WhisperEncoder
    except ImportError as error:
        raise CheckpointError("Whisper needs the Python package transformers: pip install transformers") from error
    try:
        config = WhisperConfig(**settings)
        with torch.device("meta"):
            encoder = WhisperEncoder(config)
        extractor = WhisperFeatureExtractor(feature_size=config.num_mel_bins)
    except Exception as error:  # the library raises many kinds for settings that no network can have
        raise CheckpointError(
            f"{quote(folder, 120)}: no Whisper can be built from its config.json: {quote(error, 120)}; download the "
            "folder again"
        ) from error
    expected = {key: tuple(value.shape) for key, value in encoder.state_dict().items()}
    encoder.load_state_dict(_encoder_state(folder, expected), strict=True, assign=True)
    logging.getLogger(__name__).info("speech features from %s", folder)
    return WhisperFeatures(encoder, extractor).to(device)


def _encoder_state(folder: Path, expected: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """The encoder's weights by its own names, in float32."""
    path = next((folder / name for name in FILES if (folder / name).is_file()), None)
    if path is None:
        raise CheckpointError(
            f"{quote(folder, 120)} holds no weights of Whisper ({' or '.join(FILES)}); download the folder again"
        )
    found = {key.removeprefix("model."): value for key, value in read_table(path).items()}
    state = {key.removeprefix("encoder."): value for key, value in found.items() if not key.startswith(ASIDE)}
    check_keys(path.name, expected, {key: tuple(value.shape) for key, value in state.items()})
    check_floating(path.name, state)
    return {key: value.float() for key, value in state.items()}
