"""An expert of a user's own: a seventh, trained alone, loaded beside the six and called by its name.

Shapes (legend for this file):
    N frames, T tokens, C width of a site, M emotion tokens, D emotion width, K sites of the denoiser
    x_NTC  hidden states that leave the six experts;  a_N  strength asked for in each frame, 0 (silent) to 1.5

Equation (ours, in the form of MoEE Eq. 4): X'' = X' + a s * E(X^; P + a Q), with X^ = LayerNorm(X'), E a
cross-attention, s = sigmoid(w X^ + b) the local gate, and P, Q (M, D) emotion tokens of its own. It stands outside the
softmax of the six experts' global gates: whatever they do, they do as without it, and where it is not called not a bit
changes. Its own global gate is the strength.

A file holds whole weights under the denoiser's names of its sites (``….emotion.own.attention.to_q.weight``) and
``tokens`` (2 M, D): P above Q. Metadata as in ``file.py``; ``emotion`` is its name with an @.

Raises ``CheckpointError`` for weights that do not belong to the denoiser.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from ..emotion.vocabulary import quote
from ..errors import CheckpointError, EmotionError
from ..networks.blocks import CrossAttention
from ..ops import Build
from .file import OWN_PART, TOKENS, ExpertFile, check_weight

if TYPE_CHECKING:
    from ..networks.config import PortraitUNetConfig

OPEN = 3.0
"""Bias of a new local gate: open nearly everywhere, as those of the six begin."""


class OwnSite(nn.Module):
    """The expert at one place of the UNet."""

    def __init__(self, width: int, emotion_width: int, heads: int, build: Build):
        super().__init__()
        self.norm = build.layer_norm(width)
        self.attention = CrossAttention(width, emotion_width, heads, build)
        self.gate = build.linear(width, 1)

    def forward(self, x_NTC: Tensor, context_NMD: Tensor, options: dict | None) -> Tensor:
        """The change, not yet times the strength."""
        normed = self.norm(x_NTC)
        return self.gate(normed).sigmoid() * self.attention(normed, context_NMD, options)


class OwnExpert(nn.Module):
    """See the module's docstring. ``sites`` are the names of the denoiser's sites, ``widths`` their channels."""

    def __init__(
        self, sites: Sequence[str], widths: Sequence[int], tokens: int, emotion_width: int, heads: int, build: Build
    ):
        super().__init__()
        self.names = tuple(sites)
        self.scale = 1.0
        """How much of it a user wants: 1 as its author trained it."""
        self.count = tokens
        self.sites = nn.ModuleList(OwnSite(width, emotion_width, heads, build) for width in widths)
        self.tokens = build.embedding(2 * tokens, emotion_width)

    def forward(self, number: int, x_NTC: Tensor, strength_N: Tensor, options: dict | None = None) -> Tensor:
        """Hidden states behind site ``number``."""
        strength = strength_N.to(x_NTC)[:, None, None]
        rows = torch.arange(2 * self.count, device=x_NTC.device)
        table = self.tokens(rows).to(x_NTC.dtype)
        context_NMD = table[None, : self.count] + strength * table[None, self.count :]
        return x_NTC + self.scale * strength * self.sites[number](x_NTC, context_NMD, options)

    def portable(self) -> dict[str, Tensor]:
        """Its weights under the names of a file."""
        state = self.state_dict()
        out = {TOKENS: state.pop(f"{TOKENS}.weight")}
        for key, value in state.items():
            _, number, tail = key.split(".", 2)
            out[f"{self.names[int(number)]}{OWN_PART}{tail}"] = value
        return out

    def load_portable(self, state: Mapping[str, Tensor], name: str) -> OwnExpert:
        """Take over a file's weights, all of them or an error."""
        own = {f"{TOKENS}.weight": state[TOKENS]} if TOKENS in state else {}
        for number, site in enumerate(self.names):
            head = f"{site}{OWN_PART}"
            own |= {f"sites.{number}.{key[len(head) :]}": v for key, v in state.items() if key.startswith(head)}
        wanted = {key: tuple(value.shape) for key, value in self.state_dict().items()}
        wrong = [key for key, shape in wanted.items() if key not in own or tuple(own[key].shape) != shape]
        if wrong or len(own) != len(state):
            first = wrong[0] if wrong else next(key for key in state if key not in self.portable())
            raise CheckpointError(
                f"{name}: {quote(first, 80)} is not as this model has it; the file belongs to a model of other sizes, "
                "or is damaged"
            )
        # converted first: a host may keep its networks in another precision than the file's
        dtype = next(self.parameters()).dtype
        self.load_state_dict({key: value.to(dtype) for key, value in own.items()}, strict=True)
        return self


