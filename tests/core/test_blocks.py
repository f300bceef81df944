"""Attention, transformer, motion and audio blocks against the same formulas written out in NumPy.

Everything runs in float64, so that agreement means the same formula and not the same rounding.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from moee_core.audio.projector import AudioProjector
from moee_core.emotion.latents import EmotionToLatentsConfig
from moee_core.networks.blocks import (
    CrossAttention,
    FeedForward,
    ResnetBlock,
    SpatialTransformer,
    TimeEmbedding,
    TransformerBlock,
    Upsample,
    sinusoidal_embedding,
)
from moee_core.networks.config import AudioConfig, AutoencoderConfig, PortraitUNetConfig, SystemConfig
from moee_core.networks.motion import AudioAttention, MotionModule, temporal_positions
from moee_core.ops import Build, torch_attention
from moee_core.systems.moee import MoEESystem

EXACT = Build(dtype=torch.float64)
CLOSE = {"rtol": 0, "atol": 1e-10}


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def array(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


# ---- the formulas ---------------------------------------------------------------------------------------------------


def np_linear(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    out = x @ array(layer.weight).T  # type: ignore[arg-type]
    return out if layer.bias is None else out + array(layer.bias)  # type: ignore[arg-type]


def np_layer_norm(layer: nn.Module, x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)
    return scaled * array(layer.weight) + array(layer.bias)  # type: ignore[arg-type]


def np_group_norm(layer: nn.Module, x_NCHW: np.ndarray, groups: int, eps: float) -> np.ndarray:
    n, c, h, w = x_NCHW.shape
    x = x_NCHW.reshape(n, groups, -1)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + eps)
    weight, bias = (array(p)[None, :, None, None] for p in (layer.weight, layer.bias))  # type: ignore[arg-type]
    return x.reshape(n, c, h, w) * weight + bias


def np_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int) -> np.ndarray:
    """One head at a time: softmax(Q K^T / sqrt(d)) V on that head's slice of the width."""
    size = q.shape[-1] // heads
    parts = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = np.einsum("nqd,nkd->nqk", q[..., part], k[..., part]) / math.sqrt(size)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        parts.append(weights / weights.sum(-1, keepdims=True) @ v[..., part])
    return np.concatenate(parts, axis=-1)


def np_cross(module: CrossAttention, x: np.ndarray, context: np.ndarray) -> np.ndarray:
    q, k, v = np_linear(module.to_q, x), np_linear(module.to_k, context), np_linear(module.to_v, context)
    return np_linear(module.to_out[0], np_attention(q, k, v, module.heads))


def np_feed_forward(module: FeedForward, x: np.ndarray) -> np.ndarray:
    value, gate = np.split(np_linear(module.net[0].proj, x), 2, axis=-1)  # type: ignore[arg-type]
    gelu = gate * 0.5 * (1 + np.vectorize(math.erf)(gate / math.sqrt(2)))
    return np_linear(module.net[2], value * gelu)


# ---- attention (MoEE Eq. 1) -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_cross_attention_is_equation_1(heads: int):
    module = CrossAttention(16, 12, heads, EXACT)
    x, context = numbers(2, 5, 16), numbers(2, 7, 12)
    np.testing.assert_allclose(array(module(x, context)), np_cross(module, array(x), array(context)), **CLOSE)


def test_cross_attention_without_a_context_is_self_attention():
    module = CrossAttention(16, 16, 2, EXACT)
    x = numbers(2, 5, 16)
    np.testing.assert_allclose(array(module(x)), np_cross(module, array(x), array(x)), **CLOSE)


def test_only_the_output_layer_of_attention_has_a_bias():
    named = dict(CrossAttention(16, 12, 2, EXACT).named_parameters())
    assert [name for name in named if name.endswith("bias")] == ["to_out.0.bias"]


def test_a_masked_key_might_as_well_not_be_there():
    q, k, v = numbers(1, 3, 8), numbers(1, 6, 8), numbers(1, 6, 8)
    mask = torch.zeros(3, 6, dtype=torch.float64)
    mask[:, 4:] = -math.inf
    torch.testing.assert_close(
        torch_attention(q, k, v, 2, mask=mask), torch_attention(q, k[:, :4], v[:, :4], 2), rtol=0, atol=1e-12
    )


