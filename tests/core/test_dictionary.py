"""The dictionary of codes: what it reads, what its losses move, and how its codes learn, each against NumPy."""

from __future__ import annotations

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor

from moee_core.emotion.dictionary import Dictionary, DictionaryConfig, code_use
from moee_core.ops import DEFAULT_BUILD

CODES, WIDTH = 6, 4


def made(codes: int = CODES, width: int = WIDTH, started: bool = True, **settings) -> Dictionary:
    torch.manual_seed(0)
    dictionary = Dictionary(DictionaryConfig(codes=codes, width=width, **settings), DEFAULT_BUILD)
    dictionary.started.fill_(float(started))
    return dictionary


def seeded(number: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(number)


# ---- reading --------------------------------------------------------------------------------------------------------


def test_every_vector_is_read_as_its_nearest_code():
    dictionary, x = made(), torch.randn(2, 5, WIDTH)
    codes, flat = dictionary.codes.weight.detach().numpy(), x.numpy().reshape(-1, WIDTH)
    expected = ((flat[:, None] - codes[None]) ** 2).sum(-1)
    np.testing.assert_allclose(
        dictionary.squared_distances(x).detach().numpy().reshape(-1, CODES), expected, rtol=1e-4, atol=1e-5
    )
    out = dictionary(x)
    np.testing.assert_array_equal(out.indices.numpy().ravel(), expected.argmin(1))
    torch.testing.assert_close(out.values, dictionary.codes(out.indices))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_codes_that_lie_close_are_told_apart_in_half_precision(dtype: torch.dtype):
    """Codes of the published size and start, near 0 beside the vectors."""
    dictionary = made(codes=64, width=1024)
    with torch.no_grad():
        dictionary.codes.weight.uniform_(-1 / 64, 1 / 64)
    x = torch.randn(200, 1024).to(dtype)
    exact = torch.cdist(x.double(), dictionary.codes.weight.detach().double()).argmin(-1)
    assert torch.equal(dictionary.nearest(x), exact)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dictionary.nearest(x.float()), exact)


def test_the_gradient_passes_straight_through():
    dictionary, x = made(), torch.randn(3, WIDTH, requires_grad=True)
    pull = torch.randn(3, WIDTH)
    (dictionary(x).values * pull).sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, pull)
    assert dictionary.codes.weight.grad is None


def test_commitment_moves_the_vectors_and_codebook_the_codes():
    dictionary, x = made(update="naive"), torch.randn(3, WIDTH, requires_grad=True)
    out = dictionary(x)
    assert float(out.commitment.detach()) == pytest.approx(float((x - out.values).detach().square().mean()))
    out.commitment.backward(retain_graph=True)
    assert x.grad is not None
    assert dictionary.codes.weight.grad is None
    x.grad = None
    out.codebook.backward()
    assert x.grad is None
    assert dictionary.codes.weight.grad is not None


def test_vectors_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"vectors must be \(\.\.\., 4\), got \(2, 3\)"):
        made()(torch.randn(2, 3))


def test_reading_changes_nothing():
    dictionary = made(started=False)
    before = {key: value.clone() for key, value in dictionary.state_dict().items()}
    dictionary(torch.randn(50, WIDTH))
    assert all(torch.equal(before[key], value) for key, value in dictionary.state_dict().items())


# ---- learning -------------------------------------------------------------------------------------------------------


