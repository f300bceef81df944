"""What DICE-Talk hears with, and its files, against its authors' numbers and names, as ``test_dice_parity.py``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moee_core.audio.whisper import WhisperFeatures, load_whisper
from moee_core.weights.detect import detect
from moee_core.weights.dice_file import convert_dice_talk, load_dice_file
from moee_core.weights.dice_talk import ADAPTERS, FILES, PUBLISHED, dice_shapes, load_dice_talk
from moee_core.weights.stable_video import stable_video_shapes

from ..fixtures.parity import equals
from .test_dice_parity import TINY

FOLDER = Path(os.environ.get("MOEE_PARITY", "")) / "dice_talk"
pytestmark = pytest.mark.skipif(
    not os.environ.get("MOEE_PARITY") or not FOLDER.is_dir(), reason="MOEE_PARITY names no folder with dice_talk"
)


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    found = json.loads((FOLDER / "manifests" / f"{name}.json").read_text(encoding="utf-8"))["tensors"]
    return {key: tuple(shape) for key, shape in found.items()}


# ---- Whisper --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ear(tmp_path_factory: pytest.TempPathFactory) -> WhisperFeatures:
    folder = tmp_path_factory.mktemp("whisper")
    config = json.loads((FOLDER / "projections_tiny" / "config.json").read_text(encoding="utf-8"))
    settings = {"model_type": "whisper", **config["whisper_tiny_config"]}
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    state = load_file(FOLDER / "projections_tiny" / "whisper_encoder_weights.safetensors")
    save_file({f"model.encoder.{key}": value for key, value in state.items()}, folder / "model.safetensors")
    return load_whisper(folder)


def test_hidden_states(ear: WhisperFeatures):
    given = load_file(FOLDER / "projections_tiny" / "inputs.safetensors")["mel"]
    expected = load_file(FOLDER / "projections_tiny" / "outputs.safetensors")["whisper_hidden_states_first_300"][0]
    found = ear.states(given)
    assert found.shape == (1500, 5, 16)
    equals(found[:300], expected, 1e-4 * float(expected.abs().max()), "dice_talk projections_tiny/outputs whisper")


def test_names_of_the_published_whisper(tmp_path: Path):
    """167 tensors with the decoder's, of which 67 are heard with."""
    transformers = pytest.importorskip("transformers")
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    config = transformers.WhisperConfig(encoder_layers=4, encoder_attention_heads=6, d_model=384, encoder_ffn_dim=1536)
    with torch.device("meta"):
        shapes = {key: tuple(value.shape) for key, value in WhisperEncoder(config).state_dict().items()}
    known = manifest("whisper_tiny")
    assert len(known) == 167
    assert shapes == {key.removeprefix("encoder."): x for key, x in known.items() if key.startswith("encoder.")}
    settings = {"model_type": "whisper", **config.to_dict()}
    (tmp_path / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    state = {f"model.{key}": torch.zeros(shape, dtype=torch.float16) for key, shape in known.items()}
    save_file(state, tmp_path / "model.safetensors")
    assert (load_whisper(tmp_path).layers, load_whisper(tmp_path).width) == (5, 384)


# ---- the published files --------------------------------------------------------------------------------------------


def test_names_of_the_adapters_alone():
    """128 of the UNet's 1,556 tensors; the other 1,428 are Stable Video Diffusion's."""
    names = FILES["unet"][1]
    ours = {key.removeprefix("unet."): x for key, x in dice_shapes(PUBLISHED).items() if key.startswith("unet.")}
    adapters = {names.theirs(key): shape for key, shape in ours.items() if ADAPTERS in key}
    assert len(adapters) == 128
    assert adapters == manifest("unet_ip_only")
    plain = {names.theirs(key): shape for key, shape in ours.items() if ADAPTERS not in key}
    assert plain.keys() == {names.theirs(key) for key in stable_video_shapes()}
    svd = manifest("svd_xt_unet")
    assert len(svd) == 1428
    assert {key: (1,) if key.endswith("mix_factor") else shape for key, shape in plain.items()} == svd


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("unet", "dice_unet"),
        ("unet_ip_only", "dice_adapters"),
        ("audio_linear", "dice_audio"),
        ("emo_model", "dice_bank"),
        ("pose_guider", "dice_locator"),
        ("svd_xt_unet", "svd_unet"),
        ("svd_xt_vae", "svd_autoencoder"),
        ("rife_flownet", "rife"),
        ("whisper_tiny", "whisper"),
    ],
)
def test_every_published_file_is_told_by_its_names(tmp_path: Path, name: str, kind: str):
    (tmp_path / "config.json").write_text('{"model_type": "whisper"}', encoding="utf-8")
    path = tmp_path / "some.safetensors"
    save_file({key: torch.zeros(1) for key in manifest(name)}, path)
    assert detect(path).name == kind


def test_the_tiny_files_go_through_one_file(tmp_path: Path):
    """And through adapters alone, completed from the rest of the same UNet."""
    sources = {
        "unet": "unet_tiny/weights",
        "audio_projector": "projections_tiny/audio_linear_weights",
        "bank": "emotion_tiny/weights",
        "face_locator": "unet_tiny/pose_guider_weights",
    }
    files = {part: FOLDER / f"{name}.safetensors" for part, name in sources.items()}
    whole, completed = tmp_path / "whole.safetensors", tmp_path / "completed.safetensors"
    convert_dice_talk(files, whole, config=TINY, dtype=torch.float32)
    unet = load_file(files["unet"])
    save_file({key: x for key, x in unet.items() if ".processor." in key}, tmp_path / "unet.safetensors")
    save_file({key: x for key, x in unet.items() if ".processor." not in key}, tmp_path / "svd.safetensors")
    alone = {**files, "unet": tmp_path / "unet.safetensors"}
    convert_dice_talk(alone, completed, base=tmp_path / "svd.safetensors", config=TINY, dtype=torch.float32)
    expected = load_dice_file(whole).state_dict()
    assert {key: x for key, x in expected.items() if ADAPTERS in key}.keys()
    for key, value in load_dice_file(completed).state_dict().items():
        assert torch.equal(value, expected[key]), key
    folder = tmp_path / "four"
    folder.mkdir()
    for part, path in files.items():
        torch.save(load_file(path), folder / FILES[part][0])
    for key, value in load_dice_talk(folder, TINY).state_dict().items():
        assert torch.equal(value, expected[key]), key
