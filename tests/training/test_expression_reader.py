"""The reader of action units: how it is trained, and what the one that ships reads."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.emotion.reference import read_units
from moee_core.motion.coefficients import UNITS
from moee_core.networks.expression_reader import OUTPUTS, SIDE, ExpressionReaderConfig
from moee_core.weights.checkpoint import read_header
from moee_core.weights.expression_reader import EMBEDDED, load_expression_reader
from training import cli
from training.config import from_table, load_config
from training.expression_reader import PICTURE, ReaderData, ReaderStage, ReaderTrain, correlations, cut, run
from training.face_world import performance as world
from training.face_world.render import render
from training.face_world.splits import person, split_rng

TINY = ReaderTrain(
    name="tiny",
    system_kind="expression_reader",
    threads=1,
    system=ExpressionReaderConfig(widths=(4, 8, 8, 8), blocks=1, hidden=16),
    data=ReaderData(pictures=40, held_out=12, workers=1),
    stage=ReaderStage(iterations=12, batch_size=8, save_every=4),
)


def test_a_run_trains_goes_on_where_it_stopped_and_ends_in_a_file(tmp_path: Path):
    folders = {"cache": str(tmp_path / "cache"), "runs": str(tmp_path / "runs")}
    whole = run(dataclasses.replace(TINY, **folders))
    again = dataclasses.replace(TINY, **folders | {"runs": str(tmp_path / "again")})
    half = dataclasses.replace(again, stage=dataclasses.replace(again.stage, iterations=12, save_every=4))
    stopped = tmp_path / "again" / "tiny"
    run(dataclasses.replace(half, stage=dataclasses.replace(half.stage, iterations=8, decay_from=0.45)))
    (stopped / "model.safetensors").unlink()
    second = run(half)
    assert {key for key in read_header(whole)[0]} == {key for key in read_header(second)[0]}
    log = [json.loads(line) for line in (stopped / "log.jsonl").read_text().splitlines()]
    assert log[-1]["step"] == 12
    trained = json.loads(read_header(whole)[1]["trained"])
    assert set(trained["held_out_r"]) >= {*UNITS, "open", "lids"}
    assert run(dataclasses.replace(TINY, **folders)) == whole  # finished before


def test_cuts_differ_and_mirroring_changes_sides_with_the_picture():
    rng = np.random.default_rng(0)
    picture = np.zeros((1, PICTURE, PICTURE, 3), np.uint8)
    picture[:, :, : PICTURE // 2] = 255
    truth = np.zeros((1, OUTPUTS), np.float32)
    truth[0, UNITS.index("12L")] = 1.0
    plain = ReaderStage(scale=0.0, shift=0.0, light=0.0)
    seen = set()
    for _ in range(12):
        cuts, targets = cut(picture, truth, rng, plain)
        assert cuts.shape == (1, 3, SIDE, SIDE)
        bright_left = bool(cuts[0, :, :, :20].mean() > cuts[0, :, :, -20:].mean())
        left = bool(targets[0, UNITS.index("12L")] == 1)
        assert left == bright_left
        assert float(targets.sum()) == 1.0
        seen.add(left)
    assert seen == {True, False}
    assert truth[0, UNITS.index("12L")] == 1.0, "the cache itself is not changed"


def test_the_configuration_that_ships_is_read_and_a_wrong_setting_is_named(tmp_path: Path, capsys):
    from training.config import read_table

    config = from_table(ReaderTrain, read_table("training/configs/expression_reader.toml"), "")
    assert config.system == ExpressionReaderConfig()
    path = tmp_path / "wrong.toml"
    path.write_text('name = "x"\nsystem_kind = "expression_reader"\n[stage]\nitertions = 3\n', encoding="utf-8")
    assert cli.main([str(path)]) == 2
    assert "itertions" in capsys.readouterr().err
    with pytest.raises(ValueError, match="system_kind"):
        load_config("training/configs/expression_reader.toml")


def test_correlations_are_pearsons_and_zero_for_what_does_not_vary():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(50, 3))
    b = np.stack([a[:, 0], -a[:, 1], np.ones(50)], axis=1)
    np.testing.assert_allclose(correlations(a, b), [1, -1, 0], atol=1e-9)


def test_the_one_that_ships_reads_faces_it_has_never_seen():
    reader = load_expression_reader()
    assert EMBEDDED.stat().st_size < 1_500_000
    pictures, truth = [], []
    for number in range(60):
        rng = split_rng("test", number, purpose=31)
        identity = person("test", number)
        emotion = world.random_emotion(rng, "single")
        state = world.portrait_state(world.reference_pose(rng), emotion, identity.expressiveness)
        pictures.append(render(identity, state, 128))
        truth.append(state.action_units[: len(UNITS)])
    found = read_units(reader, pictures)
    r = correlations(found, np.array(truth))
    shown = np.array(truth).std(axis=0) > 0.1
    assert r[shown].mean() > 0.8, dict(zip(UNITS, r.round(2).tolist(), strict=True))
    calm = [render(person("test", n), world.portrait_state(np.zeros(5, np.float32)), 128) for n in range(20)]
    assert read_units(reader, calm).mean() < 0.06


def test_a_picture_drawn_large_is_read_as_one_drawn_small():
    reader = load_expression_reader()
    rng = split_rng("test", 3, purpose=31)
    state = world.portrait_state(world.reference_pose(rng), world.vector({"happy": 1.0}))
    small, large = (read_units(reader, [render(person("test", 3), state, side)])[0] for side in (128, 384))
    np.testing.assert_allclose(small, large, atol=0.3)
    assert min(small[UNITS.index("12L")], large[UNITS.index("12L")]) > 0.5
    with torch.no_grad():
        assert torch.isfinite(reader(torch.zeros(1, 3, SIDE, SIDE))[0]).all()
