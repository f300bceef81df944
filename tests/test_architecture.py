"""The one-way rule, nodes -> moee_core <- training, read from the syntax tree of every file.

An import counts wherever it stands: at the top, inside a function, under TYPE_CHECKING, or as a literal handed to
``import_module``. The second half plants violations in a made-up repository and sees each of them reported.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

ROOMS = {  # room -> our own rooms it may import
    "nodes": {"nodes", "moee_core"},
    "moee_core": {"moee_core"},
    "training": {"training", "moee_core"},
    "": {"nodes"},  # the root __init__.py
}
OURS = {"nodes", "moee_core", "training", "tests", "benchmarks", "dev"}
HOST = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server", "execution", "node_helpers"}
MAX_LINES = 600


def _imports(tree: ast.AST) -> Iterator[tuple[int, int, str]]:
    """Every import as (line, level, dotted name); level 0 is absolute, 1 is ``from .``, 2 is ``from ..``."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = [node.module] if node.module else []
            yield from ((node.lineno, node.level, ".".join([*base, alias.name])) for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            name = node.args[0]
            if called in ("import_module", "__import__") and isinstance(name, ast.Constant):
                yield node.lineno, 0, str(name.value)


def violations(root: Path) -> list[str]:
    """One line for each import that breaks the rule, for every file of the three rooms and the root package."""
    found: list[str] = []
    files = [root / "__init__.py", *(path for room in ROOMS if room for path in sorted((root / room).rglob("*.py")))]
    for path in files:
        if not path.exists():
            continue
        relative = path.relative_to(root)
        package = relative.parent.parts
        room = package[0] if package else ""
        for line, level, name in _imports(ast.parse(path.read_text(encoding="utf-8"))):
            where = f"{relative.as_posix()}:{line}: {'.' * level}{name}"
            if level > len(package) + 1:
                found.append(f"{where} reaches above the repository")
                continue
            target = (*package[: len(package) - level + 1], *name.split(".")) if level else tuple(name.split("."))
            if level == 0 and target[0] in HOST and room != "nodes":
                found.append(f"{where} is the host's, and only nodes/ may import it")
            elif level == 0 and target[0] in OURS and room in ("nodes", "moee_core", ""):
                found.append(f"{where} is ours: write it as a relative import")
            elif level and room == "training" and target[0] != "training":
                found.append(f"{where} leaves training/: write it as an absolute import")
            elif (level or target[0] in OURS) and target[0] not in ROOMS[room]:
                found.append(f"{where} is not for {room or 'the root package'} to import")
    return found


def _python_files() -> list[Path]:
    rooms = [*(room for room in ROOMS if room), "tests", "benchmarks"]
    return [*sorted(ROOT.glob("*.py")), *(path for room in rooms for path in sorted((ROOT / room).rglob("*.py")))]


def test_the_imports_of_this_repository_run_one_way():
    assert violations(ROOT) == []


def test_every_room_has_files_to_check():
    """Without this, a renamed room would leave the test above with nothing to say."""
    for room in ("nodes", "moee_core", "training"):
        assert list((ROOT / room).rglob("*.py")), room


def test_the_root_package_imports_nothing_at_its_top_level():
    """pytest imports it while collecting, and ComfyUI before it is ready; both must find it empty."""
    top = ast.parse((ROOT / "__init__.py").read_text(encoding="utf-8")).body
    imported = [node for node in top if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [node.module for node in imported if isinstance(node, ast.ImportFrom)] == ["__future__"]
    assert len(imported) == 1


def test_no_file_is_longer_than_six_hundred_lines():
    long = {
        p.relative_to(ROOT).as_posix(): n
        for p in _python_files()
        if (n := len(p.read_bytes().splitlines())) > MAX_LINES
    }
    assert long == {}


def test_no_folder_is_called_utils():
    assert [path for path in _python_files() if {"utils", "util"} & set(path.relative_to(ROOT).parts[:-1])] == []


PLANTED = {
    "relative import of nodes from core": ("moee_core/a.py", "from ..nodes import sockets", "not for moee_core"),
    "from two dots import a room": ("moee_core/a.py", "from .. import training", "not for moee_core"),
    "deep file, three dots": ("moee_core/deep/a.py", "from ...nodes.host import device", "not for moee_core"),
    "inside a function": ("nodes/a.py", "def f():\n    from ..training import loop", "not for nodes"),
    "under TYPE_CHECKING": ("nodes/a.py", "if TYPE_CHECKING:\n    from ..training import loop", "not for nodes"),
    "absolute import of core by nodes": ("nodes/a.py", "from moee_core.types import X", "relative import"),
    "absolute import of core by itself": ("moee_core/a.py", "import moee_core.types", "relative import"),
    "host from core": ("moee_core/a.py", "import comfy.ops", "only nodes/"),
    "host from core, inside a method": (
        "moee_core/a.py",
        "class A:\n    def f(self):\n        import folder_paths",
        "only nodes/",
    ),
    "host by name": ("moee_core/a.py", "import importlib\nimportlib.import_module('comfy_api.latest')", "only nodes/"),
    "host from training": ("training/a.py", "from comfy_api.latest import io", "only nodes/"),
    "nodes from training": ("training/a.py", "from nodes.sockets import Emotion", "not for training"),
    "nodes from training, relatively": ("training/a.py", "from ..nodes import sockets", "absolute import"),
    "core from training, relatively": ("training/a.py", "from ..moee_core import types", "absolute import"),
    "tests from core": ("moee_core/a.py", "from ..tests import conftest", "not for moee_core"),
    "above the repository": ("nodes/a.py", "from ...elsewhere import x", "above the repository"),
    "core from the root package": ("__init__.py", "from .moee_core import types", "not for the root package"),
}


@pytest.mark.parametrize(("path", "source", "reason"), PLANTED.values(), ids=PLANTED.keys())
def test_a_planted_violation_is_reported(tmp_path: Path, path: str, source: str, reason: str):
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    found = violations(tmp_path)
    assert len(found) == 1
    assert found[0].startswith(f"{path}:")
    assert reason in found[0]


def test_what_the_rule_allows_is_not_reported(tmp_path: Path):
    allowed = {
        "__init__.py": "async def comfy_entrypoint():\n    from .nodes import make_extension",
        "nodes/a.py": "import torch\nimport folder_paths\nfrom comfy_api.latest import io\n"
        "from . import sockets\nfrom ..moee_core.emotion import timeline",
        "moee_core/emotion/a.py": "import numpy as np\nfrom . import vocabulary\nfrom ..errors import EmotionError",
        "training/data/a.py": "import torch\nfrom moee_core.types import X\nfrom training.losses import y\n"
        "from ..losses import z",
    }
    for path, source in allowed.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(source)
    assert violations(tmp_path) == []


IMPORT_EVERYTHING = """
import importlib, pkgutil, sys
import moee_core, training
path = list(sys.path)
names = {info.name for package in (moee_core, training)
         for info in pkgutil.walk_packages(package.__path__, package.__name__ + ".")}
for name in sorted(names - {"moee_core.__main__", "training.train"}):  # these two are programs
    importlib.import_module(name)
import torch
assert sys.path == path, "sys.path was changed"
assert not torch.cuda.is_initialized(), "a device was chosen"
assert torch.get_default_dtype() is torch.float32, "the default type was changed"
assert torch.is_grad_enabled(), "gradients were turned off"
"""

# What `python dev.py demo` does not install: it has the extra `run` alone.
COMMAND_LINE_ONLY = """
import importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] in {"transformers", "diffusers", "librosa", "tensorboard", "torchmetrics", "pytest"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
import moee_core.pipeline
import moee_core.__main__
"""


def _run_in(folder: Path, code: str) -> subprocess.CompletedProcess[str]:
    """Run ``code`` in a fresh Python for which ``folder`` is home, cache and current folder in one."""
    names = ("HOME", "USERPROFILE", "XDG_CACHE_HOME", "TMPDIR", "TEMP", "TMP", "HF_HOME")
    environment = {**os.environ, **dict.fromkeys(names, str(folder)), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-B", "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_importing_every_module_leaves_no_trace(tmp_path: Path):
    """No folder, download, device, path or global setting at import."""
    done = _run_in(tmp_path, IMPORT_EVERYTHING)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_starts_with_the_extra_run_alone(tmp_path: Path):
    done = _run_in(tmp_path, COMMAND_LINE_ONLY)
    assert done.returncode == 0, done.stderr
