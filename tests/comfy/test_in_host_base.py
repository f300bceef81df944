"""A Hallo base inside a real ComfyUI, with made-up weights at a small width. Needs what ``test_in_host.py`` needs."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from moee_core.experts.file import portable, save_expert
from moee_core.weights.hallo import base_content, base_shapes, convert_hallo

from ..core.test_wav2vec2 import tiny_state
from ..fixtures.hallo_parity import TINY, write_hallo, write_wav2vec2
from .in_host_base import BASE, EAR, EXPERT
from .test_in_host import HOST, ROOT, in_host

pytestmark = [pytest.mark.comfy, pytest.mark.skipif(not HOST, reason="COMFYUI_PATH names no checkout")]
POINTS = ROOT / "moee_core" / "assets" / "portraits" / "mira.points.json"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("base")
    models = folder / "models" / "moee"
    models.mkdir(parents=True)
    convert_hallo(*write_hallo(folder / "downloads"), models / BASE, config=TINY)
    write_wav2vec2(models / "encoders" / EAR, tiny_state())
    write_expert(models)
    return in_host(folder, "hallo", POINTS.read_text(encoding="utf-8"))


def write_expert(models: Path) -> None:
    """A file for happy, as training leaves it, with made-up weights."""
    shapes = base_shapes(TINY)[1]
    deltas = {
        key.removeprefix("denoiser."): torch.randn(shape, generator=torch.Generator().manual_seed(len(key))) * 0.1
        for key, shape in shapes.items()
        if ".emotion.experts." in key
    }
    (models / "experts").mkdir()
    save_expert(models / "experts" / EXPERT, "happy", base_content(models / BASE), portable(deltas, "happy"))


def test_experts_for_a_base_change_their_emotion_alone(found: dict[str, Any]):
    assert found["taught"]["happy"] > 0.01
    assert found["taught"]["sad"]


def test_a_base_loads_and_core_samples_it(found: dict[str, Any]):
    assert found["frames"] == [6, 25.0, [6, 4, 16, 16]]
    assert set(found["samplers"]) == {"euler", "dpmpp_2m", "uni_pc"}
    for finite, shape, spread in found["samplers"].values():
        assert finite
        assert shape == [6, 4, 16, 16]
        assert spread > 0.1
    assert found["repeats"]
    assert found["guided"] > 0.05


def test_what_stays_over_the_steps_is_worked_out_once(found: dict[str, Any]):
    """Once for the person and once for nobody, not in each of the steps; without the store, in each of them anew."""
    kept = found["kept"]
    assert kept["times"] == [2, 0]
    assert 0 < kept["difference"] < 1e-3 * kept["spread"], "the same but for rounding, and not the same code"


def test_emotion_changes_nothing_where_nobody_taught_it(found: dict[str, Any]):
    assert found["emotion of a base that knows none"]


def test_loras_and_weight_types_work_on_it(found: dict[str, Any]):
    assert found["lora"] > 0.01
    stored = {kind: dtype.removeprefix("torch.") for kind, (dtype, _) in found["weights"].items()}
    assert stored == {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}
    assert found["weights"]["fp16"][1] < 0.02
    assert found["weights"]["bf16"][1] < 0.1


def test_it_can_be_loaded_partially(found: dict[str, Any]):
    assert found["partial"] == {"left": [], "parents": []}


def test_a_picture_of_three_to_four_is_sampled_and_decoded(found: dict[str, Any]):
    assert found["3:4"] == [[6, 4, 18, 14], True]
    assert found["video"] == [[112, 144], 1]


def test_windows_are_what_the_library_gives(found: dict[str, Any]):
    """Two windows, the second from decoded frames. The host's Euler steps in its own noise levels, and ends the first
    of them at a finite one; the rest is rounding, which made-up weights carry on."""
    largest, mean, spread, frames = found["library"]
    sys.stdout.write(f"pictures in -1..1: largest difference {largest:.2g}, mean {mean:.2g}, spread {spread:.2g}\n")
    assert frames == 6
    assert mean < 0.002 * spread
    assert largest < 0.05


def test_what_does_not_belong_together_is_refused(found: dict[str, Any]):
    said = {
        "ear for another model": "has a speech encoder of its own; set speech_encoder to none",
        "no ear": "choose it as speech_encoder in Load Talking Portrait Model",
        "no face": "Face Points",  # whether none was found, or nothing is installed that could find one
        "insightface for another model": "insightface is read by a Hallo base only",
        "no analyser": "(object) is no face analyser",
        "audio encoder for another model": "audio_encoder is read by a Hallo base only",
        "no wav2vec": "this audio encoder is no wav2vec 2.0",
        "no layers": "holds no encoded_audio_all_layers",
        "portrait of another model": "this portrait was read by another kind of model",
    }
    assert set(found["refused"]) == set(said)
    for name, words in said.items():
        assert words in found["refused"][name]


def test_the_hosts_audio_encoder_gives_the_same_numbers(found: dict[str, Any]):
    assert found["ear"]["size"] > 0.1
    assert found["ear"]["audio encoder"] < 1e-4
    assert 1e-3 < found["ear"]["finished layers"] < 1.5, "near at best: the transformer ran twice as often"


def test_a_face_analyser_says_whose_face_it_is(found: dict[str, Any]):
    seen = found["insightface"]
    assert seen["blue first"]
    assert seen["person differs from nobody"] > 0.1
    assert seen["without, a person is nobody"]
    assert seen["another job"]
