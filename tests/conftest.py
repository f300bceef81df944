"""What every test shares: markers that skip with the name of what is missing, and one seed."""

from __future__ import annotations

import os
import sys

import pytest


def _missing(marker: str) -> str | None:
    """What to provide for tests of ``marker``; None when it is there."""
    if marker == "comfy" and not os.environ.get("COMFYUI_PATH"):
        return "set COMFYUI_PATH to a ComfyUI checkout"
    if marker == "weights" and not os.environ.get("MOEE_WEIGHTS"):
        return "set MOEE_WEIGHTS to a folder with the public checkpoints"
    if marker == "gpu":
        import torch

        if not torch.cuda.is_available():
            return "needs a CUDA device"
    return None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--parity", action="store_true", help="print the table of the authors' numbers that were compared")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    if not config.getoption("--parity"):
        return
    from .fixtures.parity import table

    terminalreporter.section("parity with the authors' numbers")
    for line in table():
        terminalreporter.write_line(line)


def pytest_runtest_setup(item: pytest.Item) -> None:
    for marker in ("comfy", "weights", "gpu"):
        if item.get_closest_marker(marker) and (reason := _missing(marker)):
            pytest.skip(reason)


@pytest.fixture(autouse=True)
def _same_numbers_in_any_order() -> None:
    """Seed PyTorch before each test, so that a test gives the same numbers alone and among others."""
    torch = sys.modules.get("torch")  # tests that do not use PyTorch need not wait for it
    if torch is not None:
        torch.manual_seed(0)
