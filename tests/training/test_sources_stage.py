"""Other sources learn what labels say: what the stage moves and leaves, what batches are told, and what may ship."""

from __future__ import annotations

import dataclasses
import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from moee_core.audio.emotion_ear import EmotionEar, EmotionEarConfig
from moee_core.emotion.action_units import ACTION_UNITS
from moee_core.emotion.free_text import understand
from moee_core.emotion.signals import EmotionSignals
from moee_core.emotion.vocabulary import LABELS
from moee_core.errors import CheckpointError
from moee_core.motion.coefficients import UNITS
from moee_core.motion.expression import detector_units, expression
from moee_core.networks.config import SystemConfig
from moee_core.ops import DEFAULT_BUILD
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import load_system, save_system
from moee_core.weights.emo_talker import EMBEDDED, load_emo_talker
from training.config import (
    AudioStage,
    AutoencoderStage,
    ConfigError,
    DataConfig,
    DecoderStage,
    DiffusionStage,
    ExpertsStage,
    GatesStage,
    SourceOdds,
    SourcesStage,
    StageConfig,
    TrainConfig,
)
from training.data.latents import LatentClips
from training.data.motion_clips import prepare_takes
from training.emotalker_config import MotionDataConfig
from training.loop import run_stage
from training.publish import sources_trained, without_untrained
from training.run import run
from training.stages import decoder, moee, sources
from training.stages.diffusion import Batch, DiffusionTask, draw_told, signals, with_everything_told

from ..fixtures.killed import KilledError, made, same, weights
from ..fixtures.public_encoders import WIDTH as T5_NUMBERS
from ..fixtures.public_encoders import write_t5
from ..fixtures.tiny import EVERY_SOURCE, TINY
from .test_stages import CLIPS, LENGTH, NEUTRAL, PLAIN, QUICK, REGIONS, clips_of, config_of, frames_of

DEAF = dataclasses.replace(EVERY_SOURCE, emotion=dataclasses.replace(EVERY_SOURCE.emotion, audio_width=0))
"""Reads text and action units, and hears nothing."""
ALL = ("action_units", "text")
MIXED = SourceOdds(label=0.4, action_units=0.2, text=0.2, several=0.2)


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def fresh(config: SystemConfig = DEAF) -> MoEESystem:
    system = MoEESystem(config)
    moee.initialise(system, clips_of(TINY.unet), 7)
    return system


def config_with(system: MoEESystem, **settings: Any) -> TrainConfig:
    given = {"iterations": 4, "batch_size": 16, "warmup": 1, "save_every": 2, "learning_rate": 5e-3} | settings
    return config_of(system.config, sources=SourcesStage(**given))


def label_latents(system: MoEESystem) -> Tensor:
    vectors = torch.from_numpy(np.random.default_rng(0).dirichlet(np.full(8, 0.4), 20).astype(np.float32))
    with torch.no_grad():
        return system.emotion_to_latents({"label": vectors})


# ---- the stage ------------------------------------------------------------------------------------------------------


def test_the_stage_teaches_its_encoders_and_leaves_labels_as_they_are(tmp_path: Path):
    """Distances on a batch it never drew fall; everything but the encoders it teaches is the same bit for bit."""
    system = fresh()
    stage = sources.make_stage(config_with(system, iterations=50, learning_rate=1e-2), system)
    before, labels = weights(system), label_latents(system)
    with torch.no_grad():
        far = stage.loss(10_000)[1]
    run_stage(stage, tmp_path)
    with torch.no_grad():
        near = stage.loss(10_000)[1]
    assert set(far) == set(near) == set(ALL)
    for name in ALL:
        assert near[name] < 0.5 * far[name], name
    assert torch.equal(label_latents(system), labels)
    moved = {name for name, value in weights(system).items() if not torch.equal(value, before[name])}
    taught = ("emotion_to_latents.encoders.action_units.", "emotion_to_latents.encoders.text.", "text_encoder.")
    assert {name for name in moved if not name.startswith(taught)} == {"emotion_to_latents.modality.weight"}
    assert all(any(name.startswith(part) for name in moved) for part in taught)
    table = system.emotion_to_latents.modality.weight
    assert torch.equal(table[0], before["emotion_to_latents.modality.weight"][0]), "the row of the labels"


@pytest.mark.parametrize("optimiser", ["adamw", "muon"])
def test_neither_optimiser_moves_the_labels(tmp_path: Path, optimiser: str):
    system = fresh()
    labels = label_latents(system)
    stage = sources.make_stage(config_with(system, optimiser=optimiser, contrast=0.5), system)
    run_stage(stage, tmp_path)
    assert torch.equal(label_latents(system), labels)


