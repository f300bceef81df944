"""Hallo's audio module: three cross-attentions to the speech, each confined to a region of the picture.

Shapes (legend for this file):
    N frames, C width of the site, D width inside the module, H W grid of the level, T = H * W, S audio tokens,
    A audio width, R = 3 regions: around the face (where the head's pose shows), the face without the lips, the lips
    x_NCHW, audio_NSA, maps_NRHW in [0, 1] -> x'_NCHW

Equation (Xu et al. 2024, "Hallo", hierarchical audio-driven visual synthesis; order and places of the layers as in the
authors' published code): with h = W_in GN(x), h <- h + SelfAttn(LN h), then
    h <- h + sum_r a_r Z_r(M_r * CrossAttn_r(LN h, audio)),   h <- h + FF(LN h),   x' = x + W_out h
where M_r is the region's map at this level, Z_r a 1x1 convolution and a_r the region's strength (pose, face, lip). The
convolution's bias acts everywhere, inside the region and outside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..ops import Build, added, frame_pieces
from .blocks import CrossAttention, FeedForward, KeyValue, mapped

REGIONS = ("pose", "face", "lip")


@dataclass(frozen=True, kw_only=True)
class SpeechRegions:
    """Where speech acts, and how strongly.

    ``levels``: for each level of the UNet (N, R, H_l, W_l) in [0, 1]. ``strengths``: of pose, face and lip, 1 is
    Hallo's own.
    """

    levels: tuple[Tensor, ...]
    strengths: tuple[float, float, float] = (1.0, 1.0, 1.0)

    def __post_init__(self) -> None:
        for level, maps in enumerate(self.levels):
            if maps.ndim != 4 or maps.shape[1] != len(REGIONS):
                raise ValueError(
                    f"the maps of level {level} must be (frames, {len(REGIONS)}, height, width), "
                    f"got {tuple(maps.shape)}"
                )

    @staticmethod
    def of(maps_NRHW: Tensor, levels: int, strengths: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> SpeechRegions:
        """From maps of the latents' size; every further level is half as large, rounded up, as the UNet's are."""
        height, width = maps_NRHW.shape[-2:]
        sizes = [(-(-height // 2**level), -(-width // 2**level)) for level in range(levels)]
        exact = maps_NRHW.float()  # a CPU does not resize in half precision
        smaller = [
            F.interpolate(exact, size, mode="bilinear", antialias=True).to(maps_NRHW.dtype) for size in sizes[1:]
        ]
        return SpeechRegions(levels=(maps_NRHW, *smaller), strengths=strengths)

    def frames(self, count: int) -> SpeechRegions:
        """The maps of one picture for each of ``count`` frames, without copying them."""
        return SpeechRegions(levels=tuple(x.expand(count, -1, -1, -1) for x in self.levels), strengths=self.strengths)

    def to(self, device: torch.device) -> SpeechRegions:
        return SpeechRegions(levels=tuple(x.to(device) for x in self.levels), strengths=self.strengths)


@dataclass(frozen=True, kw_only=True)
class FoldedSpeech:
    """The three attentions as one, of R times the heads: their queries' maps side by side, and everything behind them
    in one map, since the output of an attention, the 1x1 convolution and the sum over regions are linear and the mask
    is one number a token:

        sum_r a_r Z_r(M_r * CrossAttn_r) = sum_r a_r M_r * (heard_r O_r Z_r) + field

    ``queries_DE`` (D, R D) and ``out_ED`` (R D, D); ``shares_NTR1`` the regions' maps times their strengths, of one
    frame or of every one; ``field_NTD`` what the biases make, which is all that is left where nothing is heard:
    without biases, the keys and values of tokens of zeros are zeros.
    """

    queries_DE: Tensor
    out_ED: Tensor
    shares_NTR1: Tensor
    field_NTD: Tensor

    def part(self, frames: slice) -> FoldedSpeech:
        """Of some frames."""
        if self.field_NTD.shape[0] == 1:
            return self
        return replace(self, shares_NTR1=self.shares_NTR1[frames], field_NTD=self.field_NTD[frames])


@dataclass(frozen=True, kw_only=True)
class KeptSpeech:
    """What ``MaskedAudioAttention`` reads over the steps of a window: ``heard`` keys and values (N, S, R D) of the
    speech, None for silence (tokens of zeros)."""

    folded: FoldedSpeech
    heard: KeyValue | None


class MaskedAudioAttention(nn.Module):
    """See the module's docstring. ``inner`` is D, ``level`` the one of the UNet that the module stands in."""

    def __init__(
        self,
        width: int,
        inner: int,
        audio_width: int,
        heads: int,
        ff_multiple: int,
        groups: int,
        level: int,
        build: Build,
    ):
        super().__init__()
        self.inner, self.level = inner, level
        self.heads = heads
        self.attention = build.attention
        self.norm = build.group_norm(groups, width, eps=1e-6)
        self.proj_in = build.conv(width, inner, kernel=1)
        self.norm1 = build.layer_norm(inner)
        self.attn1 = CrossAttention(inner, inner, heads, build)
        self.norm2 = build.layer_norm(inner)
        self.speech = nn.ModuleList(CrossAttention(inner, audio_width, heads, build) for _ in REGIONS)
        self.zero_convs = nn.ModuleList(build.conv(inner, inner, kernel=1) for _ in REGIONS)
        self.norm3 = build.layer_norm(inner)
        self.ff = FeedForward(inner, ff_multiple, build)
        self.proj_out = build.conv(inner, width, kernel=1)

    def forward(
        self,
        x_NCHW: Tensor,
        audio: Tensor | KeptSpeech,
        regions: SpeechRegions | None,
        options: dict | None = None,
    ) -> Tensor:
        """``audio`` (N, S, A) with ``regions``, or what ``kept`` made of both."""
        n, _, height, width = x_NCHW.shape
        grid_NDHW = self.proj_in(self.norm(x_NCHW))
        tokens_NTD = grid_NDHW.flatten(2).transpose(1, 2)
        tokens_NTD = added(tokens_NTD, self.attn1(self.norm1(tokens_NTD), None, options))
        if isinstance(audio, KeptSpeech):
            tokens_NTD = self._heard(tokens_NTD, audio, options)
        else:
            assert regions is not None
            tokens_NTD = self._region_by_region(tokens_NTD, audio, regions, (height, width), options)
        tokens_NTD = added(tokens_NTD, self.ff(self.norm3(tokens_NTD)))
        return added(x_NCHW, self.proj_out(tokens_NTD.transpose(1, 2).reshape(n, -1, height, width)))

    def _region_by_region(
        self,
        tokens_NTD: Tensor,
        audio_NSA: Tensor,
        regions: SpeechRegions,
        size: tuple[int, int],
        options: dict | None,
    ) -> Tensor:
        n = tokens_NTD.shape[0]
        maps_NRHW = self._maps(regions.levels, n, *size).to(tokens_NTD.dtype)
        query_NTD = self.norm2(tokens_NTD)
        for index, (attention, zero_conv) in enumerate(zip(self.speech, self.zero_convs, strict=True)):
            heard_NDT = attention(query_NTD, audio_NSA, options).transpose(1, 2)
            heard_NDHW = heard_NDT.reshape(n, -1, *size) * maps_NRHW[:, index : index + 1]
            update_NTD = zero_conv(heard_NDHW).flatten(2).transpose(1, 2)
            tokens_NTD = tokens_NTD + regions.strengths[index] * update_NTD
        return tokens_NTD

    def _heard(self, tokens_NTD: Tensor, kept: KeptSpeech, options: dict | None) -> Tensor:
        folded = kept.folded
        if folded.field_NTD.shape[1] != tokens_NTD.shape[1]:
            raise ValueError(
                f"the speech regions of level {self.level} were kept for {folded.field_NTD.shape[1]} positions, the "
                f"hidden states have {tokens_NTD.shape[1]}"
            )
        if kept.heard is None:
            return _moved(tokens_NTD, folded.field_NTD)
        pieces = [
            self._spoken(tokens_NTD[some], folded.part(some), kept.heard.part(some), options)
            for some in frame_pieces(tokens_NTD)
        ]
        return torch.cat(pieces) if torch.is_grad_enabled() else tokens_NTD  # whose frames were moved where they are

    def _spoken(self, tokens_NTD: Tensor, folded: FoldedSpeech, heard: KeyValue, options: dict | None) -> Tensor:
        queries_NTE = (self.norm2(tokens_NTD).flatten(0, 1) @ folded.queries_DE).unflatten(0, tokens_NTD.shape[:2])
        heads = len(REGIONS) * self.heads
        keys, values = heard.of(tokens_NTD.shape[0])
        heard_NTE = self.attention(queries_NTE, keys, values, heads, transformer_options=options or {})
        by_region = heard_NTE.unflatten(-1, (len(REGIONS), -1))
        shares = folded.shares_NTR1
        heard_NTRD = by_region * shares if torch.is_grad_enabled() else by_region.mul_(shares)
        update_NTD = (heard_NTRD.flatten(-2).flatten(0, 1) @ folded.out_ED).view(tokens_NTD.shape)
        return _moved(_moved(tokens_NTD, folded.field_NTD), update_NTD)

    def folded(self, regions: SpeechRegions, like: Tensor) -> FoldedSpeech:
        """For maps of one frame or of every one, in the type of ``like`` and where it is. The layers are asked for what
        they make of unit vectors: a host may hold their weights in a form of its own."""
        maps_NRHW = self._level(regions.levels).to(like)
        inner = self.inner
        nothing_D = like.new_zeros(inner)
        outs: list[Tensor] = []
        inside: list[Tensor] = []
        everywhere_D = nothing_D
        speech: Any = self.speech
        for attention, zero_conv, strength in zip(speech, self.zero_convs, regions.strengths, strict=True):
            of_nothing_D = _convolved(zero_conv, nothing_D[None])[0]
            bias_D = attention.to_out[0](nothing_D)
            out_DD = attention.to_out[0](torch.eye(inner, dtype=like.dtype, device=like.device)) - bias_D
            outs.append(_convolved(zero_conv, out_DD) - of_nothing_D)
            inside.append(_convolved(zero_conv, bias_D[None])[0] - of_nothing_D)
            everywhere_D = everywhere_D + strength * of_nothing_D
        shares_NTR = maps_NRHW.flatten(2).transpose(1, 2) * like.new_tensor(regions.strengths)
        return FoldedSpeech(
            queries_DE=torch.cat([mapped(attention.to_q, inner, like) for attention in speech], dim=1),
            out_ED=torch.cat(outs),
            shares_NTR1=shares_NTR[..., None],
            field_NTD=shares_NTR @ torch.stack(inside) + everywhere_D,
        )

    def kept(self, folded: FoldedSpeech, audio_NSA: Tensor | None) -> KeptSpeech:
        """For the speech of a window; None is silence."""
        if audio_NSA is None:
            return KeptSpeech(folded=folded, heard=None)
        keys, values = ([getattr(one, name)(audio_NSA) for one in self.speech] for name in ("to_k", "to_v"))
        heard = KeyValue(keys_RSD=torch.cat(keys, dim=-1), values_RSD=torch.cat(values, dim=-1))
        return KeptSpeech(folded=folded, heard=heard)

    def _level(self, levels: Sequence[Tensor]) -> Tensor:
        if self.level >= len(levels):
            raise ValueError(f"speech regions are given for {len(levels)} levels, level {self.level} reads them too")
        return levels[self.level]

    def _maps(self, levels: Sequence[Tensor], frames: int, height: int, width: int) -> Tensor:
        maps = self._level(levels)
        if maps.shape[0] != frames or maps.shape[-2:] != (height, width):
            raise ValueError(
                f"the speech regions of level {self.level} are for {maps.shape[0]} frames of "
                f"{tuple(maps.shape[-2:])}, the hidden states are {frames} frames of {(height, width)}"
            )
        return maps


def _moved(tokens_NTD: Tensor, update: Tensor) -> Tensor:
    """tokens + update, in the memory of ``tokens``, which nobody else may hold, where there are no gradients."""
    return tokens_NTD + update if torch.is_grad_enabled() else tokens_NTD.add_(update)


def _convolved(conv: nn.Module, rows_ND: Tensor) -> Tensor:
    """A 1x1 convolution of N vectors, as one row of a picture: (N, D) -> (N, D)."""
    return conv(rows_ND.t()[None, :, :, None])[0, :, :, 0].t()
