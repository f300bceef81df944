"""Jobs on disk: finished frames survive, unfinished ones are never trusted, other work is never mistaken for ours."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.jobs import (
    SPEEDS,
    STEPS,
    Job,
    JobError,
    StepJob,
    bytes_needed,
    fingerprint,
    keep_speed,
    known_speed,
    prune,
    spoken_time,
)

SHAPE = (10, 4, 3, 3)


def frames(start: int, count: int) -> torch.Tensor:
    return torch.arange(start, start + count).float()[:, None, None, None].expand(-1, *SHAPE[1:])


def test_a_job_goes_on_where_it_stopped(tmp_path: Path):
    job = Job.open(tmp_path, "a", SHAPE)
    job.add(frames(0, 4))
    del job
    again = Job.open(tmp_path, "a", SHAPE)
    assert again.done == 4
    assert not again.finished
    assert torch.equal(again.last(2), frames(2, 2))
    again.add(frames(4, 6))
    assert again.finished
    assert torch.equal(again.latents(), frames(0, 10))


def test_a_window_that_was_cut_off_is_done_again(tmp_path: Path):
    job = Job.open(tmp_path, "a", SHAPE)
    job.add(frames(0, 4))
    assert job._latents is not None
    job._latents[4:8] = 99.0  # written, and killed before the manifest said so
    job._latents.flush()
    again = Job.open(tmp_path, "a", SHAPE)
    assert again.done == 4
    again.add(frames(4, 6))
    assert torch.equal(again.latents(), frames(0, 10))


@pytest.mark.parametrize("manifest", ["", "{", "[]", '{"format": 9}', '{"format": 1, "shape": [1, 2], "done": 3}'])
def test_an_unreadable_manifest_means_from_the_start(tmp_path: Path, manifest: str):
    Job.open(tmp_path, "a", SHAPE).add(frames(0, 4))
    (tmp_path / "a" / "manifest.json").write_text(manifest)
    assert Job.open(tmp_path, "a", SHAPE).done == 0


def test_missing_latents_are_an_error_that_says_what_to_do(tmp_path: Path):
    Job.open(tmp_path, "a", SHAPE).add(frames(0, 4))
    np.save(tmp_path / "a" / "latents.npy", np.zeros((2, 2)))
    with pytest.raises(JobError, match="delete the folder"):
        Job.open(tmp_path, "a", SHAPE)
    (tmp_path / "file").write_text("x")
    with pytest.raises(JobError, match="cannot use the job folder"):
        Job.open(tmp_path / "file", "a", SHAPE)


def test_changing_what_a_job_returned_leaves_the_file_alone(tmp_path: Path):
    job = Job.open(tmp_path, "a", SHAPE)
    job.add(frames(0, 10))
    job.latents().mul_(0)
    assert torch.equal(job.latents(), frames(0, 10))


def test_too_many_frames_are_refused(tmp_path: Path):
    job = Job.open(tmp_path, "a", SHAPE)
    with pytest.raises(ValueError, match="11 frames for a job of 10"):
        job.add(frames(0, 11))


@pytest.mark.parametrize("odd", [float("nan"), float("inf"), -float("inf")])
def test_what_is_no_number_is_never_kept(tmp_path: Path, odd: float):
    """Or the same request would be given black frames for a week."""
    made = frames(0, 10).clone()
    made[6, 2, 1, 1] = odd
    job = Job.open(tmp_path, "a", SHAPE)
    job.add(made[:4])
    with pytest.raises(JobError, match=r"1 of 6 frames came out .* the first is frame 6; .* bf16 or fp32"):
        job.add(made[4:])
    assert Job.open(tmp_path, "a", SHAPE).done == 4
    steps = StepJob.open(tmp_path, "b", SHAPE)
    for keep in (lambda: steps.add(1, made), lambda: steps.finish(made)):
        with pytest.raises(JobError, match=r"1 of 10 frames"):
            keep()
    assert StepJob.open(tmp_path, "b", SHAPE).state is None
    assert steps.finished(10) is None
    steps.add(2, frames(0, 10))
    assert (tmp_path / "b" / STEPS).is_file()
    steps.finish(frames(0, 10))
    found = steps.finished(10)
    assert found is not None
    assert torch.equal(found, frames(0, 10))


def test_the_fingerprint_knows_values_order_and_kind():
    a, b = torch.randn(3), np.ones(2)
    assert fingerprint([a, b, 1, "x"]) == fingerprint([a.clone(), b.copy(), 1, "x"])
    others = [[b, a, 1, "x"], [a, b, 2, "x"], [a, b, 1], [a + 1e-6, b, 1, "x"], [a, b.astype(np.float32), 1, "x"]]
    assert len({fingerprint(one) for one in [[a, b, 1, "x"], *others]}) == 6


def test_old_jobs_go_first_and_the_wanted_one_stays(tmp_path: Path):
    now = time.time()
    for age, name in ((0, "new"), (2, "older"), (30, "ancient"), (40, "wanted")):
        Job.open(tmp_path, name, SHAPE).add(frames(0, 10))
        os.utime(tmp_path / name, (now - age * 86400, now - age * 86400))
    (tmp_path / "not-a-job").mkdir()
    size = (tmp_path / "new" / "latents.npy").stat().st_size
    assert size >= bytes_needed(SHAPE)
    assert prune(tmp_path, 7, size, protect="wanted") == ["older", "ancient"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "not-a-job", "wanted"]
    assert prune(tmp_path / "nowhere", 7, size) == []


def test_a_speed_is_remembered_for_its_own_machine(tmp_path: Path):
    assert known_speed(tmp_path, "cpu") is None
    keep_speed(tmp_path, "cpu", 1.5)
    keep_speed(tmp_path, "cuda", 0.1)
    keep_speed(tmp_path, "cpu", 2.5)
    assert known_speed(tmp_path, "cpu") == 2.5
    assert known_speed(tmp_path, "cuda") == 0.1
    assert prune(tmp_path, 0.0, 0) == [], "the file of speeds is no job"
    assert known_speed(tmp_path, "cpu") == 2.5


@pytest.mark.parametrize("content", ["", "[1]", '{"cpu": "fast"}', '{"cpu": -1.0}', '{"cpu": NaN}', "\x00"])
def test_a_damaged_file_of_speeds_is_no_estimate_and_is_mended(tmp_path: Path, content: str):
    (tmp_path / SPEEDS).write_text(content, encoding="utf-8")
    assert known_speed(tmp_path, "cpu") is None
    keep_speed(tmp_path, "cpu", 3.0)
    assert known_speed(tmp_path, "cpu") == 3.0


def test_a_speed_that_cannot_be_kept_is_no_error(tmp_path: Path):
    keep_speed(tmp_path / "nowhere", "cpu", 3.0)
    assert known_speed(tmp_path / "nowhere", "cpu") is None


def test_an_estimate_is_as_exact_as_it_is():
    spoken = [spoken_time(seconds) for seconds in (0.0, 12.4, 89, 90, 1500, 5400, 9000)]
    assert spoken == ["1 s", "12 s", "89 s", "2 min", "25 min", "1.5 h", "2.5 h"]