class Host(Protocol):
    """A denoiser that an expert can stand in: its sites by name, each with ``.emotion.norm``."""

    config: PortraitUNetConfig

    def sites(self) -> Sequence[tuple[str, Any]]: ...


def make(denoiser: Host, tokens: int, build: Build) -> OwnExpert:
    """An expert for a denoiser, with ``tokens`` emotion tokens, not yet with any weights."""
    sites, config = denoiser.sites(), denoiser.config
    widths = [int(site.emotion.norm.weight.shape[0]) for _, site in sites]
    return OwnExpert([name for name, _ in sites], widths, tokens, config.emotion_width, config.heads, build)


def from_file(file: ExpertFile, denoiser: Host, build: Build, strength: float = 1.0) -> OwnExpert:
    """The expert of a file that was checked against the denoiser (``check_fits``), ``strength`` times as it is."""
    check_weight(strength, file.title)
    expert = make(denoiser, len(file.deltas[TOKENS]) // 2, build).load_portable(file.deltas, file.title)
    expert.scale = strength
    return expert.eval().requires_grad_(False)


@torch.no_grad()
def start(expert: OwnExpert, experts: Sequence[Sequence[nn.Module]], latents_MD: Tensor) -> None:
    """A new expert's first weights: the mean of the six at every site, silent until it learns (the output starts at
    zero), and the mean emotion's tokens at every strength. ``experts``: per site, its six attentions."""
    for site, known in zip(expert.sites, experts, strict=True):
        assert isinstance(site, OwnSite)
        states = [one.state_dict() for one in known]
        mean = {key: torch.stack([state[key].float() for state in states]).mean(0) for key in states[0]}
        site.attention.load_state_dict(mean)
        for last in site.attention.to_out.parameters():
            last.zero_()
        nn.init.ones_(site.norm.weight)
        nn.init.zeros_(site.norm.bias)
        nn.init.zeros_(site.gate.weight)
        nn.init.constant_(site.gate.bias, OPEN)
    expert.tokens.weight[: expert.count] = latents_MD
    # two experts that start alike must be able to learn different things: small, and a function of nothing but sizes
    generator = torch.Generator().manual_seed(0)
    rows, width = expert.count, latents_MD.shape[1]
    expert.tokens.weight[expert.count :] = torch.randn(rows, width, generator=generator) / math.sqrt(width)


def called(
    experts: Mapping[str, OwnExpert], strengths: Mapping[str, Tensor], device: torch.device
) -> Iterator[tuple[OwnExpert, Tensor]]:
    """The experts that some frame calls, with their strengths. Raises ``EmotionError`` for one that is not loaded."""
    for name, strength_N in strengths.items():
        if not bool((strength_N > 0).any()):
            continue
        if name not in experts:
            here = f"loaded: {', '.join(experts)}" if experts else "none is loaded"
            raise EmotionError(
                f"the emotion calls {quote(name)}, an expert of your own, and {here}; load its file beside the model "
                "(Load Emotion Expert, or --expert), or take it out of the emotion"
            )
        yield experts[name], strength_N.to(device)
