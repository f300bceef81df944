"""What the registry and its command line ask for, and that every way to install the pack gives the same pack."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from ..fixtures.host_double import ROOT, VERSIONS, host
from .test_contract import IDS

PACKED_LIMIT = 30_000_000
NEEDED = (
    "__init__.py",
    "pyproject.toml",
    "requirements.txt",
    "LICENSE",
    "nodes/__init__.py",
    "nodes/web/docs/MoEESampler.md",
    "locales/en/nodeDefs.json",
    "workflows/first_portrait.json",
    "workflows/first_portrait.jpg",
    "moee_core/assets/embedded.safetensors",
    "training/train.py",
)


def comfy_cli(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "DO_NOT_TRACK": "1", "HOME": str(folder.parent)}
    command = [sys.executable, "-m", "comfy_cli", "--skip-prompt", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@example.com", *arguments]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working tree as it would be committed now, in a repository of its own."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("registry") / "moee-talking-portrait"
    for name in git(ROOT, "ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    git(folder, "init", "-q")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "all")
    return folder


def test_the_registrys_checks_find_nothing(checkout: Path):
    done = comfy_cli(checkout, "node", "validate")
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "All validation checks passed" in said
    assert "warning" not in said.lower(), said


def test_the_registrys_checks_can_fail(checkout: Path, tmp_path: Path):
    bad = tmp_path / "bad"
    shutil.copytree(checkout, bad, ignore=shutil.ignore_patterns(".git"))
    (bad / "nodes" / "bad.py").write_text("import os\nexec(os.environ['X'])\n", encoding="utf-8")
    done = comfy_cli(bad, "node", "validate")
    assert done.returncode != 0 or "S102" in done.stdout + done.stderr


def test_what_the_registrys_checks_miss():
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^PublisherId = "[a-z0-9-]+"$', text, re.M)
    display = re.search(r'^DisplayName = "(.+)"$', text, re.M)
    assert display
    assert "comfyui" not in display[1].lower(), "the registry's rule: not in names"
    name = re.search(r'^name = "(.+)"$', text, re.M)
    assert name
    assert "comfyui" not in name[1].lower()


@pytest.fixture(scope="module")
def packed(checkout: Path) -> zipfile.ZipFile:
    done = comfy_cli(checkout, "node", "pack")
    assert done.returncode == 0, done.stdout + done.stderr
    return zipfile.ZipFile(checkout / "node.zip")


def test_the_packed_file_holds_the_pack_and_nothing_made(packed: zipfile.ZipFile):
    names = set(packed.namelist())
    assert [name for name in NEEDED if name not in names] == []
    assert not [
        name for name in names if "__pycache__" in name or name.startswith(("out/", "cache/", "runs/", ".git/"))
    ]
    assert sum(entry.compress_size for entry in packed.infolist()) < PACKED_LIMIT


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", ["folder", "git", "zip"])
def test_the_pack_loads_however_it_was_installed(
    checkout: Path, packed: zipfile.ZipFile, tmp_path: Path, way: str, version: str
):
    """A name with hyphens and no neighbour on the path, as in custom_nodes."""
    home = tmp_path / "custom_nodes" / "moee-talking-portrait"
    if way == "folder":
        shutil.copytree(checkout, home, ignore=shutil.ignore_patterns(".git", "node.zip"))
    elif way == "git":
        git(tmp_path, "clone", "-q", str(checkout), str(home))
    else:
        packed.extractall(home)
    with host(version, tmp_path, home) as pack:
        extension = asyncio.run(pack.comfy_entrypoint())
        nodes = asyncio.run(extension.get_node_list())
        assert len(nodes) == len(IDS)
        assert all(Path(sys.modules[node.__module__].__file__ or "").is_relative_to(home) for node in nodes)
        assert all(node.define_schema().node_id for node in nodes)
