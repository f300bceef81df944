"""Promises about the repository itself: what it installs, weighs, links to and names."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
TREE_BYTES = 45 * 2**20
FILE_BYTES = 15 * 2**20
NOT_OURS = {".git", ".venv", "__pycache__", ".pytest_cache", ".ruff_cache", "out", "runs", "cache", "node_modules"}
TEXT = {".py", ".md", ".toml", ".txt", ".json", ".yaml", ".yml", ".js", ".css", ".html", ".svg", ".csv", ".sh", ""}


def _load(path: Path, name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _toml(path: Path) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return tomllib.loads(path.read_text(encoding="utf-8"))


def _files() -> list[Path]:
    """Files that belong to the repository: git's list, or without git all but what is known to be made by tools."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
        if listed.returncode == 0:
            paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
            return sorted(path for path in set(paths) if path.is_file())
    return sorted(
        path for path in ROOT.rglob("*") if path.is_file() and not NOT_OURS & set(path.relative_to(ROOT).parts)
    )


def _name(requirement: str) -> str:
    return re.split(r"[\s<>=!~;\[]", requirement, maxsplit=1)[0].lower()


def _lines(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return _toml(ROOT / "pyproject.toml")


@pytest.fixture(scope="module")
def dev() -> ModuleType:
    return _load(ROOT / "dev.py", "moee_dev_under_test")


# pyproject.toml


def test_torch_is_never_ours_to_install(project: dict[str, Any]):
    extras = project["project"]["optional-dependencies"].values()
    everything = [*project["project"]["dependencies"], *(one for extra in extras for one in extra)]
    assert not {"torch", "torchvision", "torchaudio"} & {_name(one) for one in everything}


def test_dependencies_in_comfyui_have_lower_bounds_only(project: dict[str, Any]):
    for requirement in project["project"]["dependencies"]:
        assert re.fullmatch(r"[\w-]+>=[\d.]+", requirement), requirement


def test_requirements_files_repeat_pyproject(project: dict[str, Any]):
    extras = project["project"]["optional-dependencies"]
    assert _lines(ROOT / "requirements.txt") == project["project"]["dependencies"]
    assert _lines(ROOT / "requirements-dev.txt") == [*extras["run"], *extras["train"], *extras["dev"]]


def test_a_package_has_the_same_lower_bound_wherever_it_is_named(project: dict[str, Any]):
    extras = project["project"]["optional-dependencies"].values()
    bounds: dict[str, set[str]] = {}
    for requirement in [*project["project"]["dependencies"], *(one for extra in extras for one in extra)]:
        bounds.setdefault(_name(requirement).removesuffix("-headless"), set()).add(requirement.split(">=")[1])
    assert {name: bound for name, bound in bounds.items() if len(bound) > 1} == {}


def test_no_environment_gets_two_distributions_of_cv2(project: dict[str, Any]):
    extras = project["project"]["optional-dependencies"]
    together = [*extras["run"], *extras["train"], *extras["dev"], *extras["metrics"]]
    assert [_name(one) for one in together if "opencv" in one] == ["opencv-python-headless"]


@pytest.mark.parametrize(
    ("room", "extras"),
    [("moee_core", ("train",)), ("nodes", ()), ("training", ("run", "train")), ("tests", ("run", "train", "dev"))],
)
def test_what_a_room_imports_is_declared(project: dict[str, Any], room: str, extras: tuple[str, ...]):
    """moee_core and nodes live on ComfyUI's dependencies; moee_core may use the extra `train` for preparing data."""
    table = project["project"]
    declared = [] if extras[:1] == ("run",) else table["dependencies"]
    declared = [*declared, *(one for extra in extras for one in table["optional-dependencies"][extra])]
    names = {"opencv-python": "cv2", "opencv-python-headless": "cv2"}
    known = {names.get(_name(one), _name(one)) for one in declared} | set(sys.stdlib_module_names) | {"torch"}
    known |= {
        "moee_core",
        "nodes",
        "training",
        "comfy",
        "comfy_api",
        "comfy_extras",
        "comfyui_version",
        "execution",
        "folder_paths",
        "latent_preview",
        "node_helpers",
    }
    found = {}
    for path in sorted((ROOT / room).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.level == 0:
                modules = [str(node.module)]
            found.update({m.split(".")[0]: path.relative_to(ROOT).as_posix() for m in modules})
    assert {module: path for module, path in found.items() if module not in known} == {}


def test_the_registry_accepts_name_version_and_licence(project: dict[str, Any]):
    table = project["project"]
    assert "comfyui" not in table["name"].lower()
    assert re.fullmatch(r"\d+\.\d+\.\d+", table["version"])
    assert (ROOT / table["license"]["file"]).read_text(encoding="utf-8").lstrip().startswith("Apache License")
    assert table["urls"]["Repository"].startswith("https://")
    assert project["tool"]["comfy"]["PublisherId"]
    web = project["tool"]["comfy"].get("web")
    assert web is None or (ROOT / web).is_dir()


def test_one_version_everywhere(project: dict[str, Any]):
    version = project["project"]["version"]
    source = (ROOT / "moee_core" / "__init__.py").read_text(encoding="utf-8")
    assert re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)[1] == version  # type: ignore[index]
    assert f"## [{version}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


# dev.py and its aliases


def test_dev_needs_the_standard_library_alone():
    tree = ast.parse((ROOT / "dev.py").read_text(encoding="utf-8"))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.split(".")[0] for name in names} <= set(sys.stdlib_module_names)


