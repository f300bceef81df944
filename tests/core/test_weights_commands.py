"""``inspect`` and ``convert`` on the command line: what a file is, what it serves for, what is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from moee_core.__main__ import EMBEDDED, main
from moee_core.weights.checkpoint import config_to_dict, read_header
from moee_core.weights.hallo import load_hallo_base

from ..fixtures.hallo_parity import TINY, manifest

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(one) for one in arguments])
        return code, *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def sizes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sizes") / "tiny.json"
    path.write_text(json.dumps(config_to_dict(TINY)), encoding="utf-8")
    return path


@pytest.fixture
def downloads(hallo_files: tuple[Path, Path], tmp_path: Path) -> Path:
    """As the authors' instructions lay them out."""
    folder = tmp_path / "pretrained_models"
    for path, place in zip(hallo_files, ("hallo", "sd-vae-ft-mse"), strict=True):
        (folder / place).mkdir(parents=True)
        shutil.copy(path, folder / place)
    return folder


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("net", ["Hallo's networks (net.pth)", "the base of MoEE", "still needed:", "autoencoder", "wav2vec 2.0"]),
        ("vae", ["Stable Diffusion's autoencoder", "still needed:", "net.pth"]),
        ("motion", ["AnimateDiff's motion modules", "start a base of one's own"]),
    ],
)
def test_a_published_file_is_described(call: Call, tmp_path: Path, name: str, words: list[str]):
    save_file({key: torch.zeros(1) for key in manifest(name)}, tmp_path / "some.safetensors")
    code, out, err = call("inspect", tmp_path / "some.safetensors")
    assert (code, err) == (0, "")
    for word in (*words, f"{len(manifest(name)):,} in {len(manifest(name))} tensors"):
        assert word in out
    body = json.loads(call("inspect", "--json", tmp_path / "some.safetensors")[1])
    assert body["parameters"] == len(manifest(name))
    assert bool(body["missing"]) == ("still needed:" in words)


def test_a_pickle_is_described(call: Call, hallo_files: tuple[Path, Path]):
    code, out, err = call("inspect", hallo_files[0])
    assert (code, err) == (0, "")
    assert "kind:         Hallo's networks (net.pth)" in out
    assert "then:         python -m moee_core convert" in out


def test_wav2vec2_without_its_settings_is_a_relative(call: Call, tmp_path: Path):
    save_file({key: torch.zeros(1) for key in manifest("wav2vec2")}, tmp_path / "model.safetensors")
    out = call("inspect", tmp_path / "model.safetensors")[1]
    assert "wav2vec 2.0 or a relative" in out
    assert "once the config.json it was published with lies beside it" in out
    assert "wav2vec 2.0 or a relative" in call("inspect", tmp_path)[1]


def test_a_folder_of_downloads_is_surveyed(call: Call, downloads: Path):
    (downloads / "notes.pt").write_bytes(b"no weights")
    code, out, err = call("inspect", downloads)
    assert (code, err) == (0, "")
    assert str(Path("hallo") / "net.pth") in out
    assert "not known here:\n    notes.pt" in out
    assert out.endswith("for a Hallo base still needed: wav2vec 2.0\n")
    body = json.loads(call("inspect", downloads, "--json")[1])
    assert set(body["files"]) == {"hallo", "autoencoder"}
    assert body["missing"] == ["wav2vec 2.0"]


def test_what_ships_is_known(call: Call):
    code, out, _ = call("inspect", Path(EMBEDDED).parent)
    assert code == 0
    assert "not known here" not in out
    assert "Hallo" not in out, "nothing of a base lies there, so nothing of it is missing"
    for title in ("a MoEE checkpoint", "an EmoTalker", "an emotion expert", "an expression reader"):
        assert f"{title}: " in out


