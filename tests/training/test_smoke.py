"""The whole training, from rendering to gates, at smoke size; and a kill in every stage that changes nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moee_core.weights.checkpoint import inspect_checkpoint, load_system
from training.run import STAGES

ROOT = Path(__file__).resolve().parents[2]
SMOKE = ROOT / "training" / "configs" / "smoke.toml"


def start(folder: Path) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "training" / "train.py"), str(SMOKE)]
    return subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(folder: Path) -> str:
    process = start(folder)
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    return output


def last_losses(folder: Path) -> dict[str, float]:
    """Per stage the loss of its last reported line."""
    lines = (folder / "runs" / "smoke" / "log.jsonl").read_text().splitlines()
    return {row["stage"]: row["loss"] for row in map(json.loads, lines)}


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    finish(folder)
    return folder


def test_smoke_runs_every_stage_and_ends_in_a_checkpoint_that_loads(whole_run: Path):
    run = whole_run / "runs" / "smoke"
    assert set(last_losses(whole_run)) == set(STAGES)
    assert {path.stem for path in run.glob("*.safetensors")} == {*STAGES, "model"}
    assert not (run / "state.pt").exists()
    assert list(run.glob("reference-*.png")), "stage 1 wrote no validation picture"
    system, info = load_system(run / "model.safetensors")
    assert system.config.unet.experts == 6
    assert json.loads(info.metadata["trained"])["name"] == "smoke"


def test_stage_2a_moves_the_experts_alone_and_2b_the_gates_alone(whole_run: Path):
    run = whole_run / "runs" / "smoke"
    before, after, gated = (load_system(run / f"{name}.safetensors")[0] for name in ("reference", "experts", "gates"))
    old, new, last = before.state_dict(), after.state_dict(), gated.state_dict()
    for key, value in new.items():
        if ".emotion.experts." in key or ".emotion.gates." in key:
            continue
        assert value.equal(old[key]), f"stage 2a moved {key}"
    moved = {key for key in new if ".emotion.experts." in key and not new[key].equal(last[key])}
    assert not moved, f"stage 2b moved {moved}"
    assert any(not new[key].equal(last[key]) for key in new if ".emotion.gates." in key)
    experts = [key for key in new if ".experts.3.to_out.0.weight" in key]
    assert any(not new[key].equal(new[key.replace(".experts.3.", ".experts.4.")]) for key in experts)


def test_other_sources_learn_and_labels_stay_as_they_are(whole_run: Path):
    run = whole_run / "runs" / "smoke"
    old, new = (load_system(run / f"{name}.safetensors")[0].state_dict() for name in ("gates", "sources"))
    moved = {key for key in new if not new[key].equal(old[key])}
    taught = tuple(f"emotion_to_latents.encoders.{name}." for name in ("action_units", "text", "audio"))
    allowed = (*taught, "emotion_to_latents.modality.weight", "text_encoder.", "ear.")
    assert not {key for key in moved if not key.startswith(allowed)}
    assert all(any(key.startswith(part) for key in moved) for part in (*taught, "text_encoder.", "ear."))
    labels = "emotion_to_latents.modality.weight"
    assert new[labels][0].equal(old[labels][0])


def test_a_finished_run_does_nothing_again(whole_run: Path):
    """Started again, a finished run only says so."""
    path = whole_run / "runs" / "smoke" / "gates.safetensors"
    written = path.stat().st_mtime_ns
    assert finish(whole_run).count("finished before") == len(STAGES)
    assert path.stat().st_mtime_ns == written


def kill_and_resume(folder: Path, whole_run: Path, stage: str) -> None:
    """SIGKILL in the middle of a stage, then the same command: same losses, same weights as never interrupted."""
    (folder / "cache").symlink_to(whole_run / "cache")
    process = start(folder)
    assert process.stdout is not None
    for line in process.stdout:
        if f" {stage} 25/" in line:
            os.kill(process.pid, signal.SIGKILL)
            break
    process.wait(timeout=60)
    assert process.returncode == -signal.SIGKILL
    assert not (folder / "runs" / "smoke" / f"{stage}.safetensors").exists()
    assert f"stage {stage}: resuming at step 20" in finish(folder)
    assert last_losses(folder) == last_losses(whole_run)
    ours, theirs = (f / "runs" / "smoke" / "model.safetensors" for f in (folder, whole_run))
    one, two = load_system(ours)[0].state_dict(), load_system(theirs)[0].state_dict()
    assert all(one[key].equal(two[key]) for key in two)
    assert inspect_checkpoint(ours).shapes == inspect_checkpoint(theirs).shapes


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX; on Windows run the loop's own resume test")
def test_killed_in_stage_1_and_resumed(tmp_path: Path, whole_run: Path):
    kill_and_resume(tmp_path, whole_run, "reference")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL is POSIX; on Windows run the loop's own resume test")
@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "reference"])
def test_killed_in_every_other_stage_and_resumed(stage: str, tmp_path: Path, whole_run: Path):
    kill_and_resume(tmp_path, whole_run, stage)