@pytest.mark.parametrize(("tokens", "depends"), [(1, False), (8, True)])
def test_a_single_emotion_token_makes_the_query_irrelevant(tokens: int, depends: bool):
    """Why a condition gives at least eight tokens: the softmax over one key is 1 whatever the picture shows."""
    module = CrossAttention(16, 12, 2, EXACT)
    context = numbers(1, tokens, 12)
    first, second = module(numbers(1, 5, 16), context), module(numbers(1, 5, 16), context)
    spread = float((first - second).detach().abs().max())
    assert spread > 1e-3 if depends else spread < 1e-12
    if not depends:
        expected = np_linear(module.to_out[0], np_linear(module.to_v, array(context)))
        np.testing.assert_allclose(array(first), np.broadcast_to(expected, (1, 5, 16)), **CLOSE)


def test_at_least_eight_emotion_tokens_are_the_default():
    assert EmotionToLatentsConfig().query_tokens >= 8


# ---- transformer blocks ---------------------------------------------------------------------------------------------


def np_block(
    module: TransformerBlock, x: np.ndarray, reference: np.ndarray | None, identity: np.ndarray | None
) -> np.ndarray:
    normed = np_layer_norm(module.norm1, x)
    context = normed if reference is None else np.concatenate([normed, reference], axis=1)
    x = x + np_cross(module.attn1, normed, context)
    if identity is not None:
        x = x + np_cross(module.attn2, np_layer_norm(module.norm2, x), identity)
    return x + np_feed_forward(module.ff, np_layer_norm(module.norm3, x))


@pytest.mark.parametrize("with_reference", [False, True])
@pytest.mark.parametrize("with_identity", [False, True])
def test_transformer_block(with_reference: bool, with_identity: bool):
    module = TransformerBlock(16, 4, 12, 3, EXACT)
    x, reference, identity = numbers(2, 5, 16), numbers(2, 3, 16), numbers(2, 2, 12)
    out, features = module(x, reference if with_reference else None, identity if with_identity else None, None)
    expected = np_block(
        module, array(x), array(reference) if with_reference else None, array(identity) if with_identity else None
    )
    np.testing.assert_allclose(array(out), expected, **CLOSE)
    np.testing.assert_allclose(array(features), np_layer_norm(module.norm1, array(x)), **CLOSE)


def test_a_reference_that_repeats_the_own_tokens_changes_nothing():
    """Softmax over keys that are all there twice gives the same mean; over other keys it does not."""
    module = TransformerBlock(16, 4, 0, 2, EXACT)
    x = numbers(2, 5, 16)
    alone, features = module(x, None, None, None)
    torch.testing.assert_close(module(x, features, None, None)[0], alone, rtol=0, atol=1e-12)
    assert not torch.allclose(module(x, features.flip(-1), None, None)[0], alone, atol=1e-4)


def test_spatial_transformer_wraps_the_block_in_a_residual():
    module = SpatialTransformer(16, 2, 0, 2, 4, EXACT)
    x = numbers(2, 16, 3, 4)
    normed = np_group_norm(module.norm, array(x), 4, 1e-6)
    tokens = normed.reshape(2, 16, 12).transpose(0, 2, 1) @ array(module.proj_in.weight)[..., 0, 0].T  # type: ignore[index, arg-type]
    tokens = tokens + array(module.proj_in.bias)  # type: ignore[arg-type]
    tokens = np_block(module.transformer_blocks[0], tokens, None, None)  # type: ignore[arg-type]
    tokens = tokens @ array(module.proj_out.weight)[..., 0, 0].T + array(module.proj_out.bias)  # type: ignore[index, arg-type]
    expected = array(x) + tokens.transpose(0, 2, 1).reshape(2, 16, 3, 4)
    np.testing.assert_allclose(array(module(x, None, None, None)[0]), expected, **CLOSE)


def test_a_residual_block_with_a_silent_second_convolution_is_its_shortcut():
    block = ResnetBlock(8, 12, 6, 4, EXACT)
    nn.init.zeros_(block.conv2.weight)  # type: ignore[arg-type]
    nn.init.zeros_(block.conv2.bias)  # type: ignore[arg-type]
    x = numbers(2, 8, 3, 3)
    weight = array(block.conv_shortcut.weight)[..., 0, 0]  # type: ignore[index, union-attr, arg-type]
    expected = np.einsum("oc,nchw->nohw", weight, array(x)) + array(block.conv_shortcut.bias)[:, None, None]  # type: ignore[union-attr, arg-type]
    np.testing.assert_allclose(array(block(x, numbers(2, 6))), expected, **CLOSE)