def test_a_batch_depends_on_seed_and_step_only():
    system = fresh()
    stage = sources.make_stage(config_with(system), system)
    with torch.no_grad():
        first = float(stage.loss(3)[0])
        torch.rand(3)
        np.random.rand(3)
        assert float(stage.loss(3)[0]) == first
        assert float(stage.loss(4)[0]) != first


def test_the_loss_is_the_sum_of_the_distances_to_the_labels_latents():
    system = fresh()
    stage = sources.make_stage(config_with(system, contrast=0.3), system)
    total, figures = stage.loss(0)
    assert set(figures) == {*ALL, "contrast"}
    assert float(total.detach()) == pytest.approx(sum(figures.values()), rel=1e-5)
    plain = sources.make_stage(config_with(system), system).loss(0)[1]
    assert plain == {name: figures[name] for name in ALL}


def test_contrast_is_the_symmetric_infonce_between_all_pairs():
    """Rows at right angles: log(1 + (N - 1) exp(-1 / 0.07)) when they match, 1 / 0.07 more when none does."""
    rows = torch.eye(4)[:, None].expand(-1, 3, -1)
    matched = math.log(1 + 3 * math.exp(-1 / 0.07))
    assert float(sources.contrast([rows, rows])) == pytest.approx(matched, abs=2e-6)
    assert float(sources.contrast([rows, 5 * rows, rows])) == pytest.approx(matched, abs=2e-6)
    assert float(sources.contrast([rows, rows.roll(1, 0)])) == pytest.approx(matched + 1 / 0.07, rel=1e-3)
    one, other = torch.randn(6, 2, 5), torch.randn(6, 2, 5)
    torch.testing.assert_close(sources.contrast([one, other]), sources.contrast([other, one]))


def test_a_kill_changes_nothing(tmp_path: Path):
    def trained(folder: Path, kill_at: int | None) -> MoEESystem:
        system = fresh()
        stage = sources.make_stage(config_with(system), system)
        inner = stage.loss

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            if step == kill_at:
                raise KilledError
            return inner(step)

        run_stage(dataclasses.replace(stage, loss=loss), made(folder))
        return system

    straight = trained(tmp_path / "a", None)
    with pytest.raises(KilledError):
        trained(tmp_path / "b", 3)
    assert same(weights(straight), weights(trained(tmp_path / "b", None)))
    assert not same(weights(straight), weights(fresh()))


def test_a_model_of_labels_alone_has_nothing_to_learn():
    bare = dataclasses.replace(TINY, emotion=dataclasses.replace(TINY.emotion, action_units=0))
    system = fresh(bare)
    with pytest.raises(ConfigError, match=r"takes labels alone; set system\.emotion\.action_units"):
        sources.make_stage(config_with(system), system)


@pytest.mark.parametrize(("name", "value"), [("contrast", -0.1), ("readable", -0.1), ("weight_decay", 0.01)])
def test_settings_that_cannot_be_are_refused(name: str, value: float):
    with pytest.raises(ValueError, match=name):
        SourcesStage(**{name: value})  # type: ignore[arg-type]


# ---- the voice ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def hearing(cache: Path, system: MoEESystem, **settings: Any) -> TrainConfig:
    return dataclasses.replace(config_with(system, takes=8, **settings), cache=str(cache))


def test_the_ear_that_ships_is_taken_over_and_voices_learn_to_say_their_mood(cache: Path, tmp_path: Path):
    system = fresh(EVERY_SOURCE)
    stage = sources.make_stage(hearing(cache, system, iterations=30, learning_rate=1e-2), system)
    given, _ = load_emo_talker(EMBEDDED)
    assert given.ear is not None
    assert system.ear is not None
    assert same(weights(system.ear), weights(given.ear))
    with torch.no_grad():
        far = stage.loss(10_000)[1]
    assert set(far) == {*ALL, "audio"}
    run_stage(stage, tmp_path)
    with torch.no_grad():
        assert stage.loss(10_000)[1]["audio"] < 0.7 * far["audio"]
    assert same(weights(system.ear), weights(given.ear)), "it is heard with, not taught"


