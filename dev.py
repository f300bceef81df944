"""One file between a clone and a running project: ``python dev.py help``. Needs Python 3.10 and nothing else.

The first command makes ``.venv`` beside this file, installs PyTorch, then the packages of pyproject.toml's extras;
later commands find ``.venv/.dev-stamp`` and start at once. What pip says goes to ``.venv/install.log``. The variable
``TORCH`` names another PyTorch, with pip's own options if need be:
``TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu" python dev.py demo``.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYPROJECT = ROOT / "pyproject.toml"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
PIP_INSTALL = [PYTHON, "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
LOG = VENV / "install.log"
STAMP = VENV / ".dev-stamp"  # written last: what is installed, and for which inputs
BUSY = VENV / ".dev-busy"  # present, and renewed, while the environment changes; left behind by an interruption
CONSTRAINTS = VENV / ".dev-constraints.txt"

DEFAULT_TORCH = "torch==2.13.0"
RUN, TRAIN, DEV = ("run",), ("run", "train"), ("run", "train", "dev")
STILL_WORKING_SECONDS = 20
DEMO_EMOTION = "0 neutral; 0.5 happy ease 0.4; 2.4 surprised ease 0.3; 4.2 sad ease 0.4"

HELP = f"""\
python dev.py COMMAND [ARGUMENT ...]

  demo              make out/demo.mp4 from the portrait, the speech and the model that come with the project
  test [--all]      run the tests, with --all the slow ones too
  check             formatting, lint, types, tests
  train-smoke       two steps of training on the CPU
  bench             measure speed and memory
  setup [EXTRA ...] only install; without EXTRA all that the commands above need
  help              this text

Further arguments go to the program behind the command (animate, pytest, the trainer, the benchmark).
The first run downloads PyTorch, which takes minutes; TORCH chooses another version than {DEFAULT_TORCH}.
"""


class SetupError(Exception):
    """The environment could not be made; the message says what to do."""


def say(text: str) -> None:
    print(text, flush=True)


@contextlib.contextmanager
def step(number: int, text: str) -> Iterator[None]:
    """Announce one of the four steps, then say how long it took."""
    say(f"[{number}/4] {text}")
    start = time.monotonic()
    yield
    say(f"      {time.monotonic() - start:.0f} s")


def stamp_key(pyproject: bytes, torch: str, python_version: str) -> str:
    """Name one environment: the same three inputs need no second installation."""
    return hashlib.sha256(b"\0".join([pyproject, torch.encode(), python_version.encode()])).hexdigest()


def installed_extras(key: str) -> set[str]:
    """Extras that are completely installed under ``key``; none when the stamp is missing, torn or of other inputs."""
    try:
        stamp = json.loads(STAMP.read_text(encoding="utf-8"))
        return set(stamp["extras"]) if stamp["key"] == key else set()
    except (OSError, ValueError, KeyError, TypeError):
        return set()


def ask_venv(code: str, *arguments: str) -> str | None:
    """Output of a line of Python inside the environment, or None when it fails."""
    try:
        done = subprocess.run([PYTHON, "-c", code, *arguments], capture_output=True, text=True, cwd=ROOT)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def run_logged(command: Sequence[str | Path], failure: str) -> None:
    """Run a command that changes the environment; raises SetupError with ``failure`` below the end of the log."""
    start = time.monotonic()
    BUSY.write_text("at work", encoding="utf-8")
    with LOG.open("ab") as log:
        begin = log.tell()
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT)
        while True:
            try:
                process.wait(timeout=STILL_WORKING_SECONDS)
                break
            except subprocess.TimeoutExpired:
                BUSY.touch()
                say(f"      still working, {time.monotonic() - start:.0f} s")
            except KeyboardInterrupt:  # BUSY stays: what was cut off is not to be trusted
                process.terminate()
                process.wait()
                BUSY.write_text("interrupted", encoding="utf-8")
                raise
    BUSY.unlink()
    if process.returncode != 0:
        tail = LOG.read_bytes()[begin:].decode(errors="replace").splitlines()[-15:]
        raise SetupError("\n".join([*("    " + line for line in tail), "", failure, f"The whole log: {LOG}"]))


def install_torch(torch: str) -> None:
    """Install PyTorch first and write down its exact version, so that no later package replaces it."""
    run_logged(
        [*PIP_INSTALL, *shlex.split(torch, posix=os.name != "nt")],
        f"PyTorch could not be installed as {torch!r}; perhaps there is no such build for this Python or system.\n"
        "Set the environment variable TORCH to one that exists, for example TORCH='torch>=2.6', and run this again.",
    )
    version = ask_venv("from importlib.metadata import version; print(version('torch'))")
    if version is None:
        raise SetupError(f"TORCH={torch!r} installed no package named torch; name one, such as {DEFAULT_TORCH!r}.")
    CONSTRAINTS.write_text(f"torch=={version}\n", encoding="utf-8")


def requirements(extras: Iterable[str]) -> list[str]:
    """Requirements of pyproject.toml's extras. Read inside the environment: Python 3.10 has no TOML reader, pip has."""
    code = (
        "import json, sys\n"
        "try: import tomllib\n"
        "except ModuleNotFoundError: from pip._vendor import tomli as tomllib\n"
        "table = tomllib.load(open(sys.argv[1], 'rb'))\n"
        "print(json.dumps(table['project']['optional-dependencies']))"
    )
    if (text := ask_venv(code, str(PYPROJECT))) is None:
        raise SetupError(f"{PYPROJECT} cannot be read: a table [project.optional-dependencies] is needed.")
    table: dict[str, list[str]] = json.loads(text)
    if unknown := sorted(set(extras) - set(table)):
        raise SetupError(f"pyproject.toml has no extra {unknown[0]!r}; choose from: {', '.join(table)}.")
    return sorted({requirement for extra in extras for requirement in table[extra]})


