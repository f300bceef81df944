"""The training loop: killed and resumed is the same as never killed; its rates, averages, states and processes."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from moee_core.errors import CheckpointError
from training import parallel
from training.checkpoint import load_state
from training.config import (
    StageConfig,
)
from training.loop import Averages, Stage, learning_rate, run_stage

from ..fixtures.killed import KilledError, made, same, weights


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# ---- a toy stage ----------------------------------------------------------------------------------------------------

TOY = StageConfig(iterations=23, warmup=5, save_every=5, validate_every=8, learning_rate=0.05, ema=0.9)


def toy_module() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2), nn.Linear(2, 2))


def toy_loss(module: nn.Module, step: int) -> Tensor:
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(6, 4, generator=generator)
    return (module(x) - x[:, :2].sin()).square().mean()


def toy_stage(module: nn.Module, kill_at: int | None = None, name: str = "toy", **settings: Any) -> Stage:
    """The last layer is frozen."""

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        if step == kill_at:
            raise KilledError
        return toy_loss(module, step), {"step": float(step)}

    return Stage(
        name=name,
        module=module,
        trainable=[(key, p) for key, p in module.named_parameters() if not key.startswith("3.")],
        loss=loss,
        settings=dataclasses.replace(TOY, **settings),
    )


@pytest.mark.parametrize("kills", [(0,), (4,), (5,), (13,), (22,), (3, 9, 9, 21)])
def test_killed_and_resumed_is_bit_for_bit_the_same(tmp_path: Path, kills: tuple[int, ...]):
    straight, broken = toy_module(), toy_module()
    expected = run_stage(toy_stage(straight), made(tmp_path / "a"))
    for kill_at in kills:
        broken = toy_module()  # a new process starts from the stage's beginning
        with pytest.raises(KilledError):
            run_stage(toy_stage(broken, kill_at), made(tmp_path / "b"))
    broken = toy_module()
    found = run_stage(toy_stage(broken), tmp_path / "b")
    assert found == expected
    assert same(weights(broken), weights(straight))
    states = [load_state(tmp_path / name / "state.pt") for name in "ab"]
    assert states[0] is not None
    assert states[1] is not None
    assert states[0]["losses"] == states[1]["losses"]
    assert len(states[0]["losses"]) == TOY.iterations


def test_the_loop_is_adamw_with_clipping_a_schedule_and_averaged_weights(tmp_path: Path):
    """The same written out plainly."""
    module, twin = toy_module(), toy_module()
    run_stage(toy_stage(module, clip=0.3), tmp_path)
    live = [p for key, p in twin.named_parameters() if not key.startswith("3.")]
    optimiser = torch.optim.AdamW(live, betas=(0.9, 0.99), weight_decay=TOY.weight_decay)
    average = [p.detach().double().clone() for p in live]
    for step in range(TOY.iterations):
        optimiser.param_groups[0]["lr"] = learning_rate(TOY, step)
        optimiser.zero_grad()
        toy_loss(twin, step).backward()
        length = math.sqrt(sum(float(p.grad.double().square().sum()) for p in live if p.grad is not None))
        for p in live:
            assert p.grad is not None
            p.grad.mul_(min(1.0, 0.3 / length))
        optimiser.step()
        decay = min(0.9, (step + 1) / (step + 12))
        average = [decay * a + (1 - decay) * p.detach().double() for a, p in zip(average, live, strict=True)]
    trained = [p for key, p in module.named_parameters() if not key.startswith("3.")]
    for found, expected in zip(trained, average, strict=True):
        torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)


def test_what_is_not_trained_stays_and_everything_is_frozen_at_the_end(tmp_path: Path):
    module = toy_module()
    before = weights(module)
    run_stage(toy_stage(module), tmp_path)
    after = weights(module)
    moved = {key for key in before if not torch.equal(before[key], after[key])}
    assert moved == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert not any(parameter.requires_grad for parameter in module.parameters())


def test_a_finished_stage_that_is_run_again_gives_the_same_weights(tmp_path: Path):
    """KilledError after the last step and before the stage's file was written."""
    first, second = toy_module(), toy_module()
    run_stage(toy_stage(first), tmp_path)
    run_stage(toy_stage(second, kill_at=0), tmp_path)
    assert same(weights(first), weights(second))


def test_the_state_of_another_stage_is_not_continued(tmp_path: Path):
    run_stage(toy_stage(toy_module(), name="earlier"), tmp_path)
    module, alone = toy_module(), toy_module()
    run_stage(toy_stage(module), tmp_path)
    run_stage(toy_stage(alone), made(tmp_path / "alone"))
    assert same(weights(module), weights(alone))