def test_a_voice_is_heard_in_several_manners_and_says_what_was_meant(cache: Path):
    takes = prepare_takes(MotionDataConfig(takes=8), 5, cache, "train")
    ear = load_emo_talker(EMBEDDED)[0].ear
    assert ear is not None
    heard, meant = sources.voice_moods(ear, takes, SourcesStage(voice_noise=0.6), 5)
    assert heard.shape == (8 * sources.MANNERS, 16)
    assert meant.shape == (8 * sources.MANNERS, 8)
    np.testing.assert_allclose(meant.sum(1), 1)
    np.testing.assert_array_equal(meant.argmax(1), np.repeat([take.emotion for take in takes], sources.MANNERS))
    assert {LABELS[i] for i in meant.argmax(1)} == set(LABELS)
    manners = heard.reshape(8, sources.MANNERS, 16)
    assert (manners.std(axis=1).max(axis=1) > 0).all()
    plain, _ = sources.voice_moods(ear, takes, SourcesStage(voice_noise=0.0), 5)
    assert (plain.reshape(8, sources.MANNERS, 16).std(axis=1) < 1e-6).all()
    named = plain[:: sources.MANNERS, :8].argmax(1) == [take.emotion for take in takes]
    assert named.mean() > 0.6, "these are voices that the ear was trained on"


def test_an_ear_that_is_not_there_or_of_another_size_is_named(cache: Path):
    system = fresh(EVERY_SOURCE)
    with pytest.raises(ConfigError, match=r"stages\.sources\.ear: nowhere\.safetensors does not exist"):
        sources.make_stage(hearing(cache, system, ear="nowhere.safetensors"), system)
    system.ear = EmotionEar(EmotionEarConfig(width=32), DEFAULT_BUILD)
    with pytest.raises(ConfigError, match="has no listener of the size this model takes"):
        sources.make_stage(hearing(cache, system), system)


# ---- what a batch is told -------------------------------------------------------------------------------------------


def with_units(clips: LatentClips, every: int = 3) -> LatentClips:
    """Every third clip shows a unit that no emotion asks for, and contempt, by which it is known."""
    units, emotion = clips.units.clone(), clips.emotion.clone()
    units[::every, :, UNITS.index("27")] = 0.7
    emotion[::every] = 0
    emotion[::every, :, LABELS.index("contempt")] = 1.0
    return dataclasses.replace(clips, units=units, emotion=emotion)


def test_batches_are_told_by_what_and_as_often_as_asked():
    rng = np.random.default_rng(0)
    count = Counter(draw_told(MIXED, rng) for _ in range(8000))
    every = ("label", "action_units", "text")
    expected = {("label",): 0.4, ("action_units",): 0.2, ("text",): 0.2}
    expected |= {several: 0.05 for several in (every, every[:2], every[1:], every[::2])}
    assert set(count) == set(expected)
    for told, share in expected.items():
        assert count[told] / 8000 == pytest.approx(share, abs=0.015), told
    assert {draw_told(SourceOdds(), rng) for _ in range(50)} == {("label",)}


@pytest.mark.parametrize("odds", [{"label": 0.5}, {"text": 0.1}, {"label": 1.2, "text": -0.2}])
def test_odds_are_shares_that_add_up_to_one(odds: dict[str, float]):
    with pytest.raises(ValueError, match="shares that add up to 1"):
        SourceOdds(**odds)


def told_batch(told: tuple[str, ...], system: MoEESystem) -> tuple[Batch, EmotionSignals]:
    clips = with_units(clips_of(TINY.unet))
    task = DiffusionTask(config_of(system.config), system, clips, REGIONS)
    batch = dataclasses.replace(task.batch(0, PLAIN, [3, 4], [NEUTRAL] * 2), told=told)  # contempt with 27, and happy
    return batch, signals(system, batch, torch.device("cpu"))


def test_action_units_alone_are_all_that_the_face_shows():
    batch, given = told_batch(("action_units",), fresh())
    shown = batch.units.numpy() + expression(batch.emotion.numpy())
    assert list(given.inputs) == ["action_units"]
    np.testing.assert_array_equal(given.inputs["action_units"], detector_units(shown))
    assert (given.vectors_N8.argmax(1) == 0).all(), "nobody said which emotion it is"
    np.testing.assert_array_equal(given.units_N20, shown)
    assert shown[0, UNITS.index("27")] == np.float32(0.7)
    assert shown[-1, UNITS.index("12L")] > 0.9


