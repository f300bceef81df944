"""What the embedded model costs on this machine's CPU: ``python benchmarks/run.py [--json FILE]``, under a minute.

Times are CPU seconds of the whole process (all threads added up), which other programs on the machine disturb little,
and wall-clock seconds next to them. Memory is the peak of the resident set while a clip is made, over what is
resident once the model is loaded; the frames are dropped as they come, as a video writer would.

Exit code 0, or 2 with one line on standard error when there is no model or the report cannot be written.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from moee_core.systems.moee import MoEESystem

ROOT = Path(__file__).resolve().parents[1]
EMBEDDED = ROOT / "moee_core" / "assets" / "embedded.safetensors"
SAMPLE_RATE = 16_000  # hertz
STEPS = 4  # the default of the command line
TIMED_SECONDS = 4  # of speech in the timed clip
MEMORY_SECONDS = (4, 16)  # of speech in the clips whose memory is compared
SAMPLING_INTERVAL = 0.005  # seconds between two looks at the resident set


@dataclass(frozen=True, kw_only=True)
class Figures:
    """One run. Times in seconds, memory in MB (10^6 bytes), None where the system does not tell."""

    date: str
    cpu: str
    threads: int
    torch: str
    python: str
    model: str
    parameters: int
    window_frames: int
    picture: int
    cpu_per_step: float
    wall_per_step: float
    cpu_per_window: float
    wall_per_window: float
    cpu_per_second: float
    wall_per_second: float
    decode_share: float
    loaded_mb: float | None
    peak_over_loaded_mb: dict[str, float | None]


class Stopwatch:
    """CPU and wall seconds spent inside one module, and the number of calls."""

    def __init__(self, module: torch.nn.Module):
        self.cpu = self.wall = 0.0
        self.calls = 0
        self._began = (0.0, 0.0)
        self._hooks = (
            module.register_forward_pre_hook(lambda *_: self._start()),
            module.register_forward_hook(lambda *_: self._stop()),
        )

    def _start(self) -> None:
        self._began = (time.process_time(), time.perf_counter())

    def _stop(self) -> None:
        self.cpu += time.process_time() - self._began[0]
        self.wall += time.perf_counter() - self._began[1]
        self.calls += 1

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python benchmarks/run.py", description="Time the embedded model on the CPU.")
    parser.add_argument("--json", type=Path, help="also write the figures as JSON")
    parser.add_argument("--model", type=Path, default=EMBEDDED, help="another checkpoint than the embedded one")
    parser.add_argument("--threads", type=int, help="threads for PyTorch (default: its own choice)")
    options = parser.parse_args(arguments)
    if not options.model.is_file():
        make = "python training/train.py training/configs/embedded.toml"
        return _refuse(f"no model at {options.model}; train it first ({make}) or give --model")
    if options.json is not None and not options.json.absolute().parent.is_dir():
        return _refuse(f"the folder of {options.json} does not exist; create it first")
    if options.threads is not None:
        if options.threads < 1:
            return _refuse(f"--threads must be at least 1, got {options.threads}")
        torch.set_num_threads(options.threads)
    try:
        figures = measure(options.model)
        if options.json is not None:
            options.json.write_text(json.dumps(asdict(figures), indent=1) + "\n", encoding="utf-8")
    except (ValueError, OSError) as error:
        return _refuse(" ".join(str(error).split()))
    print(table(figures))
    return 0


def _refuse(message: str) -> int:
    sys.stderr.write(f"error: {message}\n")
    return 2


def measure(model: Path) -> Figures:
    """Load the model, make one warm-up window, then the timed clip and the two clips for memory."""
    from moee_core.weights.checkpoint import load_system

    system, info = load_system(model)
    window_seconds = system.config.window_frames / system.config.fps
    make_clip(system, window_seconds, STEPS)
    loaded = resident_bytes()

    denoiser, decoder = Stopwatch(system.denoiser), Stopwatch(system.autoencoder.decoder)
    cpu, wall = time.process_time(), time.perf_counter()
    windows = make_clip(system, TIMED_SECONDS, STEPS)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    denoiser.remove()
    decoder.remove()

    # One step: memory does not depend on the number of steps, the time this takes does.
    peaks = {f"{s} s": peak_bytes(lambda s=s: make_clip(system, s, 1)) for s in MEMORY_SECONDS}
    return Figures(
        date=datetime.date.today().isoformat(),
        cpu=cpu_name(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version(),
        model=model.name,
        parameters=info.parameters,
        window_frames=system.config.window_frames,
        picture=system.config.image_size,
        cpu_per_step=denoiser.cpu / denoiser.calls,
        wall_per_step=denoiser.wall / denoiser.calls,
        cpu_per_window=cpu / windows,
        wall_per_window=wall / windows,
        cpu_per_second=cpu / TIMED_SECONDS,
        wall_per_second=wall / TIMED_SECONDS,
        decode_share=decoder.cpu / cpu,
        loaded_mb=None if loaded is None else loaded / 1e6,
        peak_over_loaded_mb={
            name: None if peak is None or loaded is None else (peak - loaded) / 1e6 for name, peak in peaks.items()
        },
    )


def make_clip(system: MoEESystem, seconds: float, steps: int) -> int:
    """Make a talking portrait of noise and drop its frames; -> the number of windows it took."""
    from moee_core.audio.read import Waveform
    from moee_core.emotion.timeline import parse_emotion
    from moee_core.pipeline import SamplingSettings, animate

    numbers = np.random.default_rng(0)
    size = system.config.image_size
    portrait = numbers.integers(0, 256, (size, size, 3), dtype=np.uint8)
    samples = (0.1 * numbers.standard_normal((1, round(seconds * SAMPLE_RATE)))).astype(np.float32)
    waveform = Waveform(samples=samples, sample_rate=SAMPLE_RATE)
    windows = 0

    def count(_done: int, _total: int) -> None:
        nonlocal windows
        windows += 1

    emotion, settings = parse_emotion("happy:0.6 + surprised:0.4"), SamplingSettings(num_inference_steps=steps)
    for _ in animate(system, portrait, waveform, emotion, settings, count):
        pass
    return windows


def peak_bytes(work: Callable[[], object]) -> int | None:
    """The largest resident set seen while ``work`` runs, by a thread that looks every few milliseconds."""
    seen: list[int] = []
    done = threading.Event()

    def watch() -> None:
        while not done.wait(SAMPLING_INTERVAL):
            now = resident_bytes()
            if now is not None:
                seen.append(now)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return max(seen, default=None)


def resident_bytes() -> int | None:
    status = Path("/proc/self/statm")
    return int(status.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if status.exists() else None


def cpu_name() -> str:
    """The processor's name and the number of cores this process may use."""
    name = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        lines = information.read_text(encoding="utf-8", errors="replace").splitlines()
        name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{name}, {cores} cores"


