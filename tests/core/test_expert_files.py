"""An emotion expert as a file: what goes in comes out, and what does not fit is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moee_core.emotion.vocabulary import EXPERTS
from moee_core.errors import CheckpointError
from moee_core.experts.file import check_fits, expert_deltas, load_expert, save_expert
from moee_core.weights.checkpoint import load_parts, save_system, state_hash

from ..fixtures.tiny import tiny_system


def tuned_and_base() -> tuple[dict, dict]:
    base = {key: value.clone() for key, value in tiny_system().denoiser.state_dict().items()}
    tuned = {key: value + 0.25 if ".experts.3." in key else value for key, value in base.items()}
    return tuned, base


def test_an_expert_comes_back_as_it_was_saved(tmp_path: Path):
    tuned, base = tuned_and_base()
    deltas = expert_deltas(tuned, base, "happy")
    save_expert(tmp_path / "smile.safetensors", "happy", state_hash(base), deltas, {"author": "me"})
    expert = load_expert(tmp_path / "smile.safetensors")
    assert expert.emotion == "happy"
    assert expert.metadata["author"] == "me"
    check_fits(expert, "smile", state_hash(base), {key: value.shape for key, value in base.items()})
    changed = expert.for_denoiser()
    assert set(changed) == {key for key in base if ".experts.3." in key}
    for key, value in changed.items():
        torch.testing.assert_close(base[key] + value.float(), tuned[key])
    assert all(".experts.4." in key for key in expert.for_denoiser("sad"))


def test_only_the_named_expert_is_in_the_file():
    tuned, base = tuned_and_base()
    assert all(value.abs().max() == 0 for value in expert_deltas(tuned, base, "sad").values())
    with pytest.raises(CheckpointError, match="no expert for 'joy'"):
        expert_deltas(tuned, base, "joy")


def test_another_base_and_another_size_are_refused(tmp_path: Path):
    tuned, base = tuned_and_base()
    save_expert(tmp_path / "e.safetensors", "happy", "abc", expert_deltas(tuned, base, "happy"))
    expert = load_expert(tmp_path / "e.safetensors")
    shapes = {key: value.shape for key, value in base.items()}
    with pytest.raises(CheckpointError, match="trained from another model"):
        check_fits(expert, "e", "def", shapes)
    with pytest.raises(CheckpointError, match="this model has None"):
        check_fits(expert, "e", "abc", {})


@pytest.mark.parametrize(
    ("metadata", "says"),
    [
        ({"architecture": "lora"}, "not an emotion expert"),
        ({"architecture": "moee-expert", "format": "7"}, "has format '7'"),
        ({"architecture": "moee-expert", "format": "1", "emotion": "joy"}, "serves 'joy'"),
        ({"architecture": "moee-expert", "format": "1", "emotion": EXPERTS[0]}, "holds no expert's weights"),
    ],
)
def test_another_kind_of_file_is_named(tmp_path: Path, metadata: dict[str, str], says: str):
    save_file({"x": torch.zeros(1)}, str(tmp_path / "f.safetensors"), metadata=metadata)
    with pytest.raises(CheckpointError, match=says):
        load_expert(tmp_path / "f.safetensors")


def test_parts_are_the_whole_checkpoint(tmp_path: Path):
    system = tiny_system()
    save_system(tmp_path / "m.safetensors", system, dtype=torch.float32)
    parts, info = load_parts(tmp_path / "m.safetensors")
    joined = {f"{part}.{key}": value for part, state in parts.items() for key, value in state.items()}
    assert joined.keys() == system.state_dict().keys()
    assert all(torch.equal(joined[key], value) for key, value in system.state_dict().items())
    assert info.config == system.config
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "m.safetensors").read_bytes()[:-8])
    with pytest.raises(CheckpointError, match="damaged"):
        load_parts(tmp_path / "cut.safetensors")
