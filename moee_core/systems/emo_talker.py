"""EmoTalker: a voice alone makes a face move with its emotion (Shen et al., ACCV 2024; spec 4).

Shapes (legend for this file): F frames at the model's 25 per second, D coefficients of the motion space, S samples

Two branches make one motion. The voice's emotion features become motion tokens, one after the other, and the VQ-VAE's
decoder turns them into the face (all but the lips: expression, lids, gaze, head pose). The lip branch makes the mouth
of every frame from its fifth of a second of sound, the face's expression and the lids. Both are written into one
motion by the space's two sets of columns.

Long recordings are streamed: features in chunks, tokens with a window of past keys and values, decoding in chunks with
as many tokens of context as the decoder looks, so that memory does not grow and the result does not depend on where a
chunk begins. Blinks are drawn by absolute time, sampled tokens from one generator; one seed gives one motion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from ..audio.emotion_ear import EmotionEar, EmotionEarConfig
from ..audio.emotion_features import RATE, EmotionFeatures, FeatureReader
from ..audio.mel import SAMPLE_RATE
from ..audio.read import Waveform, resample_mono
from ..audio.spectrogram import LIP_MEL, LIP_STEPS, lip_window_start, lip_windows, spectrogram
from ..motion.coefficients import SPACES, Motion, MotionError, MotionSpace
from ..networks.lip_branch import LipBranch, LipBranchConfig
from ..networks.motion_transformer import MotionTransformer, MotionTransformerConfig, TokenStream
from ..networks.motion_vqvae import MotionVQConfig, MotionVQVAE
from ..ops import DEFAULT_BUILD, Build

MODES = ("continuous", "snap", "sample")
PARTS = ("pose", "lip", "expression")
BLINK = (0.5, 0.9, 1.0, 0.9, 0.5)
"""A blink, frame by frame (the published code's burst)."""
FIRST_BLINK = 0.4
"""Seconds before a blink may come: people are shown with open eyes first."""
LONG_SECONDS = 600.0
"""Longer recordings are resampled into a file."""


@dataclass(frozen=True, kw_only=True)
class EmoTalkerConfig:
    """Everything that defines a checkpoint. The defaults are the paper's sizes, in its own space of coefficients."""

    space: str = "sadtalker"
    fps: float = 25.0
    ear: EmotionEarConfig = field(default_factory=lambda: EmotionEarConfig(source="hubert", width=768))
    vq: MotionVQConfig = field(default_factory=MotionVQConfig)
    transformer: MotionTransformerConfig = field(default_factory=MotionTransformerConfig)
    lip: LipBranchConfig = field(default_factory=LipBranchConfig)

    def __post_init__(self) -> None:
        if self.space not in SPACES:
            raise ValueError(f"EmoTalkerConfig.space must be one of {', '.join(SPACES)}; got {self.space!r}")
        if abs(self.vq.rate * RATE - self.transformer.frames_per_token * self.fps) > 1e-6:
            raise ValueError(
                f"a token of {self.vq.rate} frames at {self.fps:g} per second does not last "
                f"{self.transformer.frames_per_token} audio frames at {RATE}"
            )


@dataclass(frozen=True, kw_only=True)
class MotionSettings:
    """How a motion is generated. Raises ``MotionError`` for a setting out of range.

    ``mode``: feed back and decode what the transformer says (continuous, the paper's), its nearest code (snap), or a
    code drawn by its scores at ``temperature`` (sample). ``chunk_tokens`` are decoded at once.
    """

    mode: str = "continuous"
    temperature: float = 1.0
    seed: int = 0
    blinks_per_minute: float = 14.0
    chunk_tokens: int = 64

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise MotionError(f"mode must be one of {', '.join(MODES)}; got {self.mode[:20]!r}")
        if not 0 < self.temperature < math.inf:
            raise MotionError(f"temperature must be above 0, got {self.temperature}")
        if not 0 <= self.blinks_per_minute <= 120:
            raise MotionError(f"blinks_per_minute must be 0 to 120, got {self.blinks_per_minute}")
        if self.chunk_tokens < 1:
            raise MotionError(f"chunk_tokens must be at least 1, got {self.chunk_tokens}")


class EmoTalkerSystem(nn.Module):
    """All networks of an EmoTalker checkpoint. ``ear`` is None where features come from HuBERT."""

    def __init__(self, config: EmoTalkerConfig, build: Build = DEFAULT_BUILD):
        super().__init__()
        self.config = config
        self.space: MotionSpace = SPACES[config.space]
        self.lip_columns, self.face_columns = self.space.indices("lip"), self.space.indices("face")
        self.expression_columns = self.space.indices("expression")
        lips, face = len(self.lip_columns), len(self.face_columns)
        self.ear = EmotionEar(config.ear, build) if config.ear.source == "ear" else None
        self.vqvae = MotionVQVAE(face, config.vq, build)
        self.transformer = MotionTransformer(config.ear.width, config.vq.dictionary.width, config.transformer, build)
        self.lip_branch = LipBranch(lips, lips + len(self.expression_columns), config.lip, build)

    def generate(
        self,
        waveform: Waveform,
        fps: float = 25.0,
        settings: MotionSettings | None = None,
        *,
        features: EmotionFeatures | None = None,
        reference: np.ndarray | None = None,
        driven: Mapping[str, Motion] | None = None,
    ) -> Motion:
        """The motion of a recording, ceil(duration * ``fps``) frames.

        ``features`` is needed where the checkpoint has no ear of its own. ``reference`` (D,) are the portrait's
        coefficients, whose mouth is where lips start from; None is the neutral face. ``driven`` replaces parts by
        those of other motions: {"pose": motion, "lip": …, "expression": …} (spec 4.5).

        Raises ``MotionError`` for anything that does not fit.
        """
        driven = driven or {}
        unknown = sorted(set(driven) - set(PARTS))
        if unknown:
            raise MotionError(f"unknown part to drive {str(unknown[0])[:20]!r}; choose of: {', '.join(PARTS)}")
        samples = torch.from_numpy(resample_mono(waveform, SAMPLE_RATE, in_file=waveform.duration > LONG_SECONDS))
        blocks = list(self.stream(samples, settings or MotionSettings(), features=features, reference=reference))
        motion = Motion(values=np.concatenate(blocks), fps=self.config.fps, space=self.space, about="EmoTalker")
        if abs(fps - self.config.fps) > 1e-9:
            motion = motion.resampled(fps, max(1, math.ceil(round(waveform.duration * fps, 6))))
        for part, other in driven.items():
            motion = motion.with_part_of(other, part)
        return motion

    @torch.no_grad()
    def stream(
        self,
        samples: Tensor,
        settings: MotionSettings,
        *,
        features: EmotionFeatures | None = None,
        reference: np.ndarray | None = None,
    ) -> Iterator[np.ndarray]:
        """Blocks (frames, D) float32 of (S,) samples at 16 kHz on the CPU, in order and without gaps."""
        rest = self._rest(reference)
        reader = FeatureReader(self._source(features), samples)
        fps, rate = self.config.fps, self.config.vq.rate
        frames = max(1, math.ceil(round(samples.shape[0] / SAMPLE_RATE * fps, 6)))
        count = -(-frames // rate)
        context, chunk = self.config.vq.context_tokens, settings.chunk_tokens
        made = self._tokens(reader, count, settings)
        kept: list[Tensor] = []
        offset = 0  # number of the first token in `kept`
        for first in range(0, count, chunk):
            last = min(first + chunk, count)
            while offset + len(kept) < min(last + context, count):
                kept.append(next(made))
            begin = max(0, first - context)
            kept, offset = kept[begin - offset :], begin
            decoded = self.vqvae.decode(torch.stack(kept[: last + context - begin])[None])[0]
            face = decoded[(first - begin) * rate : (last - begin) * rate][: frames - first * rate]
            yield self._with_lips(face, samples, reader.gain, first * rate, rest, settings)

    def _source(self, features: EmotionFeatures | None) -> EmotionFeatures:
        source = features if features is not None else self.ear
        if source is None:
            raise MotionError("this checkpoint listens through HuBERT; give the features of a local HuBERT folder")
        if source.width != self.config.ear.width:
            raise MotionError(
                f"the features have {source.width} numbers, this checkpoint takes {self.config.ear.width}"
            )
        return source

    def _rest(self, reference: np.ndarray | None) -> Tensor:
        """(1, L) the portrait's mouth."""
        if reference is None:
            return torch.zeros(1, len(self.lip_columns))
        values = np.asarray(reference, np.float32)
        if values.shape != (self.space.size,) or not np.isfinite(values).all():
            raise MotionError(f"a reference has {self.space.size} finite numbers, got shape {values.shape}")
        return torch.from_numpy(values[self.lip_columns])[None]

    def _tokens(self, reader: FeatureReader, count: int, settings: MotionSettings) -> Iterator[Tensor]:
        """Token after token, (code width,)."""
        transformer, weight = self.transformer, self.transformer.out.weight
        generator = torch.Generator().manual_seed(settings.seed)
        stream = TokenStream()
        before: Tensor | None = None
        for number in range(count):
            first, last = transformer.visible(number, reader.total)
            audio = reader.read(first, last)[None].to(weight)
            if before is None:
                before = transformer.start(audio)
            out = transformer.step(stream, before, transformer.memory(audio, first))
            token = self.chosen(out, settings, generator)
            before = transformer.token_in(token)
            yield token[0]

    def chosen(self, out_ND: Tensor, settings: MotionSettings, generator: torch.Generator) -> Tensor:
        """What is fed back and decoded for the transformer's (N, D)."""
        dictionary = self.vqvae.dictionary
        if settings.mode == "snap":
            return dictionary.codes(dictionary.nearest(out_ND)).to(out_ND)
        if settings.mode == "sample":
            scores = self.transformer.scores(out_ND, dictionary.codes.weight).float().cpu() / settings.temperature
            drawn = torch.multinomial(scores.softmax(-1), 1, generator=generator)[:, 0]
            return dictionary.codes(drawn.to(out_ND.device)).to(out_ND)
        return out_ND

    def lips(self, mel_NKS: Tensor, face_NC: Tensor, rest_NL: Tensor, blink_N: Tensor) -> Tensor:
        """(N, L) from mel windows, face coefficients (N, C), the mouth at rest and the blink."""
        expression = [self.face_columns.index(column) for column in self.expression_columns]
        return self.lip_branch(mel_NKS, torch.cat([rest_NL, face_NC[:, expression]], dim=1), blink_N)

    def _with_lips(
        self, face_NC: Tensor, samples: Tensor, gain: float, first: int, rest: Tensor, settings: MotionSettings
    ) -> np.ndarray:
        """The face's block from frame ``first`` on, (N, C), with lips -> (N, D): the two branches blended (4.4)."""
        count, fps = len(face_NC), self.config.fps
        blink = torch.from_numpy(blink_track(first, first + count, fps, settings.blinks_per_minute, settings.seed))
        face = face_NC.float().cpu()
        opening = ((first + torch.arange(count)) / (FIRST_BLINK * fps)).clamp(max=1.0)
        for name in ("lidL", "lidR"):  # FACE's lids; the other space has no number that is the lids
            if name in self.space.index:
                column = self.face_columns.index(self.space.index[name])
                face[:, column] = torch.maximum(face[:, column] * opening, blink)
        offset = lip_window_start(first, fps)
        mel = spectrogram(samples, LIP_MEL, offset, lip_window_start(first + count - 1, fps) + LIP_STEPS, gain)
        windows = lip_windows(mel, first, first + count, offset, fps)
        weight = self.lip_branch.mix.weight
        lips = self.lips(windows.to(weight), face.to(weight), rest.expand(count, -1).to(weight), blink.to(weight))
        values = np.zeros((count, self.space.size), np.float32)
        values[:, self.face_columns] = face.numpy()
        values[:, self.lip_columns] = lips.float().cpu().numpy()
        return values


def blink_track(first: int, last: int, fps: float, per_minute: float, seed: int) -> np.ndarray:
    """(last - first,) float32, 0 open .. 1 shut: a burst at a random place of every 60 / ``per_minute`` seconds.

    A frame's value depends on its number and the seed alone.
    """
    track = np.zeros(last - first, np.float32)
    if per_minute <= 0:
        return track
    slot = max(60.0 / per_minute * fps, 2.0 * len(BLINK))
    for number in range(max(0, int((first - len(BLINK)) / slot)), int(last / slot) + 1):
        rng = np.random.default_rng([seed % 2**32, number])
        least = 0.0 if number else min(FIRST_BLINK * fps, slot - len(BLINK))  # nobody begins with closed eyes
        start = int(number * slot + rng.uniform(least, slot - len(BLINK)))
        for offset, value in enumerate(BLINK):
            if first <= start + offset < last:
                track[start + offset - first] = value
    return track
