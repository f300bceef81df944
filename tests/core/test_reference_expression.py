"""Expressions read off other faces, the effect of an emotion, and what gates do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.emotion import reference
from moee_core.emotion.condition import parse_blend
from moee_core.emotion.reference import SPOKEN, as_read, picture_source, read_units, said, video_source
from moee_core.emotion.source import as_source
from moee_core.errors import CheckpointError, EmotionError
from moee_core.experts.mixture import MixtureOfEmotionExperts, Routing
from moee_core.experts.view import GateRecorder, GateView, gate_picture
from moee_core.metrics.effect import Effect, asked_units, effect_picture, measure
from moee_core.motion.coefficients import UNITS
from moee_core.motion.expression import prototype
from moee_core.networks.expression_reader import SIDE, ExpressionReader, ExpressionReaderConfig
from moee_core.ops import DEFAULT_BUILD
from moee_core.weights.expression_reader import load_expression_reader, save_expression_reader

SMALL = ExpressionReaderConfig(widths=(4, 8, 8, 8), blocks=1, hidden=8)


def small_reader() -> ExpressionReader:
    """Random weights, large enough that every picture is read differently."""
    torch.manual_seed(0)
    reader = ExpressionReader(SMALL, DEFAULT_BUILD).eval().requires_grad_(False)
    for parameter in reader.parameters():
        parameter.mul_(3)
    return reader


def faces(count: int) -> np.ndarray:
    """Blotches, as different from one another as pictures can be."""
    rng = np.random.default_rng(1)
    return np.stack(
        [np.kron(rng.integers(0, 255, (5, 5, 3)), np.ones((14, 14, 1))).astype(np.uint8) for _ in range(count)]
    )


def test_a_picture_is_read_as_its_largest_square_whatever_its_size():
    picture = np.full((300, 200, 3), 255, np.uint8)
    picture[:, :100] = 0
    small = as_read(picture)
    assert small.shape == (3, SIDE, SIDE)
    assert small.dtype == np.float32
    np.testing.assert_allclose(small[:, :, :30], -1)
    np.testing.assert_allclose(small[:, :, 34:], 1)


def test_many_pictures_give_what_each_gives_alone():
    reader, pictures = small_reader(), faces(reference.AT_ONCE + 3)
    together = read_units(reader, iter(pictures))
    assert together.shape == (len(pictures), len(UNITS))
    assert together.min() >= 0
    assert together.max() <= 1.5
    alone = np.concatenate([read_units(reader, [pictures[i]]) for i in (0, reference.AT_ONCE, -1)])
    np.testing.assert_allclose(alone, together[[0, reference.AT_ONCE, -1]], atol=1e-5)


def test_nothing_to_read_is_an_error():
    with pytest.raises(EmotionError, match="no picture"):
        read_units(small_reader(), [])


def test_a_picture_holds_and_a_video_changes_without_the_lips_of_its_own_speech():
    reader, pictures = small_reader(), faces(30)
    with torch.no_grad():
        reader.head.bias[:20] = 0.6
    still = picture_source(reader, pictures[0], strength=0.5)
    assert still.parts == ("units",)
    np.testing.assert_allclose(still.unit_rows(5, 25.0), 0.5 * read_units(reader, pictures[:1]).repeat(5, axis=0))
    track = video_source(reader, pictures, 25.0).units
    assert track is not None
    assert len(track.values) == 30
    assert track.fps == 25.0
    assert not track.values[:, SPOKEN].any()
    assert [UNITS[i] for i in SPOKEN] == ["17", "20", "23", "24", "25", "26", "27"]
    whole = video_source(reader, pictures, 25.0, with_speech=True).units
    assert whole is not None
    assert whole.values[:, SPOKEN].any()


def test_a_video_is_smoothed_over_a_fifth_of_a_second():
    reader, pictures = small_reader(), faces(40)
    raw = read_units(reader, pictures)
    track = video_source(reader, pictures, 25.0, with_speech=True).units
    assert track is not None
    moving = raw.std(axis=0) > 0.01
    assert moving.any(), "the reader's weights must tell these pictures apart"
    assert (np.diff(track.values, axis=0).std(axis=0)[moving] < 0.7 * np.diff(raw, axis=0).std(axis=0)[moving]).all()


def test_the_units_in_words_name_the_strongest():
    units = np.zeros(len(UNITS), np.float32)
    assert said(units) == "nothing but a calm face"
    units[UNITS.index("12L")], units[UNITS.index("4")] = 0.8, 0.4
    assert said(units) == "AU12L 0.80, AU4 0.40"


def test_a_reader_comes_back_from_its_file_and_another_file_is_refused(tmp_path: Path):
    reader, path = small_reader(), tmp_path / "reader.safetensors"
    save_expression_reader(path, reader, dtype=torch.float32)
    pictures = faces(2)
    np.testing.assert_array_equal(read_units(load_expression_reader(path), pictures), read_units(reader, pictures))
    from safetensors.torch import load_file, save_file

    tensors = load_file(str(path))
    tensors.pop("head.bias")
    save_file(tensors, str(path), metadata={"architecture": "expression_reader", "format": "1", "config": "{}"})
    with pytest.raises(CheckpointError, match=r"reader\.safetensors"):
        load_expression_reader(path)
    save_file(tensors, str(path), metadata={"architecture": "moee", "format": "1"})
    with pytest.raises(CheckpointError, match="not an expression reader"):
        load_expression_reader(path)


@pytest.mark.parametrize("bad", [{"widths": (1, 2, 3)}, {"widths": (0, 2, 3, 4)}, {"blocks": 0}, {"hidden": 0}])
def test_sizes_that_no_reader_can_have_are_refused(bad: dict):
    with pytest.raises(ValueError, match="ExpressionReaderConfig"):
        ExpressionReaderConfig(**bad)


def test_pictures_of_another_size_are_refused_by_the_network():
    with pytest.raises(ValueError, match="pictures are"):
        small_reader()(torch.zeros(1, 3, 32, 32))


def test_the_share_of_an_effect_is_how_much_of_the_asked_change_happened():
    asked, before = np.zeros(20), np.zeros(20)
    asked[[0, 3]], before[5] = 1.0, 0.5
    half = Effect(asked=asked, before=before, shown=before + 0.5 * (asked - before))
    assert half.share == pytest.approx(0.5)
    assert Effect(asked=asked, before=before, shown=before).share == 0
    assert half.rows() == [0, 3, 5]
    lines = half.text().splitlines()
    assert lines[0].startswith("50 %")
    assert len(lines) == 2 + 3
    assert lines[2].split() == ["AU1", "1.00", "0.00", "0.50"]


def test_what_is_asked_is_the_emotions_prototype_and_the_units_beside_it():
    rows = as_source(parse_blend("happy")).rows(3, 25.0)
    np.testing.assert_allclose(asked_units(rows), prototype("happy"), atol=1e-6)


def test_an_effect_is_measured_and_drawn():
    reader = small_reader()
    with torch.no_grad():
        reader.head.bias[0] = 0.7
    rows = as_source(parse_blend("surprised")).rows(4, 25.0)
    effect = measure(reader, faces(1)[0], list(faces(4)), rows)
    np.testing.assert_allclose(effect.shown, read_units(reader, faces(4)).mean(axis=0))
    chart = effect_picture(effect, width=400)
    assert chart.shape[1:] == (400, 3)
    assert chart.dtype == np.uint8
    green = (chart == (60, 160, 90)).all(axis=2)
    assert green.any()
    nothing = Effect(asked=np.zeros(20), before=np.zeros(20), shown=np.zeros(20))
    assert not (effect_picture(nothing) == (60, 160, 90)).all(axis=2)[:, 95:].any()


def test_a_recorder_sees_the_gates_while_it_is_open_and_not_after():
    torch.manual_seed(0)
    mixture = MixtureOfEmotionExperts(16, 8, 2, 6, build=DEFAULT_BUILD)
    x, emotion = torch.randn(2, 16, 16), torch.randn(2, 4, 8)
    prior = torch.zeros(2, 6)
    prior[:, 3] = 1.0
    with GateRecorder(mixture) as recorder:
        mixture(x, emotion, Routing.of(prior), frames=2)
    view = recorder.view()
    np.testing.assert_allclose(view.called, prior[0].numpy(), atol=1e-6)
    assert view.where.shape == (6, 32, 32)
    assert view.where.min() > 0
    assert view.where.max() < 1
    local, _ = mixture.gates(mixture.norm(x), prior, 2, emotion)
    assert view.where[3].mean() == pytest.approx(float(local[..., 3].detach().mean()), abs=0.02)
    mixture(x, emotion, Routing.of(torch.full((2, 6), 1 / 6)), frames=2)
    np.testing.assert_array_equal(recorder.view().called, view.called)
    assert view.text().startswith("happy 1.00 (where:")
    assert "sad" not in view.text()


def test_gates_are_drawn_red_where_an_expert_acts_and_neutral_calls_none():
    where = np.zeros((6, 32, 32))
    where[3, :16] = 1.0
    called = np.zeros(6)
    called[3] = 1.0
    face = np.full((64, 64, 3), 120, np.uint8)
    sheet = gate_picture(GateView(called=called, where=where), face)
    row, column = 64 + 18, 0  # happy is the fourth of six, three in a row
    top, bottom = sheet[row + 10, column + 30], sheet[row + 55, column + 30]
    assert int(top[0]) - int(top[2]) > 80
    assert int(bottom[0]) - int(bottom[2]) < 10
    other = sheet[10, 30]
    assert int(other[0]) - int(other[2]) < 10
    with GateRecorder(MixtureOfEmotionExperts(16, 8, 2, 6, build=DEFAULT_BUILD)) as recorder:
        pass
    assert "neutral" in recorder.view().text()