def test_a_residual_block_hears_the_time():
    block = ResnetBlock(8, 8, 6, 4, EXACT)
    x = numbers(1, 8, 3, 3)
    assert not torch.allclose(block(x, numbers(1, 6)), block(x, numbers(1, 6)), atol=1e-5)
    assert block.conv_shortcut is None


@pytest.mark.parametrize("size", [(6, 4), (5, 3)])
def test_upsampling_meets_the_skip_connection_at_any_size(size: tuple[int, int]):
    module = Upsample(4, EXACT)
    nn.init.dirac_(module.conv.weight)  # type: ignore[arg-type]
    nn.init.zeros_(module.conv.bias)  # type: ignore[arg-type]
    x = numbers(1, 4, 3, 2)
    rows, columns = (np.floor(np.arange(n) * m / n).astype(int) for n, m in zip(size, (3, 2), strict=True))
    np.testing.assert_allclose(array(module(x, size)), array(x)[:, :, rows][:, :, :, columns], **CLOSE)


# ---- time and position ----------------------------------------------------------------------------------------------


def test_time_embedding_holds_cosines_then_sines():
    positions = np.array([0.0, 1.0, 500.25, 999.0])
    rates = 10000.0 ** (-np.arange(4) / 4)
    angles = positions[:, None] * rates
    found = sinusoidal_embedding(torch.from_numpy(positions), 8)
    np.testing.assert_allclose(array(found), np.concatenate([np.cos(angles), np.sin(angles)], 1), atol=2e-4)
    assert found.dtype == torch.float32


def test_time_embedding_is_an_mlp_in_the_models_dtype():
    module = TimeEmbedding(8, 12, EXACT)
    steps = torch.tensor([3, 700])
    hidden = np_linear(module.linear_1, array(sinusoidal_embedding(steps, 8).double()))
    expected = np_linear(module.linear_2, hidden / (1 + np.exp(-hidden)))
    found = module(steps, torch.float64)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(array(found), expected, **CLOSE)


def test_temporal_positions_interleave_sine_and_cosine():
    table = array(temporal_positions(5, 6, numbers(1)))
    for position in range(5):
        for pair in range(3):
            angle = position / 10000.0 ** (2 * pair / 6)
            np.testing.assert_allclose(
                table[position, 2 * pair : 2 * pair + 2], [math.sin(angle), math.cos(angle)], atol=1e-6
            )


# ---- motion and audio -----------------------------------------------------------------------------------------------


def np_motion(module: MotionModule, x_FCHW: np.ndarray, motion_kTC: np.ndarray | None, groups: int) -> np.ndarray:
    """One clip, position by position: attend over time, with the motion frames in front."""
    frames, c, h, w = x_FCHW.shape
    normed = np_group_norm(module.norm, x_FCHW, groups, 1e-6).reshape(frames, c, h * w)
    out = np.empty((frames, c, h * w))
    for place in range(h * w):
        sequence = normed[:, :, place]
        if motion_kTC is not None:
            sequence = np.concatenate([motion_kTC[:, place], sequence])
        sequence = np_linear(module.proj_in, sequence)[None]
        positions = array(temporal_positions(sequence.shape[1], c, numbers(1)))
        for norm, attention in zip(module.norms, module.attentions, strict=True):
            q = np_layer_norm(norm, sequence) + positions
            sequence = sequence + np_cross(attention, q, q)  # type: ignore[arg-type]
        if module.ff is not None and module.ff_norm is not None:
            sequence = sequence + np_feed_forward(module.ff, np_layer_norm(module.ff_norm, sequence))
        out[:, :, place] = np_linear(module.proj_out, sequence[0])[-frames:]
    return x_FCHW + out.reshape(frames, c, h, w)


