"""DICE-Talk's emotion embedder: what a face and a voice do for a while, as one Gaussian prior.

Shapes (legend for this file):
    B clips, N frames, C expression coefficients, r speech features a frame, L their layers, A their width, D prior
    width; visual_BNC, speech (B, r N, L, A), either None or, where a row of ``there`` is false, not looked at
    -> ``Embedded``: mean_BD, variance_BD, weights_BN

Equations (Tan et al. 2025, section 3.1; the networks were not published):
    s_b = StyleTalk's encoder of the coefficients,  s_a = transformer layers on the features       (N, D) each
    s = s_a + lambda softmax(W_q s_a (W_k s_b)^T) W_v s_b                                          (2, 3)
    a = softmax(W_s s),  mu = sum_n a_n s_n,  sigma^2 = sum_n a_n (s_n - mu)^2                      (4, 5)
    prior = mu + sigma * eps                                                                       (6)
    loss = -log sum_positives w(i, j) / sum_{j != i} w(i, j),  w = exp((cos(i, j) - 1) / tau)      (7, 8)
The equations let speech ask the face, the paper's text says the reverse: ``asks`` is either. sigma is the variance of
the clip over time, no head of its own, so a still face has none. The "fixed constant" of Eq. 8 is -1, which bounds w.
A modality that is not there is replaced before positions and modality embeddings are added, by a learned vector or by
zeros; a row never lacks both.

Raises ``ValueError`` for inputs of other sizes, lengths that do not agree, or a row with neither.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build

ASKS = ("speech", "face")
ABSENT = ("learned", "zeros")


@dataclass(frozen=True, kw_only=True)
class PriorEmbedderConfig:
    """Sizes; the defaults follow the paper where it states them (``width``, StyleTalk's encoder, Whisper-tiny).

    ``frames``: how many a clip had in training; longer ones are read in pieces of so many. ``speech_rate``: features a
    frame. ``share`` of Eq. 3, lambda, is learned from 1.
    """

    width: int = 256
    coefficients: int = 64
    speech_layers: int = 5
    speech_width: int = 384
    speech_rate: int = 2
    layers: int = 3
    fusion_layers: int = 2
    heads: int = 8
    hidden: int = 1024
    frames: int = 64
    asks: str = "speech"
    absent: str = "learned"

    def __post_init__(self) -> None:
        names = ("width", "coefficients", "speech_layers", "speech_width", "speech_rate", "layers", "fusion_layers")
        for name in (*names, "heads", "hidden", "frames"):
            if getattr(self, name) < 1:
                raise ValueError(f"PriorEmbedderConfig.{name} must be at least 1, got {getattr(self, name)}")
        for name, allowed in (("asks", ASKS), ("absent", ABSENT)):
            if getattr(self, name) not in allowed:
                found = getattr(self, name)
                raise ValueError(f"PriorEmbedderConfig.{name} must be one of {', '.join(allowed)}; got {found!r}")
        if self.width % self.heads or self.width % 2:
            raise ValueError(f"a width of {self.width} cannot be split into {self.heads} heads and pairs of waves")


@dataclass(frozen=True, kw_only=True)
class Embedded:
    """The Gaussian of each clip, and how much each frame counted."""

    mean_BD: Tensor
    variance_BD: Tensor
    weights_BN: Tensor

    def sample(self, eps_BD: Tensor) -> Tensor:
        """Eq. 6."""
        return self.mean_BD + self.variance_BD.clamp_min(1e-12).sqrt() * eps_BD


class _Layer(nn.Module):
    """Attention and feed-forward, each added to what came in; norms stand before them."""

    def __init__(self, width: int, heads: int, hidden: int, build: Build):
        super().__init__()
        self.heads, self.attention = heads, build.attention
        self.norm1, self.norm2 = build.layer_norm(width), build.layer_norm(width)
        self.to_q, self.to_k, self.to_v = (build.linear(width, width) for _ in range(3))
        self.to_out = build.linear(width, width)
        self.first, self.second = build.linear(width, hidden), build.linear(hidden, width)

    def forward(self, x_BND: Tensor, context_BMD: Tensor | None = None, share: Tensor | None = None) -> Tensor:
        h = self.norm1(x_BND)
        asked = h if context_BMD is None else context_BMD
        answer = self.to_out(self.attention(self.to_q(h), self.to_k(asked), self.to_v(asked), self.heads))
        x = x_BND + (answer if share is None else share * answer)
        return x + self.second(F.gelu(self.first(self.norm2(x))))


class PriorEmbedder(nn.Module):
    """See the module's docstring."""

    def __init__(self, config: PriorEmbedderConfig, build: Build):
        super().__init__()
        self.config = config
        size = (config.width, config.heads, config.hidden, build)
        self.face_in = build.linear(config.coefficients, config.width)
        self.speech_in = build.linear(config.speech_width, config.width)
        # numbers and vectors of their own, each in a leaf module that a host can stream
        self.layer_weights = build.embedding(1, config.speech_layers)
        self.share = build.embedding(1, 1)
        self.absent, self.kind = build.embedding(2, config.width), build.embedding(2, config.width)
        self.face_layers = nn.ModuleList(_Layer(*size) for _ in range(config.layers))
        self.speech_layers = nn.ModuleList(_Layer(*size) for _ in range(config.layers))
        self.face_norm, self.speech_norm = build.layer_norm(config.width), build.layer_norm(config.width)
        self.fusion = nn.ModuleList(_Layer(*size) for _ in range(config.fusion_layers))
        self.to_weight = build.linear(config.width, 1)

    def forward(
        self,
        visual_BNC: Tensor | None,
        speech_BMLA: Tensor | None,
        there_B2: Tensor | None = None,
    ) -> Embedded:
        """``there_B2``: whether a row's face and speech are looked at; None is every one that is given."""
        frames, rows, device = self._checked(visual_BNC, speech_BMLA, there_B2)
        given = torch.tensor([[visual_BNC is not None, speech_BMLA is not None]], device=device).expand(rows, -1)
        there = given if there_B2 is None else given & there_B2.to(device).bool()
        numbers = torch.arange(2, device=device)
        absent, kind = self.absent(numbers), self.kind(numbers)
        if self.config.absent == "zeros":
            absent = torch.zeros_like(absent)
        waves = positions(frames, self.config.width, kind)

        def prepared(given: Tensor | None, read: Callable[[Tensor], Tensor], which: int) -> Tensor:
            known = absent[which].expand(rows, frames, -1)
            if given is not None:
                looked_at = there[:, which].view(-1, *[1] * (given.ndim - 1))
                # zeros where nobody looks: torch.where below hides a NaN, but in its gradient 0 times NaN is NaN
                tokens = read(given.to(kind).masked_fill(~looked_at, 0))
                known = torch.where(there[:, which, None, None], tokens, known)
            return known + waves + kind[which]

        face = prepared(visual_BNC, self.face_in, 0)
        speech = prepared(speech_BMLA, self._heard, 1)
        for layer in self.face_layers:
            face = layer(face)
        for layer in self.speech_layers:
            speech = layer(speech)
        face, speech = self.face_norm(face), self.speech_norm(speech)
        asking, asked = (speech, face) if self.config.asks == "speech" else (face, speech)
        share = 1 + self.share(numbers[:1])  # a learned difference from lambda = 1
        for layer in self.fusion:
            asking = layer(asking, asked, share)
        weights_BN = self.to_weight(asking)[..., 0].float().softmax(dim=1)
        s_BND = asking.float()
        mean = torch.einsum("bn,bnd->bd", weights_BN, s_BND)
        variance = torch.einsum("bn,bnd->bd", weights_BN, (s_BND - mean[:, None]).square())
        return Embedded(mean_BD=mean, variance_BD=variance, weights_BN=weights_BN)

    def _heard(self, speech_BMLA: Tensor) -> Tensor:
        """(B, N, D): layers weighed, features of a frame averaged."""
        weights = self.layer_weights(torch.zeros(1, dtype=torch.long, device=speech_BMLA.device)).softmax(dim=-1)
        mixed = torch.einsum("bmla,l->bma", speech_BMLA, weights[0].to(speech_BMLA))
        return self.speech_in(mixed.unflatten(1, (-1, self.config.speech_rate)).mean(dim=2))

    def _checked(
        self, visual: Tensor | None, speech: Tensor | None, there: Tensor | None
    ) -> tuple[int, int, torch.device]:
        config = self.config
        if visual is not None and (visual.ndim != 3 or visual.shape[2] != config.coefficients):
            raise ValueError(f"coefficients must be (B, N, {config.coefficients}), got {tuple(visual.shape)}")
        if speech is not None and (speech.ndim != 4 or speech.shape[2:] != (config.speech_layers, config.speech_width)):
            raise ValueError(
                f"speech features must be (B, M, {config.speech_layers}, {config.speech_width}), got "
                f"{tuple(speech.shape)}"
            )
        if speech is not None and speech.shape[1] % config.speech_rate:
            raise ValueError(f"{speech.shape[1]} speech features are not {config.speech_rate} for every frame")
        sizes = [] if visual is None else [(visual.shape[0], visual.shape[1])]
        sizes += [] if speech is None else [(speech.shape[0], speech.shape[1] // config.speech_rate)]
        if not sizes:
            raise ValueError("neither a face nor speech was given to embed")
        if len(set(sizes)) > 1:
            raise ValueError(
                f"face and speech must be of the same clips and frames, got {sizes[0]} and {sizes[1]} (B, N)"
            )
        looked_at = torch.tensor([visual is not None, speech is not None])
        if there is not None and not bool((there.cpu().bool() & looked_at).any(dim=1).all()):
            raise ValueError("a row of there_B2 has neither face nor speech to look at")
        rows, frames = sizes[0]
        return frames, rows, (visual if visual is not None else speech).device  # type: ignore[union-attr]

    @torch.no_grad()
    def clip(self, visual_NC: Tensor | None, speech_MLA: Tensor | None) -> Embedded:
        """One clip of any length, (1, D): pieces of ``frames`` frames that overlap by half, their Gaussians joined.

        The joined variance is the mean of the pieces' variances and the variance of their means. Speech that is
        shorter or longer than the face is cut to the shorter of the two.
        """
        rate, piece = self.config.speech_rate, self.config.frames
        lengths = {"face": None if visual_NC is None else len(visual_NC)}
        lengths["speech"] = None if speech_MLA is None else len(speech_MLA) // rate
        known = [length for length in lengths.values() if length is not None]
        if not known or min(known) < 1:
            found = ", ".join(f"{name} {'none' if one is None else one}" for name, one in lengths.items())
            raise ValueError(f"there is no frame to embed (frames: {found}); give at least one of what is to be read")
        frames = min(known)
        starts = list(range(0, max(frames - piece, 0) + 1, max(piece // 2, 1)))
        if starts[-1] + piece < frames:
            starts.append(frames - piece)
        read = []
        for start in starts:
            stop = min(start + piece, frames)
            read.append(
                self(
                    None if visual_NC is None else visual_NC[None, start:stop],
                    None if speech_MLA is None else speech_MLA[None, rate * start : rate * stop],
                )
            )
        means = torch.cat([one.mean_BD for one in read])
        variances = torch.cat([one.variance_BD for one in read])
        weights = torch.zeros(1, frames, device=means.device)
        for start, one in zip(starts, read, strict=True):
            weights[:, start : start + one.weights_BN.shape[1]] += one.weights_BN / len(read)
        return Embedded(
            mean_BD=means.mean(dim=0, keepdim=True),
            variance_BD=(variances.mean(dim=0) + means.var(dim=0, unbiased=False))[None],
            weights_BN=weights,
        )


def positions(frames: int, width: int, like: Tensor) -> Tensor:
    """(N, D): sine and cosine waves of falling frequency (Vaswani et al. 2017)."""
    rates = torch.exp(torch.arange(0, width, 2, device=like.device) * (-math.log(10000.0) / width))
    angles = torch.arange(frames, device=like.device)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1).to(like)


def contrastive(priors_BD: Tensor, groups_B: Tensor, temperature: float, constant: float = -1.0) -> Tensor:
    """Eq. 7 and 8: InfoNCE whose positives are the rows of the same group. Rows that are alone in theirs are negatives
    only. ``constant`` is added to the cosine; any gives the same gradient, -1 keeps the exponents from overflowing.

    Raises ``ValueError`` where no row has a positive.
    """
    alike = groups_B[:, None] == groups_B[None]
    others = ~torch.eye(len(priors_BD), dtype=torch.bool, device=priors_BD.device)
    positive = alike & others
    having = positive.any(dim=1)
    if not bool(having.any()):
        raise ValueError("no clip of the batch has another of its own group; draw at least two of one")
    unit = F.normalize(priors_BD.float(), dim=-1)
    logits = (unit @ unit.T + constant) / temperature
    everything = logits.masked_fill(~others, -math.inf).logsumexp(dim=1)
    same = logits.masked_fill(~positive, -math.inf)[having].logsumexp(dim=1)
    return (everything[having] - same).mean()
