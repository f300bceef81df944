"""Cross-modal transformer: from the emotion in a voice to motion tokens, one after the other (EmoTalker, spec 4.3).

Shapes (legend for this file):
    B batch, S audio frames at 50 per second, A their width, N tokens (``frames_per_token`` = 8 audio frames each),
    D code width, W width, H heads, K codes
    audio (B, S, A), tokens (B, N, D) quantised -> out (B, N, D): out_i is made from tokens before i and audio near i

Masks, added to attention scores:
    temporal bias (H, N, N)  -m_h * floor((i - j) / period) for 0 <= i - j < window, else -inf; m_h = 2^(-8 (h+1) / H):
                             causal ALiBi in steps of ``period`` tokens (EmoTalker h = 4)
    alignment (N, S)         0 for max(8 i - 8, 0) <= s < min(8 i + 8, S), else -inf (EmoTalker k = 8)
``window`` bounds what a stream must remember; with at least a training clip's tokens it changes nothing there.

Time is given by Fourier features of seconds, the same for both: audio frame s lies at (s + 1/2) / 50, token i at
(8 i + 4) / 50. All frequencies are multiples of 1 / ``time_period``, and training clips start anywhere in it, so that
an hour of speech never leaves what was trained. ``time = "literal"`` is the published code's factor: frame s at s,
token i at 2 i.

The first token is made from the mean of the first 8 audio embeddings. Scores of codes, for which the code names no
formula: -|out - C_k|^2 / tau (ours).

Raises ``ValueError`` for settings out of range.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build

TIMES = ("seconds", "literal")
LITERAL_FACTOR = 2.0
AUDIO_RATE = 50.0
"""Audio frames per second."""
START_FRAMES = 8
HIGHEST_FREQUENCY = 25.0
"""Hz; half the rate of audio frames, above which a Fourier feature tells nothing more."""


@dataclass(frozen=True, kw_only=True)
class MotionTransformerConfig:
    """Sizes and masks; the defaults are the paper's. ``bias`` and ``align`` switch the masks off for ablations."""

    width: int = 256
    layers: int = 6
    heads: int = 4
    hidden: int = 512
    period: int = 4
    window: int = 24
    frames_per_token: int = 8
    reach: int = 8
    bias: bool = True
    align: bool = True
    time: str = "seconds"
    time_period: float = 8.0
    tau: float = 1.0

    def __post_init__(self) -> None:
        for name in ("width", "layers", "heads", "hidden", "period", "window", "frames_per_token", "reach"):
            if getattr(self, name) < 1:
                raise ValueError(f"MotionTransformerConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.width % (2 * self.heads):
            raise ValueError(f"MotionTransformerConfig.width {self.width} is no multiple of twice heads {self.heads}")
        if self.time not in TIMES:
            raise ValueError(f"MotionTransformerConfig.time must be one of {', '.join(TIMES)}; got {self.time!r}")
        if not (self.tau > 0 and self.time_period > 0):
            raise ValueError("MotionTransformerConfig.tau and time_period must be above 0")


def head_slopes(heads: int) -> Tensor:
    """(H,) m_h = 2^(-8 (h + 1) / H) (ALiBi)."""
    return torch.tensor([2.0 ** (-8.0 * (head + 1) / heads) for head in range(heads)])


def temporal_bias(queries: int, keys: int, heads: int, period: int, window: int, *, bias: bool = True) -> Tensor:
    """(H, queries, keys) for the last ``queries`` of ``keys`` tokens; without ``bias`` it only hides."""
    distance = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)[None]
    hidden = (distance < 0) | (distance >= window)
    steps = torch.div(distance, period, rounding_mode="floor").float()
    scores = -head_slopes(heads)[:, None, None] * steps if bias else torch.zeros(heads, queries, keys)
    return scores.masked_fill(hidden, -math.inf)


def alignment_mask(tokens: int, frames: int, ratio: int, reach: int) -> Tensor:
    """(tokens, frames): 0 where a token may look, else -inf."""
    first = torch.arange(tokens)[:, None] * ratio
    frame = torch.arange(frames)[None]
    # at least one frame: a recording's last token may begin after its last audio frame
    seen = (frame >= (first - reach).clamp(0, frames - 1)) & (frame < first + reach)
    return torch.zeros(tokens, frames).masked_fill(~seen, -math.inf)