@pytest.mark.parametrize("k", [0, 2])
@pytest.mark.parametrize(("attentions", "ff"), [(1, 0), (2, 2)])
def test_motion_module_attends_along_time_at_each_position(k: int, attentions: int, ff: int):
    module = MotionModule(8, 2, attentions, ff, 4, EXACT)
    x = numbers(2 * 3, 8, 2, 3)
    motion = numbers(2, k, 6, 8) if k else None
    found = module(x, motion, 3)
    assert found.shape == x.shape
    for clip in range(2):
        part = slice(3 * clip, 3 * clip + 3)
        expected = np_motion(module, array(x[part]), None if motion is None else array(motion[clip]), 4)
        np.testing.assert_allclose(array(found[part]), expected, **CLOSE)


def test_motion_frames_influence_every_frame_behind_them():
    module = MotionModule(8, 2, 1, 0, 4, EXACT)
    x = numbers(3, 8, 2, 2)
    change = module(x, numbers(1, 2, 4, 8), 3) - module(x, numbers(1, 2, 4, 8), 3)
    assert (change.abs().amax(dim=(1, 2, 3)) > 1e-4).all()


def test_the_motion_module_knows_the_order_of_frames():
    module = MotionModule(8, 2, 1, 0, 4, EXACT)
    x, order = numbers(3, 8, 2, 2), torch.tensor([2, 0, 1])
    assert not torch.allclose(module(x[order], None, 3), module(x, None, 3)[order], atol=1e-4)


def test_audio_attention_adds_what_the_frame_hears():
    module = AudioAttention(16, 12, 2, EXACT)
    x, audio = numbers(2, 5, 16), numbers(2, 3, 12)
    expected = array(x) + np_cross(module.attention, np_layer_norm(module.norm, array(x)), array(audio))
    np.testing.assert_allclose(array(module(x, audio)), expected, **CLOSE)


# ---- where weights come from ----------------------------------------------------------------------------------------

SYSTEM = SystemConfig(
    unet=PortraitUNetConfig(
        block_widths=(16, 32),
        attention_levels=(True, True),
        layers_per_block=1,
        heads=2,
        norm_groups=8,
        identity_width=8,
        audio_width=8,
        audio_time_embedding=True,
        emotion_width=16,
        gate_context=True,
        anchor=True,
        grid=4,
    ),
    emotion=EmotionToLatentsConfig(width=16, embeddings=4, heads=2, text_width=8, audio_width=8),
    audio=AudioConfig(layers=2, width=8, margin=1, hidden=8, tokens=2, token_width=8),
    autoencoder=AutoencoderConfig(widths=(16, 16, 8), encoder_width=16),
)


def recording() -> tuple[Any, list[nn.Module]]:
    """``torch.nn``'s layers in subclasses that note every instance made."""
    made: list[nn.Module] = []

    def noting(kind: type[nn.Module]) -> type[nn.Module]:
        class Noted(kind):  # type: ignore[valid-type, misc]
            def __init__(self, *args: Any, **options: Any):
                super().__init__(*args, **options)
                made.append(self)

        return Noted

    names = ("Linear", "Conv2d", "Conv1d", "GroupNorm", "LayerNorm", "Embedding")
    return SimpleNamespace(**{name: noting(getattr(nn, name)) for name in names}), made


def test_every_weight_comes_from_the_injected_operations():
    operations, made = recording()
    system = MoEESystem(SYSTEM, Build(operations=operations))
    owners = [module for module in system.modules() if module._parameters or module._buffers]
    assert {id(module) for module in owners} == {id(module) for module in made}
    assert all(not list(module.children()) for module in owners), "a weight outside a leaf module cannot be streamed"
    assert {type(module).__mro__[1].__name__ for module in made} == set(vars(operations))


def test_dtype_and_device_reach_every_weight():
    system = MoEESystem(SYSTEM, Build(dtype=torch.bfloat16, device="meta"))
    assert {(p.dtype, p.device.type) for p in system.parameters()} == {(torch.bfloat16, "meta")}


def test_audio_projector_is_two_relu_layers_and_a_norm():
    module = AudioProjector(layers=2, width=3, margin=1, hidden=10, tokens=4, token_width=6, build=EXACT)
    windows = numbers(5, 3, 2, 3)
    h = np.maximum(np_linear(module.proj1, array(windows).reshape(5, -1)), 0)
    h = np.maximum(np_linear(module.proj2, h), 0)
    expected = np_layer_norm(module.norm, np_linear(module.proj3, h).reshape(5, 4, 6))
    np.testing.assert_allclose(array(module(windows)), expected, **CLOSE)
