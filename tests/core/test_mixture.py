"""The mixture of emotion experts (MoEE Eq. 2-4) against the equations written out in NumPy, row by row."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moee_core.emotion.vocabulary import EXPERTS, LABELS
from moee_core.experts.gating import EmotionGates, share
from moee_core.experts.mixture import MixtureOfEmotionExperts, Routing
from moee_core.networks.blocks import CrossAttention
from moee_core.ops import Build, torch_attention
from moee_core.systems.moee import MoEESystem, expert_shares
from training.stages.moee import grow_experts, initialise

from ..fixtures.tiny import TINY

EXACT = Build(dtype=torch.float64)
WIDTH, EMOTION, HEADS, TOKENS = 16, 12, 2, 5
FRAMES = 2
PRIOR = torch.tensor(
    [[1.0, 0, 0, 0, 0, 0], [0.3, 0, 0.7, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0.2, 0, 0.3, 0.5, 0]]
)  # two clips of two frames: one expert, a blend, neutral, three experts
CLOSE = {"rtol": 0, "atol": 1e-6}  # the shares themselves are float32


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def array(tensor: Any) -> np.ndarray:
    return tensor.detach().numpy()


def mixture(experts: int = 6, build: Build = EXACT, **settings: Any) -> MixtureOfEmotionExperts:
    """Random weights everywhere, the norm's and the gates' included, so that nothing is neutral by accident."""
    module = MixtureOfEmotionExperts(WIDTH, EMOTION, HEADS, experts, build=build, **settings)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape))
    return module


# ---- the equations --------------------------------------------------------------------------------------------------


def np_norm(module: MixtureOfEmotionExperts, x: np.ndarray) -> np.ndarray:
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * array(module.norm.weight) + array(module.norm.bias)


def np_expert(expert: Any, x: np.ndarray, context: np.ndarray) -> np.ndarray:
    """Eq. 1 for one frame: x (T, C), context (M, D)."""
    q, k, v = (
        x @ array(expert.to_q.weight).T,
        context @ array(expert.to_k.weight).T,
        context @ array(expert.to_v.weight).T,
    )
    size = WIDTH // HEADS
    heads = []
    for head in range(HEADS):
        part = slice(head * size, (head + 1) * size)
        weights = np.exp(q[:, part] @ k[:, part].T / math.sqrt(size))
        heads.append(weights / weights.sum(1, keepdims=True) @ v[:, part])
    return np.concatenate(heads, 1) @ array(expert.to_out[0].weight).T + array(expert.to_out[0].bias)


def np_gates(
    module: EmotionGates, normed: np.ndarray, prior: np.ndarray, emotion: np.ndarray, *, pool: str, kind: str
) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 2 and 3, frame by frame."""
    if module.context is not None:
        mean = emotion.mean(1, keepdims=True)
        normed = normed + mean @ array(module.context.weight).T + array(module.context.bias)
    local = 1 / (1 + np.exp(-(normed @ array(module.local_gate.weight).T + array(module.local_gate.bias))))
    out = np.zeros_like(prior)
    for row in range(len(prior)):
        first = row // FRAMES * FRAMES
        seen = normed[first : first + FRAMES] if pool == "clip" else normed[row : row + 1]
        pooled = seen.reshape(-1, seen.shape[-1]).mean(0)
        logits = pooled @ array(module.global_gate.weight).T + array(module.global_gate.bias)
        start = prior[row] if kind == "blend" else (prior[row] > 0).astype(float)
        weights = start * np.exp(logits)
        out[row] = weights / weights.sum() if weights.sum() > 0 else 0.0
    return local, out