def test_a_change_of_any_input_asks_for_a_new_environment(dev: ModuleType):
    inputs = (b"[project]", "torch==2.13.0", "3.11")
    others = [(b"[project] ", *inputs[1:]), (inputs[0], "torch==2.12.0", inputs[2]), (*inputs[:2], "3.12")]
    assert dev.stamp_key(*inputs) == dev.stamp_key(*inputs)
    assert len({dev.stamp_key(*one) for one in [inputs, *others]}) == 4


@pytest.mark.parametrize("stamp", ["", "{", "[]", "null", '{"key": "k"}', '{"key": "other", "extras": ["run"]}'])
def test_a_torn_or_foreign_stamp_counts_as_nothing_installed(
    dev: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stamp: str
):
    monkeypatch.setattr(dev, "STAMP", tmp_path / "stamp")
    assert dev.installed_extras("k") == set()
    dev.STAMP.write_text(stamp)
    assert dev.installed_extras("k") == set()
    dev.STAMP.write_text('{"key": "k", "extras": ["run"]}')
    assert dev.installed_extras("k") == {"run"}


def test_dev_installs_what_the_extras_say(dev: ModuleType, project: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dev, "PYTHON", Path(sys.executable))
    extras = project["project"]["optional-dependencies"]
    assert dev.requirements(dev.RUN) == sorted(extras["run"])
    assert set(dev.requirements(dev.DEV)) == {*extras["run"], *extras["train"], *extras["dev"]}
    with pytest.raises(dev.SetupError, match="no extra 'nonsense'; choose from: run"):
        dev.requirements(["nonsense"])


def test_help_names_every_command_and_an_unknown_one_fails(dev: ModuleType, capsys: pytest.CaptureFixture[str]):
    assert dev.main(["help"]) == 0
    shown = capsys.readouterr().out
    assert [command for command in dev.COMMANDS if f"\n  {command} " not in shown] == []
    assert dev.main(["no-such-command"]) == 2


def test_continuous_integration_runs_the_command_of_the_readme():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    commands = [line for line in script.splitlines() if line and not line.startswith("#")]
    assert commands[0] == "set -euo pipefail"
    assert commands[-1].endswith("python3 dev.py test")
    assert os.name == "nt" or os.access(ROOT / ".ci" / "run", os.X_OK)


