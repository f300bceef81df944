"""DICE-Talk's nodes against the recorded APIs: files of priors, names, choices, what they say; no ComfyUI needed."""

from __future__ import annotations

import asyncio
import importlib
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from moee_core.__main__ import main
from moee_core.emotion.priors import Prior, write_prior
from moee_core.emotion.vocabulary import LABELS
from moee_core.renderer.detector import _for_pictures
from moee_core.weights.dice_talk import FILES, PLACE, stable_video_shapes

from ..core.test_dice_talk import made_up as published_parts
from ..core.test_dice_talk import write_files
from ..fixtures.dice import SMALL_LIKE, write_dice
from ..fixtures.host_double import PACK, VERSIONS, host

WIDTH = SMALL_LIKE.bank.prior_width


@pytest.fixture
def nodes(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Node id -> class, with the modules of the pack importable."""
    with host(VERSIONS[-1], tmp_path) as pack:
        listed = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
        yield {node.define_schema().node_id: node for node in listed}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "moee" / "dice_talk" / "priors"
    found.mkdir(parents=True)
    return found


def module(name: str) -> ModuleType:
    return importlib.import_module(f"{PACK}.nodes.{name}")


def encoders(*own: str) -> Any:
    """What Load DICE-Talk Model gives, without the networks, which are not asked for here."""
    prior = importlib.import_module(f"{PACK}.moee_core.emotion.priors").Prior
    parts = dict.fromkeys(("around", "ear", "vae", "clip_vision"))
    priors = {label: prior(mean=np.zeros(WIDTH, np.float32)) for label in own}
    kind = module("dice_sockets").DiceEncoders
    return kind(config=SMALL_LIKE, key="k", licence="ours", own_priors=priors, **parts)


def put(folder: Path, name: str, value: float, width: int = WIDTH) -> Path:
    """A prior of one number as a file."""
    path = folder / name
    mean = np.full(width, value, np.float32)
    if path.suffix == ".npy":
        np.save(path, mean)
    else:
        write_prior(path, Prior(mean=mean))
    return path


def by_name(encoders: Any) -> dict[str, float]:
    return {name: float(prior.mean[0]) for name, prior in module("dice_models").known_priors(encoders).items()}


# ---- files of priors ------------------------------------------------------------------------------------------------


def test_a_file_that_was_put_there_after_the_error_is_used(nodes: dict, folder: Path):
    """The encoders stay as they were loaded, and the host is told to ask again."""
    given = encoders("neutral")
    asked = {
        name: nodes[name].fingerprint_inputs for name in ("MoEEDicePrior", "MoEEDiceSampler", "MoEEDiceConditioning")
    }
    before = {name: ask(encoders=None, emotion="happy", source={}) for name, ask in asked.items()}
    with pytest.raises(ValueError, match=r"no prior of 'happy'.*models/moee/dice_talk/priors"):
        module("dice_conditions").as_prior(given, "happy").rows(1, 25.0)
    put(folder, "happy.npy", 3.0)
    assert all(ask() != before[name] for name, ask in asked.items())
    assert module("dice_conditions").as_prior(given, "happy").rows(1, 25.0)[0, 0] == 3.0
    made = nodes["MoEEDicePrior"].execute(given, {"source": "emotion", "emotion": "happy"}, 1.0, 0).args[0]
    assert made.rows(1, 25.0)[0, 0] == 3.0


def test_a_file_that_was_written_anew_is_read_anew(nodes: dict, folder: Path):
    given, source = encoders("neutral"), {"source": "file", "file": "smug.safetensors", "draw": "mean"}
    put(folder, "smug.safetensors", 1.0)
    first, plain = nodes["MoEEDicePrior"].fingerprint_inputs(), nodes["MoEEDicePrior"].execute(given, source, 1.0, 0)
    put(folder, "smug.safetensors", 1.0)
    assert nodes["MoEEDicePrior"].fingerprint_inputs() == first, "the same numbers are the same file"
    put(folder, "smug.safetensors", 2.0)
    assert nodes["MoEEDicePrior"].fingerprint_inputs() != first
    again = nodes["MoEEDicePrior"].execute(given, source, 1.0, 0)
    assert [one.args[0].rows(1, 25.0)[0, 0] for one in (plain, again)] == [1.0, 2.0]


def test_odd_files_are_left_out_and_named(nodes: dict, folder: Path, caplog: pytest.LogCaptureFixture):
    put(folder, "angry.npy", 2.0)
    put(folder, "smug.safetensors", 5.0)
    (folder / "._angry.npy").write_bytes(b"\0\5\x16\7")
    (folder / "weights.safetensors").write_bytes(b"no header")
    (folder / "broken.npy").write_bytes(b"<html>")
    odd = [put(folder, "angry (1).npy", 9.0), put(folder, "2nd.npy", 9.0), folder / "broken.npy"]
    with caplog.at_level(logging.WARNING):
        assert by_name(encoders("neutral", "angry")) == {"neutral": 0.0, "angry": 2.0, "@smug": 5.0}
    assert len(caplog.records) == len(odd)
    for path in odd:
        assert any(str(path) in record.getMessage() for record in caplog.records), path
    group = nodes["MoEEDicePrior"].define_schema().inputs[1].options[1]
    listed = group.inputs[0].options
    assert "._angry.npy" not in listed
    assert "weights.safetensors" not in listed
    assert {"angry.npy", "smug.safetensors"} <= set(listed)


def test_a_prior_of_another_width_is_left_out(nodes: dict, folder: Path):
    put(folder, "angry.npy", 2.0, width=WIDTH + 1)
    assert by_name(encoders("angry")) == {"angry": 0.0}


def test_the_first_folder_wins_and_ours_before_the_authors(nodes: dict, folder: Path, tmp_path: Path):
    paths = importlib.import_module("folder_paths").folder_names_and_paths
    second = tmp_path / "second" / "dice_talk" / "priors"
    second.mkdir(parents=True)
    paths["moee"][0].append(str(tmp_path / "second"))
    put(folder, "angry.npy", 1.0)
    put(second, "angry.npy", 2.0)
    put(second, "anger.safetensors", 3.0)
    put(folder, "sad.npy", 4.0)
    put(folder, "sad.safetensors", 5.0)
    put(second, "happy.npy", 6.0)
    assert by_name(encoders()) == {"angry": 1.0, "sad": 5.0, "happy": 6.0}
    assert module("dice_models").prior_files()["angry.npy"].parent == folder


@pytest.mark.parametrize("name", ["angry", "joyful", "Fear", "@happy", " sad ", "neutrality"])
def test_a_prior_is_not_saved_under_an_emotions_name(nodes: dict, folder: Path, name: str):
    save = nodes["MoEESaveDicePrior"]
    said = save.validate_inputs(name=name)
    assert "means the emotion" in said
    assert "choose another name" in said.lower()
    kinds = importlib.import_module(f"{PACK}.moee_core.emotion.priors")
    held = kinds.Prior(mean=np.zeros(WIDTH, np.float32))
    prior = module("dice_sockets").DicePrior(about="x", known={}, prior=held)
    with pytest.raises(ValueError, match="means the emotion"):
        save.execute(prior, name)
    assert not list(folder.iterdir())
    assert save.validate_inputs(name="Smug look") is True
    assert Path(save.execute(prior, "Smug look").args[1]).name == "smug_look.safetensors"
    assert set(by_name(encoders())) == {"@smug_look"}


def test_saving_what_was_saved_changes_nothing(nodes: dict, folder: Path):
    """The file is among the priors that the next one is made of; a graph that saves must come to rest."""
    put(folder, "smug.npy", 2.0)
    save, given = nodes["MoEESaveDicePrior"], encoders("neutral")
    seen = []
    for _ in range(3):
        prior = nodes["MoEEDicePrior"].execute(given, {"source": "emotion", "emotion": "@smug"}, 1.0, 0).args[0]
        save.execute(prior, "copy")
        seen.append(nodes["MoEEDicePrior"].fingerprint_inputs())
    assert len(set(seen)) == 1


# ---- choices --------------------------------------------------------------------------------------------------------


def test_the_entry_for_no_file_says_which_file_and_where(nodes: dict):
    rife = nodes["MoEELoadRIFE"]
    none = rife.define_schema().inputs[0].default
    assert "put flownet.pkl into models/moee/rife" in rife.validate_inputs(file=none)
    with pytest.raises(ValueError, match=r"no file is chosen: put flownet\.pkl into models/moee/rife"):
        rife.execute(none)
    assert "gone.pkl is not in models/moee/rife" in rife.validate_inputs(file="gone.pkl")
    prior = nodes["MoEEDicePrior"]
    source = {"source": "file", "file": module("dice_prior").NO_FILE, "draw": "mean"}
    assert "into models/moee/dice_talk/priors" in prior.validate_inputs(source=source)
    with pytest.raises(ValueError, match=r"no file is chosen: put \.npy or \.safetensors files into"):
        prior.execute(encoders("neutral"), source, 1.0, 0)
    assert prior.validate_inputs(source={"source": "emotion", "emotion": "happy"}) is True


def test_what_inspect_says_to_write_is_what_the_loader_lists(
    nodes: dict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The path at the end of the printed command, below ComfyUI's folder."""
    downloads = tmp_path / "downloads"
    downloads.mkdir()
    write_files(downloads, published_parts())
    assert main(["inspect", str(downloads / "unet.pth")]) == 0
    command = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("then:"))
    printed = command.split(" -o ")[1].strip()
    assert printed == f"ComfyUI/{PLACE}"
    path = tmp_path / printed.removeprefix("ComfyUI/models/")
    write_dice(path, SMALL_LIKE, "Apache-2.0")
    assert path.name in nodes["MoEELoadDiceTalk"].define_schema().inputs[0].options
    assert nodes["MoEELoadDiceTalk"].validate_inputs(checkpoint=path.name) is True