def np_mixture(
    module: MixtureOfEmotionExperts, x: np.ndarray, emotion: np.ndarray, local: Any, g: np.ndarray
) -> np.ndarray:
    """Eq. 4. ``local`` None stands for s = 1."""
    normed = np_norm(module, x)
    out = x.copy()
    for row in range(len(x)):
        for index, expert in enumerate(module.experts):
            s = 1.0 if local is None or module.local_gate == "off" else local[row, :, index : index + 1]
            if module.local_gate == "query":
                update = np_expert(expert, normed[row] * s, emotion[row])
            else:
                update = s * np_expert(expert, normed[row], emotion[row])
            out[row] += g[row, index] * update
    return out


# ---- gates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["blend", "mask"])
@pytest.mark.parametrize("pool", ["clip", "frame"])
@pytest.mark.parametrize("context", [0, EMOTION])
def test_gates_are_equations_2_and_3(kind: str, pool: str, context: int):
    gates = EmotionGates(WIDTH, 6, context, pool, kind, EXACT)
    x, emotion = numbers(4, TOKENS, WIDTH), numbers(4, 8, EMOTION)
    local, g = gates(x, PRIOR, FRAMES, emotion)
    expected = np_gates(gates, array(x), array(PRIOR.double()), array(emotion), pool=pool, kind=kind)
    np.testing.assert_allclose(array(local), expected[0], **CLOSE)
    np.testing.assert_allclose(array(g), expected[1], **CLOSE)
    np.testing.assert_allclose(array(g.sum(1)), [1, 1, 0, 1], atol=1e-6)


def test_a_clip_pool_gives_all_frames_of_a_clip_one_answer_and_a_frame_pool_does_not():
    prior = torch.full((4, 6), 1 / 6)
    x = numbers(4, TOKENS, WIDTH)
    gates = EmotionGates(WIDTH, 6, 0, "clip", "mask", EXACT)
    _, g = gates(x, prior, FRAMES)
    assert torch.equal(g[0], g[1])
    assert torch.equal(g[2], g[3])
    assert not torch.allclose(g[0], g[2], atol=1e-4)
    gates.pool = "frame"
    _, g = gates(x, prior, FRAMES)
    assert not torch.allclose(g[0], g[1], atol=1e-4)


def test_without_evidence_the_gate_keeps_the_blend_or_shares_equally():
    zero = torch.zeros(4, 6)
    torch.testing.assert_close(share(zero, PRIOR, "blend"), PRIOR)
    torch.testing.assert_close(share(zero, PRIOR, "mask")[3], torch.tensor([0, 1 / 3, 0, 1 / 3, 1 / 3, 0]))


@pytest.mark.parametrize("kind", ["blend", "mask"])
def test_closed_experts_and_neutral_rows_are_exactly_zero_and_nothing_is_nan(kind: str):
    g = share(50 * torch.randn(4, 6), PRIOR, kind)
    assert (g[PRIOR == 0] == 0).all()
    assert (g[2] == 0).all()
    assert torch.isfinite(g).all()
    torch.testing.assert_close(g[0, 0], torch.tensor(1.0))


def test_gates_in_half_precision_still_share_in_single():
    """Logits far apart in bfloat16 must not lose the small share of a blend."""
    g = share(torch.zeros(1, 6, dtype=torch.bfloat16), torch.tensor([[0.999, 0.001, 0, 0, 0, 0]]), "blend")
    assert g.dtype == torch.float32
    torch.testing.assert_close(g[0, :2], torch.tensor([0.999, 0.001]), rtol=1e-4, atol=0)


