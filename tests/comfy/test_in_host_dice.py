"""DICE-Talk inside a real ComfyUI, with made-up weights at a small width. Needs what ``test_in_host.py`` needs.

``in_host_dice.py`` holds what is done there; here is what must come of it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from ..fixtures.dice import PUBLISHED_LIKE, SMALL_LIKE, write_dice, write_rife, write_whisper
from .in_host_dice import CUSTOM, EAR, PUBLISHED, RIFE, SMALL
from .test_in_host import HOST, ROOT, in_host

pytestmark = [pytest.mark.comfy, pytest.mark.skipif(not HOST, reason="COMFYUI_PATH names no checkout")]
FEW = {key: value for key, value in CUSTOM.items() if key != "sampling"} | {"steps": 2}
NON_COMMERCIAL = "CC BY-NC-SA 4.0, non-commercial"


def prepared(folder: Path) -> Path:
    models = folder / "models" / "moee"
    write_dice(models / "dice_talk" / SMALL, SMALL_LIKE, "Apache-2.0")
    write_dice(models / "dice_talk" / PUBLISHED, PUBLISHED_LIKE, NON_COMMERCIAL)
    write_whisper(models / "encoders" / EAR)
    write_rife(models / "rife" / RIFE)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_host(prepared(tmp_path_factory.mktemp("small")), "dice", "small")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_host(prepared(tmp_path_factory.mktemp("published")), "dice", "published", seconds=1200)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_host(prepared(tmp_path_factory.mktemp("core")), "dice", "core")


def test_a_clip_from_loader_to_video(small: dict[str, Any]):
    """0.3 seconds at 25 frames a second are 8, and the clap is heard where it was."""
    assert small["licence"] == "Apache-2.0"
    assert small["latent"][0] == [8, 16, 16, 16]
    assert small["latent"][1] > 0.1
    video = small["video"]
    assert (video["frames"], video["fps"], video["size"], video["claps"]) == (8, 25.0, [128, 128], 1)
    assert video["off"] < 0.03


def test_one_seed_is_one_clip(small: dict[str, Any]):
    assert small["finished"], "taken from the job"
    assert small["repeats"], "sampled anew"
    for what in ("another seed", "another emotion", "timeline", "voice", "off"):
        assert small[what] > 1e-4, what


def test_weights_of_other_types_and_loras(small: dict[str, Any]):
    stored = {kind: dtype.removeprefix("torch.") for kind, (dtype, _) in small["types"].items()}
    assert stored == {"fp16": "float16", "bf16": "bfloat16", "fp8_e4m3fn": "float8_e4m3fn"}
    for kind, least in (("fp16", 0.01), ("bf16", 0.05), ("fp8_e4m3fn", 0.2)):
        assert small["types"][kind][1] < least, kind
    assert small["lora"] > 0.01


def test_scales_that_are_alike_cost_nothing(small: dict[str, Any]):
    """Passes for every frame and step: one for every different scale."""
    assert list(small["passes"].values()) == [1, 2, 3, 4]


def test_it_can_be_loaded_partially(small: dict[str, Any]):
    assert small["partial"] == {"left": [], "parents": []}


def test_a_clip_is_what_the_library_gives(small: dict[str, Any]):
    found = small["library"]
    sys.stdout.write(f"latents: largest difference {found['largest']:.2g}, mean {found['mean']:.2g}\n")
    assert found["std"] > 0.1
    assert found["largest"] < 1e-3 * found["std"]
    assert found["frames"] == 8


def test_priors_by_name_of_a_video_and_from_a_file(small: dict[str, Any]):
    found = small["priors"]
    assert "happy" in found["about"]
    assert found["named"], "the same as the text alone"
    assert found["half"] < 1e-5, "half as far from neutral is half as strong"
    assert found["video"] == "of 12 frames and a voice (Apache-2.0)"
    assert (found["face alone"], found["voice alone"]) == ("of 12 frames (Apache-2.0)", "of a voice (Apache-2.0)")
    assert found["read"][0] > 1e-3
    assert found["read"][1] > 1e-5, "drawn from the Gaussian"
    assert found["saved"] == ["smug_look.safetensors", True]
    assert found["called"] == [0.0, 0.0], "from its file, and by its @name"


def test_a_prior_that_cannot_be_is_refused(small: dict[str, Any]):
    said = {
        "changing": "this emotion changes over time",
        "nothing": "connect image (the frames of a video), audio (its sound), or both",
        "no embedder": "the embedder of the published one was not published; choose a prior by its emotion",
        "no such name": "there is no prior of '@nobody'",
    }
    for name, words in said.items():
        assert words in small["priors"]["refused"][name]


def test_the_published_kind_is_drawn_and_doubled(published: dict[str, Any]):
    """12.5 frames a second of 0.3 s are 4; doubled they are 8 at 25, for which 5 are drawn."""
    assert published["licence"] == NON_COMMERCIAL
    assert published["latent"] == [[5, 4, 64, 64], 12.5]
    assert (published["0.3"]["frames"], published["0.3"]["fps"]) == (4, 12.5)
    assert (published["0.3 doubled"]["frames"], published["0.3 doubled"]["fps"]) == (8, 25.0)
    for name in ("0.3", "0.3 doubled"):
        assert published[name]["size"] == [512, 512]
        assert published[name]["off"] < 0.03
    assert published["3:4"] == [[2, 4, 88, 64], True]


def test_what_the_published_kind_lacks_is_named(published: dict[str, Any]):
    said = {
        "another rate": "these frames are drawn at 12.5 a second and fps is 25",
        "no ear": "choose whisper-tiny as speech_encoder in Load DICE-Talk Model",
        "no vae": "connect vae: the one of Stable Video Diffusion",
        "no clip": "connect clip_vision to Load DICE-Talk Model",
        "no face": "Face Points",  # whether none was found, or nothing is installed that could find one
        "face of another picture": "the face was marked on a 512x512 picture, the portrait is 384x512",
        "vae of another model": "the model draws 4 channels",
    }
    assert set(published["refused"]) == set(said)
    for name, words in said.items():
        assert words in published["refused"][name]


def test_cores_samplers_go_through_shifted_windows(core: dict[str, Any]):
    assert len(core["samplers"]) == 5
    for name, (finite, shape, spread) in core["samplers"].items():
        assert finite, name
        assert shape == [12, 16, 16, 16]
        assert spread > 0.1, name
    assert core["without windows"]
    assert core["overlap"] > 1e-4
    assert core["cancel"] == "InterruptProcessingException"
    assert core["other model"] == [[25, 16, 16, 16], True]


def test_cores_guider_of_two_scales_is_the_authors_guidance(core: dict[str, Any]):
    assert core["dual"] < 1e-4
    assert core["video"]["frames"] == 8, "padding is not shown"


def test_wrong_connections_are_explained(core: dict[str, Any]):
    said = {
        "short latent": "the latent has 5 frames and the conditioning 12",
        "text": "not from a text encoder",
        "other model": "this MODEL is not DICE-Talk's",
        "overlap": "windows of 4 frames can overlap in 0 to 3",
    }
    for name, words in said.items():
        assert words in core["refused"][name]


def test_a_run_that_was_stopped_goes_on_with_the_same_frames(tmp_path: Path):
    """Six steps of three windows, stopped in the fourth step: the third is done anew."""
    found = in_host(prepared(tmp_path), "dice", "resumed")
    assert found["same"]
    assert (found["begins"], found["ends"]) == (6, 18)
    assert found["kept"] == ["steps.npz"]
    assert found["left"] == ["latents.npy"]


@pytest.mark.parametrize("name", ["dice_talk_prior", "dice_talk_reference_video"])
def test_the_workflows_run_with_a_model_of_ones_own(tmp_path: Path, name: str):
    graph = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    for node in graph.values():
        if node["class_type"] == "MoEELoadDiceTalk":
            node["inputs"]["checkpoint"] = SMALL
        if node["class_type"] == "MoEEDiceSampler":
            node["inputs"] |= {f"sampling.{key}": value for key, value in FEW.items()} | {"sampling": "custom"}
    path = tmp_path / "graph.json"
    path.write_text(json.dumps(graph), encoding="utf-8")
    result = in_host(prepared(tmp_path / "base"), "workflow", str(path))
    assert result["valid"], result
    assert result["success"], result["errors"]
    assert result["files"] == [f"output/video/{name}_00001_.mp4"]


@pytest.mark.slow
def test_every_length_is_exact_and_memory_grows_with_the_latents(tmp_path: Path):
    found = in_host(prepared(tmp_path), "dice", "lengths", seconds=3600)
    for seconds, frames in (("0.3", 8), ("1.0", 25), ("24.0", 600), ("95.0", 2375)):
        assert found[seconds]["frames"] == frames
        assert found[seconds]["claps"] == -(-float(seconds) // 0.5)
        assert found[seconds]["off"] < 0.03
    grown = found["95.0"]["peak_mb"] - found["24.0"]["peak_mb"]
    assert grown < 8 * found["95.0"]["latents_mb"], found
