"""Emotion-to-Latents (MoEE 4.3) against its equation in NumPy, and what it refuses."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moee_core.emotion.encoders import MODALITIES, EmbeddingProjector, VectorEncoder
from moee_core.emotion.latents import EmotionToLatents, EmotionToLatentsConfig
from moee_core.ops import Build

EXACT = Build(dtype=torch.float64)
WIDTH, TOKENS, HEADS = 16, 3, 2
INPUTS = {"label": 8, "action_units": 41, "text": 10, "audio": 9}
ALL = {"width": WIDTH, "query_tokens": TOKENS, "embeddings": 5, "heads": HEADS, "text_width": 10, "audio_width": 9}
CLOSE = {"rtol": 0, "atol": 1e-10}


def make(**settings: Any) -> EmotionToLatents:
    module = EmotionToLatents(EmotionToLatentsConfig(**{**ALL, **settings}), EXACT)
    with torch.no_grad():
        for parameter in module.norm.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    return module


def inputs(*names: str, rows: int = 4) -> dict[str, Tensor]:
    return {name: torch.rand(rows, INPUTS[name], dtype=torch.float64) for name in names}


def array(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy()


def np_linear(layer: Any, x: np.ndarray) -> np.ndarray:
    return x @ array(layer.weight).T + array(layer.bias)


def np_queries(module: EmotionToLatents, given: dict[str, Tensor]) -> np.ndarray:
    """Labels and action units through Linear - SiLU - Linear, text and audio through one Linear."""
    parts = []
    for index, name in enumerate(("label", "action_units", "text", "audio")):
        if name not in given:
            continue
        encoder: Any = module.encoders[name]
        x = array(given[name])
        if name in ("label", "action_units"):
            hidden = np_linear(encoder.linear_1, x)
            x = np_linear(encoder.linear_2, hidden / (1 + np.exp(-hidden)))
        else:
            x = np_linear(encoder.linear, x)
        parts.append(x.reshape(len(x), TOKENS, WIDTH) + array(module.modality.weight)[index])
    return np.concatenate(parts, axis=1)


def np_latents(module: EmotionToLatents, given: dict[str, Tensor], residual: bool) -> np.ndarray:
    queries, table, attention = np_queries(module, given), array(module.embeddings.weight), module.attention
    q, k, v = (
        queries @ array(attention.to_q.weight).T,
        table @ array(attention.to_k.weight).T,
        table @ array(attention.to_v.weight).T,
    )
    size, heads = WIDTH // HEADS, []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        weights = np.exp(q[..., part] @ k[:, part].T / math.sqrt(size))
        heads.append(weights / weights.sum(-1, keepdims=True) @ v[:, part])
    out = np_linear(attention.to_out[0], np.concatenate(heads, -1)) + (queries if residual else 0)
    out = (out - out.mean(-1, keepdims=True)) / np.sqrt(out.var(-1, keepdims=True) + 1e-5)
    return out * array(module.norm.weight) + array(module.norm.bias)


SUBSETS = [("label",), ("action_units",), ("text",), ("audio",), ("text", "audio"), MODALITIES]


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize("names", SUBSETS)
def test_latents_follow_the_equation(names: tuple[str, ...], residual: bool):
    module, given = make(residual=residual), inputs(*names)
    found = module(given)
    assert found.shape == (4, TOKENS * len(names), WIDTH)
    np.testing.assert_allclose(array(found), np_latents(module, given, residual), **CLOSE)


def test_every_modality_asks_the_same_learnable_embeddings():
    module = make()
    for name in MODALITIES:
        module.zero_grad()
        module(inputs(name)).square().sum().backward()
        grad = module.embeddings.weight.grad
        assert isinstance(grad, Tensor)
        assert (grad.abs().amax(dim=1) > 0).all()


def test_the_order_of_the_inputs_does_not_matter_the_order_of_modalities_does():
    module, given = make(), inputs(*MODALITIES)
    backwards = dict(reversed(given.items()))
    assert torch.equal(module(given), module(backwards))
    for index, name in enumerate(MODALITIES):
        alone = module({name: given[name]})
        torch.testing.assert_close(module(given)[:, index * TOKENS : (index + 1) * TOKENS], alone, rtol=0, atol=1e-12)


def test_a_modality_embedding_tells_equal_tokens_apart():
    module = make(action_units=8)
    module.encoders["action_units"].load_state_dict(module.encoders["label"].state_dict())
    x = torch.rand(1, 8, dtype=torch.float64)
    difference = module.queries({"label": x}) - module.queries({"action_units": x})
    table = module.modality.weight
    assert isinstance(table, Tensor)
    torch.testing.assert_close(difference, (table[0] - table[1]).expand(1, TOKENS, WIDTH), rtol=0, atol=1e-12)


def test_without_the_residual_the_input_reaches_the_output_through_attention_only():
    for residual in (False, True):
        module = make(residual=residual)
        with torch.no_grad():
            module.attention.to_out[0].weight.zero_()  # type: ignore[operator]
        same = torch.allclose(module(inputs("label")), module(inputs("label")), atol=1e-9)
        assert same != residual


def test_rows_are_independent():
    module, given = make(), inputs("label", "text")
    torch.testing.assert_close(
        module({name: x[2:3] for name, x in given.items()}), module(given)[2:3], rtol=0, atol=1e-12
    )


@pytest.mark.parametrize("names", [("text",), ("audio",), ("label", "audio"), ("smell",), ()])
def test_a_modality_the_model_lacks_is_refused_with_those_it_has(names: tuple[str, ...]):
    module = make(text_width=0, audio_width=0)
    given = {name: torch.rand(1, INPUTS.get(name, 4), dtype=torch.float64) for name in names}
    with pytest.raises(ValueError, match="takes emotion as label, action_units; got") as caught:
        module(given)
    assert all(name in str(caught.value) for name in names or ("none",))


def test_a_vector_of_another_width_is_refused():
    module = make()
    with pytest.raises(ValueError, match=r"8 entries, got \(2, 7\)"):
        module({"label": torch.rand(2, 7, dtype=torch.float64)})
    with pytest.raises(ValueError, match=r"10 entries, got \(2, 11\)"):
        module({"text": torch.rand(2, 11, dtype=torch.float64)})


@pytest.mark.parametrize("kind", [VectorEncoder, EmbeddingProjector])
def test_encoders_end_in_the_tokens_asked_for(kind: type):
    assert kind(6, 5, 4, Build())(torch.rand(3, 6)).shape == (3, 5, 4)


def test_only_labels_and_units_have_a_hidden_layer():
    assert [name for name, _ in VectorEncoder(6, 5, 4, Build()).named_children()] == ["linear_1", "linear_2"]
    assert [name for name, _ in EmbeddingProjector(6, 5, 4, Build()).named_children()] == ["linear"]
    projector = EmbeddingProjector(6, 2, 4, EXACT)
    a, b = torch.rand(2, 1, 6, dtype=torch.float64)
    torch.testing.assert_close(projector((a + b) / 2), (projector(a) + projector(b)) / 2, rtol=0, atol=1e-12)


@pytest.mark.parametrize("setting", [{"query_tokens": 0}, {"embeddings": 0}, {"width": 15}, {"heads": 0}])
def test_impossible_sizes_are_refused(setting: dict[str, int]):
    with pytest.raises(ValueError, match=rf"EmotionToLatentsConfig\.{next(iter(setting))}"):
        make(**setting)
