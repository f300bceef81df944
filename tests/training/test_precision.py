"""precision = "auto": measured on the machine, and kept with the run."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path

import pytest
import torch

from training import precision
from training.config import TrainConfig, load_config
from training.run import settle_precision

SMOKE = Path(__file__).resolve().parents[2] / "training" / "configs" / "smoke.toml"


def auto() -> TrainConfig:
    return dataclasses.replace(load_config(SMOKE), precision="auto")


@pytest.mark.parametrize(("slow", "wanted"), [(torch.bfloat16, "fp32"), (torch.float32, "bf16")])
def test_the_faster_one_is_taken(monkeypatch: pytest.MonkeyPatch, slow: torch.dtype, wanted: str):
    real = torch.Tensor.__matmul__

    def product(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        if a.dtype == slow:
            time.sleep(0.3)  # what arithmetic in software feels like
        return real(a, b)

    monkeypatch.setattr(precision, "SIDE", 8)
    monkeypatch.setattr(torch.Tensor, "__matmul__", product)
    assert precision.faster_precision("cpu") == wanted


def test_this_machine_gets_an_answer_quickly():
    began = time.process_time()
    assert precision.faster_precision("cpu") in ("bf16", "fp32")
    assert time.process_time() - began < 30


def test_a_new_run_is_measured_and_a_continued_one_keeps_its_precision(tmp_path: Path):
    assert settle_precision(auto(), tmp_path).precision == precision.faster_precision("cpu")
    for kept in ("bf16", "fp32"):
        (tmp_path / "config.json").write_text(json.dumps({"precision": kept}), encoding="utf-8")
        assert settle_precision(auto(), tmp_path).precision == kept


def test_a_precision_that_was_asked_for_is_not_changed(tmp_path: Path):
    for asked in ("bf16", "fp32"):
        config = dataclasses.replace(auto(), precision=asked)
        assert settle_precision(config, tmp_path) is config
