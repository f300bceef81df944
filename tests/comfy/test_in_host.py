"""The pack inside a real ComfyUI: workflows, core's samplers, partial loading, kills, memory.

Needs ``COMFYUI_PATH`` (a checkout) and, where pytest runs in another environment, ``COMFYUI_PYTHON`` (the Python that
ComfyUI runs on). ``in_host.py`` holds what is done there; here is what must come of it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.face_world.points import face_points
from training.face_world.rig import FaceState
from training.face_world.splits import person

from ..fixtures.face_mesh import mesh_of

ROOT = Path(__file__).resolve().parents[2]
HOST = os.environ.get("COMFYUI_PATH")
PYTHON = os.environ.get("COMFYUI_PYTHON", sys.executable)
DICE_TALK = ROOT / "moee_core" / "assets" / "dice_talk.safetensors"
WORKFLOWS = sorted((ROOT / "workflows" / "api").glob("*.json"))

pytestmark = [pytest.mark.comfy, pytest.mark.skipif(not HOST, reason="COMFYUI_PATH names no checkout")]


def start(base: Path, *arguments: str) -> subprocess.Popen[str]:
    command = [PYTHON, str(Path(__file__).with_name("in_host.py")), str(base), *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def in_host(base: Path, *arguments: str, seconds: float = 600) -> dict[str, Any]:
    process = start(base, *arguments)
    output, _ = process.communicate(timeout=seconds)
    found = [line for line in output.splitlines() if line.startswith("RESULT ")]
    assert process.returncode == 0, output[-4000:]
    assert found, output[-4000:]
    return json.loads(found[-1].removeprefix("RESULT "))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_each_workflow_runs(tmp_path: Path, path: Path):
    if "MoEELoadDiceTalk" in path.read_text(encoding="utf-8") and not DICE_TALK.is_file():
        pytest.skip("the small DICE-Talk is not there; test_in_host_dice.py runs these with one at random")
    result = in_host(tmp_path, "workflow", str(path))
    assert result["valid"], result
    assert result["success"], result["errors"]
    graph = json.loads(path.read_text(encoding="utf-8"))
    videos = sum(node["class_type"] in ("MoEEVideoCombine", "MoEERenderMotion") for node in graph.values())
    assert len(result["files"]) == videos


def test_the_same_seed_gives_the_same_frames_and_another_does_not(tmp_path: Path):
    path = str(ROOT / "workflows" / "api" / "first_portrait.json")
    first = in_host(tmp_path / "a", "workflow", path)
    assert in_host(tmp_path / "b", "workflow", path)["latents"] == first["latents"]
    assert in_host(tmp_path / "c", "workflow", path, "7")["latents"] != first["latents"]


@pytest.fixture(scope="module")
def object_info(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("object_info")
    path = folder / "object_info.json"
    assert in_host(folder / "base", "object_info", str(path))["nodes"] > 50
    return path


def judged(workflow: Path, object_info: Path) -> tuple[int, str]:
    """The judgement of ComfyUI's own command line, without a server."""
    command = [sys.executable, "-m", "comfy_cli", "--json", "workflow", "validate"]
    command += ["--workflow", str(workflow), "--input", str(object_info)]
    environment = {**os.environ, "DO_NOT_TRACK": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("path", [*WORKFLOWS, *sorted((ROOT / "workflows").glob("*.json"))], ids=lambda p: p.name)
def test_the_command_line_of_comfyui_accepts_each_workflow(path: Path, object_info: Path):
    code, said = judged(path, object_info)
    assert code == 0, said


def test_the_command_line_of_comfyui_would_have_seen_a_fault(tmp_path: Path, object_info: Path):
    graph = json.loads(WORKFLOWS[0].read_text(encoding="utf-8"))
    node = next(one for one in graph.values() if one["class_type"] == "MoEELoadModel")
    node["inputs"]["weight_dtype"] = "fp3"
    bad = tmp_path / "bad.json"
    bad.write_text(json.dumps(graph), encoding="utf-8")
    code, said = judged(bad, object_info)
    assert code != 0, said
    assert "weight_dtype" in said


@pytest.fixture(scope="module")
def native(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_host(tmp_path_factory.mktemp("native"), "native")


def test_cores_samplers_and_schedulers(native: dict[str, Any]):
    assert len(native["table"]) == 12
    for name, (finite, spread) in native["table"].items():
        assert finite, name
        assert 0.8 < spread < 1.6, name
    assert native["cfg 1 repeats"]
    assert native["context windows"] == [[25, 16, 16, 16], True]


def test_cores_tools_reach_the_model(native: dict[str, Any]):
    assert native["lora keys"] > 400
    assert native["lora on happy changes happy"] > 0.01
    assert native["lora on happy changes sad"] == 0.0, "an expert works for its own emotion alone"
    assert native["attention calls seen"] > 8
    assert native["preview"] == [16, 16]
    assert native["cancel"] == "InterruptProcessingException"
    stored = {kind: dtype.removeprefix("torch.") for kind, (dtype, _) in native["weights"].items()}
    assert stored == {"fp16": "float16", "bf16": "bfloat16", "fp8_e4m3fn": "float8_e4m3fn"}
    assert all(difference < 0.05 for _, difference in native["weights"].values())


def test_the_samplers_savings_save(tmp_path: Path):
    """Four steps of three passes. Passes through the whole network and through its last block, a window."""
    found = in_host(tmp_path, "savings")
    assert found["frames"] == 19
    assert found["passes"] == {
        "off": [12, 12],
        "until 0.5": [8, 8],
        "from 0.5": [8, 8],
        "reuse": [6, 12],
        "both": [4, 8],
        "carry": [12, 12],
    }
    assert found["finite"]
    away = found["away"]
    assert away.pop("off") == away.pop("carry") == 0, "this model hands latents on as they are in any case"
    assert all(0 < distance < 0.5 for distance in away.values()), away


def test_an_expert_of_ones_own_is_called_by_name(native: dict[str, Any]):
    own = native["own"]
    assert own["uncalled"], "where it is not called nothing changes"
    assert own["called"] > 0.05
    assert 0 < own["at half strength"] < own["called"]
    assert own["guided"]
    assert own["counted"] == 1, "the host knows of its weights"
    assert "an expert of your own, and none is loaded" in own["not loaded"]


def test_nothing_is_left_of_another_portrait(native: dict[str, Any]):
    assert native["second portrait differs"] > 0.1
    assert native["first portrait again"]


def test_wrong_conditions_are_explained(native: dict[str, Any]):
    assert "the latent has 10 frames and the conditioning 25" in native["short latent"]
    assert "not from a text encoder" in native["text conditioning"]


def test_partial_loading_leaves_nothing_behind(tmp_path: Path):
    for budget, found in in_host(tmp_path, "partial").items():
        assert found["not streamable"] == [], budget
        assert found["parameters on parents"] == [], budget


@pytest.mark.slow
def test_a_killed_job_goes_on_with_the_same_frames(tmp_path: Path):
    whole = in_host(tmp_path / "whole", "clip", "6")
    rng = random.Random(4)
    continued = 0
    for turn in range(10):
        base = tmp_path / f"kill{turn}"
        process = start(base, "clip", "6")
        aim = rng.uniform(0.05, 0.9) * whole["frames"]
        while process.poll() is None and done(base) < aim:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        continued += 0 < done(base) < whole["frames"]
        assert in_host(base, "clip", "6")["latents"] == whole["latents"], turn
    assert continued >= 8, "the kills must fall into the middle of the job"


def test_landmarks_of_the_host_move_a_portrait(tmp_path: Path):
    who = person("tune", 3)
    openings = np.concatenate([np.zeros(10), np.sin(np.linspace(0, np.pi, 15))])
    states = [FaceState(viseme=np.array([opening, 0, 0, 0], np.float32)) for opening in openings]
    points = [face_points(who, state, 512) for state in states]
    np.save(tmp_path / "meshes.npy", np.stack([mesh_of(one) for one in points]))
    result = in_host(tmp_path / "base", "landmarks", str(tmp_path / "meshes.npy"))
    assert result["frames"] == 25
    assert result["open"] > 0.5
    assert result["chin"] == pytest.approx(points[0].points["chin"], abs=0.1)
    assert len(result["video"]) == 1
    assert "pip install mediapipe" in result["refused"]


def done(base: Path) -> int:
    try:
        manifest = next((base / "user" / "moee_jobs").glob("*/manifest.json"))
        return json.loads(manifest.read_text(encoding="utf-8"))["done"]
    except (StopIteration, OSError, ValueError):
        return 0


@pytest.mark.slow
def test_memory_does_not_grow_with_the_recording(tmp_path: Path):
    """Sound itself is the host's; what we add must stay within 32 MB from ten seconds to a minute."""
    peaks = {}
    for seconds in (10, 60):
        result = in_host(tmp_path / str(seconds), "clip", str(seconds), seconds=1800)
        peaks[seconds] = result["peak_mb"] - result["before_mb"]
    assert peaks[60] < max(peaks[10] * 1.05, peaks[10] + 32), peaks
