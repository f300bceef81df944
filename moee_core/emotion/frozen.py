"""Frozen public encoders beside a model: what its Emotion-to-Latents reads text and voice by, where it has none inside.

Shapes (legend for this file): S samples (16 kHz mono), F video frames, K width of an embedding
    text  -> (F, K)   the sentence embedding, the same in every frame
    voice -> (F, K)   features of the voice, averaged over ``MOOD_SECONDS`` to either side of a frame, as a mood is

Who is called (the routing) is known in numbers, which no embedding says: of a text what the lexicon understands, of a
voice what the listener hears that ships with the pack.

Raises ``CheckpointError`` for encoders that are not those of a model; ``EmotionError`` where a needed one is not at
hand.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..audio.emotion_ear import EmotionEar
from ..audio.emotion_features import RATE, EmotionFeatures, FeatureReader
from ..errors import CheckpointError, EmotionError
from .latents import EmotionToLatentsConfig
from .sentence_t5 import SentenceT5
from .signals import EmotionRows
from .source import EmotionSource
from .stand_ins import MOOD_SECONDS, mood

FROZEN_TEXT = "sentence-t5"
FROZEN_VOICES = ("hubert", "emotion2vec")
GIVE_TEXT = "give its folder (--text-encoder, or the node Load Emotion Encoders)"
GIVE_VOICE = "give its folder (--voice-encoder, or the node Load Emotion Encoders)"
BLOCK = 250
"""Video frames whose features are averaged at once."""


class VoiceFeatures(EmotionFeatures, Protocol):
    """``HubertFeatures`` or ``Emotion2VecFeatures``."""

    kind: str

    def to(self, device: Any) -> VoiceFeatures: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class FrozenEncoders:
    """Each may be missing. ``listener`` hears which experts a voice calls, and comes with ``voice``."""

    text: SentenceT5 | None = None
    voice: VoiceFeatures | None = None
    listener: EmotionEar | None = None

    def __post_init__(self) -> None:
        if self.voice is not None and self.listener is None:
            raise ValueError("FrozenEncoders.voice needs a listener, which says whom a voice calls")

    def to(self, device: Any) -> FrozenEncoders:
        """Where the big ones compute. What they give is on the CPU."""
        for encoder in (self.text, self.voice):
            if encoder is not None:
                encoder.to(device)
        return self

    def check(self, emotion: EmotionToLatentsConfig) -> None:
        """Raises ``CheckpointError`` unless a model takes every encoder that is here, at its width."""
        voice = "" if self.voice is None else self.voice.kind
        given = (
            ("text", FROZEN_TEXT, self.text, emotion.text, emotion.text_width),
            ("audio", voice, self.voice, emotion.audio, emotion.audio_width),
        )
        for modality, kind, encoder, wanted, width in given:
            if encoder is None:
                continue
            if not width:
                raise CheckpointError(f"this model takes no {modality}; leave the encoder {kind} out")
            if kind != wanted:
                inside = ", which it has inside" if wanted in ("words", "ear") else ""
                raise CheckpointError(f"this model reads {modality} by {wanted}{inside}; leave the encoder {kind} out")
            if encoder.width != width:
                raise CheckpointError(
                    f"the encoder {kind} gives {encoder.width} numbers and this model takes {width} "
                    f"({modality}_width); choose the encoder it was trained with"
                )

    def rows(
        self,
        source: EmotionSource,
        samples: Tensor,
        num_frames: int,
        fps: float,
        emotion: EmotionToLatentsConfig,
        own_mood: Callable[[], NDArray[np.float32]] | None,
    ) -> EmotionRows:
        """What a source says of the frames of a recording, (S,), for a model of the configuration ``emotion``.

        ``own_mood`` gives the (F, 16) that the model's own ear hears, None where it has no ear.
        """
        heard = sentence = voice = None
        if source.voice:
            if own_mood is not None:
                heard = own_mood()
            else:
                encoder = self._voice_for(emotion, source.voice)
                assert self.listener is not None  # it comes with the voice
                heard = mood(self.listener, samples, num_frames, fps).numpy()
                voice = around_frames(encoder, samples, num_frames, fps)
        if source.text and emotion.text_width and emotion.text == FROZEN_TEXT:
            if self.text is None:
                raise EmotionError(f"this model reads text by {FROZEN_TEXT}, which is not at hand; {GIVE_TEXT}")
            row = self.text([source.text]).numpy()
            sentence = np.broadcast_to(row, (num_frames, row.shape[1]))
        return replace(source.rows(num_frames, fps, heard), sentence=sentence, voice=voice)

    def _voice_for(self, emotion: EmotionToLatentsConfig, strength: float) -> VoiceFeatures:
        cannot = "this model cannot hear the mood of a voice"
        if not emotion.audio_width:
            raise EmotionError(f"{cannot}; it has no ear for emotion")
        if self.voice is None:
            raise EmotionError(f"{cannot} by itself; it listens by {emotion.audio}, which is not at hand; {GIVE_VOICE}")
        if strength != 1:
            raise EmotionError(
                f"the mood of the voice counts {strength:g} times, and features of {emotion.audio} have no strength; "
                "use 1"
            )
        return self.voice


@torch.no_grad()
def around_frames(voice: EmotionFeatures, samples: Tensor, num_frames: int, fps: float) -> NDArray[np.float32]:
    """(num_frames, K) features, each the mean over ``MOOD_SECONDS`` to either side of the middle of a video frame."""
    reader = FeatureReader(voice, samples)
    reach = round(MOOD_SECONDS * RATE)
    middle = ((torch.arange(num_frames, dtype=torch.float64) + 0.5) * RATE / fps).long().clamp(0, reader.total - 1)
    out = np.empty((num_frames, voice.width), np.float32)
    block = max(1, min(BLOCK, int((reader.chunk - 2 * reach - 2) * fps / RATE)))
    for start in range(0, num_frames, block):
        wanted = middle[start : start + block]
        first, last = max(0, int(wanted[0]) - reach), min(reader.total, int(wanted[-1]) + reach + 1)
        sums = torch.nn.functional.pad(reader.read(first, last).double().cumsum(dim=0), (0, 0, 1, 0))
        low, high = (wanted - reach).clamp_min(first) - first, (wanted + reach + 1).clamp_max(last) - first
        out[start : start + block] = ((sums[high] - sums[low]) / (high - low)[:, None]).numpy()
    return out
