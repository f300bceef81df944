"""The small speech encoder: log-mel frames in, features per video frame out.

Shapes (legend for this file):
    T video frames, L layers, D width
    samples (S,) 16 kHz mono -> AudioFeatures.features_TLD

It stands in for wav2vec 2.0 in the embedded model and has the same interface: several layers of hidden states per
video frame. It is trained to name the mouth shape (viseme axes) of each frame and then frozen.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build
from .mel import HOP, MELS, SAMPLE_RATE, level_gain, log_mel, stretched

MEL_PER_FRAME = 4
"""Mel frames (100 a second) per video frame at 25 frames a second."""

VISEME_AXES = 4
THROATS = (0.88, 0.94, 1.0, 1.06, 1.12, 1.18)
"""Stretches of the mel axis in which a recording is listened to: as if shorter and longer throats had said it."""


@dataclass(frozen=True, kw_only=True)
class AudioFeatures:
    """Speech features aligned with the video: (T video frames, L layers, D width) at ``fps`` frames a second."""

    features_TLD: Tensor
    fps: float

    @property
    def num_frames(self) -> int:
        return self.features_TLD.shape[0]


class SpeechEncoder(nn.Module):
    """Convolutions over the log-mel spectrogram; two strides of two bring 100 frames a second to 25."""

    def __init__(self, width: int, layers: int, build: Build):
        super().__init__()
        self.stem = build.conv1d(MELS, width)
        self.down = nn.ModuleList(build.conv1d(width, width, stride=2) for _ in range(2))
        self.layers = nn.ModuleList(build.conv1d(width, width) for _ in range(layers - 1))
        self.viseme_head = build.linear(width * layers, VISEME_AXES)

    def forward(self, mel_BTK: Tensor) -> Tensor:
        """(B, 4 T, MELS) -> (B, T, L, D)."""
        h = F.gelu(self.stem(mel_BTK.transpose(1, 2)))
        for conv in self.down:
            h = F.gelu(conv(h))
        states = [h]
        for conv in self.layers:
            h = h + F.gelu(conv(h))
            states.append(h)
        return torch.stack(states, dim=1).permute(0, 3, 1, 2)

    def hear(self, mel_BTK: Tensor) -> Tensor:
        """``forward``, averaged over ``THROATS``: what all of them agree on is the sound and not the speaker."""
        total = self(stretched(mel_BTK, THROATS[0]))
        for factor in THROATS[1:]:
            total = total + self(stretched(mel_BTK, factor))
        return total / len(THROATS)

    def visemes(self, features_BTLD: Tensor) -> Tensor:
        """(B, T, L, D) -> (B, T, 4): open, width, teeth, press."""
        return self.viseme_head(features_BTLD.flatten(-2))


@torch.no_grad()
def encode_speech(
    encoder: SpeechEncoder, samples: Tensor, num_frames: int, fps: float = 25.0, chunk_frames: int = 250
) -> AudioFeatures:
    """A whole recording, in chunks with enough context that the result is that of one pass, on the encoder's device.

    ``samples`` (S,) 16 kHz mono, on the CPU. Only 25 frames a second are supported by this encoder.
    """
    if abs(fps * MEL_PER_FRAME * HOP - SAMPLE_RATE) > 1e-6:
        raise ValueError(f"this speech encoder was trained for 25 frames a second, got {fps:g}")
    context = 2 + 2 * len(encoder.layers)  # video frames the convolutions look to either side, rounded up
    gain = level_gain(samples)
    device = next(encoder.parameters()).device
    pieces = []
    for start in range(0, num_frames, chunk_frames):
        stop = min(num_frames, start + chunk_frames)
        # silence around the recording: the convolutions' own zero padding would be a loud sound in log-mel
        mel = mel_between(samples, gain, start - context, stop + context)
        pieces.append(encoder.hear(mel[None].to(device))[0, context : context + stop - start])
    return AudioFeatures(features_TLD=torch.cat(pieces), fps=fps)


def mel_between(samples: Tensor, gain: float, first: int, last: int) -> Tensor:
    """Log-mel of video frames ``first`` .. ``last - 1`` of (S,) samples times ``gain``, (4 (last - first), MELS).

    What lies before and behind the recording is silence. Only this stretch is read, so that the samples may be in a
    file.
    """
    per_frame = MEL_PER_FRAME * HOP
    begin, end = (first - 1) * per_frame, (last + 1) * per_frame  # a frame more, for windows that reach over the edge
    inside = samples[max(0, begin) : max(0, end)] * gain
    lead = min(max(0, -begin), end - begin)
    padded = F.pad(inside, (lead, end - begin - lead - inside.shape[0]))
    return log_mel(padded)[MEL_PER_FRAME:-MEL_PER_FRAME]
