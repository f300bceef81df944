"""Where layers and attention come from.

Every module that owns a weight takes ``operations``: any namespace with the attributes of ``Operations`` that behave
like ``torch.nn``'s. In training and on the command line it is ``torch.nn``; inside ComfyUI the nodes pass one of
``comfy.ops``' namespaces, whose layers are cast, streamed and partially loaded by the host. Attention is a function
with ComfyUI's signature. Model code therefore never mentions a device and never touches a weight directly.

Shapes: q ``(B, N, heads*D)``, k and v ``(B, M, heads*D)`` -> ``(B, N, heads*D)``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Operations(Protocol):
    """The layer classes a network may ask for."""

    Linear: Any
    Conv2d: Any
    Conv1d: Any
    Conv3d: Any
    ConvTranspose2d: Any
    GroupNorm: Any
    LayerNorm: Any
    Embedding: Any


class Attention(Protocol):
    """The part of ComfyUI's attention signature that is used here; the host decides which kernel runs."""

    def __call__(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        heads: int,
        mask: Tensor | None = None,
        *,
        transformer_options: dict[str, Any] | None = None,
    ) -> Tensor: ...


def torch_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Tensor | None = None,
    *,
    transformer_options: dict[str, Any] | None = None,
) -> Tensor:
    """softmax(Q K^T / sqrt(D)) V per head (MoEE Eq. 1), through PyTorch's fused kernel.

    ``transformer_options`` is what ComfyUI passes along for its own kernels; it is not used here.
    """
    batch, _, width = q.shape

    def split(x: Tensor) -> Tensor:
        return x.view(batch, -1, heads, width // heads).transpose(1, 2)

    out = F.scaled_dot_product_attention(split(q), split(k), split(v), attn_mask=mask)
    return out.transpose(1, 2).reshape(batch, -1, width)


def plain_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    heads: int,
    mask: Tensor | None = None,
    *,
    transformer_options: dict[str, Any] | None = None,
) -> Tensor:
    """The same, written out. On a CPU the fused kernel's backward pass takes many times longer at small sizes."""
    batch, _, width = q.shape

    def split(x: Tensor) -> Tensor:
        return x.view(batch, -1, heads, width // heads).transpose(1, 2)

    scores = split(q * (width // heads) ** -0.5) @ split(k).transpose(-1, -2)
    if mask is not None:
        scores = scores + mask
    out = scores.softmax(dim=-1).to(v.dtype) @ split(v)
    return out.transpose(1, 2).reshape(batch, -1, width)


PIECE = 1 << 20
"""Numbers in a layer's widest hidden state that a CPU works on at once: 4 MB in float32 stay in its caches."""
FEWEST_ROWS = 256
"""For which a layer's weights are worth reading."""


def in_pieces(function: Callable[[Tensor], Tensor], x: Tensor, width: int) -> Tensor:
    """``function(x)``, whose rows (all dimensions but the last) do not see each other and are ``width`` numbers each on
    the way. On a CPU without gradients a few rows at a time: a hidden state of 50 MB is new memory every time, which
    costs more than the arithmetic on it. Elsewhere, and in training, at once."""
    count = max(PIECE // width, FEWEST_ROWS)
    rows = x.numel() // max(x.shape[-1], 1)
    if rows <= count or not x.is_cpu or torch.is_grad_enabled():
        return function(x)
    return torch.cat([function(piece) for piece in x.reshape(rows, -1).split(count)]).view(*x.shape[:-1], -1)


ROWS_AT_ONCE = 2048
"""Tokens whose queries, keys, values and scores stay in a CPU's caches until they have been used."""


def frame_pieces(x_NTC: Tensor) -> list[slice]:
    """The frames of tokens that do not see those of other frames, a few at a time on a CPU without gradients, for the
    reason of ``in_pieces``. Elsewhere, and in training, all at once."""
    frames, tokens, _ = x_NTC.shape
    each = max(1, ROWS_AT_ONCE // tokens) if x_NTC.is_cpu and not torch.is_grad_enabled() else frames
    return [slice(start, start + each) for start in range(0, frames, each)]


def added(x: Tensor, update: Tensor) -> Tensor:
    """x + update, in the memory of ``update`` where there are no gradients and the sum has its shape and type: a new
    tensor of a hidden state's size costs more than the sum. So nobody else may hold ``update``."""
    fits = torch.broadcast_shapes(x.shape, update.shape) == update.shape
    if torch.is_grad_enabled() or not fits or torch.promote_types(x.dtype, update.dtype) != update.dtype:
        return x + update
    return update.add_(x)


def laid_out(x_NCHW: Tensor) -> Tensor:
    """What a convolution is about to read, as it reads it soonest. The networks' hidden states are channels-last, and a
    CPU's convolution of such an input arranges its weights anew in every call: where there are fewer positions than
    channels, the weights are the greater part and the input is turned instead (measured: half the time)."""
    n, c, height, width = x_NCHW.shape
    return x_NCHW.contiguous() if x_NCHW.is_cpu and n * height * width <= c else x_NCHW


@dataclass(frozen=True, kw_only=True)
class Build:
    """What every constructor needs: the layer namespace, the attention function, dtype and device.

    ``dtype`` and ``device`` of ``None`` mean PyTorch's defaults. The layers are typed ``Any``: their class is the
    namespace's business.
    """

    operations: Any = nn
    attention: Attention = torch_attention
    dtype: torch.dtype | None = None
    device: Any = None

    def linear(self, inputs: int, outputs: int, bias: bool = True) -> Any:
        return self.operations.Linear(inputs, outputs, bias=bias, dtype=self.dtype, device=self.device)

    def conv(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int | None = None) -> Any:
        """``padding`` None keeps the size where the stride is 1."""
        around = kernel // 2 if padding is None else padding
        return self.operations.Conv2d(
            inputs, outputs, kernel, stride=stride, padding=around, dtype=self.dtype, device=self.device
        )

    def patch_conv(self, inputs: int, outputs: int, size: int) -> Any:
        """A linear map of non-overlapping ``size`` x ``size`` patches."""
        return self.operations.Conv2d(inputs, outputs, size, stride=size, dtype=self.dtype, device=self.device)

    def conv1d(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> Any:
        return self.operations.Conv1d(
            inputs, outputs, kernel, stride=stride, padding=kernel // 2, dtype=self.dtype, device=self.device
        )

    def conv_over_time(self, width: int) -> Any:
        """Three frames at a time, each place alone; x (B, C, F, H, W)."""
        return self.operations.Conv3d(width, width, (3, 1, 1), padding=(1, 0, 0), dtype=self.dtype, device=self.device)

    def conv_doubling(self, inputs: int, outputs: int) -> Any:
        """A transposed convolution over 4 x 4 places that doubles height and width."""
        return self.operations.ConvTranspose2d(
            inputs, outputs, 4, stride=2, padding=1, dtype=self.dtype, device=self.device
        )

    def group_norm(self, groups: int, width: int, eps: float = 1e-5) -> Any:
        return self.operations.GroupNorm(groups, width, eps=eps, dtype=self.dtype, device=self.device)

    def layer_norm(self, width: int) -> Any:
        return self.operations.LayerNorm(width, dtype=self.dtype, device=self.device)

    def embedding(self, count: int, width: int) -> Any:
        """A table of ``count`` learnable vectors in a leaf module of its own, so that a host can stream it."""
        return self.operations.Embedding(count, width, dtype=self.dtype, device=self.device)


DEFAULT_BUILD = Build()