# ---- the mixture ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("local_gate", ["output", "query", "off"])
@pytest.mark.parametrize("kind", ["blend", "mask"])
@pytest.mark.parametrize("context", [False, True])
def test_mixture_is_equation_4(local_gate: str, kind: str, context: bool):
    module = mixture(local_gate=local_gate, gate_prior=kind, gate_context=context)
    x, emotion = numbers(4, TOKENS, WIDTH), numbers(4, 8, EMOTION)
    normed, prior = np_norm(module, array(x)), array(PRIOR.double())
    local, g = np_gates(module.gates, normed, prior, array(emotion), pool="clip", kind=kind)
    expected = np_mixture(module, array(x), array(emotion), local, g)
    found = module(x, emotion, Routing.of(PRIOR), FRAMES)
    np.testing.assert_allclose(array(found), expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize("local_gate", ["output", "query", "off"])
def test_without_gates_the_blend_itself_mixes_and_the_local_gate_is_open(local_gate: str):
    """Stage 2a: g is the prior, s is 1."""
    module = mixture(local_gate=local_gate)
    x, emotion = numbers(4, TOKENS, WIDTH), numbers(4, 8, EMOTION)
    expected = np_mixture(module, array(x), array(emotion), None, array(PRIOR.double()))
    found = module(x, emotion, Routing.of(PRIOR, gated=False), FRAMES)
    np.testing.assert_allclose(array(found), expected, **CLOSE)


def test_the_three_local_gates_differ():
    x, emotion = numbers(4, TOKENS, WIDTH), numbers(4, 8, EMOTION)
    module, outputs = mixture(), []
    for local_gate in ("output", "query", "off"):
        module.local_gate = local_gate
        outputs.append(module(x, emotion, Routing.of(PRIOR), FRAMES))
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert not torch.allclose(outputs[first], outputs[second], atol=1e-3)


def test_a_shut_local_gate_silences_an_expert_at_the_output_but_not_at_the_query():
    """Why "output" is the default: s -> 0 on the query leaves the mean value vector."""
    x, emotion = numbers(2, TOKENS, WIDTH), numbers(2, 8, EMOTION)
    routing = Routing.of(PRIOR[:2])
    module = mixture()
    with torch.no_grad():
        module.gates.local_gate.weight.zero_()  # type: ignore[operator]
        module.gates.local_gate.bias.fill_(-60.0)  # type: ignore[operator]
    torch.testing.assert_close(module(x, emotion, routing, FRAMES), x, rtol=0, atol=1e-12)
    module.local_gate = "query"
    assert not torch.allclose(module(x, emotion, routing, FRAMES), x, atol=1e-2)


def test_one_shared_expert_is_plain_emotion_attention():
    module = mixture(experts=1, local_gate="off")
    x, emotion = numbers(4, TOKENS, WIDTH), numbers(4, 8, EMOTION)
    found = module(x, emotion, Routing.of(torch.tensor([[1.0], [1.0], [0.0], [1.0]])), FRAMES)
    normed = np_norm(module, array(x))
    for row in (0, 1, 3):
        expected = array(x)[row] + np_expert(module.experts[0], normed[row], array(emotion)[row])
        np.testing.assert_allclose(array(found)[row], expected, **CLOSE)
    assert torch.equal(found[2], x[2])


@pytest.mark.parametrize("local_gate", ["output", "query", "off"])
@pytest.mark.parametrize("gated", [False, True])
def test_neutral_rows_stay_bit_for_bit(local_gate: str, gated: bool):
    module = mixture(local_gate=local_gate, build=Build())
    x, emotion = torch.randn(4, TOKENS, WIDTH), torch.randn(4, 8, EMOTION)
    found = module(x, emotion, Routing.of(PRIOR, gated=gated), FRAMES)
    assert torch.equal(found[2], x[2])
    assert not any(torch.allclose(found[row], x[row], atol=1e-4) for row in (0, 1, 3))
    assert torch.equal(module(x, emotion, Routing.of(torch.zeros(4, 6), gated=gated), FRAMES), x)


@pytest.mark.parametrize("prior", [PRIOR[1], PRIOR[3], torch.full((6,), 1 / 6)])
def test_identical_experts_make_the_blend_irrelevant(prior: Tensor):
    module = mixture()
    for expert in module.experts:
        expert.load_state_dict(module.experts[0].state_dict())
    x, emotion = numbers(2, TOKENS, WIDTH), numbers(2, 8, EMOTION)
    found = module(x, emotion, Routing.of(prior.expand(2, 6), gated=False), FRAMES)
    torch.testing.assert_close(found, x + module.experts[0](module.norm(x), emotion), rtol=0, atol=1e-6)


def test_an_expert_runs_on_its_open_rows_only():
    runs: list[int] = []

    def counting(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, **options: Any) -> Tensor:
        assert options["transformer_options"] == {"tag": 7}
        runs.append(q.shape[0])
        return torch_attention(q, k, v, heads, mask)

    module = mixture(build=Build(attention=counting, dtype=torch.float64))
    module(numbers(4, TOKENS, WIDTH), numbers(4, 8, EMOTION), Routing.of(PRIOR), FRAMES, {"tag": 7})
    assert runs == [int((column > 0).sum()) for column in PRIOR.T if (column > 0).any()]


def test_a_frame_hears_its_own_emotion_latents_only():
    module = mixture()
    x, emotion = numbers(4, TOKENS, WIDTH), numbers(4, 8, EMOTION)
    before = module(x, emotion, Routing.of(PRIOR), FRAMES)
    emotion[3] += 1.0
    after = module(x, emotion, Routing.of(PRIOR), FRAMES)
    assert torch.equal(before[:3], after[:3])
    assert not torch.allclose(before[3], after[3], atol=1e-4)


def test_only_open_experts_get_a_gradient():
    module = mixture()
    module(numbers(2, TOKENS, WIDTH), numbers(2, 8, EMOTION), Routing.of(PRIOR[:2]), FRAMES).square().sum().backward()
    for index, expert in enumerate(module.experts):
        assert isinstance(expert, CrossAttention)
        reached = expert.to_q.weight.grad is not None
        assert reached == (index in (0, 2))


def test_routing_lists_the_open_frames_of_each_expert():
    prior = PRIOR.clone()
    prior[:, 5] = 0.1
    routing = Routing.of(prior)
    assert [None if rows is None else rows.tolist() for rows in routing.rows] == [[0, 1], [3], [1], [3], [3], None]
    moved = Routing.of(prior, gated=False).to(torch.device("meta"))
    assert not moved.gated
    assert moved.prior_NE.device.type == "meta"
    assert all(rows is None or rows.device.type == "meta" for rows in moved.rows)


def test_a_routing_for_other_frames_or_experts_is_refused():
    module = mixture()
    for prior in (PRIOR[:3], PRIOR[:, :5]):
        with pytest.raises(ValueError, match=r"routing is for \(\d, \d\)"):
            module(numbers(4, TOKENS, WIDTH), numbers(4, 8, EMOTION), Routing.of(prior), FRAMES)


@pytest.mark.parametrize("name", ["local_gate", "gate_pool", "gate_prior"])
def test_an_unknown_setting_is_named(name: str):
    with pytest.raises(ValueError, match=rf"{name} must be one of .*'nonsense'"):
        mixture(6, EXACT, **{name: "nonsense"})


# ---- from emotion vectors to shares ---------------------------------------------------------------------------------


def vector(**labels: float) -> Tensor:
    return torch.tensor([[labels.get(name, 0.0) for name in LABELS]])


@pytest.mark.parametrize("name", EXPERTS)
def test_a_single_emotion_opens_its_expert_alone_at_any_intensity(name: str):
    for intensity in (1.0, 0.25, 1.5):
        found = expert_shares(vector(neutral=max(0.0, 1 - intensity), **{name: intensity}), 6)
        assert found.tolist() == [[float(name == expert) for expert in EXPERTS]]


def test_a_blend_is_shared_by_its_weights():
    found = expert_shares(vector(neutral=0.5, happy=0.3, surprised=0.2), 6)
    torch.testing.assert_close(found, torch.tensor([[0, 0, 0, 0.6, 0, 0.4]]))


def test_contempt_opens_every_expert_and_neutral_none():
    torch.testing.assert_close(expert_shares(vector(contempt=0.7), 6), torch.full((1, 6), 1 / 6))
    mixed = expert_shares(vector(contempt=0.5, sad=0.5), 6)
    torch.testing.assert_close(mixed[0, EXPERTS.index("sad")], torch.tensor(0.5 + 0.5 / 6))
    torch.testing.assert_close(mixed.sum(), torch.tensor(1.0))
    assert (expert_shares(vector(neutral=1.0), 6) == 0).all()


def test_one_shared_attention_is_open_wherever_there_is_emotion():
    vectors = torch.cat([vector(neutral=1.0), vector(neutral=0.9, sad=0.1), vector(contempt=1.0)])
    assert expert_shares(vectors, 1).tolist() == [[0.0], [1.0], [1.0]]
    with pytest.raises(ValueError, match="6 experts, this network has 4"):
        expert_shares(vectors, 4)


# ---- from one shared attention to six experts -----------------------------------------------------------------------


def fresh(experts: int = 6) -> MoEESystem:
    system = MoEESystem(dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, experts=experts)))
    initialise(system, None, 7)
    return system


