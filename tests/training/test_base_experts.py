"""Emotion experts trained on a Hallo base from videos: from the table to files that a base takes."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from moee_core.audio.read import Waveform
from moee_core.audio.wav2vec2 import load_wav2vec2
from moee_core.emotion.timeline import parse_emotion
from moee_core.experts.file import check_fits, load_expert
from moee_core.portrait.regions import finder_installed
from moee_core.systems.hallo import HalloSampling, HalloSystem
from moee_core.video.encode import VideoWriter
from moee_core.weights.hallo import base_content, convert_hallo, load_base_parts, load_hallo_base
from training import base_experts
from training.cli import main
from training.config import ConfigError, from_table, read_table
from training.data.emotion_clips import TABLE, EmotionClips, at_rate, read_entries
from training.face_world import performance as world
from training.face_world.splits import person

from ..core.test_wav2vec2 import tiny_state
from ..fixtures.hallo_parity import TINY, write_hallo, write_wav2vec2

CONFIG = Path(__file__).resolve().parents[2] / "training" / "configs" / "base_experts.toml"
FRAMES = 14


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base with made-up weights, its ear, and a folder of videos: a person neutral and happy, another one sad."""
    folder = tmp_path_factory.mktemp("base_experts")
    convert_hallo(*write_hallo(folder / "downloads"), folder / "base.safetensors", config=TINY, dtype=torch.float32)
    write_wav2vec2(folder / "wav2vec2", tiny_state())
    clips = folder / "clips"
    clips.mkdir()
    lines = ["file,emotion,person,face"]
    for number, (who, emotion) in enumerate([(0, "neutral"), (0, "happy"), (0, "happy:0.8"), (1, "sad")]):
        film(clips / f"{number}.mp4", who, emotion.split(":")[0])
        lines.append(f"{number}.mp4,{emotion},person {who},14 8 50 60")
    (clips / TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def film(path: Path, who: int, emotion: str) -> None:
    rng = np.random.default_rng(who)
    samples = (0.05 * rng.standard_normal(FRAMES * 640)).astype(np.float32)
    rows = np.tile(world.vector({} if emotion == "neutral" else {emotion: 1.0}), (FRAMES, 1))
    act = world.perform(rng, person("train", who), rows, samples=samples, base_pose=world.reference_pose(rng))
    sound = Waveform(samples=samples[None], sample_rate=16000)
    with VideoWriter(path, width=64, height=64, waveform=sound) as writer:
        for frame in act.render(person("train", who), 64, 0, FRAMES):
            writer.write(np.ascontiguousarray(frame))


def settings(folder: Path, **changed: Any) -> base_experts.BaseTrain:
    """The configuration that ships, at a size that takes seconds."""
    table = read_table(CONFIG) | {"cache": str(folder / "cache"), "runs": str(folder / "runs"), "threads": 1}
    table |= {"start_from": str(folder / "base.safetensors"), "speech_encoder": str(folder / "wav2vec2")}
    table |= {"device": "cpu", "precision": "fp32", "data": {"clips": str(folder / "clips"), "image_size": 64}}
    stage = {"iterations": 14, "window": 4, "learning_rate": 3e-3, "warmup": 1, "ema": 0.5, "save_every": 10}
    return from_table(base_experts.BaseTrain, table | {"stage": stage | {"validate_every": 1000}} | changed, "")


@pytest.fixture(scope="module")
def experts(folder: Path) -> Path:
    return base_experts.run(settings(folder))


def test_a_file_comes_out_for_every_emotion_that_is_shown(folder: Path, experts: Path):
    assert {path.name for path in experts.glob("*.safetensors")} == {"happy.safetensors", "sad.safetensors"}
    content = base_content(folder / "base.safetensors")
    system, _ = load_hallo_base(folder / "base.safetensors")
    shapes = {key: tuple(value.shape) for key, value in system.denoiser.state_dict().items()}
    for path in experts.glob("*.safetensors"):
        expert = load_expert(path)
        check_fits(expert, path.name, content, shapes)
        assert expert.emotion == path.stem
        assert expert.preview() is not None
        assert any(value.abs().max() > 1e-4 for key, value in expert.deltas.items() if ".to_out." in key)
    card = load_expert(experts / "happy.safetensors").card()
    assert card["held_out_clips"] == 1
    assert card["loss_with"] != card["loss_without"]


def test_the_content_of_a_base_is_what_a_host_is_told(folder: Path):
    assert load_base_parts(folder / "base.safetensors")[2] == base_content(folder / "base.safetensors")


def test_an_expert_changes_its_own_emotion_in_the_base(folder: Path, experts: Path):
    plain, _ = load_hallo_base(folder / "base.safetensors")
    taught, _ = load_hallo_base(folder / "base.safetensors")
    with torch.no_grad():
        state = taught.denoiser.state_dict()
        for key, delta in load_expert(experts / "happy.safetensors").for_denoiser().items():
            state[key] += delta
    away = {word: shown(taught, word, folder) - shown(plain, word, folder) for word in ("neutral", "happy", "sad")}
    assert away["happy"].abs().max() > 1e-3
    assert away["neutral"].abs().max() == away["sad"].abs().max() == 0


def shown(system: HalloSystem, emotion: str, folder: Path) -> torch.Tensor:
    """Latents of a window of the neutral clip, felt in a way."""
    config = settings(folder)
    ear = load_wav2vec2(config.speech_encoder)
    cache = folder / "cache" / "emotion_clips"
    clips = EmotionClips(folder / "clips", cache, system, ear, base_content(config.start_from), 64)
    clip, task = clips[0], base_experts.BaseTask(config, system, clips)
    noise = torch.randn(4, *clip.latents.shape[1:], generator=torch.Generator().manual_seed(0))
    context = system.emotion_context(torch.from_numpy(parse_emotion(emotion).sample(4, 25.0)).float())
    audio = system.audio_tokens(clip.features.float(), torch.arange(4))
    sampling = HalloSampling(num_inference_steps=2)
    return system.sample_window(task.read(clip, clip.latents[:1]), None, audio, noise, sampling, context)


def test_what_an_expert_learned_is_in_its_emotion_s_clips(folder: Path):
    """On a clip it was trained on, over all time-steps: less error with the experts than without."""
    config = settings(folder, name="longer")
    longer = replace(config, stage=replace(config.stage, iterations=60))
    path = base_experts.run(longer) / "happy.safetensors"
    system, _ = load_hallo_base(config.start_from)
    ear, cache = load_wav2vec2(config.speech_encoder), folder / "cache" / "emotion_clips"
    clips = EmotionClips(folder / "clips", cache, system, ear, base_content(config.start_from), 64)
    task = base_experts.BaseTask(config, system, clips)

    def error() -> float:
        losses = []
        for index in range(8):
            one = task.sample(1, np.random.default_rng(index))
            noise = torch.randn(one.clean.shape, generator=torch.Generator().manual_seed(index))
            losses.append(float(task.loss(one, 62 + 125 * index, noise)))
        return float(np.mean(losses))

    before = error()
    state = system.denoiser.state_dict()
    for key, delta in load_expert(path).for_denoiser().items():
        state[key] += delta
    assert error() < 0.98 * before


def test_a_run_that_was_stopped_goes_on_to_the_same_file(folder: Path, experts: Path, monkeypatch: pytest.MonkeyPatch):
    config = settings(folder, name="stopped")
    sample = base_experts.BaseTask.sample
    drawn: list[int] = []

    def dying(self: base_experts.BaseTask, number: int, rng: np.random.Generator) -> Any:
        drawn.append(number)
        if len(drawn) == 12:
            raise KeyboardInterrupt
        return sample(self, number, rng)

    monkeypatch.setattr(base_experts.BaseTask, "sample", dying)
    with pytest.raises(KeyboardInterrupt):
        base_experts.run(config)
    monkeypatch.undo()
    again = base_experts.run(config)
    for path in experts.glob("*.safetensors"):
        first, second = load_expert(path).deltas, load_expert(again / path.name).deltas
        assert all(torch.equal(first[key], second[key]) for key in first)
    assert base_experts.run(config) == again, "finished runs are left alone"


def test_computing_again_gives_the_same_gradients(folder: Path):
    config = settings(folder)
    found = []
    for again in (False, True):
        system, _ = load_hallo_base(config.start_from)
        ear, cache = load_wav2vec2(config.speech_encoder), folder / "cache" / "emotion_clips"
        clips = EmotionClips(folder / "clips", cache, system, ear, base_content(config.start_from), 64)
        task = base_experts.BaseTask(config, system, clips)
        if again:
            base_experts.compute_again(system.denoiser)
        weight = dict(system.denoiser.named_parameters())[
            "backbone.mid_block.sites.0.emotion.experts.3.to_out.0.weight"
        ]
        weight.requires_grad_(True)
        one = task.sample(1, np.random.default_rng(0))
        task.loss(one, 500, torch.ones_like(one.clean)).backward()
        assert weight.grad is not None
        found.append(weight.grad.clone())
    assert found[0].abs().max() > 0
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (('device = "cuda"', 'device = "cuda:99"'), "device 'cuda:99' cannot be used here"),
        (('device = "cuda"', 'device = "cpu"'), "hallo_base.safetensors"),
    ],
)
def test_the_command_line_says_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: tuple[str, str], said: str
):
    path = tmp_path / "config.toml"
    text = CONFIG.read_text(encoding="utf-8").replace(*change)
    path.write_text(text.replace("name =", f'runs = "{tmp_path.as_posix()}"\nname =', 1), encoding="utf-8")
    assert main([str(path)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (None, "does not exist; write a line"),
        ("file,person\na.mp4,x", "has no column emotion"),
        ("file,emotion\nnone.mp4,happy", "clips.csv, line 2: there is no file"),
        ("file,emotion\na.mp4,joyous", "clips.csv, line 2: "),
        ("file,emotion\na.mp4,@smirk:0.5", "@smirk is an expert of somebody's own"),
        ("file,emotion,face\na.mp4,happy,1 2 3", "face is 3 numbers"),
        ("file,emotion,face\na.mp4,happy,a b c d", "could not convert"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, lines: str | None, said: str):
    (tmp_path / "a.mp4").touch()
    if lines is not None:
        (tmp_path / TABLE).write_text(lines, encoding="utf-8")
    with pytest.raises(ConfigError, match=said):
        read_entries(tmp_path)


def test_frames_are_taken_at_the_bases_rate():
    frames = [np.full((1, 1, 3), i, np.uint8) for i in range(10)]

    def taken(rate: float, count: int) -> list[int]:
        return [int(frame[0, 0, 0]) for frame in at_rate(iter(frames), rate, 25.0, count)]

    assert taken(25.0, 99) == list(range(10))
    assert taken(50.0, 99) == [0, 2, 4, 6, 8]
    assert taken(12.5, 5) == [0, 0, 1, 1, 2]
    assert taken(30.0, 3) == [0, 1, 2]


def test_clips_without_an_emotion_teach_nothing(folder: Path, tmp_path: Path):
    clips = tmp_path / "clips"
    clips.mkdir()
    film(clips / "a.mp4", 2, "neutral")
    (clips / TABLE).write_text("file,emotion,face\na.mp4,neutral,14 8 50 60\n", encoding="utf-8")
    config = settings(folder, name="nothing", runs=str(tmp_path))
    with pytest.raises(ConfigError, match="no clip shows an emotion"):
        base_experts.run(replace(config, data=base_experts.BaseData(clips=str(clips), image_size=64)))


def test_a_run_goes_on_with_the_clips_it_began_with(folder: Path, experts: Path, tmp_path: Path):
    """What is held out would be others otherwise, and some of them trained on."""
    config = settings(folder)
    system, _ = load_hallo_base(config.start_from)
    ear, cache = load_wav2vec2(config.speech_encoder), folder / "cache" / "emotion_clips"
    clips = EmotionClips(folder / "clips", cache, system, ear, base_content(config.start_from), 64)
    base_experts.claim_table(experts.parent, clips)
    clips.entries = clips.entries[1:]
    with pytest.raises(ConfigError, match="began with another table of clips"):
        base_experts.claim_table(experts.parent, clips)


def test_every_emotion_keeps_a_clip_to_learn_from(folder: Path, tmp_path: Path):
    clips = tmp_path / "clips"
    clips.mkdir()
    lines = ["file,emotion,face"]
    for number, emotion in enumerate(["happy", "happily_surprised", "surprised"]):
        shutil.copy(folder / "clips" / "1.mp4", clips / f"{number}.mp4")
        lines.append(f"{number}.mp4,{emotion},14 8 50 60")
    (clips / TABLE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    config = settings(folder, name="all held out", runs=str(tmp_path))
    with pytest.raises(ConfigError, match="every clip that shows surprised is held out"):
        base_experts.run(replace(config, data=base_experts.BaseData(clips=str(clips), image_size=64)))


def test_another_speech_encoder_hears_anew(folder: Path):
    config = settings(folder)
    system, _ = load_hallo_base(config.start_from)
    cache, made_by = folder / "cache" / "emotion_clips", base_content(config.start_from)
    ear = load_wav2vec2(config.speech_encoder)
    before = EmotionClips(folder / "clips", cache, system, ear, made_by, 64).paths
    with torch.no_grad():
        ear.model.encoder.layer_norm.weight.mul_(2)
    after = EmotionClips(folder / "clips", cache, system, ear, made_by, 64)
    assert not set(before) & set(after.paths)
    assert not torch.equal(after[0].features, load_file(before[0])["features"].half())


def test_a_clip_without_a_face_is_named(folder: Path, tmp_path: Path):
    clips = tmp_path / "clips"
    clips.mkdir()
    with VideoWriter(
        clips / "grey.mp4",
        width=64,
        height=64,
        waveform=Waveform(samples=np.zeros((1, 6400), np.float32), sample_rate=16000),
    ) as writer:
        for _ in range(10):
            writer.write(np.full((64, 64, 3), 128, np.uint8))
    (clips / TABLE).write_text("file,emotion\ngrey.mp4,happy\n", encoding="utf-8")
    config = settings(folder, name="faceless", runs=str(tmp_path))
    why = "no face was found" if finder_installed() else "nothing that finds faces is installed"
    with pytest.raises(ConfigError, match=rf"grey.mp4: {why}.*give `face`"):
        base_experts.run(replace(config, data=base_experts.BaseData(clips=str(clips), image_size=64)))
