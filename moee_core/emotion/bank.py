"""DICE-Talk's bank of emotions: a prior asks, and the codes of all emotions answer with tokens for the denoiser.

Shapes (legend for this file):
    R priors (one for a clip, or one for each frame), P prior width, K codes, D token width, S tokens, M = K S tokens of
    the whole bank
    prior_RP -> tokens_RSD; features (R, C, H, W) of the denoiser -> logits (R, L) of the discrimination head

Equations (Tan et al. 2025, section 3.2, with the authors' published sizes): queries from the prior, keys and values
from the tokens of every code,
    tokens = softmax(Q(prior tokens) K(code tokens)^T / sqrt(d)) V(code tokens)        per head, no output layer
so that emotions share what they have in common. ``retrieval``: from the tokens of one code, the nearest to W prior,
which is how the codes learn (vector quantisation, ``dictionary.py``); in use the whole bank is read. Nobody's emotion
is the prior of zeros, not tokens of zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..audio.projector import TokenProjector
from ..ops import Build
from .dictionary import Dictionary, DictionaryConfig, Quantised

LEAST_USE = 0.02
"""Priors a batch below which a code moves onto another prior, where codes learn without gradients."""


@dataclass(frozen=True, kw_only=True)
class EmotionBankConfig:
    """Sizes; the defaults are the published ones. ``classes`` of the discrimination head, which reads ``features``
    channels of the denoiser. ``form``: "bank", or "direct", the prior's own tokens without any bank (an ablation).
    ``update``: how the codes learn, see ``dictionary.py``; the authors' by gradients, "naive"."""

    prior_width: int = 256
    hidden: int = 1024
    tokens: int = 32
    width: int = 1024
    codes: int = 64
    heads: int = 8
    features: int = 1280
    head_widths: tuple[int, int] = (512, 256)
    classes: int = 22
    form: str = "bank"
    update: str = "naive"

    def __post_init__(self) -> None:
        if self.form not in ("bank", "direct"):
            raise ValueError(f"EmotionBankConfig.form must be bank or direct, got {self.form!r}")
        for name in ("prior_width", "hidden", "tokens", "width", "codes", "heads", "features", "classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"EmotionBankConfig.{name} must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads:
            raise ValueError(f"tokens of width {self.width} cannot be split into {self.heads} heads")


class DiscriminationHead(nn.Module):
    """Which emotion features of the denoiser show: means over the grid, two ReLU layers with dropout, logits."""

    def __init__(self, inputs: int, widths: tuple[int, int], classes: int, build: Build, dropout: float = 0.1):
        super().__init__()
        self.fc1 = build.linear(inputs, widths[0])
        self.fc2 = build.linear(widths[0], widths[1])
        self.fc3 = build.linear(widths[1], classes)
        self.dropout = dropout

    def forward(self, features_RCHW: Tensor) -> Tensor:
        h = features_RCHW.mean(dim=(2, 3))
        for layer in (self.fc1, self.fc2):
            h = F.dropout(F.relu(layer(h)), self.dropout, self.training)
        return self.fc3(h)


@dataclass(frozen=True, kw_only=True)
class Whole:
    """Keys and values of the tokens of every code: the same for all priors."""

    keys_1MD: Tensor
    values_1MD: Tensor


class EmotionBank(nn.Module):
    """See the module's docstring."""

    def __init__(self, config: EmotionBankConfig, build: Build):
        super().__init__()
        self.config = config
        self.attention = build.attention
        width, sizes = config.width, (config.hidden, config.tokens, config.width)
        self.prior_tokens = TokenProjector(config.prior_width, *sizes, build)
        self.code_tokens = TokenProjector(width, *sizes, build)
        self.to_code = build.linear(config.prior_width, width)
        kept = DictionaryConfig(codes=config.codes, width=width, update=config.update, least_use=LEAST_USE)
        self.dictionary = Dictionary(kept, build)
        self.to_q, self.to_k, self.to_v = (build.linear(width, width) for _ in range(3))
        self.classifier = DiscriminationHead(config.features, config.head_widths, config.classes, build)

    def whole(self, like: Tensor) -> Whole:
        """What every prior reads, on the device and in the type of ``like``: for priors that come in several groups."""
        numbers = torch.arange(self.config.codes, device=like.device)
        codes_KD = self.dictionary.codes(numbers).to(like.dtype)
        told_1MD = self.code_tokens(codes_KD).flatten(0, 1)[None]
        return Whole(keys_1MD=self.to_k(told_1MD), values_1MD=self.to_v(told_1MD))

    def forward(
        self, prior_RP: Tensor, *, retrieval: bool = False, options: dict | None = None, whole: Whole | None = None
    ) -> Tensor:
        """(R, S, D). ``whole``: what ``whole()`` made, where it is there already. Raises ``ValueError`` for priors of
        another width."""
        if prior_RP.ndim != 2 or prior_RP.shape[1] != self.config.prior_width:
            raise ValueError(f"priors must be (R, {self.config.prior_width}), got {tuple(prior_RP.shape)}")
        asked_RSD = self.to_q(self.prior_tokens(prior_RP))
        if self.config.form == "direct":
            return asked_RSD
        heads, options = self.config.heads, options or {}
        if retrieval:
            told_RSD = self.code_tokens(self.retrieved(prior_RP).values)
            return self.attention(
                asked_RSD, self.to_k(told_RSD), self.to_v(told_RSD), heads, transformer_options=options
            )
        # queries do not see each other, so all priors ask as one: the bank is there once and not once for each of them
        read = self.whole(prior_RP) if whole is None else whole
        found = self.attention(
            asked_RSD.flatten(0, 1)[None], read.keys_1MD, read.values_1MD, heads, transformer_options=options
        )
        return found.view(asked_RSD.shape)

    def retrieved(
        self, prior_RP: Tensor, *, learn: bool = False, generator: torch.Generator | None = None
    ) -> Quantised:
        """The code nearest to each prior, with the losses by which both learn. ``learn`` and ``generator`` as in
        ``dictionary.py``."""
        return self.dictionary(self.to_code(prior_RP), learn=learn, generator=generator)