def test_a_folder_with_adapters_alone_is_refused_before_the_queue_starts(nodes: dict, tmp_path: Path):
    folder = tmp_path / "moee" / "dice_talk" / "downloads"
    folder.mkdir(parents=True)
    for name, _ in FILES.values():
        torch.save({"an.adapter": torch.zeros(1)}, folder / name)
    said = nodes["MoEELoadDiceTalk"].validate_inputs(checkpoint="downloads")
    assert "downloads/unet.pth holds the adapters alone" in said
    assert "convert FOLDER svd_xt.safetensors -o ComfyUI/models/moee/dice_talk/" in said
    theirs = FILES["unet"][1].theirs(next(iter(stable_video_shapes(module("dice_models").PUBLISHED.unet))))
    torch.save({theirs: torch.zeros(1)}, folder / "unet.pth")
    assert nodes["MoEELoadDiceTalk"].validate_inputs(checkpoint="downloads") is True


# ---- pictures -------------------------------------------------------------------------------------------------------


def test_what_could_find_a_face_is_named_where_nothing_is_installed(
    nodes: dict, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    """The published kind stops; the small one takes a face in the middle and says so."""
    monkeypatch.delattr(cv2, "CascadeClassifier", raising=False)
    monkeypatch.setitem(sys.modules, "mediapipe", None)
    _for_pictures.cache_clear()
    conditions, image = module("dice_conditions"), torch.rand(1, 128, 128, 3)
    published = encoders()
    with pytest.raises(ValueError, match=r"nothing that finds faces is installed .*Face Points"):
        conditions.seen_portrait(published, image, None)
    with caplog.at_level(logging.WARNING):
        seen = conditions.seen_portrait(replace(published, image_size=64), image, None)
    assert seen.picture_HW3.shape == (64, 64, 3)
    assert "a face in the middle of the picture is assumed: nothing that finds faces is installed" in caplog.text


@pytest.mark.parametrize(("latent", "said"), [(0.0, "the VAE makes NaN"), (float("nan"), "the latent of frame")])
def test_a_frame_that_is_no_picture_is_an_error_with_its_number(
    nodes: dict, monkeypatch: pytest.MonkeyPatch, latent: float, said: str
):
    video = module("video")
    monkeypatch.setattr(video.mm, "throw_exception_if_processing_interrupted", lambda: None, raising=False)
    samples = torch.zeros(video.DECODED_AT_ONCE + 3, 4, 2, 2)
    bad = video.DECODED_AT_ONCE + 1
    samples[bad] = latent
    calls = []

    def decode(part: torch.Tensor) -> torch.Tensor:
        pictures = torch.full((len(part), 16, 16, 3), 0.5)
        first = sum(calls)
        calls.append(len(part))
        if first <= bad < first + len(part):
            pictures[bad - first, 3, 3] = float("inf")
        return pictures

    frames = video._decoded(SimpleNamespace(decode=decode), samples)
    good = [next(frames) for _ in range(video.DECODED_AT_ONCE)]
    assert all(np.array_equal(one, np.full((16, 16, 3), 128, np.uint8)) for one in good)
    with pytest.raises(ValueError, match=rf"{said}.*frame {bad}|{said} {bad}") as caught:
        next(frames)
    assert "fp32" in str(caught.value)
    assert "bf16" in str(caught.value)


def test_labels_are_those_that_files_are_named_after(nodes: dict, folder: Path):
    for at, label in enumerate(LABELS):
        put(folder, f"{label}.npy", float(at))
    assert by_name(encoders()) == {label: float(at) for at, label in enumerate(LABELS)}
