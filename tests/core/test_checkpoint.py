"""Weight files: what is saved comes back, what does not fit is refused in one line, a failed save harms nothing."""

from __future__ import annotations

import dataclasses
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from moee_core.errors import CheckpointError, MoEEError
from moee_core.networks.config import FULL_SIZE, SystemConfig
from moee_core.ops import Build
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import (
    config_from_dict,
    inspect_checkpoint,
    load_system,
    read_header,
    save_system,
    state_hash,
)
from training.checkpoint import load_state, save_state

from ..fixtures.tiny import TINY, tiny_system

ONE_TENSOR = {"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}


@pytest.fixture(scope="module")
def system() -> MoEESystem:
    return tiny_system()


@pytest.fixture(scope="module")
def exact(system: MoEESystem, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny system in full precision."""
    path = tmp_path_factory.mktemp("weights") / "exact.safetensors"
    save_system(path, system, metadata={"domain": '{"reconstruction_error": 9.5}'}, dtype=torch.float32)
    return path


def rewritten(path: Path, target: Path, change: Any = None, **metadata: str) -> Path:
    """A copy with other tensors (``change`` edits the dict) or other metadata."""
    state = load_file(str(path))
    with safe_open(str(path), framework="pt") as stream:
        header = {**stream.metadata(), **metadata}
    if change is not None:
        change(state)
    save_file(state, str(target), metadata=header)
    return target


def raw(path: Path, header: Any, data: bytes = b"") -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


def refusal(call: Any, *arguments: Any) -> str:
    with pytest.raises(CheckpointError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 300, message
    return message


# ---- there and back -------------------------------------------------------------------------------------------------


def test_full_precision_comes_back_bit_for_bit(exact: Path, system: MoEESystem):
    loaded, _ = load_system(exact)
    before, after = system.state_dict(), loaded.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_half_precision_is_the_default_on_disk_and_single_in_memory(system: MoEESystem, tmp_path: Path):
    save_system(tmp_path / "half.safetensors", system)
    loaded, info = load_system(tmp_path / "half.safetensors")
    assert set(info.dtypes.values()) == {"F16"}
    for key, value in loaded.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(value, system.state_dict()[key].half().float())


def test_the_build_chooses_another_precision(exact: Path, system: MoEESystem):
    loaded, _ = load_system(exact, Build(dtype=torch.bfloat16))
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, system.state_dict()[key].bfloat16())


@pytest.mark.parametrize("config", [TINY, FULL_SIZE])
def test_a_configuration_survives_json(config: SystemConfig):
    assert config_from_dict(SystemConfig, json.loads(json.dumps(dataclasses.asdict(config)))) == config


def test_a_file_tells_what_it_holds_without_its_tensors(exact: Path, system: MoEESystem):
    info = inspect_checkpoint(exact)
    assert info.config == TINY
    assert info.domain == {"reconstruction_error": 9.5}
    assert info.parameters == sum(parameter.numel() for parameter in system.parameters())
    assert info.shapes == {key: tuple(value.shape) for key, value in system.state_dict().items()}
    assert info.metadata["licence"] == "Apache-2.0"


def test_a_folder_on_the_way_is_made(system: MoEESystem, tmp_path: Path):
    save_system(tmp_path / "a" / "b.safetensors", system)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.safetensors"]


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [0, 7, 8, 200, -1])
def test_a_truncated_file_is_refused(exact: Path, tmp_path: Path, part: int):
    path = tmp_path / "short.safetensors"
    path.write_bytes(exact.read_bytes()[:part])
    assert "short.safetensors" in refusal(load_system, path)


def test_a_file_with_something_behind_it_is_refused(exact: Path, tmp_path: Path):
    path = tmp_path / "long.safetensors"
    path.write_bytes(exact.read_bytes() + b"\x00")
    size = path.stat().st_size
    assert f"{size} bytes, its header promises {size - 1}" in refusal(load_system, path)


@pytest.mark.parametrize(
    "content",
    [b"", b"hello", b"This is a readme that someone renamed.\n" * 50, b"\x89PNG\r\n\x1a\n" * 40, b"PK\x03\x04" * 100],
)
def test_another_kind_of_file_is_refused(tmp_path: Path, content: bytes):
    path = tmp_path / "renamed.safetensors"
    path.write_bytes(content)
    assert "renamed.safetensors is not a safetensors file" in refusal(load_system, path)


@pytest.mark.parametrize(
    "header",
    [
        b"{not json",
        b"\xff\xfe\xfd",
        [1],
        "text",
        {"x": 1},
        {"x": {"dtype": "F32", "shape": [1]}},
        {"__metadata__": [1]},
    ],
)
def test_a_broken_header_is_refused(tmp_path: Path, header: Any):
    assert "broken.safetensors" in refusal(load_system, raw(tmp_path / "broken.safetensors", header))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path):
    assert "No such file" in refusal(load_system, tmp_path / "none.safetensors")
    assert "not a file" in refusal(load_system, tmp_path)


def test_a_missing_a_strange_and_a_misshapen_tensor_are_named(exact: Path, tmp_path: Path):
    key = "denoiser.conv_out.bias"

    def misshapen(state: dict[str, Tensor]) -> None:
        state[key] = torch.zeros(5)

    for name, change, words in (
        ("missing", lambda state: state.pop(key), f"{key!r} is missing"),
        ("strange", lambda state: state.update({"stranger": torch.zeros(1)}), "'stranger' is unknown"),
        ("shape", misshapen, f"{key!r} has shape (5,), this architecture needs (4,)"),
    ):
        path = rewritten(exact, tmp_path / f"{name}.safetensors", change)
        message = refusal(load_system, path)
        assert path.name in message
        assert words in message


def test_weights_of_another_size_are_refused(exact: Path, tmp_path: Path):
    wide = dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, audio_width=24))
    config = json.dumps(dataclasses.asdict(wide))
    assert "this architecture needs" in refusal(
        load_system, rewritten(exact, tmp_path / "wide.safetensors", config=config)
    )


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        ({"architecture": "sdxl"}, "is not a MoEE checkpoint (architecture 'sdxl'"),
        ({"format": "2"}, "has format '2', this version reads 1"),
        ({"config": "{"}, "its metadata cannot be used"),
        ({"config": "{}"}, "its metadata cannot be used"),
        ({"config": "null"}, "its metadata cannot be used"),
        (
            {"config": '{"image_side": 3}'},
            "unknown setting 'image_side' in SystemConfig; the file is from a newer version",
        ),
    ],
)
def test_metadata_of_another_kind_is_refused(exact: Path, tmp_path: Path, metadata: dict[str, str], words: str):
    path = rewritten(exact, tmp_path / "other.safetensors", **metadata)
    assert words in refusal(load_system, path)


def test_anothers_checkpoint_is_recognised_as_such(tmp_path: Path):
    save_file({"conv_in.weight": torch.zeros(2)}, str(tmp_path / "sd15.safetensors"))
    message = refusal(load_system, tmp_path / "sd15.safetensors")
    assert "not a MoEE checkpoint (no architecture in its metadata, 1 tensors)" in message


def test_every_refusal_can_be_caught_as_our_error_and_as_a_value_error():
    assert issubclass(CheckpointError, MoEEError)
    assert issubclass(CheckpointError, ValueError)


def test_a_header_alone_can_be_read(tmp_path: Path):
    path = raw(tmp_path / "tiny.safetensors", {**ONE_TENSOR, "__metadata__": {"a": "b"}}, b"\x00" * 4)
    assert read_header(path) == (ONE_TENSOR, {"a": "b"})


# ---- writing --------------------------------------------------------------------------------------------------------


def test_a_failing_save_leaves_the_old_file(system: MoEESystem, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    save_system(path, system, metadata={"stage": "old"})
    before = path.read_bytes()
    with pytest.raises(TypeError):
        save_system(path, system, metadata={"stage": 3})  # type: ignore[dict-item]
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["model.safetensors"], "nothing temporary may stay"


def test_a_save_that_cannot_take_its_place_leaves_nothing_behind(system: MoEESystem, tmp_path: Path):
    (tmp_path / "taken" / "inside").mkdir(parents=True)
    with pytest.raises(OSError, match="taken"):
        save_system(tmp_path / "taken", system)
    assert [one.name for one in tmp_path.iterdir()] == ["taken"]


def test_a_new_file_replaces_the_old_one_whole(system: MoEESystem, tmp_path: Path):
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"old" * 1_000_000)
    save_system(path, system)
    assert load_system(path)[1].config == TINY


def test_a_saved_file_is_as_readable_as_any_other(system: MoEESystem, tmp_path: Path):
    (tmp_path / "plain").touch()
    save_system(tmp_path / "model.safetensors", system)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_hash_of_weights_knows_content_and_names_but_not_order():
    a, b = torch.randn(3), torch.randn(2, 2)
    state = {"a": a, "b": b}
    assert state_hash(state) == state_hash({"b": b.clone(), "a": a.clone()})
    assert len({state_hash(one) for one in (state, {"a": a}, {"a": a, "c": b}, {"a": a, "b": b + 1e-6})}) == 4


def test_training_state_is_written_whole_or_not_at_all(tmp_path: Path):
    path = tmp_path / "run" / "state.pt"
    assert load_state(path) is None
    save_state(path, {"step": 3, "x": torch.arange(3)})
    with pytest.raises(Exception, match=r"(?i)pickle"):
        save_state(path, {"step": 4, "x": lambda: None})
    state = load_state(path)
    assert state is not None
    assert state["step"] == 3
    assert torch.equal(state["x"], torch.arange(3))
    assert [one.name for one in path.parent.iterdir()] == ["state.pt"]