def test_a_folder_without_weights_is_refused(call: Call, tmp_path: Path):
    (tmp_path / "notes.pt").write_bytes(b"no weights")
    code, out, err = call("inspect", tmp_path)
    assert (code, out) == (2, "")
    assert "holds no weights that are known here (1 other files, for example notes.pt)" in err


@pytest.mark.parametrize("dtype", ["fp16", "bf16", "fp32"])
def test_a_base_is_converted_and_described(call: Call, hallo_files: tuple[Path, Path], sizes: Path, dtype: str):
    output = sizes.parent / f"{dtype}.safetensors"
    code, out, err = call("convert", *hallo_files, "--config", sizes, "--dtype", dtype, "-o", output)
    assert (code, err) == (0, "")
    assert str(output) in out
    assert {entry["dtype"] for entry in read_header(output)[0].values()} == {dtype.replace("fp", "F").upper()}
    system, metadata = load_hallo_base(output)
    assert system.config == TINY
    out = call("inspect", output)[1]
    for word in (
        "a converted Hallo base",
        "128 px, 25 fps, windows of 4 frames",
        "made of net:",
        "net.pth",
        "still needed:",
        "wav2vec 2.0",
        "OpenRAIL",
    ):
        assert word in out
    assert json.loads(call("inspect", "--json", output)[1])["metadata"] == metadata
    again = sizes.parent / f"{dtype}_again.safetensors"
    assert call("convert", *hallo_files, "--config", output, "-o", again)[0] == 0, "sizes are read off a base too"


def test_a_folder_is_converted(call: Call, downloads: Path, sizes: Path, tmp_path: Path):
    """A pickle whose twin lies beside it as safetensors is left aside; a file that is named wins over the folder."""
    vae = downloads / "sd-vae-ft-mse" / "vae.safetensors"
    torch.save({key: torch.zeros(1) for key in manifest("vae")}, vae.with_suffix(".bin"))
    output = tmp_path / "base.safetensors"
    assert call("convert", downloads, "--config", sizes, "-o", output)[0] == 0
    other = shutil.copy(vae, vae.with_name("other.safetensors"))
    code, _, err = call("convert", downloads, "--config", sizes, "--force", "-o", output)
    assert code == 2
    assert "2 files are Stable Diffusion's autoencoder" in err
    assert "name the one to take beside the folder" in err
    assert call("convert", downloads, other, "--config", sizes, "--force", "-o", output)[0] == 0
    assert json.loads(read_header(output)[1]["sources"])["autoencoder"]["name"] == "other.safetensors"


def test_what_cannot_be_converted_is_refused(
    call: Call, hallo_files: tuple[Path, Path], downloads: Path, sizes: Path, tmp_path: Path
):
    net, vae = hallo_files
    output = tmp_path / "base.safetensors"

    def refused(*arguments: object) -> str:
        code, out, err = call("convert", *arguments)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        return err

    assert "Stable Diffusion's autoencoder" in refused(net, "-o", output)
    assert "is not among what was given (Hallo's networks (net.pth))" in refused(net, "-o", output)
    (tmp_path / "empty").mkdir()
    assert "is not among what was given (no weights)" in refused(tmp_path / "empty", "-o", output)
    assert "must end in .safetensors" in refused(net, vae, "-o", tmp_path / "base.pth")
    assert "tensors do not fit" in refused(net, vae, "-o", output), "these are not of the published size"
    output.write_bytes(b"mine")
    assert "exists; give another name, or --force" in refused(net, vae, "--config", sizes, "-o", output)
    assert output.read_bytes() == b"mine"
    inside = downloads / "sd-vae-ft-mse" / "vae.safetensors"
    assert "is one of the files to read" in refused(downloads, "--config", sizes, "--force", "-o", inside)
    (tmp_path / "wrong.json").write_text('{"unet": {"colour": 3}}', encoding="utf-8")
    assert "unknown setting 'colour'" in refused(net, vae, "--config", tmp_path / "wrong.json", "--force", "-o", output)