def table(figures: Figures) -> str:
    """The figures as text, one per line."""

    def times(what: str, cpu: float, wall: float) -> str:
        return f"{what:38}{cpu:9.3f} CPU s{wall:9.3f} s"

    def memory(what: str, value: float | None) -> str:
        return f"{what:38}" + ("not known on this system" if value is None else f"{value:9.1f} MB")

    header = (
        f"{figures.model}: {figures.parameters:,} parameters, {figures.picture} px, "
        f"windows of {figures.window_frames} frames"
    )
    machine = (
        f"{figures.cpu}; PyTorch {figures.torch}, {figures.threads} threads; Python {figures.python}; {figures.date}"
    )
    lines = [
        header,
        machine,
        times("denoising step of a window", figures.cpu_per_step, figures.wall_per_step),
        times(f"window at {STEPS} steps", figures.cpu_per_window, figures.wall_per_window),
        times("second of video", figures.cpu_per_second, figures.wall_per_second),
        f"{'share of decoding':38}{100 * figures.decode_share:9.1f} %",
        memory("resident after loading", figures.loaded_mb),
    ]
    lines += [memory(f"peak over that, {name} of speech", value) for name, value in figures.peak_over_loaded_mb.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.path[0] = str(ROOT)  # instead of this folder, so that moee_core is found
    raise SystemExit(main())