def test_validation_sees_the_averaged_weights_and_leaves_the_live_ones(tmp_path: Path):
    module, seen = toy_module(), []
    stage = dataclasses.replace(
        toy_stage(module, save_every=8), validate=lambda step, folder: seen.append((step, weights(module)))
    )
    run_stage(stage, tmp_path)
    assert [step for step, _ in seen] == [8, 16, 23]
    state = load_state(tmp_path / "state.pt")
    assert state is not None
    shown = seen[-1][1]
    assert all(torch.equal(shown[key], value) for key, value in state["averages"].items())
    assert not any(torch.equal(state["module"][key], value) for key, value in state["averages"].items())
    assert same(weights(module), shown)


def test_a_loss_that_is_not_a_number_stops_the_stage(tmp_path: Path):
    module = toy_module()

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        return toy_loss(module, step) * (math.nan if step == 7 else 1.0), {}

    with pytest.raises(RuntimeError, match="stage toy: the loss became nan at step 7; lower the learning rate"):
        run_stage(dataclasses.replace(toy_stage(module), loss=loss), tmp_path)
    state = load_state(tmp_path / "state.pt")
    assert state is not None
    assert state["step"] == 5
    assert all(torch.isfinite(value).all() for value in state["module"].values())


def test_a_stage_of_no_steps_reports_nothing(tmp_path: Path):
    module = toy_module()
    before = weights(module)
    assert run_stage(toy_stage(module, iterations=0), tmp_path) == {}
    assert same(weights(module), before)


# ---- learning rate and averages -------------------------------------------------------------------------------------


def test_the_learning_rate_warms_up_stays_and_falls_as_half_a_cosine():
    settings = StageConfig(iterations=1000, warmup=50, decay_from=0.6, learning_rate=2.0, final_rate=0.1)
    rates = np.array([learning_rate(settings, step) for step in range(1001)])
    np.testing.assert_allclose(rates[:50], 2.0 * np.arange(1, 51) / 50)
    np.testing.assert_allclose(rates[50:601], 2.0)
    share = (np.arange(600, 1001) - 600) / 400
    np.testing.assert_allclose(rates[600:], 2.0 * (0.1 + 0.9 * (1 + np.cos(np.pi * share)) / 2))
    assert rates[-1] == pytest.approx(0.2)
    assert learning_rate(settings, 5000) == pytest.approx(0.2)


def test_a_stage_without_warm_up_or_decay_has_one_rate():
    settings = StageConfig(iterations=10, warmup=0, decay_from=1.0, learning_rate=0.3)
    assert {round(learning_rate(settings, step), 9) for step in range(10)} == {0.3}


def test_averages_are_warm_at_the_start():
    """After the first step they are mostly the live weights, later they remember 1 / (1 - decay) steps."""
    parameter = nn.Parameter(torch.zeros(1, dtype=torch.float64))
    averages, expected = Averages([("x", parameter)], 0.99), 0.0
    for step in range(400):
        with torch.no_grad():
            parameter.fill_(math.sin(step) + step)
        averages.update(step)
        decay = min(0.99, (step + 1) / (step + 12))
        expected = decay * expected + (1 - decay) * (math.sin(step) + step)
        assert float(averages.values[0]) == pytest.approx(expected)
        if step == 30:
            assert float(averages.values[0]) > 20  # a cold start with 0.99 would still be near 4
    averages.swap()
    assert float(parameter.detach()) == pytest.approx(expected)
    averages.swap()
    assert float(parameter.detach()) == math.sin(399) + 399


# ---- training state on disk -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", b"not a state", b"PK\x03\x04 torn"])
def test_a_damaged_state_says_what_to_do(tmp_path: Path, content: bytes):
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"state\.pt cannot be read .*; delete it to restart its stage") as caught:
        run_stage(toy_stage(toy_module()), tmp_path)
    assert "\n" not in str(caught.value)


# ---- several processes ----------------------------------------------------------------------------------------------


def different_experts(folder: str) -> None:
    """Three experts, of which each process opens one; the last is open nowhere."""
    experts = nn.ModuleList(nn.Linear(2, 1, bias=False) for _ in range(3))
    number = parallel.rank()
    loss = 10.0 * (number + 1) * experts[number](torch.ones(1, 2)).sum()
    loss.backward()
    mean = parallel.average_gradients(list(experts.parameters()), loss)
    grads = [None if p.grad is None else p.grad.clone() for p in experts.parameters()]
    torch.save({"grads": grads, "mean": mean, "loss": float(loss.detach())}, Path(folder) / f"{number}.pt")


def test_processes_average_each_parameter_with_itself(tmp_path: Path):
    """A clip opens only the experts of its emotion, so the processes hold gradients of different parameters."""
    parallel.launch(2, functools.partial(different_experts, str(tmp_path)))
    results = [torch.load(tmp_path / f"{number}.pt", weights_only=True) for number in range(2)]
    for result in results:
        assert result["mean"] == pytest.approx((results[0]["loss"] + results[1]["loss"]) / 2)
        assert torch.equal(result["grads"][0], torch.full((1, 2), 5.0))
        assert torch.equal(result["grads"][1], torch.full((1, 2), 10.0))
        assert result["grads"][2] is None, "an expert that no process opened must not be decayed"
