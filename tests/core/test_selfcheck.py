"""``selfcheck``: this machine agrees with what is stored, and a machine that computes something else is told so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moee_core import selfcheck
from moee_core.__main__ import main


def only_base(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all runs the one in float32 that is fast."""
    chosen = [one for one in selfcheck.runs("cpu") if one[0] == "Hallo base, float32"]
    assert len(chosen) == 1
    monkeypatch.setattr(selfcheck, "runs", lambda device: iter(chosen))


def test_a_cpu_agrees(capsys: pytest.CaptureFixture[str]):
    """Here every part is as near as storing in half precision allows, which the other types are not."""
    assert main(["selfcheck", "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "all parts agree" in out
    assert "DIFFERS" not in out
    lines = [line.split() for line in out.splitlines()[2:-1]]
    assert len(lines) == 2 + 3 * 6
    exact = [float(words[-2]) for words in lines if "float32:" in words or "model:" in words]
    assert len(exact) == 8
    assert max(exact) < 1e-3


@pytest.mark.parametrize("fault", ["other", "nan"])
def test_a_part_that_differs_is_named(
    fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    stored = load_file(selfcheck.STORED)
    stored["base.emotion"] = stored["base.emotion"] * (float("nan") if fault == "nan" else 1.02)
    save_file(stored, tmp_path / "other.safetensors")
    monkeypatch.setattr(selfcheck, "STORED", tmp_path / "other.safetensors")
    only_base(monkeypatch)
    assert main(["selfcheck"]) == 1
    out = capsys.readouterr().out
    assert next(line for line in out.splitlines() if "DIFFERS" in line).startswith("Hallo base, float32: emotion")
    assert "1 parts differ" in out
    assert "the first is Hallo base, float32: emotion" in out


@pytest.mark.parametrize(
    "part",
    ["attn1.to_k", "attn2.to_v", "speech.1.to_v", "zero_convs.2", "experts.0.to_out", "motion.attentions.1.to_v"],
)
def test_a_layer_that_computes_nothing_is_noticed(part: str, monkeypatch: pytest.MonkeyPatch):
    """A fault in one kind of layer is far above what is allowed in any type."""
    rule = selfcheck.ruled

    def faulty(name: str, shape: tuple[int, ...]) -> Tensor:
        numbers = rule(name, shape)
        return torch.zeros_like(numbers) if part in name and name.startswith("denoiser.") else numbers

    monkeypatch.setattr(selfcheck, "ruled", faulty)
    only_base(monkeypatch)
    found = {one.name.split(": ")[1]: one for one in selfcheck.check("cpu")}
    assert not found["window"].passed
    assert found["encoder"].passed, "the others are as they were"
    assert found["window"].difference > 0.02


def test_a_device_that_is_not_there_is_refused(capsys: pytest.CaptureFixture[str]):
    assert main(["selfcheck", "--device", "cuda:99"]) == 2
    assert "--device 'cuda:99' cannot be used here" in capsys.readouterr().err


def test_numbers_are_the_same_on_every_machine():
    """NumPy keeps this generator as it is; PyTorch's may change with its release."""
    assert selfcheck.ruled("a.weight", (2, 2)).flatten().tolist() == pytest.approx(
        [float(x) for x in selfcheck.ruled("a.weight", (4, 1)).flatten() / 2**0.5], rel=1e-6
    )
    assert selfcheck.given("noise", 1000).std() == pytest.approx(1.0, abs=0.1)
    assert selfcheck.given("noise", 4).tolist() == pytest.approx(NOISE, abs=1e-5)


NOISE = [1.064099, 0.324367, 1.289361, 0.339046]
