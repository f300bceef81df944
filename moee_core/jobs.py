"""A long clip as a job on disk: finished windows survive a crash, a cancelled queue and a restart of the host.

Shapes: latents (F frames, Z channels, h, w) float32.

A job's folder holds ``latents.npy``, memory-mapped so that memory does not grow with the clip, and ``manifest.json``
with the number of frames that are finished. A window is first written and flushed, then the manifest is replaced: after
a kill at any moment the manifest speaks of frames that are there. The folder's name is a hash of everything that
shapes the frames, so the same request finds its own work and never another's. ``speeds.json`` beside the jobs keeps
how fast this machine was, for the estimate of the next one.

Raises ``JobError`` for a folder that cannot be written or has been damaged, and for frames that are no numbers, which
are never kept: the same request would find them again for ever.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import time
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .errors import MoEEError

FORMAT = 1
MANIFEST, LATENTS, STEPS = "manifest.json", "latents.npy", "steps.npz"


class JobError(MoEEError, ValueError):
    """A job's folder cannot be used, or what is to be kept is no picture."""


def fingerprint(parts: Iterable[object]) -> str:
    """A short hash of tensors, arrays, numbers and texts, in order."""
    digest = hashlib.sha256()
    for part in parts:
        if isinstance(part, Tensor):
            part = part.detach().to("cpu", torch.float32).contiguous().numpy()
        if isinstance(part, np.ndarray):
            digest.update(f"{part.dtype}{part.shape}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
        else:
            digest.update(repr(part).encode())
        digest.update(b"\0")
    return digest.hexdigest()[:24]


@dataclass
class Job:
    """One clip that is being sampled. ``done`` counts finished frames from the start."""

    folder: Path
    shape: tuple[int, int, int, int]
    done: int = 0
    _latents: np.memmap | None = field(default=None, repr=False)

    @classmethod
    def open(cls, root: Path, key: str, shape: tuple[int, int, int, int]) -> Job:
        """Continue the job ``key`` below ``root``, or begin it."""
        folder = root / key
        job = cls(folder=folder, shape=shape)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            job.done = _frames_done(folder, shape)
            if job.done:
                latents = np.load(folder / LATENTS, mmap_mode="r+")
                if latents.shape != shape or latents.dtype != np.float32:
                    raise ValueError(f"{LATENTS} is {latents.shape} {latents.dtype}")
                job._latents = latents
            else:
                job._latents = np.lib.format.open_memmap(folder / LATENTS, mode="w+", dtype=np.float32, shape=shape)
            os.utime(folder)
        except (OSError, ValueError) as error:
            raise JobError(
                f"cannot use the job folder {folder}: {str(error)[:120]}; free disk space, or delete the folder"
            ) from error
        return job

    @property
    def finished(self) -> bool:
        return self.done >= self.shape[0]

    def add(self, frames_FZhw: Tensor) -> None:
        """Append finished frames; they are on disk when this returns."""
        assert self._latents is not None
        end = self.done + len(frames_FZhw)
        if end > self.shape[0]:
            raise ValueError(f"{end} frames for a job of {self.shape[0]}")
        self._latents[self.done : end] = _finite(frames_FZhw, first=self.done)
        self._latents.flush()
        self.done = end
        temporary = self.folder / f".{MANIFEST}.{os.getpid()}"
        temporary.write_text(json.dumps({"format": FORMAT, "shape": self.shape, "done": end}), encoding="utf-8")
        os.replace(temporary, self.folder / MANIFEST)

    def last(self, count: int) -> Tensor:
        """(count, Z, h, w): the last finished frames, a copy."""
        assert self._latents is not None
        return torch.from_numpy(np.array(self._latents[self.done - count : self.done]))

    def close(self) -> None:
        """Let go of the file, so that its folder can be deleted on any system."""
        self._latents = None

    def latents(self) -> Tensor:
        """(F, Z, h, w) over the file itself; changing it does not change the file."""
        return torch.from_numpy(np.load(self.folder / LATENTS, mmap_mode="c"))


@dataclass
class StepJob:
    """A clip whose frames are all sampled together, step after step: ``steps.npz`` holds how many are done and the
    state behind them, and is replaced whole; the finished clip is ``latents.npy``, as of any other job."""

    folder: Path
    shape: tuple[int, int, int, int]
    done: int = 0
    state: Tensor | None = field(default=None, repr=False)

    @classmethod
    def open(cls, root: Path, key: str, shape: tuple[int, int, int, int]) -> StepJob:
        """Continue the job ``key`` below ``root``, or begin it. A state that cannot be read is begun anew."""
        job = cls(folder=root / key, shape=shape)
        try:
            job.folder.mkdir(parents=True, exist_ok=True)
            os.utime(job.folder)
        except OSError as error:
            raise JobError(
                f"cannot use the job folder {job.folder}: {str(error)[:120]}; free disk space, or delete the folder"
            ) from error
        try:
            with np.load(job.folder / STEPS, allow_pickle=False) as found:
                done, latents = int(found["done"]), found["latents"]
            if latents.shape == shape and latents.dtype == np.float32 and done > 0:
                job.done, job.state = done, torch.from_numpy(latents)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass
        return job

    def add(self, done: int, latents_TZhw: Tensor) -> None:
        """The state behind ``done`` steps; it is on disk when this returns."""
        latents = _finite(latents_TZhw)
        temporary = self.folder / f".{STEPS}.{os.getpid()}"
        with temporary.open("wb") as stream:
            np.savez(stream, done=done, latents=latents)
        os.replace(temporary, self.folder / STEPS)
        self.done = done

    def finish(self, latents_FZhw: Tensor) -> None:
        """Keep the clip, and let go of the state."""
        latents = _finite(latents_FZhw)
        temporary = self.folder / f".{LATENTS}.{os.getpid()}.npy"
        np.save(temporary, latents)
        os.replace(temporary, self.folder / LATENTS)
        (self.folder / STEPS).unlink(missing_ok=True)
        self.state = None

    def finished(self, frames: int) -> Tensor | None:
        """(frames, Z, h, w) over the file of a clip that is finished."""
        try:
            latents = np.load(self.folder / LATENTS, mmap_mode="c")
        except (OSError, ValueError):
            return None
        if latents.shape != (frames, *self.shape[1:]) or latents.dtype != np.float32:
            return None
        return torch.from_numpy(latents)


def _finite(latents_FZhw: Tensor, first: int = 0) -> np.ndarray:
    """float32 on the CPU. Raises ``JobError`` where any of it is no number; ``first`` is the first frame's number."""
    latents = latents_FZhw.detach().to("cpu", torch.float32).numpy()
    odd = np.flatnonzero(~np.isfinite(latents).all(axis=(1, 2, 3)))
    if len(odd):
        raise JobError(
            f"{len(odd)} of {len(latents)} frames came out of the sampler as NaN or infinite, the first is frame "
            f"{first + odd[0]}; they are not kept. Load the weights as bf16 or fp32 (weight_dtype), or take other "
            "guidance, another sampler or scheduler, or leave out what patches the MODEL"
        )
    return latents


def _frames_done(folder: Path, shape: tuple[int, ...]) -> int:
    """What the manifest says; 0 without one, or with one of another version or shape."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        if manifest["format"] != FORMAT or tuple(manifest["shape"]) != shape:
            return 0
        return min(int(manifest["done"]), shape[0])
    except (OSError, ValueError, KeyError, TypeError):
        return 0


def bytes_needed(shape: tuple[int, ...]) -> int:
    """Disk a job takes."""
    return 4 * math.prod(shape)


SPEEDS = "speeds.json"


def known_speed(root: Path, machine: str) -> float | None:
    """Seconds that one pass over one window took here last time; None where nothing has been sampled yet."""
    value = _speeds(root).get(machine)
    return value if isinstance(value, float) and 0 < value < math.inf else None


def keep_speed(root: Path, machine: str, seconds: float) -> None:
    """Remember for the next estimate. A file that cannot be written costs an estimate, never a job."""
    try:
        temporary = root / f".{SPEEDS}.{os.getpid()}"
        temporary.write_text(json.dumps({**_speeds(root), machine: float(seconds)}, indent=1), encoding="utf-8")
        os.replace(temporary, root / SPEEDS)
    except OSError:
        pass


def _speeds(root: Path) -> dict:
    try:
        table = json.loads((root / SPEEDS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return table if isinstance(table, dict) else {}


def spoken_time(seconds: float) -> str:
    """ "40 s", "12 min", "3.5 h": as exact as an estimate is."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def prune(root: Path, keep_days: float, keep_bytes: int, protect: str = "") -> list[str]:
    """Delete jobs that nobody asked for in ``keep_days``, then the oldest until ``keep_bytes`` are kept."""
    if not root.is_dir():
        return []
    found = []
    for folder in root.iterdir():
        files = [folder / name for name in (LATENTS, STEPS) if (folder / name).exists()]
        if files and folder.name != protect:
            found.append((folder.stat().st_mtime, sum(path.stat().st_size for path in files), folder))
    removed, kept = [], 0
    for modified, size, folder in sorted(found, key=lambda item: item[0], reverse=True):
        if time.time() - modified > keep_days * 86400 or kept + size > keep_bytes:
            shutil.rmtree(folder, ignore_errors=True)
            removed.append(folder.name)
        else:
            kept += size
    return removed