@pytest.mark.parametrize("told", [("label", "action_units"), ("label", "action_units", "text"), ("text",)])
def test_beside_an_emotion_action_units_are_what_it_does_not_show(told: tuple[str, ...]):
    system = fresh()
    batch, given = told_batch(told, system)
    assert tuple(given.inputs) == told
    assert torch.equal(given.vectors_N8, batch.emotion)
    assert given.units_N20 is not None
    assert torch.equal(given.units_N20, batch.units)
    reported = detector_units(batch.units.numpy())
    if "action_units" in told:
        np.testing.assert_array_equal(given.inputs["action_units"], reported)
    if "text" in told:
        assert system.text_encoder is not None
        features = torch.cat([batch.emotion, torch.from_numpy(reported)], dim=1)
        torch.testing.assert_close(given.inputs["text"], system.text_encoder(features))


def test_clips_with_units_are_for_batches_that_are_told_of_them():
    clips = with_units(clips_of(TINY.unet))
    pool = np.array([0, 1, 1, 2, 3, 4])
    assert with_everything_told(clips, pool, ("label",)).tolist() == [1, 1, 2, 4]
    for told in (("text",), ("action_units",), ("label", "action_units")):
        assert with_everything_told(clips, pool, told) is pool


def test_members_of_a_pool_are_repeated_until_they_are_a_share_of_it():
    pool, found = np.arange(100), np.arange(10, 30)
    for share in (0.5, 0.6, 0.8):
        more = decoder.repeated(pool, found, share)
        assert set(more) == set(pool)
        assert np.isin(more, found).mean() == pytest.approx(share, abs=0.04)
    assert len(decoder.repeated(pool, found, 0.1)) == 100, "more than asked for is left as it is"


def test_clips_with_units_beside_an_emotion_are_asked_for_in_vain_where_there_are_none():
    config = config_of(fresh().config, decoder=DecoderStage(**{**QUICK, "beside": 0.5}))
    with pytest.raises(ConfigError, match=r"no clip shows units beside an emotion; set data\.units"):
        decoder.make_stage(config, fresh(), clips_of(TINY.unet), REGIONS, frames_of())
    with pytest.raises(ValueError, match="beside must be at least 0 and below 1"):
        DecoderStage(beside=1.0)


# ---- the decoder's stage, told by several ---------------------------------------------------------------------------


def told_stage(system: MoEESystem, odds: SourceOdds = MIXED, **more: Any):
    settings: dict[str, Any] = {**QUICK, "whole": True, "sources": odds, **more}
    config = config_of(system.config, decoder=DecoderStage(**settings))
    return decoder.make_stage(config, system, with_units(clips_of(TINY.unet)), REGIONS, frames_of())


def test_a_batch_of_labels_never_shows_units_that_nobody_told():
    system = fresh()
    heard: list[dict[str, Tensor]] = []
    system.emotion_to_latents.register_forward_pre_hook(lambda _module, inputs: heard.append(inputs[0]))
    stage = told_stage(system, window=2)
    seen: dict[tuple[str, ...], bool] = {}
    with torch.no_grad():
        for step in range(24):
            stage.loss(step)
            told = tuple(heard[-1])
            if "label" in told:
                contempt = bool((heard[-1]["label"][:, LABELS.index("contempt")] > 0).any())
                seen[told] = seen.get(told, False) or contempt
    assert not seen.pop(("label",))
    assert any(seen.values()), "with units told beside them, such clips are shown"
    assert len(heard) == 24


def test_the_decoders_stage_teaches_the_encoders_that_its_batches_are_told_by(tmp_path: Path):
    system = fresh()
    stage = told_stage(system, iterations=5, learning_rate=5e-3)
    names = {name for name, _ in stage.trainable}
    taught = ("emotion_to_latents.encoders.action_units.", "emotion_to_latents.encoders.text.", "text_encoder.")
    assert all(any(name.startswith(part) for name in names) for part in taught)
    assert not any(name.startswith(("emotion_to_latents.encoders.label.", "emotion_to_latents.mod")) for name in names)
    torch.nn.init.normal_(system.denoiser.conv_out.weight, std=0.1)  # type: ignore[arg-type]
    for key, parameter in system.named_parameters():
        if ".emotion.experts." in key and ".to_out." in key:
            torch.nn.init.normal_(parameter, std=0.1)
    labels, before = label_latents(system), weights(system)
    run_stage(stage, tmp_path)
    assert torch.equal(label_latents(system), labels)
    moved = {name for name, value in weights(system).items() if not torch.equal(value, before[name])}
    assert all(any(name.startswith(part) for name in moved) for part in taught)