def ensure(extras: Sequence[str]) -> int:
    """Make ``.venv`` hold PyTorch and ``extras``, or raise SetupError; returns 0, at once when they are there."""
    torch = os.environ.get("TORCH", "").strip() or DEFAULT_TORCH
    probe = "import pip, sys; print('%d.%d' % sys.version_info[:2])"
    busy = BUSY.exists()
    if busy and BUSY.read_text() == "at work" and time.time() - BUSY.stat().st_mtime < 2 * STILL_WORKING_SECONDS:
        raise SetupError("Another dev.py is installing into .venv; wait for it, or for a minute if it was killed.")
    version = None if busy else ask_venv(probe)
    if version is None:
        with step(1, f"making .venv with Python {sys.version_info[0]}.{sys.version_info[1]}"):
            if VENV.exists():  # half made
                shutil.rmtree(VENV)
            VENV.mkdir()
            run_logged([sys.executable, "-m", "venv", VENV], "On Debian and Ubuntu: 'apt install python3-venv'.")
        version = ask_venv(probe)
    key = stamp_key(PYPROJECT.read_bytes(), torch, version or "")
    present = installed_extras(key)
    if set(extras) <= present:
        return 0
    wanted = present | set(extras)
    packages = requirements(wanted)
    STAMP.unlink(missing_ok=True)
    with step(2, f"installing {torch} (log: {LOG.relative_to(ROOT)})"):
        install_torch(torch)
    with step(3, f"installing {len(packages)} packages for {', '.join(sorted(wanted))}"):
        run_logged(
            [*PIP_INSTALL, "--constraint", CONSTRAINTS, *packages],
            "The packages could not be installed. If the lines above speak of the network, run the same command again.",
        )
    part = STAMP.with_suffix(".part")
    part.write_text(json.dumps({"key": key, "extras": sorted(wanted)}), encoding="utf-8")
    os.replace(part, STAMP)  # all or nothing, also under Ctrl-C
    return 0


def run(*arguments: str) -> int:
    """Run Python inside the environment, in the repository root; returns its exit code."""
    return subprocess.run([PYTHON, *arguments], cwd=ROOT).returncode


def demo(arguments: Sequence[str]) -> int:
    ensure(RUN)
    video, sheet = ROOT / "out" / "demo.mp4", ROOT / "out" / "demo.png"
    video.parent.mkdir(exist_ok=True)
    inputs = ["--portrait", "moee_core/assets/portraits/mira.png", "--audio", "moee_core/assets/speech/demo.ogg"]
    outputs = ["--output", str(video), "--contact-sheet", str(sheet)]
    with step(4, f"animating the portrait: {DEMO_EMOTION}"):
        code = run("-m", "moee_core", "animate", *inputs, "--emotion", DEMO_EMOTION, *outputs, *arguments)
    if code == 0:
        say(f"\nvideo:         {video}\ncontact sheet: {sheet}")
    return code


def run_tests(arguments: Sequence[str]) -> int:
    ensure(DEV)
    markers = "not gpu and not comfy" if "--all" in arguments else "not slow and not gpu and not comfy"
    return run("-m", "pytest", "-q", "-m", markers, *(argument for argument in arguments if argument != "--all"))


def check(arguments: Sequence[str]) -> int:
    """Every check, even when an earlier one fails, so that one run shows all there is to do."""
    ensure(DEV)
    codes = [run("-m", *tool) for tool in (("ruff", "format", "--check", "."), ("ruff", "check", "."), ("pyright",))]
    return next((code for code in [*codes, run_tests(arguments)] if code), 0)


def train_smoke(arguments: Sequence[str]) -> int:
    return ensure(TRAIN) or run("training/train.py", "training/configs/smoke.toml", *arguments)


def bench(arguments: Sequence[str]) -> int:
    return ensure(RUN) or run("benchmarks/run.py", *arguments)


def setup(extras: Sequence[str]) -> int:
    return ensure(extras or DEV)


COMMANDS = {"demo": demo, "test": run_tests, "check": check, "train-smoke": train_smoke, "bench": bench, "setup": setup}


def main(arguments: Sequence[str]) -> int:
    command, *rest = arguments or ["help"]
    if command not in COMMANDS:
        say(HELP)
        return 0 if command in ("help", "-h", "--help") else 2
    if sys.version_info < (3, 10):
        say(f"Python 3.10 or newer is needed, this is {sys.version.split()[0]}")
        return 1
    try:
        return COMMANDS[command](rest)
    except (SetupError, PermissionError) as error:
        say(f"\n{error}")
        return 1
    except KeyboardInterrupt:
        say("\nstopped; the next run carries on, or starts again where it must")
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
