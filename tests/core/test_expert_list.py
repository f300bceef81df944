"""``python -m moee_core experts list``, and what an expert's file may hold: hostile headers end in a line each."""

from __future__ import annotations

import base64
import json
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import moee_core.experts.commands as commands_module
from moee_core.errors import CheckpointError
from moee_core.experts.file import (
    MAX_CARD,
    MAX_HEADER,
    MAX_METADATA,
    ExpertFile,
    card_text,
    combined,
    inspect_expert,
    load_expert,
    save_expert,
)
from moee_core.weights.checkpoint import state_hash

from .test_expert_commands import (
    SAD,
    Command,
    caller,
    denoiser,
    hash_of,
    only,
    picture,
    refuses,
    save_experts,
    save_models,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def experts(capsys: pytest.CaptureFixture[str]) -> Command:
    return caller(capsys)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def made(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_experts(models, tmp_path_factory.mktemp("made"))


def test_a_list_says_what_files_are_and_whether_they_fit(models: Path, made: Path, tmp_path: Path, experts: Command):
    (tmp_path / "card.json").write_text('{"emotion": 0.96, "people": 50}')
    shown, face = tmp_path / "shown.safetensors", picture(tmp_path / "face.png", 64, 64)
    given = ("--preview", face, "--card", tmp_path / "card.json", "--name", "Warm", "--author", "Mira")
    assert experts("merge", made / "smile.safetensors", "-o", shown, *given).code == 0
    outcome = experts("list", shown, made, "--model", models / "base.safetensors")
    assert outcome.code == 0
    head, first, *rest = outcome.out.splitlines()
    assert head.split("  ")[0] == "file"
    for text in ("happy", hash_of(models / "base.safetensors"), "kB", "CC0-1.0", "unstated", "Mira: Warm"):
        assert text in first
    assert "emotion 0.96, people 50" in first
    assert first.endswith("yes")
    assert [line.split("/")[-1].split()[0] for line in rest] == sorted(path.name for path in made.iterdir())
    assert [line.split()[3] for line in rest] == ["no", "yes", "yes", "yes"]  # elsewhere, frown, grin, smile


def test_a_list_as_json_has_everything(models: Path, made: Path, experts: Command):
    outcome = experts("list", made / "smile.safetensors", made / "elsewhere.safetensors", "--json")
    assert outcome.code == 0
    found = json.loads(outcome.out)
    assert "embedded.safetensors" in found["model"]  # the default
    assert [one["fits"] for one in found["experts"]] == [False, False]
    outcome = experts("list", made / "smile.safetensors", "--json", "--model", models / "base.safetensors")
    (one,) = json.loads(outcome.out)["experts"]
    assert one == {
        "file": str(made / "smile.safetensors"),
        "emotion": "happy",
        "base": hash_of(models / "base.safetensors"),
        "bytes": (made / "smile.safetensors").stat().st_size,
        "licence": "CC0-1.0",
        "data_licence": "unstated",
        "name": "",
        "author": "Mira",
        "note": "",
        "evaluation": {},
        "preview": False,
        "fits": True,
    }


def with_header(path: Path, header: bytes, data: bytes = b"") -> Path:
    path.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return path


def header_of(metadata: object, key: str = "a.emotion.expert.to_q", **entry: object) -> bytes:
    tensor = {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]} | entry
    return json.dumps({"__metadata__": metadata, key: tensor}).encode()


GOOD = {"architecture": "moee-expert", "format": "1", "emotion": "happy", "base": "b"}
DATA = b"\0" * 4
HOSTILE = {
    "huge": (b" " * (MAX_HEADER + 1), b"", "an expert's at most"),
    "promises": (b"", b"", "not a safetensors file"),
    "no_json": (b"{{{{", b"", "header is not JSON"),
    "deep": (b"[" * 100_000, b"", "not a safetensors file"),
    "digits": (b'{"__metadata__": {"a": ' + b"9" * 5000 + b"}}", b"", "not a safetensors file"),
    "text_metadata": (header_of("no table"), DATA, "not a safetensors file"),
    "number_metadata": (header_of(GOOD | {"name": 5}), DATA, "metadata are not texts"),
    "shape": (header_of(GOOD, shape=[2**62, 2**62]), DATA, "damaged"),
    "negative": (header_of(GOOD, shape=[-2]), DATA, "damaged"),
    "no_shape": (header_of(GOOD, shape=None), DATA, "damaged"),
    "offsets": (header_of(GOOD, data_offsets=[2, 4]), DATA, "damaged"),
    "dtype": (header_of(GOOD, dtype="F7"), DATA, "damaged"),
    "foreign": (header_of({"architecture": "flux"}), DATA, "not an emotion expert"),
    "keys": (header_of(GOOD, key="weight"), DATA, "holds no expert's weights"),
    "cut": (header_of(GOOD), DATA[:2], "damaged"),
    "no_base64": (header_of(GOOD | {"preview": "%%%"}), DATA, "not base64"),
    "no_jpeg": (header_of(GOOD | {"preview": base64.b64encode(b"GIF89a").decode()}), DATA, "not a whole JPEG"),
    "long_preview": (header_of(GOOD | {"preview": "A" * 90_000}), DATA, "at most 64 KB"),
    "card_list": (header_of(GOOD | {"evaluation": "[1]"}), DATA, "not a JSON object"),
    "card_long": (header_of(GOOD | {"evaluation": " " * 9000 + "{}"}), DATA, "at most 8192"),
    "card_deep": (header_of(GOOD | {"evaluation": '{"a":' * 900 + "1" + "}" * 900}), DATA, "evaluation card is"),
}


def test_broken_and_foreign_files_are_listed_with_their_error(
    models: Path, made: Path, tmp_path: Path, experts: Command
):
    for name, (header, data, _) in HOSTILE.items():
        with_header(tmp_path / f"{name}.safetensors", header, data)
    (tmp_path / "promises.safetensors").write_bytes(struct.pack("<Q", 2**63))
    (tmp_path / "empty.safetensors").write_bytes(b"")
    says = {name: text for name, (_, _, text) in HOSTILE.items()} | {"empty": "not a safetensors file"}
    gone = tmp_path / "gone.safetensors"
    paths = (tmp_path, models / "base.safetensors", gone, made / "smile.safetensors")
    outcome = experts("list", *paths, "--model", models / "base.safetensors")
    assert outcome.code == 1
    assert outcome.err == ""
    rows = outcome.out.splitlines()[1:]
    lines = {Path(line.split()[0]).stem: line for line in rows}
    assert lines.keys() == says.keys() | {"base", "gone", "smile"}
    for name, text in says.items() | {("base", "not an emotion expert"), ("gone", "no such file")}:
        assert "error: " in lines[name]
        assert text in lines[name], lines[name]
    assert "happy" in lines["smile"]
    outcome = experts("list", *paths, "--model", models / "base.safetensors", "--json")
    assert outcome.code == 1
    errors = [one["file"] for one in json.loads(outcome.out)["experts"] if "error" in one]
    assert len(errors) == len(says) + 2


def test_a_preview_larger_than_it_may_be_is_refused_without_decoding_it():
    _, data = cv2.imencode(".jpg", np.zeros((64, 64, 3), np.uint8))
    whole = data.tobytes()
    frame = whole.index(b"\xff\xc0")
    bomb = whole[: frame + 5] + struct.pack(">HH", 60_000, 60_000) + whole[frame + 9 :]
    expert = ExpertFile(emotion="happy", base="b", deltas={}, metadata={})

    def preview_of(picture: bytes) -> bytes | None:
        return replace(expert, metadata={"preview": base64.b64encode(picture).decode()}).preview()

    assert expert.preview() is None
    assert preview_of(whole) == whole
    with pytest.raises(CheckpointError, match="60000x60000 pixels"):
        preview_of(bomb)
    for end in range(0, len(whole) - 1, 7):  # cut anywhere
        with pytest.raises(CheckpointError, match="whole JPEG"):
            preview_of(whole[:end] + b"\xff\xd9" if end < frame else whole[:end])


def test_text_from_files_cannot_steer_the_terminal(models: Path, made: Path, tmp_path: Path, experts: Command):
    smile = load_expert(made / "smile.safetensors")
    about = {"name": "\x1b[2Jclear\nline", "licence": "x" * 500, "evaluation": '{"a\\u001b": "\\u0007"}'}
    save_expert(tmp_path / "e.safetensors", "happy", smile.base, smile.deltas, about)
    outcome = experts("list", tmp_path, "--model", models / "base.safetensors")
    assert outcome.code == 0
    assert len(outcome.out.splitlines()) == 2
    assert all(letter.isprintable() for letter in outcome.out.replace("\n", ""))
    assert len(outcome.out.splitlines()[1]) < 300


def test_an_empty_folder_and_the_default_folder(
    models: Path, made: Path, tmp_path: Path, experts: Command, monkeypatch: pytest.MonkeyPatch
):
    outcome = experts("list", tmp_path, "--model", models / "base.safetensors")
    assert outcome.code == 0
    assert "no .safetensors files" in outcome.out
    monkeypatch.chdir(made)
    assert "smile.safetensors" in experts("list", "--model", models / "base.safetensors").out
    host = tmp_path / "ComfyUI"
    (host / "models" / "moee" / "experts" / "mine").mkdir(parents=True)
    (host / "models/moee/experts/mine/e.safetensors").write_bytes((made / "smile.safetensors").read_bytes())
    inside = host / "custom_nodes" / "pack" / "moee_core" / "experts" / "commands.py"
    monkeypatch.setattr(commands_module, "__file__", str(inside))
    assert "e.safetensors" in experts("list", "--model", models / "base.safetensors").out


def test_a_model_that_cannot_be_read_ends_the_list(made: Path, experts: Command):
    refuses(experts("list", made, "--model", made / "smile.safetensors"), "not a MoEE checkpoint")


# the library


def test_combined_checks_every_expert_and_weight(models: Path, made: Path):
    base = denoiser(models / "base.safetensors")
    shapes = {key: value.shape for key, value in base.items()}
    smile, frown, grin = (load_expert(made / f"{name}.safetensors") for name in ("smile", "frown", "grin"))
    found = combined([(smile, 0.5), (frown, 1.0), (grin, -1.0)], state_hash(base), shapes)
    assert all(value.dtype == torch.float32 for value in found.values())
    for key, value in found.items():
        if f".experts.{SAD}." in key:
            assert torch.equal(value, frown.for_denoiser()[key].float())
        else:
            parts = smile.for_denoiser()[key].float() * 0.5 - grin.for_denoiser()[key].float()
            torch.testing.assert_close(value, parts, rtol=0, atol=0)
    assert combined([], state_hash(base), shapes) == {}
    with pytest.raises(ValueError, match=r"frown\.safetensors: its weight must be a number from -2 to 2, got 2\.5"):
        combined([(smile, 1.0), (frown, 2.5)], state_hash(base), shapes)
    with pytest.raises(CheckpointError, match=r"smile\.safetensors was trained from another model"):
        combined([(smile, 1.0)], "else", shapes)
    with pytest.raises(CheckpointError, match="this model has None"):
        combined([(smile, 1.0)], state_hash(base), {})
    with pytest.raises(CheckpointError, match="no expert for 'joy'"):
        smile.for_denoiser("joy")


def test_inspecting_reads_all_but_the_weights(made: Path):
    whole, header = load_expert(made / "smile.safetensors"), inspect_expert(made / "smile.safetensors")
    assert (header.emotion, header.base, header.metadata) == (whole.emotion, whole.base, whole.metadata)
    assert {key: value.shape for key, value in header.deltas.items()} == {k: v.shape for k, v in whole.deltas.items()}
    assert all(value.is_meta for value in header.deltas.values())


def test_a_card_that_no_reader_takes_is_not_written(tmp_path: Path, made: Path):
    assert json.loads(card_text({"people": 50})) == {"people": 50}
    for card in ({"a": float("nan")}, {"a": object()}, {"a": "x" * MAX_CARD}):
        with pytest.raises(CheckpointError, match="evaluation card"):
            card_text(card)
    smile = load_expert(made / "smile.safetensors")
    with pytest.raises(CheckpointError, match="shorten 'note'"):
        save_expert(tmp_path / "e.safetensors", "happy", smile.base, smile.deltas, {"note": "x" * MAX_METADATA})
    only(tmp_path)


def test_the_command_costs_nothing_at_import():
    heavy = "{'torch', 'cv2', 'safetensors', 'av'} & set(sys.modules)"
    code = f"import sys, moee_core.experts.commands; print(sorted({heavy}))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
