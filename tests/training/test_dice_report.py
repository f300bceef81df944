"""The commands of DICE-Talk's report, each at the smallest size from its arguments to its table."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moee_core.weights.dice_file import load_dice_file
from training import dice_report, dice_talk
from training.config import from_table, read_table
from training.dice_config import DiceTrain
from training.evaluation_set import main as make_set

SMOKE = Path(__file__).resolve().parents[2] / "training" / "configs" / "dice_smoke.toml"
PEOPLE = 2


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dice_report")


@pytest.fixture(scope="module")
def config(folder: Path) -> Path:
    """The smoke configuration with two steps a stage."""
    text = SMOKE.read_text().replace("iterations = 10", "iterations = 2")
    text = text.replace("seed = 7", f'seed = 7\ncache = "{folder / "cache"}"\nruns = "{folder / "runs"}"', 1)
    path = folder / "small.toml"
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def model(config: Path) -> Path:
    return dice_talk.run(from_table(DiceTrain, read_table(config), ""))


@pytest.fixture(scope="module")
def people(folder: Path) -> Path:
    out = folder / "people"
    assert make_set([str(out), "--first", "600", "--people", str(PEOPLE)]) == 0
    return out


def test_an_ablation_from_arms_to_table(
    config: Path, model: Path, people: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    out = folder / "ablation"
    told = ["ablation", str(config), str(model), str(people), str(out), "--seeds", "2", "--arms", "full", "no bank"]
    assert dice_report.main(told) == 0
    table = capsys.readouterr().out
    assert "no bank" in table
    rows = {path.stem: json.loads(path.read_text()) for path in out.glob("*-?.json")}
    assert set(rows) == {"full-1", "full-2", "no_bank-1", "no_bank-2"}
    assert all(0 <= row[name] <= 1 for row in rows.values() for name in ("named", "video", "identity"))
    assert not list(out.glob("*/state.pt"))
    assert dice_report.main(told) == 0  # nothing is repeated
    assert table in capsys.readouterr().out
    capsys.readouterr()
    assert dice_report.main([*told, "--people", "1"]) == 2
    assert "holds figures of other people; name another folder" in capsys.readouterr().err
    config.with_name("other.toml").write_text(config.read_text().replace("batch_size = 3", "batch_size = 2"))
    assert dice_report.main([*told[:1], str(config.with_name("other.toml")), *told[2:]]) == 2
    assert "holds figures of other stages" in capsys.readouterr().err


def test_what_is_cut_off_while_it_is_measured_is_not_trained_again(
    config: Path, model: Path, people: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    told = ["ablation", str(config), str(model), str(people), str(folder / "cut"), "--seeds", "1", "--arms", "full"]

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dice_report, "emotions_and_identity", cut)
        with pytest.raises(KeyboardInterrupt):
            dice_report.main(told)
    log = folder / "cut" / "full-1" / "log.jsonl"
    lines = log.read_text()
    assert dice_report.main(told) == 0
    assert log.read_text() == lines, "no step was taken again"
    assert (folder / "cut" / "full-1.json").exists()


def test_clusters_are_measured_on_test_takes(
    config: Path, model: Path, folder: Path, capsys: pytest.CaptureFixture[str]
):
    assert dice_report.main(["clusters", str(config), str(folder / "clusters"), "--seeds", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[-3:]] == ["speech", "face", "both"]
    row = json.loads((folder / "clusters" / "clusters-1.json").read_text())
    assert all(value > 0 for strengths in row.values() for value in strengths.values())
    told = ["strength", str(config), str(model), str(folder / "strength")]
    assert dice_report.main(told) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if "level" in line] == ["all levels", "full level"]
    both = json.loads((folder / "strength" / "strength.json").read_text())
    assert both["all levels"] != both["full level"]
    few = config.with_name("few.toml")
    few.write_text(config.read_text().replace("takes = 22", "takes = 2"))
    assert dice_report.main(["clusters", str(few), str(folder / "few"), "--seeds", "1"]) == 2
    assert "of 2 takes says two emotions, and one of them twice; set takes.takes higher" in capsys.readouterr().err


def test_between_schedule_emotions_and_map(model: Path, people: Path, folder: Path, capsys: pytest.CaptureFixture[str]):
    for name, wanted in (("between", "all"), ("schedule", "correlation of"), ("emotions", "by face and voice")):
        assert dice_report.main([name, str(model), str(people), str(folder / name)]) == 0
        assert wanted in capsys.readouterr().out
        assert json.loads((folder / name / f"{name}.json").read_text())
    assert dice_report.main(["map", str(model), str(folder / "map"), "--people", "2", "--first", "600"]) == 0
    assert "surprised" in capsys.readouterr().out
    assert (folder / "map" / "map.png").stat().st_size > 1000
    assert load_dice_file(model).config.named_priors
    assert dice_report.main(["between", str(folder / "none.safetensors"), str(people), str(folder)]) == 2
    assert "none.safetensors" in capsys.readouterr().err