def test_labels_alone_teach_no_other_encoder():
    for system, odds, more in (
        (fresh(), SourceOdds(), {}),
        (fresh(), MIXED, {"whole": False}),
    ):
        names = {name for name, _ in told_stage(system, odds, **more).trainable}
        assert not any(name.startswith(("emotion_to_latents.", "text_encoder.")) for name in names)


@pytest.mark.parametrize(
    ("odds", "missing"),
    [
        (SourceOdds(label=0.5, text=0.5), "text"),
        (SourceOdds(label=0.5, several=0.5), "text"),
        (SourceOdds(label=0.5, action_units=0.5), "action_units"),
    ],
)
def test_odds_of_what_the_model_cannot_read_are_refused_at_once(odds: SourceOdds, missing: str):
    lacks = {"action_units": 0} if missing == "action_units" else {"text_width": 0}
    config = dataclasses.replace(DEAF, emotion=dataclasses.replace(DEAF.emotion, **lacks))
    with pytest.raises(ConfigError, match=f"no encoder of {missing}"):
        told_stage(fresh(config), odds)


def test_told_by_several_a_kill_changes_nothing(tmp_path: Path):
    def trained(folder: Path, kill_at: int | None) -> MoEESystem:
        system = fresh()
        stage = told_stage(system, critic=0.5)
        inner = stage.loss

        def loss(step: int) -> tuple[Tensor, dict[str, float]]:
            if step == kill_at:
                raise KilledError
            return inner(step)

        run_stage(dataclasses.replace(stage, loss=loss), made(folder))
        return system

    straight = trained(tmp_path / "a", None)
    with pytest.raises(KilledError):
        trained(tmp_path / "b", 2)
    assert same(weights(straight), weights(trained(tmp_path / "b", None)))


# ---- runs and what ships --------------------------------------------------------------------------------------------


def test_a_finished_model_learns_other_sources_and_keeps_everything_else(tmp_path: Path):
    plain = MoEESystem(dataclasses.replace(TINY, emotion=dataclasses.replace(TINY.emotion, action_units=0)))
    moee.initialise(plain, clips_of(TINY.unet), 7)
    save_system(tmp_path / "plain.safetensors", plain, dtype=torch.float32, metadata={"trained": '{"name": "before"}'})
    off: dict[str, Any] = {"iterations": 0}
    stages: dict[str, StageConfig] = {
        "autoencoder": AutoencoderStage(**off),
        "audio": AudioStage(**off),
        "reference": DiffusionStage(**off),
        "experts": ExpertsStage(**off),
        "gates": GatesStage(**off),
        "sources": SourcesStage(iterations=4, batch_size=8),
    }
    config = dataclasses.replace(
        config_of(DEAF, **stages),
        start_from=str(tmp_path / "plain.safetensors"),
        data=DataConfig(image_size=TINY.image_size),
        cache=str(tmp_path / "cache"),
        runs=str(tmp_path / "runs"),
    )
    config = dataclasses.replace(
        config, stages=dataclasses.replace(config.stages, reference=DiffusionStage(**off, window=TINY.window_frames))
    )
    system, info = load_system(run(config))
    assert system.config == DEAF
    for name, value in plain.state_dict().items():
        if name == "emotion_to_latents.modality.weight":
            value, found = value[0], system.state_dict()[name][0]
        else:
            found = system.state_dict()[name]
        assert torch.equal(found, value), name
    trained = json.loads(info.metadata["trained"])
    assert trained["iterations"]["sources"] == 4
    assert trained["after"] == {"name": "before"}
    assert not (tmp_path / "cache").exists(), "no clips are needed"
    shipped = without_untrained(system, trained)
    assert shipped.config.emotion == DEAF.emotion


def ran(after: dict[str, Any] | None = None, **iterations: int) -> dict[str, Any]:
    return {"name": "x", "iterations": iterations} | ({"after": after} if after is not None else {})


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        ({}, False),
        (ran(reference=100, decoder=5), False),
        (ran(reference=100, sources=0), False),
        (ran(reference=100, sources=10, decoder=5), True),
        (ran(sources=10), True),
        (ran(decoder=5, after=ran(decoder=9, after=ran(sources=10, after={}))), True),
        (ran(decoder=5, after=ran(decoder=9, after={})), False),
        (ran(reference=100, after=ran(sources=10)), False),
        (ran(sources=3, after=ran(reference=100, after=ran(sources=10))), True),
    ],
)
def test_sources_are_trained_when_labels_have_not_changed_since(trained: dict[str, Any], expected: bool):
    assert sources_trained(trained) == expected