def test_codes_follow_the_moving_average_written_out():
    """S and N kept apart as in the equations; the dictionary keeps C = S / N and N."""
    dictionary = made(update="ema", decay=0.9)
    codes = dictionary.codes.weight.detach().numpy().astype(float)
    counts = np.ones(CODES)
    sums = codes * counts[:, None]
    for step in range(30):
        x = torch.randn(12, WIDTH, generator=seeded(step)) + (step % 3)
        dictionary(x, learn=True)
        indices = ((x.numpy()[:, None] - codes[None]) ** 2).sum(-1).argmin(1)
        hot = np.eye(CODES)[indices]
        counts = 0.9 * counts + 0.1 * hot.sum(0)
        sums = 0.9 * sums + 0.1 * hot.T @ x.numpy()
        codes = sums / counts[:, None]
    np.testing.assert_allclose(dictionary.codes.weight.detach().numpy(), codes, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(dictionary.counts.numpy(), counts, rtol=1e-4)


def test_a_code_that_is_never_met_stays_without_reset_and_moves_into_the_data_with_it():
    data = torch.randn(40, WIDTH, generator=seeded(1)) * 0.1
    for update, moved in (("ema", False), ("ema_reset", True)):
        dictionary = made(update=update, decay=0.9)
        with torch.no_grad():
            dictionary.codes.weight[3] = 100.0
        for _ in range(20):
            dictionary(data, learn=True, generator=seeded(2))
        found = dictionary.codes.weight[3]
        assert bool((found < 1).all()) == moved
        if not moved:
            assert torch.equal(found.detach(), torch.full((WIDTH,), 100.0))
        else:
            assert float(dictionary.squared_distances(data)[:, 3].detach().min()) < 1e-2


def test_reset_keeps_more_codes_in_use_than_the_average_alone():
    """Eight groups of vectors, a dictionary that begins far from seven of them."""
    centres = torch.randn(8, 8, generator=seeded(3)) * 4
    used, indices = {}, torch.zeros(0)
    for update in ("ema", "ema_reset"):
        dictionary = made(16, 8, update=update, decay=0.8)
        with torch.no_grad():
            dictionary.codes.weight.copy_(centres[0] + 0.01 * torch.randn(16, 8, generator=seeded(4)) - 20)
        for step in range(60):
            which = torch.randint(8, (256,), generator=seeded(step))
            x = centres[which] + 0.1 * torch.randn(256, 8, generator=seeded(step + 100))
            indices = dictionary(x, learn=True, generator=seeded(step)).indices
        used[update] = code_use(indices, 16)
    assert used["ema_reset"].perplexity > 2 * used["ema"].perplexity
    assert used["ema_reset"].used > 0.9


def test_naive_codes_learn_by_gradient_alone():
    dictionary = made(update="naive")
    before = dictionary.codes.weight.detach().clone()
    dictionary(torch.randn(20, WIDTH), learn=True)
    assert torch.equal(dictionary.codes.weight.detach(), before)
    assert dictionary.learns_by_gradient


@pytest.mark.parametrize("have", [3, 40])
def test_the_first_batch_gives_the_first_codes(have: int):
    dictionary = made(started=False, update="naive")
    x = torch.randn(have, WIDTH, generator=seeded(5))
    dictionary(x, learn=True, generator=seeded())
    codes = dictionary.codes.weight.detach()
    distances = torch.cdist(codes, x)
    assert float(distances.min(dim=1).values.max()) < 0.05
    assert len(set(distances.argmin(dim=1).tolist())) == min(have, CODES)
    again = codes.clone()
    dictionary(torch.randn(20, WIDTH), learn=True)
    assert torch.equal(dictionary.codes.weight.detach(), again), "only the first batch starts it"


def test_a_uniform_start_lies_within_one_over_the_number_of_codes():
    dictionary = made(started=False, update="naive", start="uniform")
    dictionary(torch.randn(20, WIDTH), learn=True, generator=seeded())
    weight = dictionary.codes.weight.detach().abs()
    assert float(weight.max()) <= 1 / CODES
    assert float(weight.max()) > 0.5 / CODES


def test_what_it_learned_is_saved():
    dictionary, other = made(started=False), made()
    for step in range(5):
        dictionary(torch.randn(30, WIDTH, generator=seeded(step)), learn=True, generator=seeded(step))
    other.load_state_dict(dictionary.state_dict())
    assert set(dictionary.state_dict()) == {"codes.weight", "counts", "started"}
    for step in range(5, 8):
        for one in (dictionary, other):
            one(torch.randn(30, WIDTH, generator=seeded(step)), learn=True, generator=seeded(step))
    assert torch.equal(dictionary.codes.weight, other.codes.weight)
    assert torch.equal(dictionary.counts, other.counts)


# ---- several processes ----------------------------------------------------------------------------------------------


def batch(step: int) -> Tensor:
    return torch.randn(16, WIDTH, generator=seeded(step))


def learn_a_share(folder: Path, rank: int, size: int) -> None:
    """One of ``size`` processes; the drawn codes differ from process to process unless they agree on them."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
    for update in ("ema", "ema_reset"):
        dictionary = made(started=update == "ema", update=update, decay=0.8, least_use=0.5)
        for step in range(6):
            dictionary(batch(step)[rank::size], learn=True, generator=seeded(step + 100 * rank))
        torch.save(dictionary.state_dict(), folder / f"{update}-{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forked: starting PyTorch anew takes many seconds")
def test_processes_hold_one_dictionary_of_the_whole_batch(tmp_path: Path):
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=learn_a_share, args=(tmp_path, rank, 2)) for rank in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(timeout=60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    states = {path.stem: torch.load(path, weights_only=True) for path in tmp_path.glob("*.pt")}
    for update in ("ema", "ema_reset"):
        first, second = states[f"{update}-0"], states[f"{update}-1"]
        assert all(torch.equal(first[key], second[key]) for key in first)
    alone = made(update="ema", decay=0.8, least_use=0.5)
    for step in range(6):
        alone(batch(step), learn=True)
    torch.testing.assert_close(states["ema-0"]["codes.weight"], alone.codes.weight.detach(), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(states["ema-0"]["counts"], alone.counts)


# ---- figures and settings -------------------------------------------------------------------------------------------


def test_use_and_perplexity_of_codes():
    even = code_use(torch.arange(8).repeat(3), 16)
    assert even.used == 0.5
    assert even.perplexity == pytest.approx(8.0)
    assert code_use(torch.zeros(9, dtype=torch.long), 16).perplexity == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"update": "sgd"}, "update must be one of naive, ema, ema_reset; got 'sgd'"),
        ({"start": "zero"}, "start must be one of batch, uniform; got 'zero'"),
        ({"decay": 1.0}, "decay must be at least 0 and below 1, got 1.0"),
        ({"codes": 0}, "codes must be at least 1, got 0"),
        ({"least_use": -1.0}, "least_use must be at least 0, got -1.0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, words: str):
    with pytest.raises(ValueError, match=words):
        DictionaryConfig(**settings)
