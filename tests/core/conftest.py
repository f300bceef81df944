"""What tests of the whole chain share: the tiny checkpoint, made once per session."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from moee_core.systems.hallo import HalloSystem
from moee_core.weights.hallo import load_hallo

from ..fixtures.hallo_parity import TINY as HALLO
from ..fixtures.hallo_parity import write_hallo
from ..fixtures.tiny import save_tiny


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "tiny.safetensors")


@pytest.fixture(scope="session")
def hallo_files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """net.pth and autoencoder of the tiny Hallo, with made-up weights."""
    return write_hallo(tmp_path_factory.mktemp("hallo"))


@pytest.fixture(scope="session")
def hallo(hallo_files: tuple[Path, Path]) -> HalloSystem:
    """The tiny Hallo, for all tests; who changes it changes a copy."""
    return load_hallo(*hallo_files, HALLO)


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """At these sizes a second thread only waits for the first; on a busy machine it makes a test ten times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