@pytest.mark.parametrize("taught", [True, False])
def test_what_ships_has_the_encoders_that_were_taught(taught: bool):
    system = fresh(EVERY_SOURCE)
    shipped = without_untrained(system, ran(sources=5 if taught else 0))
    emotion = shipped.config.emotion
    assert (emotion.action_units, emotion.text_width, emotion.audio_width) == (
        (len(ACTION_UNITS), 16, 16) if taught else (0, 0, 0)
    )
    assert (shipped.text_encoder is not None, shipped.ear is not None) == (taught, taught)
    for name, value in shipped.state_dict().items():
        assert torch.equal(value, system.state_dict()[name]), name
    assert torch.equal(label_latents(shipped), label_latents(system))


def test_a_frozen_voice_does_not_ship_and_a_frozen_text_does_when_it_was_taught():
    """No stage here teaches to listen by a public model."""
    emotion = dataclasses.replace(TINY.emotion, text_width=16, audio_width=16)
    system = fresh(dataclasses.replace(TINY, emotion=emotion))
    assert list(without_untrained(system, ran(sources=5)).emotion_to_latents.encoders) == [
        "label",
        "action_units",
        "text",
    ]
    assert list(without_untrained(system, ran(sources=0)).emotion_to_latents.encoders) == ["label"]


# ---- text by a frozen encoder ---------------------------------------------------------------------------------------


READS_T5 = dataclasses.replace(
    TINY, emotion=dataclasses.replace(TINY.emotion, text="sentence-t5", text_width=T5_NUMBERS)
)


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_t5(tmp_path_factory.mktemp("t5")))


def test_sentences_say_their_emotions_in_many_wordings():
    vectors = sources.random_emotions(np.random.default_rng(0), 200)
    written = sources.sentences_of(vectors, 7)
    assert written == sources.sentences_of(vectors, 7)
    assert len(set(written)) > 100
    for text, vector in zip(written, vectors, strict=True):
        said = understand(text)
        assert not said.unknown, text
        assert not said.units, text
        if vector[1:].max() > 0.3 and np.sort(vector)[-2] < 0.5 * vector.max():
            assert said.condition.vector().argmax() == vector.argmax(), text


def test_the_stage_teaches_to_read_by_sentence_t5(t5: str, tmp_path: Path):
    system = fresh(READS_T5)
    labels = label_latents(system)
    settings = {"text_encoder": t5, "texts": 40, "contrast": 0.01}
    stage = sources.make_stage(config_with(system, iterations=60, learning_rate=2e-2, **settings), system)
    with torch.no_grad():
        far = stage.loss(10_000)[1]
    assert set(far) == {*ALL, "contrast"}
    run_stage(stage, tmp_path)
    with torch.no_grad():
        near = stage.loss(10_000)[1]
    assert near["text"] < 0.8 * far["text"]
    assert near["action_units"] < 0.8 * far["action_units"]
    assert torch.equal(label_latents(system), labels)
    assert not any("t5" in name or "text_encoder" in name for name in system.state_dict())


def test_a_sentence_t5_that_is_not_given_not_needed_or_of_another_width_is_named(t5: str):
    system = fresh(READS_T5)
    with pytest.raises(ConfigError, match=r"stages\.sources\.text_encoder is empty, and this model reads text by sent"):
        sources.make_stage(config_with(system), system)
    with pytest.raises(CheckpointError, match=r"holds no sentence-T5 \(no config\.json\)"):
        sources.make_stage(config_with(system, text_encoder="nowhere"), system)
    with pytest.raises(ConfigError, match=r"does not read by sentence-t5; leave it out"):
        sources.make_stage(config_with(fresh(), text_encoder=t5), fresh())
    wide = dataclasses.replace(READS_T5, emotion=dataclasses.replace(READS_T5.emotion, text_width=768))
    with pytest.raises(CheckpointError, match=r"gives 24 numbers and this model takes 768 \(text_width\)"):
        sources.make_stage(config_with(fresh(wide), text_encoder=t5), fresh(wide))
    with pytest.raises(ValueError, match="texts must be at least 1"):
        SourcesStage(texts=0)


def test_the_share_of_clips_with_units_is_a_share():
    for share in (-0.1, 1.0, 1.5):
        with pytest.raises(ValueError, match="units must be at least 0 and below 1"):
            DataConfig(units=share)
    assert clips_of(TINY.unet).units.shape == (CLIPS, LENGTH, len(UNITS))
