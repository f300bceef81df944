"""DICE-Talk's runs as a whole: what a folder is bound to, what is refused before anything is made, several processes,
models and tables of the user's own."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.audio.emotion_ear import EmotionEar
from moee_core.emotion.vocabulary import LABELS
from moee_core.motion.coefficients import FACE, Motion
from moee_core.motion.files import save_motion
from moee_core.systems.moee import MoEESystem
from moee_core.weights.dice_file import inspect_dice_file, load_dice_file, save_dice_file
from training import dice_talk, parallel
from training.config import ConfigError, from_table, read_table
from training.data.clips import prepare_clips
from training.data.dice_clips import prepare_dice_clips
from training.data.motion_clips import prepare_takes
from training.data.prior_clips import Scene, scenes_of
from training.data.prior_files import load_scenes
from training.dice_config import DiceTrain
from training.run import claim_files
from training.stages.dice_denoiser import DenoiserTask, denoiser_stage
from training.stages.dice_embedder import embedder_stage, name_priors

SMOKE = Path(__file__).resolve().parents[2] / "training" / "configs" / "dice_smoke.toml"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dice_runs")


@pytest.fixture(scope="module")
def config(folder: Path) -> DiceTrain:
    table = read_table(SMOKE) | {"cache": str(folder / "cache"), "runs": str(folder / "runs")}
    found = from_table(DiceTrain, table, "")
    stages = found.stages
    return dataclasses.replace(
        found,
        stages=dataclasses.replace(
            stages,
            embedder=dataclasses.replace(stages.embedder, iterations=2),
            denoiser=dataclasses.replace(stages.denoiser, iterations=2, validate_every=2),
        ),
    )


@pytest.fixture(scope="module")
def around(config: DiceTrain) -> MoEESystem:
    return dice_talk.load_around(config)


@pytest.fixture(scope="module")
def ear(around: MoEESystem) -> EmotionEar:
    assert around.ear is not None
    return around.ear


@pytest.fixture(scope="module")
def embedded(config: DiceTrain) -> Path:
    """A run that stopped after its embedder."""
    return dice_talk.run(config, "embedder")


@pytest.fixture(scope="module")
def scenes(config: DiceTrain, ear: EmotionEar, embedded: Path) -> list[Scene]:
    return scenes_of(prepare_takes(config.takes, config.data_seed, Path(config.cache), "train"), "train", ear)


# ---- what a run makes, and when -------------------------------------------------------------------------------------


def test_an_embedder_needs_no_clips_and_its_run_goes_on(config: DiceTrain, folder: Path, embedded: Path):
    assert not list((folder / "cache").glob("clips-*")), "hours of rendering for nothing"
    assert inspect_dice_file(embedded)[0].change_scale == dice_talk.UNTRAINED_SCALE
    finished = dice_talk.run(config)
    around = dice_talk.load_around(config)
    scale = dice_talk.measured_scale(config, around)
    assert inspect_dice_file(finished)[0].change_scale == scale
    assert scale != dice_talk.UNTRAINED_SCALE


def test_a_folder_is_bound_to_what_its_run_was_begun_with(config: DiceTrain, embedded: Path):
    for change, said in (
        ({"data_seed": 5}, "data_seed"),
        ({"fresh_emotion": True, "seed": 3}, "fresh_emotion, seed"),
        ({"takes": dataclasses.replace(config.takes, takes=23)}, "takes"),
    ):
        with pytest.raises(ConfigError, match=rf"other settings \({said}\); change `name`"):
            dice_talk.run(dataclasses.replace(config, **change))


def test_a_run_goes_on_with_its_files_wherever_they_are(tmp_path: Path):
    first, other = tmp_path / "first.csv", tmp_path / "other.csv"
    first.write_text("motion\n")
    claim_files(tmp_path, {"files": first})
    first.rename(tmp_path / "moved.csv")
    claim_files(tmp_path, {"files": tmp_path / "moved.csv"})
    claim_files(tmp_path, {"files": first})  # gone: said by who reads it
    other.write_text("motion,emotion\n")
    with pytest.raises(
        ConfigError, match=r"began with another `files`, .*other\.csv holds something else now; set it back"
    ):
        claim_files(tmp_path, {"files": other})
    with pytest.raises(ConfigError, match="began with `files`, which is empty now"):
        claim_files(tmp_path, {})


def test_a_run_is_not_continued_from_another_model(config: DiceTrain, embedded: Path, tmp_path: Path):
    kept = tmp_path / "kept.safetensors"
    kept.write_bytes(embedded.read_bytes())
    on = dataclasses.replace(config, start_from=str(kept), runs=str(tmp_path))
    dice_talk.run(on, "embedder")
    other = dice_talk.start(dataclasses.replace(config, seed=9), dice_talk.load_around(config))
    save_dice_file(kept, other, metadata={})
    with pytest.raises(ConfigError, match="began with another `start_from`"):
        dice_talk.run(on)


def test_a_model_goes_on_with_other_clips_in_its_own_unit(config: DiceTrain, around: MoEESystem, tmp_path: Path):
    first = dice_talk.start(config, around)
    first.config = dataclasses.replace(first.config, change_scale=0.3217)
    path = tmp_path / "before.safetensors"
    save_dice_file(path, first, metadata={})
    for seed in (0, 1):
        on = dataclasses.replace(config, start_from=str(path), data_seed=seed)
        assert dice_talk.start(on, around).config.change_scale == 0.3217
    alone = dataclasses.replace(config.stages, denoiser=dataclasses.replace(config.stages.denoiser, iterations=0))
    on = dataclasses.replace(config, start_from=str(path), stages=alone)
    assert dice_talk.start(on, around).config.change_scale == 0.3217


def test_a_wrong_table_is_refused_before_anything_is_made(config: DiceTrain, tmp_path: Path):
    own = tmp_path / "own"
    own.mkdir()
    (own / "files.csv").write_text("motion,emotion\nnowhere.npz,happy\n")
    wanted = dataclasses.replace(config, files=str(own), runs=str(tmp_path), cache=str(tmp_path / "c"), processes=2)
    with pytest.raises(ConfigError, match=r"files\.csv, line 2: "):
        dice_talk.run(wanted)
    assert not (tmp_path / "c").exists()


def test_labels_that_nobody_shows_have_nobodys_prior(
    config: DiceTrain, around: MoEESystem, ear: EmotionEar, scenes: list[Scene]
):
    """Also where an earlier embedder, whose priors lie elsewhere, had one for them."""
    system = dice_talk.start(config, around)
    with torch.no_grad():
        system.priors.weight.fill_(99.0)
    shown = [dataclasses.replace(scene, voiced=False) for scene in scenes if scene.emotion in (0, 4)]
    name_priors(system, ear, shown)
    assert not bool((system.priors.weight == 99.0).any())
    assert bool(system.priors.weight[[0, 4]].any(dim=1).all())
    assert not bool(system.priors.weight[[i for i in range(len(LABELS)) if i not in (0, 4)]].any())


# ---- several processes ----------------------------------------------------------------------------------------------


def _gradients(config: DiceTrain, folder: str) -> None:
    """One step of the embedder, as every process takes it, and which clips and noises the denoiser would be given."""
    around = dice_talk.load_around(config)
    assert around.ear is not None
    takes = prepare_takes(config.takes, config.data_seed, Path(config.cache), "train")
    scenes = scenes_of(takes, "train", around.ear)
    system = dice_talk.start(config, around).requires_grad_(True)
    stage = embedder_stage(config, system, around.ear, scenes, scenes[:8])
    loss, _ = stage.loss(0)
    loss.backward()
    parameters = [parameter for _, parameter in stage.trainable]
    mean = parallel.average_gradients(parameters, loss)
    clips = prepare_dice_clips(
        prepare_clips(config.data, config.data_seed, Path(config.cache)), around, system.embedder, scenes, config.seed
    )
    task = DenoiserTask(config, system, around.autoencoder, clips)
    numbers = task.numbers(3, 4)
    noise = task.batch(3, numbers, 4).noise.unflatten(0, (-1, 4))
    found = {
        "loss": mean,
        "gradients": [parameter.grad for parameter in parameters],
        "noise": {place: (number, one) for (place, number), one in zip(numbers, noise, strict=True)},
    }
    torch.save(found, Path(folder) / f"{parallel.size()}-{parallel.rank()}.pt")


def test_two_processes_take_the_step_that_one_takes(config: DiceTrain, embedded: Path, tmp_path: Path):
    """InfoNCE compares all pairs of a batch, whoever embeds them; every sample is drawn once, by its place."""
    _gradients(config, str(tmp_path))
    parallel.launch(2, functools.partial(_gradients, config, str(tmp_path)))
    alone, *halves = (torch.load(tmp_path / name, weights_only=True) for name in ("1-0.pt", "2-0.pt", "2-1.pt"))
    for half in halves:
        assert half["loss"] == pytest.approx(alone["loss"], rel=1e-5)
        for mine, whole in zip(half["gradients"], alone["gradients"], strict=True):
            torch.testing.assert_close(mine, whole, rtol=1e-3, atol=1e-6)
    assert max(float(one.abs().max()) for one in alone["gradients"]) > 1e-3
    together = halves[0]["noise"] | halves[1]["noise"]
    assert sorted(together) == sorted(alone["noise"]) == [0, 1, 2, 3]
    for place, (number, noise) in alone["noise"].items():
        assert together[place][0] == number
        assert torch.equal(together[place][1], noise)


# ---- the denoiser ---------------------------------------------------------------------------------------------------


def test_a_clip_is_drawn_alike_whoever_else_is_in_its_batch(
    config: DiceTrain, around: MoEESystem, embedded: Path, scenes: list[Scene]
):
    """Each has the mask of its own face, as in use."""
    system = dice_talk.start(config, around).eval()
    with torch.no_grad():
        system.unet.conv_out.weight.normal_(0, 0.1)
    clips = prepare_dice_clips(
        prepare_clips(config.data, config.data_seed, Path(config.cache)), around, system.embedder, scenes, config.seed
    )
    task = DenoiserTask(config, system, around.autoencoder, clips)
    both = task.batch(0, [(0, 1), (1, 4)], 4)
    assert bool((both.located[0] != both.located[1]).any())
    with torch.no_grad():
        together, _ = task.draw(both, 4, retrieval=False)
        for place, number in ((0, 1), (1, 4)):
            alone, _ = task.draw(task.batch(0, [(place, number)], 4), 4, retrieval=False)
            torch.testing.assert_close(together[4 * place : 4 * place + 4], alone, rtol=0, atol=1e-4)


@pytest.mark.parametrize(("whole", "expected"), [(0.0, {True}), (0.5, {True, False}), (1.0, {False})])
def test_how_often_all_codes_are_read(
    whole: float,
    expected: set[bool],
    config: DiceTrain,
    around: MoEESystem,
    embedded: Path,
    scenes: list[Scene],
    monkeypatch: pytest.MonkeyPatch,
):
    denoiser = dataclasses.replace(config.stages.denoiser, whole_bank=whole, spatial_weight=0.0)
    changed = dataclasses.replace(config, stages=dataclasses.replace(config.stages, denoiser=denoiser))
    system = dice_talk.start(changed, around)
    clips = prepare_dice_clips(
        prepare_clips(config.data, config.data_seed, Path(config.cache)), around, system.embedder, scenes, config.seed
    )
    task = DenoiserTask(changed, system, around.autoencoder, clips)
    asked: set[bool] = set()
    read = system.bank.forward

    def seen(prior: torch.Tensor, *, retrieval: bool = False) -> torch.Tensor:
        asked.add(retrieval)
        return read(prior, retrieval=retrieval)

    monkeypatch.setattr(system.bank, "forward", seen)
    for step in range(8):
        task.loss(step, task.batch(step, task.numbers(step, 1), 4), 4)
    assert asked == expected


@pytest.mark.parametrize("code_map", ["fixed", "learned"])
def test_commitment_moves_the_map_to_the_codes_where_it_learns(
    code_map: str, config: DiceTrain, around: MoEESystem, embedded: Path, scenes: list[Scene]
):
    """Both parts of Eq. 17, by their gradients; a retrieval is straight through, so nothing else moves the map."""
    found = {}
    for commitment in (0.0, 0.25):
        denoiser = dataclasses.replace(
            config.stages.denoiser,
            **{"code_map": code_map, "commitment": commitment, "whole_bank": 1.0},
            **{"spatial_weight": 0.0, "discrimination": 0.0},
        )
        bank = dataclasses.replace(config.system.bank, update="naive")
        changed = dataclasses.replace(
            config,
            system=dataclasses.replace(config.system, bank=bank),
            stages=dataclasses.replace(config.stages, denoiser=denoiser),
        )
        system = dice_talk.start(changed, around)
        prepared = prepare_clips(config.data, config.data_seed, Path(config.cache))
        clips = prepare_dice_clips(prepared, around, system.embedder, scenes, config.seed)
        stage = denoiser_stage(changed, system, around.autoencoder, clips)
        loss, figures = stage.loss(0)
        names = [name for name, _ in stage.trainable]
        assert ("bank.to_code.weight" in names) == (code_map == "learned")
        loss.backward()
        gradient = system.bank.to_code.weight.grad
        moved = 0.0 if gradient is None or "bank.to_code.weight" not in names else float(gradient.abs().max())
        found[commitment] = figures["vq"], moved, float(system.bank.dictionary.codes.weight.grad.abs().max())  # type: ignore[union-attr]
    assert min(found[0.0][2], found[0.25][2]) > 0, "the first part moves the codes"
    if code_map == "fixed":
        assert found[0.0] == found[0.25]
    else:
        assert found[0.25][0] == pytest.approx(1.25 * found[0.0][0], rel=1e-4)
        assert found[0.0][1] == 0 < found[0.25][1]


def test_noise_may_weigh_the_objective(config: DiceTrain, around: MoEESystem, embedded: Path, scenes: list[Scene]):
    found = {}
    for how in ("flat", "snr"):
        denoiser = dataclasses.replace(config.stages.denoiser, discrimination_noise=how, labelled=1.0)
        changed = dataclasses.replace(config, stages=dataclasses.replace(config.stages, denoiser=denoiser))
        system = dice_talk.start(changed, around).eval()
        prepared = prepare_clips(config.data, config.data_seed, Path(config.cache))
        clips = prepare_dice_clips(prepared, around, system.embedder, scenes, config.seed)
        task = DenoiserTask(changed, system, around.autoencoder, clips)
        batch = task.batch(0, task.numbers(0, 1), 4)
        batch = dataclasses.replace(batch, sigma=torch.full_like(batch.sigma, 2.0))
        found[how] = task.loss(0, batch, 4)[1]["discrimination"]
    assert found["snr"] == pytest.approx(found["flat"] / 5, rel=1e-4)


# ---- tables as spreadsheets write them ------------------------------------------------------------------------------


def calm(folder: Path, name: str = "calm.npz") -> str:
    save_motion(folder / name, Motion(values=np.zeros((10, FACE.size), np.float32), fps=25.0, space=FACE))
    return name


@pytest.mark.parametrize(
    "content",
    [
        b"\xef\xbb\xbfmotion,emotion,level\r\ncalm.npz,happy,2\r\n",
        b"motion;emotion;level\ncalm.npz;happy;2\n",
        b"motion\temotion\tlevel\ncalm.npz\thappy\t2\n",
        b" motion , emotion , level \n\n calm.npz , happy , 2 \n,,\n",
        b'"motion","emotion","level"\n"calm.npz","happy","2"\n',
    ],
)
def test_a_table_is_read_as_spreadsheets_write_it(content: bytes, tmp_path: Path, ear: EmotionEar):
    calm(tmp_path)
    (tmp_path / "files.csv").write_bytes(content)
    (scene,) = load_scenes(tmp_path, ear, 20)
    assert (scene.emotion, scene.level, scene.known, scene.voiced) == (LABELS.index("happy"), 2, True, False)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"motion,emotions\ncalm.npz,happy\n", "a column 'emotions'; its columns are motion, audio"),
        (b"audio,emotion\nx.wav,happy\n", "no column motion"),
        (b"motion,emotion\n\n\ncalm.npz,hapy\n", "line 4: unknown emotion 'hapy'"),
        (b"motion,emotion\ncalm.npz,\ncalm.npz,\xe4rger\n", "line 3: this is not UTF-8; save the table as UTF-8"),
        (b"motion,emotion\n,happy\n", "line 2: no motion is named"),
        (b"motion,emotion\ncalm.npz,happy,2\n", "line 2: 3 cells under 2 columns"),
        (b"motion,emotion,level\ncalm.npz,neutral,2\n", "line 2: neutral has no level, got '2'"),
        (b"motion\n", "has no rows"),
        (b"", "no column motion"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(content: bytes, said: str, tmp_path: Path, ear: EmotionEar):
    calm(tmp_path)
    (tmp_path / "files.csv").write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        load_scenes(tmp_path, ear, 20)


def test_persons_are_held_out_where_there_are_enough(config: DiceTrain, around: MoEESystem, tmp_path: Path):
    sizes = dataclasses.replace(config.system.embedder, coefficients=64)
    wanted = dataclasses.replace(config, files=str(tmp_path), system=dataclasses.replace(config.system, embedder=sizes))
    from moee_core.motion.coefficients import SADTALKER

    values = np.zeros((10, SADTALKER.size), np.float32)
    save_motion(tmp_path / "one.npz", Motion(values=values, fps=25.0, space=SADTALKER))
    for people, held in ((20, {"p9", "p19"}), (5, {f"p{n}" for n in range(5)})):
        rows = [f"one.npz,p{person}" for person in range(people) for _ in range(11)]
        (tmp_path / "files.csv").write_text("\n".join(["motion,identity", *rows]))
        train, tune = (dice_talk._scenes(wanted, around, split) for split in ("train", "tune"))
        assert {scene.speaker for scene in tune} == held
        assert len(train) + len(tune) == 11 * people
        if people == 20:
            assert not held & {scene.speaker for scene in train}


# ---- on a graphics card ---------------------------------------------------------------------------------------------


@pytest.mark.gpu
def test_both_stages_run_on_a_graphics_card(config: DiceTrain, tmp_path: Path):
    path = dice_talk.run(dataclasses.replace(config, device="cuda", runs=str(tmp_path), precision="bf16"))
    assert all(bool(value.isfinite().all()) for value in load_dice_file(path).state_dict().values())
