"""The emotion embedder of DICE-Talk: its equations written out in NumPy, what is not looked at, and the objective."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from moee_core.emotion.prior_embedder import PriorEmbedder, PriorEmbedderConfig, contrastive, positions
from moee_core.metrics.clusters import clustering_strength
from moee_core.ops import Build, plain_attention, torch_attention
from moee_core.selfcheck import ruled

CONFIG = PriorEmbedderConfig(
    width=8, coefficients=5, speech_layers=3, speech_width=6, layers=1, fusion_layers=2, heads=2, hidden=10, frames=6
)


def made(config: PriorEmbedderConfig = CONFIG) -> PriorEmbedder:
    embedder = PriorEmbedder(config, Build()).eval().requires_grad_(False)
    embedder.load_state_dict({key: ruled(key, tuple(value.shape)) for key, value in embedder.state_dict().items()})
    return embedder


def inputs(rows: int = 2, frames: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(rows, frames, 5, generator=generator),
        torch.randn(rows, 2 * frames, 3, 6, generator=generator),
    )


class Written:
    """The network of one clip, in NumPy."""

    def __init__(self, embedder: PriorEmbedder):
        self.state = {key: value.double().numpy() for key, value in embedder.state_dict().items()}
        self.config = embedder.config

    def linear(self, name: str, x: np.ndarray) -> np.ndarray:
        return x @ self.state[f"{name}.weight"].T + self.state[f"{name}.bias"]

    def norm(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)
        return scaled * self.state[f"{name}.weight"] + self.state[f"{name}.bias"]

    def layer(self, name: str, x: np.ndarray, context: np.ndarray | None = None, share: float = 1.0) -> np.ndarray:
        h = self.norm(f"{name}.norm1", x)
        asked = h if context is None else context
        q, k, v = (self.linear(f"{name}.to_{part}", one) for part, one in (("q", h), ("k", asked), ("v", asked)))
        size = self.config.width // self.config.heads
        answers = []
        for head in range(self.config.heads):
            part = slice(head * size, (head + 1) * size)
            scores = q[:, part] @ k[:, part].T / math.sqrt(size)
            weights = np.exp(scores - scores.max(axis=1, keepdims=True))
            answers.append(weights / weights.sum(axis=1, keepdims=True) @ v[:, part])
        x = x + share * self.linear(f"{name}.to_out", np.concatenate(answers, axis=1))
        h = self.linear(f"{name}.first", self.norm(f"{name}.norm2", x))
        gelu = h * 0.5 * (1 + np.vectorize(math.erf)(h / math.sqrt(2)))
        return x + self.linear(f"{name}.second", gelu)

    def waves(self, frames: int) -> np.ndarray:
        out = np.zeros((frames, self.config.width))
        for n in range(frames):
            for pair in range(self.config.width // 2):
                angle = n / 10000 ** (2 * pair / self.config.width)
                out[n, 2 * pair], out[n, 2 * pair + 1] = math.sin(angle), math.cos(angle)
        return out

    def read(self, visual: np.ndarray | None, speech: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        if visual is not None:
            frames = len(visual)
        else:
            assert speech is not None
            frames = len(speech) // 2
        kind, absent = self.state["kind.weight"], self.state["absent.weight"]
        face = np.tile(absent[0], (frames, 1)) if visual is None else self.linear("face_in", visual)
        if speech is None:
            voice = np.tile(absent[1], (frames, 1))
        else:
            weights = np.exp(self.state["layer_weights.weight"][0])
            mixed = np.einsum("mla,l->ma", speech, weights / weights.sum())
            voice = self.linear("speech_in", mixed.reshape(frames, 2, -1).mean(axis=1))
        face, voice = (x + self.waves(frames) + kind[which] for which, x in enumerate((face, voice)))
        face = self.norm("face_norm", self.layer("face_layers.0", face))
        s = self.norm("speech_norm", self.layer("speech_layers.0", voice))
        for number in range(self.config.fusion_layers):
            s = self.layer(f"fusion.{number}", s, face, 1 + self.state["share.weight"][0, 0])  # Eq. 2, 3
        scores = self.linear("to_weight", s)[:, 0]
        a = np.exp(scores - scores.max())
        a = a / a.sum()  # Eq. 4
        mean = a @ s
        return mean, a @ (s - mean) ** 2  # Eq. 5


@pytest.mark.parametrize("given", ["both", "face", "speech"])
def test_the_equations_written_out(given: str):
    embedder = made()
    visual, speech = inputs()
    faces, voices = (visual if given != "speech" else None), (speech if given != "face" else None)
    found = embedder(faces, voices)
    for row in range(2):
        mean, variance = Written(embedder).read(
            None if faces is None else faces[row].double().numpy(),
            None if voices is None else voices[row].double().numpy(),
        )
        np.testing.assert_allclose(found.mean_BD[row].numpy(), mean, atol=1e-5)
        np.testing.assert_allclose(found.variance_BD[row].numpy(), variance, atol=1e-5)
    assert torch.allclose(found.weights_BN.sum(dim=1), torch.ones(2))


def test_positions_are_those_of_the_paper():
    np.testing.assert_allclose(positions(7, 8, torch.zeros(1)).numpy(), Written(made()).waves(7), atol=1e-6)


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_there_is_not_looked_at(which: int):
    """Whatever stands in a modality that is switched off, and in a modality that is not given at all."""
    embedder = made()
    visual, speech = inputs()
    there = torch.tensor([[True, True], [True, True]])
    there[1, which] = False
    found = embedder(visual, speech, there)
    other = [visual.clone(), speech.clone()]
    other[which][1] += 3
    assert torch.equal(embedder(*other, there).mean_BD, found.mean_BD)
    alone: list[Tensor | None] = [visual[1:], speech[1:]]
    alone[which] = None
    assert torch.allclose(embedder(*alone).mean_BD, found.mean_BD[1:], atol=1e-6)
    assert not torch.allclose(embedder(visual, speech).mean_BD[1], found.mean_BD[1], atol=1e-3)


@pytest.mark.parametrize("which", [0, 1])
def test_what_is_not_looked_at_does_not_spoil_what_is_learned(which: int):
    """NaN in a row that is not looked at: the same gradients as of zeros there."""
    visual, speech = inputs()
    there = torch.tensor([[True, True], [True, True]])
    there[1, which] = False
    found = []
    for value in (math.nan, 0.0):
        embedder = made().requires_grad_(True)
        given = [visual.clone(), speech.clone()]
        given[which][1] = value
        embedder(*given, there).mean_BD.square().sum().backward()
        found.append({name: one.grad for name, one in embedder.named_parameters() if one.grad is not None})
    assert {"face_in.weight", "speech_in.weight", "layer_weights.weight"} <= found[0].keys()
    for name, gradient in found[0].items():
        assert torch.isfinite(gradient).all(), name
        assert torch.equal(gradient, found[1][name]), name


def test_absent_is_learned_or_nothing():
    """With zeros the learned vectors change nothing."""
    visual, _ = inputs()
    for absent, changes in (("learned", True), ("zeros", False)):
        embedder = made(replace(CONFIG, absent=absent))
        before = embedder(visual, None).mean_BD
        embedder.absent.weight += 1
        assert torch.equal(embedder(visual, None).mean_BD, before) is not changes


def test_who_asks():
    """A still face gives an asking face one and the same s at every frame but for its position; speech does not."""
    visual, speech = inputs()
    found = [made(replace(CONFIG, asks=asks))(visual, speech).mean_BD for asks in ("speech", "face")]
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_a_prior_is_drawn_from_its_gaussian():
    found = made()(*inputs())
    drawn = torch.stack(
        [found.sample(torch.randn(2, 8, generator=torch.Generator().manual_seed(i))) for i in range(4000)]
    )
    assert torch.allclose(drawn.mean(dim=0), found.mean_BD, atol=0.1)
    assert torch.allclose(drawn.var(dim=0), found.variance_BD, rtol=0.15, atol=1e-3)
    assert torch.equal(found.sample(torch.zeros(2, 8)), found.mean_BD)


def test_a_clip_of_any_length():
    embedder = made()
    visual, speech = inputs(rows=1, frames=6)
    whole, one = embedder(visual, speech), embedder.clip(visual[0], speech[0])
    assert torch.allclose(one.mean_BD, whole.mean_BD)
    assert torch.allclose(one.variance_BD, whole.variance_BD)
    visual, speech = inputs(rows=1, frames=17)
    found = embedder.clip(visual[0], speech[0, :32])  # speech of 16 frames: the last picture is not used
    starts = [0, 3, 6, 9, 10]
    pieces = [embedder(visual[:, s : s + 6], speech[:, 2 * s : 2 * s + 12]) for s in starts]
    means = torch.cat([piece.mean_BD for piece in pieces])
    assert torch.allclose(found.mean_BD[0], means.mean(dim=0), atol=1e-6)
    spread = torch.cat([piece.variance_BD for piece in pieces]).mean(dim=0) + means.var(dim=0, unbiased=False)
    assert torch.allclose(found.variance_BD[0], spread, atol=1e-6)
    assert found.weights_BN.shape == (1, 16)
    assert float(found.weights_BN.sum()) == pytest.approx(1)


def test_errors_say_what_is_wrong():
    embedder = made()
    visual, speech = inputs()
    for asked, said in (
        (lambda: embedder(None, None), "neither a face nor speech"),
        (lambda: embedder(visual[..., :4], speech), r"\(B, N, 5\), got \(2, 6, 4\)"),
        (lambda: embedder(visual, speech[..., :5]), r"\(B, M, 3, 6\), got \(2, 12, 3, 5\)"),
        (lambda: embedder(visual, speech[:, :11]), "11 speech features are not 2 for every frame"),
        (lambda: embedder(visual, speech[:, :10]), r"\(2, 6\) and \(2, 5\)"),
        (lambda: embedder.clip(visual[0, :0], None), r"no frame to embed \(frames: face 0, speech none\)"),
        (lambda: embedder.clip(visual[0], speech[0, :1]), r"no frame to embed \(frames: face 6, speech 0\)"),
    ):
        with pytest.raises(ValueError, match=said):
            asked()
    for field, value in (("heads", 3), ("asks", "nobody"), ("absent", "noise"), ("layers", 0)):
        with pytest.raises(ValueError, match=str(value)):
            replace(CONFIG, **{field: value})


def test_a_row_never_lacks_both():
    visual, speech = inputs()
    with pytest.raises(ValueError, match="neither face nor speech"):
        made()(visual, speech, torch.tensor([[True, False], [False, False]]))
    with pytest.raises(ValueError, match="neither face nor speech"):  # its speech is looked at, and none is given
        made()(visual, None, torch.tensor([[True, False], [False, True]]))


def test_the_two_kernels_agree():
    visual, speech = inputs()
    state = made().state_dict()
    found = []
    for attention in (torch_attention, plain_attention):
        embedder = PriorEmbedder(CONFIG, Build(attention=attention)).eval()
        embedder.load_state_dict(state)
        with torch.no_grad():
            found.append(embedder(visual, speech).mean_BD)
    assert torch.allclose(found[0], found[1], atol=1e-6)


# ---- InfoNCE --------------------------------------------------------------------------------------------------------


def test_infonce_written_out():
    priors = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    groups, tau = torch.tensor([0, 0, 1, 1, 1, 2]), 0.3
    unit = (priors / priors.norm(dim=1, keepdim=True)).double().numpy()
    w = np.exp((unit @ unit.T - 1) / tau)
    losses = []
    for i in range(6):
        same = [j for j in range(6) if j != i and groups[j] == groups[i]]
        if same:  # the last is alone in its group: a negative only
            losses.append(-math.log(sum(w[i, j] for j in same) / sum(w[i, j] for j in range(6) if j != i)))
    assert float(contrastive(priors, groups, tau)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_the_fixed_constant_changes_nothing():
    """Eq. 8 adds one; every value gives the same loss, so -1, which bounds the exponent, costs nothing."""
    priors = torch.randn(6, 4, generator=torch.Generator().manual_seed(2))
    groups = torch.tensor([0, 0, 1, 1, 2, 2])
    values = [float(contrastive(priors, groups, 0.1, constant)) for constant in (-1.0, 0.0, 0.7)]
    assert values == pytest.approx([values[0]] * 3, rel=1e-5)


def test_infonce_is_least_where_groups_are_apart():
    together = torch.eye(3).repeat_interleave(2, dim=0)
    groups = torch.tensor([0, 0, 1, 1, 2, 2])
    mixed = together[torch.tensor([0, 2, 4, 1, 3, 5])]
    assert float(contrastive(together, groups, 0.1)) < 1e-3
    assert float(contrastive(mixed, groups, 0.1)) > 3
    with pytest.raises(ValueError, match="no clip of the batch has another"):
        contrastive(together[::2], torch.arange(3), 0.1)


# ---- clustering strength --------------------------------------------------------------------------------------------


def test_clustering_strength_of_gaussians_of_known_spread():
    """Two clusters 10 apart with a spread of 1 in three dimensions: the mean distance to a centroid is sqrt(8 / pi)."""
    rng = np.random.default_rng(0)
    vectors = np.concatenate([rng.normal(0, 1, (4000, 3)), rng.normal((10, 0, 0), 1, (4000, 3))])
    found = clustering_strength(vectors, np.repeat([0, 1], 4000))
    assert found[0] == pytest.approx(10 / math.sqrt(8 / math.pi), rel=0.03)
    assert clustering_strength(3 * vectors, np.repeat([0, 1], 4000))[1] == pytest.approx(found[1])
    shuffled = clustering_strength(vectors, np.random.default_rng(1).integers(0, 2, 8000))
    assert shuffled[0] < 0.1


def test_clustering_strength_needs_two_labels():
    with pytest.raises(ValueError, match="got 1 of them"):
        clustering_strength(np.zeros((3, 2)), np.zeros(3))
    with pytest.raises(ValueError, match="3 vectors have 2 labels"):
        clustering_strength(np.zeros((3, 2)), np.zeros(2))