def roughened(system: MoEESystem) -> MoEESystem:
    """Every weight random, as after training."""
    with torch.no_grad():
        for key, parameter in system.named_parameters():
            if "anchor_std" not in key:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    return system


def velocity(system: MoEESystem, vectors: Tensor, gated: bool) -> Tensor:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    z, h = TINY.unet.latent_channels, TINY.unet.grid
    with torch.no_grad():
        return system.denoiser(
            normal(len(vectors), z, h, h),
            torch.full((len(vectors),), 600),
            frames=len(vectors),
            reference=system.reference_net.reference(normal(1, z, h, h), normal(1, 2, z, h, h)),
            audio_NSA=normal(len(vectors), TINY.audio.tokens, TINY.audio.token_width),
            emotion=system.emotion_context(vectors, gated=gated),
        )


def test_upcycled_experts_start_as_the_shared_attention():
    """Whatever the blend, six copies of one attention are that attention; the gates start at the blend, nearly open."""
    shared, grown = roughened(fresh(experts=1)), roughened(fresh(experts=6))
    grow_experts(shared, grown, "upcycle", local_bias=20.0)
    vectors = torch.zeros(4, len(LABELS))
    vectors[0, LABELS.index("sad")] = 1.0
    vectors[1, LABELS.index("happy")], vectors[1, LABELS.index("surprised")] = 0.5, 0.3
    vectors[2, LABELS.index("contempt")] = 0.9
    vectors[3, 0] = 1.0  # neutral
    expected = velocity(shared, vectors, gated=False)
    torch.testing.assert_close(velocity(grown, vectors, gated=False), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(velocity(grown, vectors, gated=True), expected, rtol=0, atol=1e-4)
    for module in grown.denoiser.modules():
        if isinstance(module, EmotionGates):
            assert not module.global_gate.weight.any()  # type: ignore[operator]
            assert bool((module.local_gate.bias == 20.0).all())  # type: ignore[union-attr]


def test_experts_that_start_at_zero_say_nothing():
    shared, grown = roughened(fresh(experts=1)), fresh(experts=6)
    grow_experts(shared, grown, "zero", local_bias=3.0)
    happy, neutral = torch.zeros(3, 8), torch.zeros(3, 8)
    happy[:, LABELS.index("happy")], neutral[:, 0] = 1.0, 1.0
    torch.testing.assert_close(velocity(grown, happy, gated=False), velocity(grown, neutral, gated=False))
    assert not torch.allclose(velocity(shared, happy, gated=False), velocity(shared, neutral, gated=False), atol=1e-4)


def test_a_new_denoiser_says_nothing_of_its_own():
    """Every residual branch ends in zeros: emotion, audio and time leave the linear estimate as it is."""
    system = fresh()
    neutral, angry = torch.zeros(3, 8), torch.zeros(3, 8)
    neutral[:, 0], angry[:, 1] = 1.0, 1.0
    assert torch.equal(velocity(system, neutral, gated=True), velocity(system, angry, gated=True))