def fourier(seconds: Tensor, width: int, period: float) -> Tensor:
    """(...) seconds -> (..., width): sines, then cosines, of rising multiples of 1 / ``period`` Hz."""
    highest = max(period * HIGHEST_FREQUENCY, 1.0)
    multiples = torch.logspace(0, math.log2(highest), width // 2, base=2.0, dtype=torch.float64).round()
    # whole turns are taken away in double precision: after an hour, single precision would blur milliseconds
    turns = (seconds.double()[..., None] / period * multiples.to(seconds.device)) % 1.0
    angle = (2 * math.pi * turns).float()
    return torch.cat([angle.sin(), angle.cos()], dim=-1)


class MaskedAttention(nn.Module):
    """Multi-head attention with an additive mask; keys and values can be kept between calls."""

    def __init__(self, width: int, heads: int, build: Build):
        super().__init__()
        self.heads, self.attention = heads, build.attention
        self.to_q = build.linear(width, width)
        self.to_k = build.linear(width, width)
        self.to_v = build.linear(width, width)
        self.to_out = build.linear(width, width)

    def keys_values(self, context_BSW: Tensor) -> tuple[Tensor, Tensor]:
        return self.to_k(context_BSW), self.to_v(context_BSW)

    def forward(self, x_BNW: Tensor, keys_values: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """``mask`` broadcasts to (B, H, N, S)."""
        keys, values = keys_values
        return self.to_out(self.attention(self.to_q(x_BNW), keys, values, self.heads, mask.to(x_BNW.dtype)))


class DecoderLayer(nn.Module):
    """Self-attention over tokens, cross-attention to the audio, feed-forward; each normed before, added after."""

    def __init__(self, config: MotionTransformerConfig, build: Build):
        super().__init__()
        self.norm1 = build.layer_norm(config.width)
        self.own = MaskedAttention(config.width, config.heads, build)
        self.norm2 = build.layer_norm(config.width)
        self.audio = MaskedAttention(config.width, config.heads, build)
        self.norm3 = build.layer_norm(config.width)
        self.up = build.linear(config.width, config.hidden)
        self.down = build.linear(config.hidden, config.width)

    def forward(
        self, x_BNW: Tensor, memory_BSW: Tensor, masks: tuple[Tensor, Tensor], past: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Returns the output and the keys and values of ``past`` with these tokens' own behind them."""
        h = self.norm1(x_BNW)
        keys, values = self.own.keys_values(h)
        if past is not None:
            keys, values = torch.cat([past[0], keys], dim=1), torch.cat([past[1], values], dim=1)
        x_BNW = x_BNW + self.own(h, (keys, values), masks[0])
        x_BNW = x_BNW + self.audio(self.norm2(x_BNW), self.audio.keys_values(memory_BSW), masks[1])
        return x_BNW + self.down(F.relu(self.up(self.norm3(x_BNW)))), (keys, values)


@dataclass(kw_only=True)
class TokenStream:
    """What a stream remembers: how many tokens were made, and the layers' keys and values of the last ones."""

    made: int = 0
    past: list[tuple[Tensor, Tensor]] | None = None


class MotionTransformer(nn.Module):
    def __init__(self, audio_width: int, code_width: int, config: MotionTransformerConfig, build: Build):
        super().__init__()
        self.config = config
        self.audio_in = build.linear(audio_width, config.width)
        self.token_in = build.linear(code_width, config.width)
        self.layers = nn.ModuleList(DecoderLayer(config, build) for _ in range(config.layers))
        self.norm = build.layer_norm(config.width)
        self.out = build.linear(config.width, code_width)

    def audio_time(self, frames: Tensor) -> Tensor:
        """(...) numbers of audio frames -> (..., W)."""
        centre = 0.5 if self.config.time == "seconds" else 0.0
        return fourier((frames.double() + centre) / AUDIO_RATE, self.config.width, self.config.time_period)

    def token_time(self, tokens: Tensor) -> Tensor:
        """(...) numbers of tokens -> (..., W)."""
        ratio = self.config.frames_per_token
        position = tokens.double() * (ratio if self.config.time == "seconds" else LITERAL_FACTOR)
        centre = ratio / 2 if self.config.time == "seconds" else 0.0
        return fourier((position + centre) / AUDIO_RATE, self.config.width, self.config.time_period)

    def memory(self, audio_BSA: Tensor, first_frame: int | Tensor = 0) -> Tensor:
        """Audio (B, S, A) from frame ``first_frame`` (or one per row) on -> (B, S, W) for the cross-attention."""
        frames = torch.arange(audio_BSA.shape[1], device=audio_BSA.device) + _column(first_frame, audio_BSA)
        embedded = self.audio_in(audio_BSA)
        return embedded + self.audio_time(frames).to(embedded)

    def start(self, audio_BSA: Tensor) -> Tensor:
        """(B, S, A) from the clip's beginning -> (B, W), what stands before the first token."""
        return self.audio_in(audio_BSA[:, :START_FRAMES]).mean(dim=1)

    def forward(self, audio_BSA: Tensor, tokens_BND: Tensor, first_token: int | Tensor = 0) -> Tensor:
        """Teacher forcing: out (B, N, D) with ``tokens`` shifted by one, the last of them unused.

        ``first_token`` (one number, or one per row) says when the clip begins, in tokens.
        """
        config = self.config
        begun, count = _column(first_token, audio_BSA), tokens_BND.shape[1]
        memory = self.memory(audio_BSA, begun * config.frames_per_token)
        before = torch.cat([self.start(audio_BSA)[:, None], self.token_in(tokens_BND[:, :-1])], dim=1)
        x = before + self.token_time(torch.arange(count, device=before.device) + begun).to(before)
        masks = (
            temporal_bias(count, count, config.heads, config.period, config.window, bias=config.bias)[None].to(
                x.device
            ),
            self._alignment(count, audio_BSA.shape[1]).to(x.device),
        )
        for layer in self.layers:
            x, _ = layer(x, memory, masks)
        return self.out(self.norm(x))

    def step(self, stream: TokenStream, before_BW: Tensor, memory_BSW: Tensor) -> Tensor:
        """The next token's out (B, D) from what stands before it and the audio it may see, (B, S, W), all of which
        is open to it. ``stream`` moves on by one; it never holds more than ``window`` tokens."""
        config = self.config
        time = self.token_time(torch.tensor([stream.made], device=before_BW.device))
        x = before_BW[:, None] + time.to(before_BW)
        keep = config.window - 1
        held = min(stream.made, keep)
        bias = temporal_bias(1, held + 1, config.heads, config.period, config.window, bias=config.bias)
        masks = (bias[None].to(x.device), torch.zeros(1, memory_BSW.shape[1], device=x.device))
        past: list[tuple[Tensor, Tensor]] = []
        for number, layer in enumerate(self.layers):
            x, (keys, values) = layer(x, memory_BSW, masks, stream.past[number] if stream.past else None)
            first = max(0, keys.shape[1] - keep)
            past.append((keys[:, first:], values[:, first:]))
        stream.past, stream.made = past, stream.made + 1
        return self.out(self.norm(x))[:, 0]

    def scores(self, out: Tensor, codes_KD: Tensor) -> Tensor:
        """(..., D) -> (..., K) logits: -|out - C_k|^2 / tau."""
        codes = codes_KD.to(out.dtype)
        squared = out.square().sum(-1, keepdim=True) - 2 * out @ codes.T + codes.square().sum(-1)
        return -squared / self.config.tau

    def visible(self, token: int, frames: int) -> tuple[int, int]:
        """First and last + 1 of the ``frames`` audio frames that ``token`` may see."""
        if not self.config.align:
            return 0, frames
        first = token * self.config.frames_per_token
        return min(max(first - self.config.reach, 0), frames - 1), min(first + self.config.reach, frames)

    def _alignment(self, tokens: int, frames: int) -> Tensor:
        if not self.config.align:
            return torch.zeros(1, 1, tokens, frames)
        return alignment_mask(tokens, frames, self.config.frames_per_token, self.config.reach)[None, None]


def _column(first: int | Tensor, like: Tensor) -> Tensor:
    """A number, or one per row, as (1, 1) or (B, 1) integers."""
    return torch.as_tensor(first, device=like.device, dtype=torch.long).reshape(-1, 1)
