"""``inspect`` and ``convert`` on the command line: what a file is, what it serves for, what is missing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from moee_core.__main__ import EMBEDDED, main
from moee_core.emotion.vocabulary import LABELS
from moee_core.errors import CheckpointError
from moee_core.weights.checkpoint import config_to_dict, read_header
from moee_core.weights.detect import detect, kind_of
from moee_core.weights.dice_file import load_dice_file
from moee_core.weights.dice_talk import FILES
from moee_core.weights.hallo import load_hallo_base
from moee_core.weights.rife import rife_shapes

from ..fixtures.hallo_parity import TINY, manifest
from .test_dice_talk import TINY as DICE
from .test_dice_talk import made_up, write_files

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    def run(*arguments: object) -> tuple[int, str, str]:
        code = main([str(one) for one in arguments])
        out, err = capsys.readouterr()
        return code, out, err

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


# ---- DICE-Talk ------------------------------------------------------------------------------------------------------


@pytest.fixture
def dice(tmp_path: Path) -> Path:
    """DICE-Talk's downloads as its authors' instructions lay them out, tiny."""
    folder = tmp_path / "checkpoints"
    (folder / "DICE-Talk").mkdir(parents=True)
    write_files(folder / "DICE-Talk", made_up())
    (folder / "whisper-tiny").mkdir()
    (folder / "whisper-tiny" / "config.json").write_text('{"model_type": "whisper"}', encoding="utf-8")
    marks = kind_of("whisper").marks
    save_file({f"model.{key}": torch.zeros(1) for key in marks}, folder / "whisper-tiny" / "model.safetensors")
    (folder / "RIFE").mkdir()
    torch.save({f"module.{key}": torch.zeros(1) for key in rife_shapes()}, folder / "RIFE" / "flownet.pkl")
    (folder / "emo").mkdir()
    for label in LABELS:
        mu = np.array({"mu": np.full((1, 6), len(label), np.float32)}, dtype=object)
        np.save(folder / "emo" / f"{label}.npy", mu, allow_pickle=True)
    return folder


@pytest.fixture
def dice_sizes(tmp_path: Path) -> Path:
    path = tmp_path / "dice.json"
    path.write_text(json.dumps(config_to_dict(DICE)), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("file", "title", "licence"),
    [
        ("DICE-Talk/unet.pth", "DICE-Talk's UNet (unet.pth)", "non-commercial"),
        ("DICE-Talk/audio_linear.pth", "DICE-Talk's speech tokens", "non-commercial"),
        ("DICE-Talk/emo_model.pth", "DICE-Talk's emotion model", "non-commercial"),
        ("DICE-Talk/pose_guider.pth", "DICE-Talk's face locator", "non-commercial"),
        ("whisper-tiny/model.safetensors", "Whisper", "Apache-2.0"),
        ("RIFE/flownet.pkl", "RIFE's frame interpolation", "MIT"),
        ("emo/angry.npy", "an emotion prior", "non-commercial"),
    ],
)
def test_each_of_dice_talks_files_is_described(call: Call, dice: Path, file: str, title: str, licence: str):
    code, out, err = call("inspect", dice / file)
    assert (code, err) == (0, "")
    assert f"kind:         {title}" in out
    assert re.search(rf"^licence: .*{licence}", out, re.MULTILINE)
    assert f"{(dice / file).stat().st_size / 1e6:.2f} MB" in out
    assert ("then:         python -m moee_core convert FOLDER" in out) == file.startswith("DICE-Talk")
    body = json.loads(call("inspect", "--json", dice / file)[1])
    assert licence in body["licence"]
    assert bool(body["missing"]) == ("still needed: " in out) == (not file.startswith("RIFE"))


def test_a_folder_of_dice_talk_is_surveyed(call: Call, dice: Path):
    code, out, err = call("inspect", dice)
    assert (code, err) == (0, "")
    assert "not known here" not in out
    assert re.search(
        r"^DICE-Talk's UNet \(unet\.pth\): .* \(DICE-Talk: CC BY-NC-SA 4\.0, non-commercial", out, re.MULTILINE
    )
    assert re.search(r"^    DICE-Talk.unet\.pth \(\d+\.\d\d MB\)$", out, re.MULTILINE)
    assert out.endswith("for DICE-Talk still needed: nothing\n")
    assert "Hallo" not in out
    shutil.rmtree(dice / "emo")
    (dice / "DICE-Talk" / "emo_model.pth").unlink()
    out = call("inspect", dice)[1]
    assert out.endswith("for DICE-Talk still needed: DICE-Talk's emotion model (emo_model.pth); an emotion prior\n")
    body = json.loads(call("inspect", dice, "--json")[1])
    assert body["missing_for_dice_talk"] == ["DICE-Talk's emotion model (emo_model.pth)", "an emotion prior"]


def test_dice_talk_is_converted_and_described(call: Call, dice: Path, dice_sizes: Path, tmp_path: Path):
    """A folder, priors and all; and again by the sizes of the first."""
    output = tmp_path / "models" / "dice.safetensors"
    code, out, err = call("convert", dice, "--config", dice_sizes, "-o", output)
    assert (code, err) == (0, "")
    assert str(output) in out
    assert str(dice / "emo") in out
    loaded = load_dice_file(output)
    assert loaded.config == replace(DICE, named_priors=True)
    assert loaded.priors.weight[:, 0].tolist() == [len(label) for label in LABELS]
    out = call("inspect", output)[1]
    for word in (
        " a DICE-Talk in one file\n",
        "12.5 fps, windows of 4 frames",
        "4 codes of 12, priors of 6 numbers, those of the labels with it",
        "made of unet:",
        "made of priors:",
        "unet.pth",
        "non-commercial",
        "MEAD",
        " Whisper\n",
    ):
        assert word in out
    again = tmp_path / "again.safetensors"
    files = [dice / "DICE-Talk" / name for name, _ in FILES.values()]
    assert call("convert", *files, "--config", dice_sizes, "--dtype", "fp32", "-o", again)[0] == 0
    assert load_dice_file(again).config == DICE, "no priors were given"
    assert re.search(r"still needed: +Whisper; an emotion prior\n$", call("inspect", again)[1])
    third = tmp_path / "third.safetensors"
    assert call("convert", dice, "--config", output, "-o", third)[0] == 0, "sizes are read off a file too"
    assert load_dice_file(third).config == loaded.config


def test_adapters_are_completed_when_converted(call: Call, dice: Path, dice_sizes: Path, tmp_path: Path):
    whole = dice / "DICE-Talk" / "unet.pth"
    state = torch.load(whole, weights_only=True)
    adapters = {key: value for key, value in state.items() if ".processor." in key}
    torch.save({key: value for key, value in adapters.items()}, whole)
    output = tmp_path / "dice.safetensors"
    out = call("inspect", whole)[1]
    assert "kind:         DICE-Talk's adapters" in out
    assert "convert FOLDER svd_xt.safetensors -o ComfyUI/models/moee/dice_talk/" in out
    assert re.search(r"still needed: .*Stable Video Diffusion's UNet", out)
    code, _, err = call("convert", dice, "--config", dice_sizes, "-o", output)
    assert code == 2
    assert "Stable Video Diffusion's UNet as diffusers names it is not among what was given" in err
    svd = dice / "svd" / "unet" / "diffusion_pytorch_model.fp16.safetensors"
    svd.parent.mkdir(parents=True)
    save_file({key: value.clone() for key, value in state.items() if key not in adapters}, svd)
    out = call("inspect", svd)[1]
    assert "kind:         Stable Video Diffusion's UNet" in out
    assert "Stability AI's licence" in out
    code, out, err = call("convert", dice, "--config", dice_sizes, "-o", output)
    assert (code, err) == (0, "")
    assert str(svd) in out
    expected = made_up().state_dict()
    found = load_dice_file(output).state_dict()
    assert all(torch.equal(found[key], value.half().float()) for key, value in expected.items())
    assert "made of base:" in call("inspect", output)[1]


def test_what_of_dice_talk_cannot_be_converted(
    call: Call, dice: Path, dice_sizes: Path, hallo_files: tuple[Path, Path], tmp_path: Path
):
    output = tmp_path / "dice.safetensors"

    def refused(*arguments: object) -> str:
        code, out, err = call("convert", *arguments)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert not output.exists()
        return err

    files = [dice / "DICE-Talk" / name for name, _ in FILES.values()]
    assert "DICE-Talk's face locator (pose_guider.pth) is not among" in refused(*files[:3], "-o", output)
    assert "DICE-Talk's UNet (unet.pth) is not among" in refused(*files[1:], "-o", output)
    assert "tensors do not fit" in refused(dice, "-o", output), "these are not of the published size"
    assert "of Hallo and of DICE-Talk were given" in refused(*files, hallo_files[0], "-o", output)
    copy = shutil.copy(files[1], dice / "other.pth")
    assert "2 files are DICE-Talk's speech tokens" in refused(dice, "--config", dice_sizes, "-o", output)
    Path(copy).unlink()
    shutil.copytree(dice / "emo", dice / "emo2")
    assert "both hold priors of all labels" in refused(dice, "--config", dice_sizes, "-o", output)
    (tmp_path / "wrong.json").write_text('{"unet": {"colour": 3}}', encoding="utf-8")
    assert "unknown setting 'colour'" in refused(*files, "--config", tmp_path / "wrong.json", "-o", output)
    part = {key: value for key, value in torch.load(files[0], weights_only=True).items() if "up_blocks" not in key}
    torch.save(part, files[0])
    assert "tensors do not fit: 'up_blocks" in refused(*files, "--config", dice_sizes, "-o", output)


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        (["vision_model.embeddings.patch_embedding.weight"], None),
        (["encoder.conv_in.weight", "decoder.time_conv_out.weight"], "svd_autoencoder"),
        (["model.diffusion_model.input_blocks.0.0.weight", "conditioner.x"], None),
        (
            [
                "model.diffusion_model.input_blocks.0.0.weight",
                "model.diffusion_model.input_blocks.1.1.time_stack.0.attn1.to_q.weight",
                "conditioner.x",
            ],
            "svd_single",
        ),
    ],
)
def test_relatives_are_told_apart(tmp_path: Path, keys: list[str], name: str | None):
    path = tmp_path / "some.safetensors"
    save_file({key: torch.zeros(1) for key in keys}, path)
    if name is not None:
        assert detect(path).name == name
        return
    with pytest.raises(CheckpointError, match="none of the files"):
        detect(path)
