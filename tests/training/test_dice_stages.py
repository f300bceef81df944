"""DICE-Talk's training: its data, both stages from end to end, what moves in each, a kill that changes nothing, and the
pieces of its report."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.emotion.vocabulary import LABELS
from moee_core.motion.coefficients import FACE, SADTALKER, UNITS, Motion
from moee_core.motion.files import save_motion
from moee_core.systems.dice_talk import DiceTalkSystem
from moee_core.systems.moee import MoEESystem
from moee_core.weights.dice_file import inspect_dice_file, load_dice_file
from training import dice_report, dice_talk
from training.cli import main
from training.config import ConfigError, from_table, read_table
from training.data.clips import prepare_clips
from training.data.dice_clips import DiceClips, box_mask, labels_of, prepare_dice_clips
from training.data.motion_clips import prepare_takes
from training.data.prior_clips import Scene, SceneDraw, class_of, classes, scenes_of, voice_of
from training.data.prior_files import load_scenes
from training.dice_config import DenoiserStage, DiceTrain, EmbedderStage
from training.loop import run_stage
from training.stages.dice_denoiser import BY, DenoiserTask, denoiser_stage
from training.stages.dice_embedder import embedder_stage, moment, priors_of

from ..fixtures.killed import KilledError, made, same, weights

ASSETS = Path(__file__).resolve().parents[2] / "moee_core" / "assets"
CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"
SMOKE = CONFIGS / "dice_smoke.toml"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dice")


@pytest.fixture(scope="module")
def config(folder: Path) -> DiceTrain:
    table = read_table(SMOKE) | {"cache": str(folder / "cache"), "runs": str(folder / "runs")}
    return from_table(DiceTrain, table, "")


@pytest.fixture(scope="module")
def finished(config: DiceTrain) -> Path:
    """A whole run at smoke size."""
    return dice_talk.run(config)


@pytest.fixture(scope="module")
def around(config: DiceTrain) -> MoEESystem:
    return dice_talk.load_around(config)


@pytest.fixture(scope="module")
def scenes(config: DiceTrain, around: MoEESystem, finished: Path) -> list[Scene]:
    assert around.ear is not None
    return scenes_of(prepare_takes(config.takes, config.data_seed, Path(config.cache), "train"), "train", around.ear)


@pytest.fixture(scope="module")
def clips(config: DiceTrain, around: MoEESystem, finished: Path, scenes: list[Scene]) -> DiceClips:
    prepared = prepare_clips(config.data, config.data_seed, Path(config.cache))
    embedder = load_dice_file(finished.parent / "embedder.safetensors").embedder
    return prepare_dice_clips(prepared, around, embedder, scenes, config.seed)


# ---- the run --------------------------------------------------------------------------------------------------------


def test_the_command_trains_both_stages_and_says_what_it_made(config: DiceTrain, finished: Path):
    assert finished.name == "model.safetensors"
    found, metadata = inspect_dice_file(finished)
    assert found.named_priors
    assert (found.ear, found.picture) == ("embedded", "latent")
    assert found.change_scale > 0
    assert json.loads(metadata["trained"]) == {
        "name": "dice_smoke", "seed": 7, "iterations": {"embedder": 10, "denoiser": 10}
    }  # fmt: skip
    assert "procedural" in metadata["data_licence"]
    assert json.loads(metadata["sampling"])["num_inference_steps"] == 1
    assert list(finished.parent.glob("denoiser-*.png"))
    losses = [json.loads(line)["loss"] for line in (finished.parent / "log.jsonl").read_text().splitlines()]
    assert np.isfinite(losses).all()
    before = finished.stat().st_mtime_ns
    path = finished.parent / "denoiser.safetensors"
    written = path.stat().st_mtime_ns
    dice_talk.run(config)  # started again, a finished run trains nothing
    assert path.stat().st_mtime_ns == written
    assert finished.stat().st_mtime_ns >= before


def test_each_stage_moves_its_own_networks(config: DiceTrain, around: MoEESystem, finished: Path):
    start = dice_talk.start(config, around).state_dict()
    first, last = (
        load_dice_file(finished.parent / f"{name}.safetensors").state_dict() for name in ("embedder", "denoiser")
    )
    moved = {key.split(".")[0] for key in start if not torch.equal(start[key], first[key])}
    assert moved == {"embedder", "priors"}
    moved = {key.split(".")[0] for key in start if not torch.equal(first[key], last[key])}
    assert moved == {"audio_projector", "bank", "face_locator", "picture_token", "unet"}
    assert not any(
        key.startswith("bank.dictionary.co") and torch.equal(first[key], last[key])
        for key in ("bank.dictionary.codes.weight",)
    )


def test_names_have_the_mean_prior_of_their_takes(
    config: DiceTrain, around: MoEESystem, finished: Path, scenes: list[Scene]
):
    system = load_dice_file(finished.parent / "embedder.safetensors")
    full = [scene for scene in scenes if scene.emotion == 4 and scene.level == 3]
    assert full
    means, _ = priors_of(system.embedder, around.ear, full, "both")  # type: ignore[arg-type]
    assert torch.allclose(system.priors.weight[4], torch.from_numpy(means.mean(axis=0)), atol=1e-5)


@pytest.mark.parametrize("name", ["embedder", "denoiser"])
def test_a_killed_stage_goes_on_as_if_it_never_stopped(
    name: str,
    config: DiceTrain,
    around: MoEESystem,
    finished: Path,
    scenes: list[Scene],
    clips: DiceClips,
    tmp_path: Path,
):
    def stage(killed_at: int | None = None):
        system = load_dice_file(finished.parent / "embedder.safetensors")
        assert around.ear is not None
        if name == "embedder":
            found = embedder_stage(config, system, around.ear, scenes, scenes[:8])
        else:
            found = denoiser_stage(config, system, around.autoencoder, clips)

        def loss(step: int):
            if step == killed_at:
                raise KilledError
            return found.loss(step)

        return system, dataclasses.replace(found, loss=loss, validate=None)

    whole, one = stage()
    run_stage(one, made(tmp_path / "whole"))
    _, cut = stage(killed_at=7)
    with pytest.raises(KilledError):
        run_stage(cut, made(tmp_path / "cut"))
    again, other = stage()
    run_stage(other, made(tmp_path / "cut"))
    assert same(weights(whole), weights(again))


def test_a_finished_model_can_be_gone_on_with(config: DiceTrain, around: MoEESystem, finished: Path):
    on = dataclasses.replace(config, start_from=str(finished))
    assert same(weights(dice_talk.start(on, around)), weights(load_dice_file(finished)))
    bank = dataclasses.replace(config.system.bank, codes=4)
    other = dataclasses.replace(on, system=dataclasses.replace(config.system, bank=bank))
    with pytest.raises(ConfigError, match="has other sizes"):
        dice_talk.start(other, around)


def test_bad_settings_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "bad.toml"
    for text, said in (
        ('prior = "drawn"', "prior must be sampled or mean, got 'drawn'"),
        ('code_map = "free"', "code_map must be fixed or learned, got 'free'"),
        ("all_drop = 1.0", "leave some batches whole"),
        ("bnak = 1", "bnak"),
    ):
        path.write_text(SMOKE.read_text().replace("[stages.denoiser]", f"[stages.denoiser]\n{text}"))
        assert main([str(path)]) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no stage gates; its stages are: embedder, denoiser"):
        dice_talk.run(from_table(DiceTrain, read_table(SMOKE), ""), "gates")
    for stage, field, value in (
        (EmbedderStage, "drop_face", 0.8),
        (EmbedderStage, "temperature", 0.0),
        (DenoiserStage, "labelled", 2.0),
    ):
        with pytest.raises(ValueError, match=str(value)):
            stage(**{field: value})


# ---- data -----------------------------------------------------------------------------------------------------------


def test_a_speaker_is_one_voice_with_one_expressiveness(scenes: list[Scene]):
    by_group: dict[int, set[tuple[str, int, int]]] = {}
    for scene in scenes:
        by_group.setdefault(scene.group, set()).add((scene.speaker, scene.emotion, scene.level))
    assert all(len(kinds) == 1 for kinds in by_group.values())
    assert len(by_group) == len({kind for kinds in by_group.values() for kind in kinds})
    # the same emotion at the same level is shown as strongly in all takes of a speaker
    alike: dict[tuple[str, int, int], list[float]] = {}
    for scene in scenes:
        if scene.emotion == LABELS.index("happy"):
            smile = float(np.median(scene.units_NC[:, UNITS.index("12L")]))
            alike.setdefault((scene.speaker, scene.emotion, scene.level), []).append(smile)
    assert alike
    assert all(max(values) - min(values) < 0.02 for values in alike.values())


def test_classes_of_emotion_and_level():
    assert classes() == 22
    everything = [class_of(0, 0)] + [class_of(emotion, level) for emotion in range(1, 8) for level in (1, 2, 3)]
    assert everything == list(range(22))


def test_pairs_are_of_one_group_and_every_class_is_drawn(scenes: list[Scene]):
    draw, rng = SceneDraw(scenes), np.random.default_rng(0)
    seen = set()
    for _ in range(400):
        first, second = draw.pair(rng)
        assert first.group == second.group
        seen.add(class_of(first.emotion, first.level))
    assert seen == {class_of(scene.emotion, scene.level) for scene in scenes}


def test_a_moment_is_as_long_as_asked_and_errs_as_a_reader(around: MoEESystem, scenes: list[Scene]):
    assert around.ear is not None
    settings = EmbedderStage(units_noise=0.1)
    scene = scenes[0]
    for frames in (5, len(scene) + 9):
        units, voice = moment(around.ear, scene, frames, np.random.default_rng(1), settings)
        assert units.shape == (frames, len(UNITS))
        assert voice.shape == (2 * frames, 1, around.ear.width)
        assert float(units.min()) >= 0
    still = EmbedderStage(units_noise=0.0, voice_noise=0.0)
    units, voice = moment(around.ear, scene, len(scene), np.random.default_rng(1), still)
    np.testing.assert_allclose(units.numpy(), scene.units_NC)
    assert torch.allclose(voice, voice_of(around.ear, scene, 0, len(scene)))


def test_labels_are_for_one_emotion_held_alone():
    emotion = np.zeros((5, 4, 8), np.float32)
    emotion[:, :, 0] = 1
    emotion[1, :, 4] = 0.5  # happy, weakly
    emotion[2, :, 4] = 1.1  # happy, strongly
    emotion[3, :, (4, 5)] = 0.4  # two at once
    emotion[4, 2:, 4] = 1.0  # rising
    units = np.zeros((5, 4, 20), np.float32)
    found = labels_of(emotion, units)
    assert found[:, 0].tolist() == [0, class_of(4, 1), class_of(4, 3), -1, -1]
    units[1, :, 2] = 0.5  # action units beside it
    assert labels_of(emotion, units)[1].tolist() == [-1] * 4


def test_a_box_is_a_tenth_larger_and_stays_on_the_picture():
    found = box_mask((20.0, 30.0, 60.0, 90.0), 128)
    rows, columns = np.flatnonzero(found.any(axis=1)), np.flatnonzero(found.any(axis=0))
    assert (rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) == (27, 93, 18, 62)
    assert box_mask((-20.0, -5.0, 200.0, 140.0), 128).all()


def test_voices_are_those_of_the_class(clips: DiceClips, scenes: list[Scene]):
    """Who shows one emotion has three priors where a take of that class is long enough, everybody else the face's
    three times."""
    means = clips.wholes[0]
    labelled = clips.label[:, 0] >= 0
    assert bool(labelled.any())
    assert bool((~labelled).any())
    assert torch.equal(means[~labelled][:, 1], means[~labelled][:, 0])
    length = clips.latents.shape[1]
    heard = {class_of(scene.emotion, scene.level) for scene in scenes if len(scene) >= length}
    for mean, label in zip(means[labelled], clips.label[labelled, 0].tolist(), strict=True):
        others = [bool((mean[a] != mean[b]).any()) for a, b in ((0, 1), (0, 2), (1, 2))]
        assert others == [label in heard] * 3
    assert heard & set(clips.label[labelled, 0].tolist())


# ---- the denoiser's batches and losses ------------------------------------------------------------------------------


def task_of(config: DiceTrain, finished: Path, around: MoEESystem, clips: DiceClips, **changes) -> DenoiserTask:
    stage = dataclasses.replace(config.stages.denoiser, **changes)
    changed = dataclasses.replace(config, stages=dataclasses.replace(config.stages, denoiser=stage))
    return DenoiserTask(changed, load_dice_file(finished.parent / "embedder.safetensors"), around.autoencoder, clips)


def test_batches_depend_on_seed_step_and_sample_alone(
    config: DiceTrain, finished: Path, around: MoEESystem, clips: DiceClips
):
    one, two = (task_of(config, finished, around, clips) for _ in range(2))
    for step in (0, 3):
        first, second = one.batch(step, one.numbers(step, 4), 4), two.batch(step, two.numbers(step, 4), 4)
        assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))
    assert not torch.equal(one.batch(0, [(0, 1)], 4).noise, one.batch(1, [(0, 1)], 4).noise)


def test_half_of_the_clips_show_one_emotion(config: DiceTrain, finished: Path, around: MoEESystem, clips: DiceClips):
    for share in (0.0, 0.5, 1.0):
        task = task_of(config, finished, around, clips, labelled=share)
        numbers = [number for step in range(100) for _, number in task.numbers(step, 4)]
        assert float((clips.label[numbers, 0] >= 0).float().mean()) == pytest.approx(share, abs=0.08)
        assert max(numbers) < len(clips) - task.held_out


def test_drops_are_as_often_as_told(config: DiceTrain, finished: Path, around: MoEESystem, clips: DiceClips):
    task = task_of(config, finished, around, clips, audio_drop=0.1, image_drop=0.2, emotion_drop=0.3, all_drop=0.15)
    rng = np.random.default_rng(0)
    kept = torch.stack([task._kept(rng) for _ in range(4000)])
    nothing = (kept == 0).all(dim=1)
    assert float(nothing.float().mean()) == pytest.approx(0.15, abs=0.02)
    for which, share in enumerate((0.1, 0.2, 0.3)):
        assert float((kept[~nothing][:, which] == 0).float().sum()) / 4000 == pytest.approx(share, abs=0.025)


def test_a_prior_is_drawn_or_its_mean(config: DiceTrain, finished: Path, around: MoEESystem, clips: DiceClips):
    frames = torch.arange(4)
    for per_frame, stored, variance in (
        (0.0, clips.wholes[0][2][:, None].expand(-1, 4, -1), clips.wholes[1]),
        (1.0, clips.moments[0][2, :4][None], clips.moments[1]),
    ):
        plain = task_of(config, finished, around, clips, prior="mean", per_frame=per_frame)
        drawn = task_of(config, finished, around, clips, prior="sampled", per_frame=per_frame)
        rng = np.random.default_rng(5)
        means = [plain._prior(rng, 2, frames) for _ in range(60)]
        which = [next(k for k, one in enumerate(stored) if torch.equal(one, mean)) for mean in means]
        assert set(which) == {k for k, one in enumerate(stored) if not any(torch.equal(one, e) for e in stored[:k])}
        found = [drawn._prior(rng, 2, frames) for _ in range(200)]
        middle = torch.stack(found).mean(dim=0)
        shares = torch.tensor(BY if len(stored) == 3 else (1.0,))[:, None, None]
        expected = (shares * stored).sum(dim=0)
        spread = (shares * (stored - expected).square()).sum(dim=0).sqrt().max() + variance[2].sqrt().max()
        assert torch.allclose(middle, expected, atol=5 * float(spread) / len(found) ** 0.5 + 1e-4)
        assert len({round(float(one.sum()), 5) for one in found}) > 100


def test_what_each_part_of_the_loss_needs(config: DiceTrain, finished: Path, around: MoEESystem, clips: DiceClips):
    task = task_of(config, finished, around, clips, labelled=1.0)
    batch = task.batch(0, task.numbers(0, 3), 4)
    total, figures = task.loss(0, batch, 4)
    assert set(figures) == {"denoising", "spatial", "discrimination", "vq"}
    settings = task.settings
    parts = figures["denoising"] + settings.spatial_weight * figures["spatial"] + settings.vq * figures["vq"]
    assert float(total) == pytest.approx(parts + settings.discrimination * figures["discrimination"], rel=1e-4)
    regular = dataclasses.replace(batch, label=torch.full_like(batch.label, -1))
    assert "discrimination" not in task.loss(0, regular, 4)[1]
    off = task_of(config, finished, around, clips, labelled=1.0, vq=0.0, discrimination=0.0, spatial_weight=0.0)
    assert set(off.loss(0, batch, 4)[1]) == {"denoising"}


def test_an_untrained_network_costs_one_at_the_largest_noise(
    config: DiceTrain, finished: Path, around: MoEESystem, clips: DiceClips
):
    """It answers 0, the portrait; the loss is in units of how much each position changes."""
    task = task_of(
        config, finished, around, clips, noise_last=1.0, other_reference=0.0, mouth_weight=1.0, eye_weight=1.0
    )
    values = [task.loss(step, task.batch(step, task.numbers(step, 4), 4), 4)[1]["denoising"] for step in range(12)]
    assert 0.3 < float(np.mean(values)) < 2.0


# ---- the report's pieces --------------------------------------------------------------------------------------------


def test_an_arm_starts_from_the_model_but_for_what_carries_emotion(
    config: DiceTrain, around: MoEESystem, finished: Path
):
    model = load_dice_file(finished)
    for arm in dice_report.ARMS:
        wanted = dice_report.arm_of(config, arm, 3, str(finished))
        system: DiceTalkSystem = dice_talk.start(wanted, around)
        fresh = dice_talk.start(dataclasses.replace(wanted, start_from=""), around).state_dict()
        for key, value in system.state_dict().items():
            carries = key.startswith("bank.") or ".adapters.1." in key
            assert torch.equal(value, fresh[key] if carries else model.state_dict()[key]), key
    assert dice_report.arm_of(config, "no bank", 1, "").system.bank.form == "direct"
    assert dice_report.arm_of(config, "learnable", 1, "").stages.denoiser.whole_bank == 1.0
    assert dice_report.arm_of(config, "mean prior", 1, "").stages.denoiser.prior == "mean"
    assert dice_report.arm_of(config, "no objective", 1, "").stages.denoiser.discrimination == 0.0


def test_a_schedule_says_each_emotion_in_turn():
    found = dice_report.schedule_of(25.0, "happy", "sad")
    assert found.shape == (75, 8)
    assert np.allclose(found.sum(axis=1), 1)
    assert [LABELS[int(row.argmax())] for row in found[[5, 33, 52, 74]]] == ["neutral", "happy", "sad", "neutral"]


def test_the_table_of_arms_compares_seed_by_seed():
    rows = [
        {"arm": arm, "seed": seed, **dict.fromkeys(dice_report.FIGURES, 0.5 + 0.1 * seed + gap)}
        for seed in (1, 2, 3)
        for arm, gap in (("full", 0.0), ("no bank", -0.2))
    ]
    text = dice_report.arms_table(rows)
    assert "0.700 ± 0.248" in text
    assert "0.500 (-0.200 ± 0.000)" in text
    mean, half = dice_report.with_interval([1.0, 2.0, 3.0])
    assert (mean, round(half, 3)) == (2.0, 2.484)


def test_the_units_that_tell_two_emotions_apart():
    found = {UNITS[column] for column in dice_report.concerned("neutral", "happy")}
    assert {"12L", "12R", "6"} <= found
    assert dice_report.concerned("happy", "happy").size == 0


def test_the_map_draws_every_point():
    rng = np.random.default_rng(0)
    points = [(label, 0.7, rng.normal(size=6)) for label in LABELS for _ in range(5)]
    sheet = dice_report.drawn_map(points, side=300)
    assert sheet.shape == (300, 300, 3)
    for label in LABELS:
        assert (sheet == np.array(dice_report.COLOURS[label])).all(axis=2).any(), label


# ---- coefficient files ----------------------------------------------------------------------------------------------


def write_table(folder: Path, rows: list[str]) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "files.csv").write_text("\n".join(["motion,audio,identity,emotion,level", *rows]) + "\n")
    return folder


def motion_file(path: Path, *, space=FACE, seconds: float = 2.0, fps: float = 30.0, **curves: float) -> str:
    frames = round(seconds * fps)
    values = np.zeros((frames, space.size), np.float32)
    for name, value in curves.items():
        values[:, space.index[name]] = value
    save_motion(path, Motion(values=values, fps=fps, space=space))
    return path.name


def test_files_become_scenes(tmp_path: Path, around: MoEESystem):
    assert around.ear is not None
    folder = write_table(tmp_path / "own", [])
    smile = motion_file(folder / "smile.npz", AU12L=0.8)
    calm = motion_file(folder / "calm.npz")
    (folder / "hello.ogg").write_bytes((ASSETS / "speech" / "hello.ogg").read_bytes())
    rows = [
        f"{smile},hello.ogg,anna,happy,2",
        f"{smile},,anna,happy,2",
        f"{calm},,anna,,",
        f"{calm},,anna,neutral,",
        f"{calm},,,,",
    ]
    scenes = load_scenes(write_table(folder, rows), around.ear, 20)
    assert [scene.voiced for scene in scenes] == [True, False, False, False, False]
    assert [(scene.emotion, scene.level, scene.known) for scene in scenes] == [
        (4, 2, True), (4, 2, True), (0, 0, False), (0, 0, True), (0, 0, False)
    ]  # fmt: skip
    groups = [scene.group for scene in scenes]
    assert groups[0] == groups[1]
    assert len(set(groups)) == 4, "what nobody named is alike to itself alone"
    assert len(scenes[0]) == 50, "two seconds at 25 a second"
    assert scenes[0].units_NC[:, UNITS.index("12L")] == pytest.approx(0.8)
    assert scenes[0].voice_TQ.shape[0] == 100
    assert not torch.equal(scenes[0].voice_TQ, scenes[1].voice_TQ)


def test_a_table_that_cannot_be_used_says_where(tmp_path: Path, around: MoEESystem):
    ear = around.ear
    assert ear is not None
    folder = write_table(tmp_path / "own", [])
    calm = motion_file(folder / "calm.npz")
    other = motion_file(folder / "other.npz", space=SADTALKER, fps=25.0)
    for row, said in (
        (f"{calm},,anna,merry,", "line 2: unknown emotion 'merry'"),
        (f"{calm},,anna,happy,4", "line 2: level is 1 to 3"),
        ("nothing.npz,,,,", "line 2: "),
        (f"{calm},silence.wav,,,", "line 2: "),
        (f"{other},,,,", "64 expression coefficients; the embedder reads 20"),
    ):
        with pytest.raises(ConfigError, match=said):
            load_scenes(write_table(folder, [row]), ear, 20)
    with pytest.raises(ConfigError, match="has no rows"):
        load_scenes(write_table(folder, []), ear, 20)
    with pytest.raises(ConfigError, match=r"files\.csv cannot be read"):
        load_scenes(tmp_path / "nowhere", ear, 20)


def test_an_embedder_learns_from_3dmm_files_alone(config: DiceTrain, tmp_path: Path, around: MoEESystem):
    """Faces without voices, in another space; the denoiser of the face world cannot be trained on it."""
    folder = write_table(tmp_path / "own", [])
    rng = np.random.default_rng(0)
    rows = []
    for who in ("anna", "ben"):
        for number, label in enumerate(("neutral", "happy", "sad")):
            for take in range(4):
                curves = {f"exp{i}": float(rng.normal(3.0 * (i == number), 0.1)) for i in range(3)}
                name = motion_file(folder / f"{who}-{label}-{take}.npz", space=SADTALKER, fps=25.0, **curves)
                rows.append(f"{name},,{who},{label},")
    write_table(folder, rows)
    sizes = dataclasses.replace(config.system.embedder, coefficients=64)
    wanted = dataclasses.replace(
        config,
        name="files",
        runs=str(tmp_path),
        files=str(folder),
        system=dataclasses.replace(config.system, embedder=sizes),
    )
    with pytest.raises(ConfigError, match=r"set stages\.denoiser\.iterations to 0"):
        dice_talk.run(wanted)
    path = dice_talk.run(wanted, "embedder")
    priors = load_dice_file(path).priors.weight
    assert bool(priors[[0, 4, 5]].any(dim=1).all())
    assert not bool(priors[[1, 2, 3, 6, 7]].any()), "nobody showed these"
    last = json.loads((tmp_path / "files" / "log.jsonl").read_text().splitlines()[-1])
    assert "face emotion" in last
    assert "speech emotion" not in last