def test_make_only_passes_on(dev: ModuleType):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^([\w -]+):$", makefile, re.MULTILINE)
    assert targets is not None
    assert set(targets[1].split()) == set(dev.COMMANDS)


# the files


def test_the_repository_keeps_its_size():
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in _files()}
    assert {name: size for name, size in sizes.items() if size > FILE_BYTES} == {}
    assert sum(sizes.values()) < TREE_BYTES


def test_no_text_names_a_path_of_somebodys_machine():
    """Neither home folders nor the places where containers mount things."""
    private = re.compile(r"(?<![\w.:/~-])/(?:home|work|workspace|root|Users|mnt)/\w|[A-Z]:\\Users\\\w")
    found = [
        f"{path.relative_to(ROOT).as_posix()}:{number}: {line.strip()[:80]}"
        for path in _files()
        if path.suffix in TEXT
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if private.search(line)
    ]
    assert found == []


def _prose(path: Path) -> str:
    """Markdown without its code, which may hold brackets that are no links."""
    return re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_every_link_inside_the_repository_leads_somewhere():
    broken = []
    for path in (one for one in _files() if one.suffix == ".md"):
        links = re.findall(r"\]\(([^)\s]+)\)|<(?:img|a|video)[^>]*(?:src|href)=\"([^\"]+)\"", _prose(path))
        for link in (first or second for first, second in links):
            target = link.split("#", 1)[0]
            if target and not re.match(r"[a-z]+:", target) and not (path.parent / target).exists():
                broken.append(f"{path.relative_to(ROOT).as_posix()}: {link}")
    assert broken == []


def test_decision_records_are_numbered_without_gaps_and_listed():
    records = sorted(path.name for path in (ROOT / "docs" / "adr").glob("*.md"))
    assert [int(name[:4]) for name in records] == list(range(1, len(records) + 1))
    architecture = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    assert [name for name in records if f"docs/adr/{name}" not in architecture] == []


# the README


def test_the_readme_shows_both_commands():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert "python dev.py demo" in lines
    assert "python dev.py test" in lines


def test_every_emotion_in_the_readme_can_be_used():
    from moee_core.emotion.source import EmotionSource
    from moee_core.emotion.timeline import parse_emotion
    from moee_core.emotion.units import parse_units, unit_track

    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Saying the emotion")[1].split("\n## ")[0]
    shown = re.findall(r'--emotion "([^"]+)"', readme) + re.findall(r"^\| `(?!--)([^`]+)` \|", section, re.MULTILINE)
    assert len(shown) >= 6
    for text in shown:
        parse_emotion(text)
    words, units = (re.findall(rf'--{option} "([^"]+)"', readme) for option in ("emotion-text", "action-units"))
    assert words
    assert units
    for text in words:
        assert EmotionSource(text=text).understood.condition.weights, text
    for text in units:
        assert unit_track(parse_units(text)).values.any(), text


def test_the_command_line_knows_every_command_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Your first portrait")[1].split("\n## ")[0]
    shown = {*re.findall(r"-m moee_core (\w+)", readme), *re.findall(r"^\| `(\w+)[^`]*` \|", section, re.MULTILINE)}
    assert len(shown) >= 4
    command = [sys.executable, "-m", "moee_core", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {name for name in shown if not re.search(rf"\b{name}\b", done.stdout)} == set()


def test_every_path_in_a_command_of_the_documents_exists():
    missing = []
    for name in ("README.md", "CONTRIBUTING.md"):
        blocks = re.findall(r"```sh\n(.*?)```", (ROOT / name).read_text(encoding="utf-8"), re.DOTALL)
        words = " ".join(blocks).split()
        paths = [word for word in words if re.match(r"(moee_core|training|benchmarks|workflows|tests)/", word)]
        missing += [f"{name}: {path}" for path in paths if not (ROOT / path).exists()]
    assert missing == []
