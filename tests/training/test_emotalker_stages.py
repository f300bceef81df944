"""EmoTalker's training: its data, that every stage learns, that what learns without gradients survives a kill."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.audio.prosody import SILENCE
from moee_core.emotion.vocabulary import LABELS
from moee_core.motion.coefficients import FACE, UNITS
from moee_core.ops import Build
from moee_core.systems.emo_talker import EmoTalkerSystem, MotionSettings
from moee_core.weights.emo_talker import load_emo_talker
from training import emotalker, emotalker_report
from training.cli import main
from training.config import ConfigError, from_table, load_config, read_table
from training.data.motion_clips import MotionDataConfig, Take, TakeDraw, make_takes, plan, prepare_takes
from training.data.vocal_mood import LEVELS, Voice, change_for, said_again
from training.emotalker_config import STAGES, EmoTalkerTrain
from training.emotalker_measure import PrototypeReader, interval, landmark_distances, landmarks, mean_units
from training.face_world.motion import face_motion
from training.face_world.performance import Performance
from training.face_world.rig import AU_NAMES
from training.face_world.speech import BANK_FOLDER, INDEX_NAME, Utterance, load_speech
from training.face_world.splits import person
from training.loop import Stage, run_stage
from training.stages import emotalker as stages

from ..fixtures.killed import KilledError, made, same, weights

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"
SMOKE = CONFIGS / "emotalker_smoke.toml"


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def configuration(**changes) -> EmoTalkerTrain:
    """The smoke configuration with a take per emotion."""
    config = from_table(EmoTalkerTrain, read_table(SMOKE), "")
    return dataclasses.replace(config, data=dataclasses.replace(config.data, takes=8), **changes)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def clips(cache: Path) -> stages.Clips:
    config = configuration()
    return stages.Clips(*(prepare_takes(config.data, config.seed, cache, split) for split in ("train", "tune")))


def longer(config: EmoTalkerTrain, stage: str, **changes) -> EmoTalkerTrain:
    settings = dataclasses.replace(getattr(config.stages, stage), **changes)
    return dataclasses.replace(config, stages=dataclasses.replace(config.stages, **{stage: settings}))


# ---- configuration --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["emotalker", "emotalker_smoke"])
def test_the_shipped_configurations_load(name: str):
    config = from_table(EmoTalkerTrain, read_table(CONFIGS / f"{name}.toml"), "")
    assert config.name == name
    system = EmoTalkerSystem(config.system.build(), Build(device="meta"))
    halves = 2 * sum(value.numel() for value in system.state_dict().values())
    assert halves < 4_000_000


def test_a_mistake_is_named_in_full(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = SMOKE.read_text(encoding="utf-8")
    for old, new, words in (
        ('"emo_talker"', '"emotalker"', "system_kind must be emo_talker, or left out for MoEE, got 'emotalker'"),
        ("takes = 12", "take = 12", "data.take: no such setting in MotionDataConfig; did you mean 'takes'?"),
        (
            "[system.ear]\nwidth = 16",
            '[system.ear]\nsource = "hubert"\nwidth = 16',
            "system: training reads the voice with the ear",
        ),
        ("codes = 16", "codes = 0", "system.vq.dictionary: DictionaryConfig.codes must be at least 1, got 0"),
    ):
        assert old in text
        path = tmp_path / "config.toml"
        path.write_text(text.replace(old, new), encoding="utf-8")
        assert main([str(path)]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"error: {words}")
        assert error.count("\n") == 1
    assert main([str(SMOKE), "--stop-after", "gates"]) == 2
    assert "has no stage gates; its stages are: ear, vqvae, transformer, lip" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="system_kind: no such setting in TrainConfig"):
        load_config(SMOKE)


# ---- data -----------------------------------------------------------------------------------------------------------


def test_a_performance_becomes_motion_by_name():
    units = np.tile(np.arange(1, len(AU_NAMES) + 1) / 100, (2, 1)).astype(np.float32)
    act = Performance(
        action_units=units,
        viseme=np.tile([0.5, -0.6, 0.7, 0.8], (2, 1)),
        pose=np.tile([0.1, 0.2, 0.3, 0.049, 0.0245], (2, 1)),
        gaze=np.tile([0.3, -0.2], (2, 1)),
        blink=np.array([0.0, 1.0]),
        emotion=np.zeros((2, 8)),
    )
    motion = face_motion(act)
    assert motion.space is FACE
    for number, unit in enumerate(UNITS):
        assert motion.curve(f"AU{unit}")[0] == pytest.approx((AU_NAMES.index(unit) + 1) / 100), number
    found = [float(motion.curve(name)[0]) for name in FACE.names[20:]]
    assert found == pytest.approx([0.5, -0.6, 0.7, 0.8, 0.21, 0.21, 0.3, -0.2, 0.1, 0.2, 0.3, 0.2, 0.1, 0.0])
    assert motion.curve("lidR")[1] == 1.0


def silent_utterance(entry: dict, split: str) -> Utterance:
    """An utterance of the bank's index, its sound left out."""
    about = {name: entry[name] for name in ("key", "sentence", "voice", "mood")}
    return Utterance(**about, text="", split=split, samples=np.zeros(0, np.float32), phonemes=())


def test_no_voice_sentence_or_person_is_in_two_splits_and_every_emotion_has_its_levels():
    seen: dict[str, set] = {"voice": set(), "sentence": set()}
    index = json.loads((BANK_FOLDER / INDEX_NAME).read_text(encoding="utf-8"))
    for split, recording in index["splits"].items():
        utterances = [silent_utterance(entry, split) for entry in recording["utterances"]]
        used = [utterances[number] for pair, _, _ in plan(utterances) for number in pair]
        for name in seen:
            values = {getattr(utterance, name) for utterance in used}
            assert not values & seen[name]
            seen[name] |= values
        for pair, emotion, _ in plan(utterances):
            moods = {utterances[number].mood for number in pair}
            assert moods == {"neutral" if emotion == "contempt" else emotion}
            assert len({utterances[number].voice for number in pair}) == 1
        cells = {(emotion, level) for _, emotion, level in plan(utterances)}
        assert cells == {("neutral", 0), *((label, level) for label in LABELS[1:] for level in (1, 2, 3))}
        assert {emotion for _, emotion, _ in plan(utterances, 8)} == set(LABELS)


def test_a_mood_is_heard_more_the_higher_its_level():
    utterance = next(u for u in load_speech("tune") if u.mood == "sad")
    lengths = []
    for level in LEVELS:
        change = change_for("sad", "sad", level)
        samples, phonemes = said_again(utterance.samples, utterance.phonemes, change, np.random.default_rng(0))
        assert phonemes[-1][1] == pytest.approx(utterance.phonemes[-1][1] * change.stretch, rel=1e-3)
        assert len(samples) / 16000 == pytest.approx(utterance.duration * change.stretch, abs=1e-3)
        assert change.breath == pytest.approx(0.5 * level)
        lengths.append(len(samples))
    assert lengths == sorted(lengths)
    assert lengths[-1] == len(utterance.samples), "the bank's own tempo at full level"
    assert change_for("neutral", "contempt", 1.0).rise < 0
    assert change_for("neutral", "neutral", 1.0) == Voice()
    back = change_for("sad", "neutral", 1.0)
    there = change_for("neutral", "sad", 1.0)
    assert back.pitch * there.pitch == pytest.approx(1.0)
    assert back.gain_db == -there.gain_db


def test_pitch_moves_as_asked():
    """A pulse train of 120 Hz, said again a third higher."""
    wave = np.zeros(16000, np.float32)
    wave[::133] = 0.9
    higher, _ = said_again(wave, (("aa", 1.0),), Voice(pitch=4 / 3), np.random.default_rng(0))
    spectrum = np.abs(np.fft.rfft(higher * np.hanning(len(higher))))[:200]
    assert abs(int(spectrum[60:].argmax()) + 60 - 160) <= 3


def test_takes_are_kept_and_read_back(clips: stages.Clips, cache: Path):
    config = configuration()
    made_now = next(make_takes(config.data, config.seed, "tune"))
    kept = prepare_takes(config.data, config.seed, cache, "tune")[0]
    assert len(list(cache.rglob("*.npz"))) == 2
    for name in ("motion", "voice", "lip_mel"):
        np.testing.assert_array_equal(getattr(made_now, name), getattr(kept, name))
    assert (made_now.key, made_now.emotion, made_now.level) == (kept.key, kept.emotion, kept.level)
    take = clips.train[0]
    assert len(take) % 4 == 0
    assert len(take) >= config.data.frames
    assert take.heard(0, 8, 3).shape == (22, 12)
    np.testing.assert_array_equal(take.heard(0, 8, 3)[0], np.array(SILENCE, np.float32))
    np.testing.assert_array_equal(take.heard(0, 8, 0), take.voice[:16].astype(np.float32))
    np.testing.assert_array_equal(take.heard(2, 4, 2)[2:-2], take.voice[4:12].astype(np.float32))
    assert take.windows(len(take) - 5, 5).shape == (5, 80, 16)


def test_emotions_are_drawn_evenly(clips: stages.Clips):
    draw, rng = TakeDraw(clips.train, 96), np.random.default_rng(0)
    counts = np.zeros(len(LABELS))
    for _ in range(1600):
        take, first = draw.draw(rng)
        assert 0 <= first <= len(take) - 96
        counts[take.emotion] += 1
    present = counts[counts > 0]
    assert len(present) == 8
    assert present.min() > 0.7 * present.mean()


# ---- stages ---------------------------------------------------------------------------------------------------------

LENGTHS = {"ear": 30, "vqvae": 90, "transformer": 30, "lip": 40}


@pytest.mark.parametrize("name", STAGES)
def test_every_stage_learns_its_own_part_and_leaves_the_others(name: str, clips: stages.Clips, tmp_path: Path):
    config = longer(configuration(), name, iterations=LENGTHS[name], learning_rate=5e-3, warmup=1, batch_size=6)
    if name == "vqvae":  # its emotion loss sets in later and would be seen as a rise
        config = longer(config, name, emotion_weight=0.0)
    system = emotalker.start(config, clips)
    before = weights(system)
    stage = emotalker.MAKERS[name](config, system, clips)
    losses: list[float] = []

    def loss(step: int):
        value, figures = stage.loss(step)
        losses.append(float(value.detach()))
        return value, figures

    figures = run_stage(dataclasses.replace(stage, loss=loss), tmp_path)
    assert np.mean(losses[-8:]) < 0.85 * np.mean(losses[:4]), losses
    assert all(np.isfinite(list(figures.values())))
    part = {"lip": "lip_branch"}.get(name, name)
    moved = {key.split(".")[0] for key, value in weights(system).items() if not torch.equal(value, before[key])}
    assert moved == {part}


def test_codes_and_counts_survive_a_kill(clips: stages.Clips, tmp_path: Path):
    """What no gradient moves is in the state; which vectors start and replace codes depends on the step alone."""
    config = longer(configuration(), "vqvae", iterations=13, save_every=5)

    def run(folder: Path, kill_at: int | None = None) -> dict:
        system = emotalker.start(config, clips)
        stage = stages.vqvae_stage(config, system, clips)

        def loss(step: int):
            if step == kill_at:
                raise KilledError
            return stage.loss(step)

        run_stage(dataclasses.replace(stage, loss=loss), made(folder))
        return weights(system)

    straight = run(tmp_path / "a")
    with pytest.raises(KilledError):
        run(tmp_path / "b", kill_at=8)
    resumed = run(tmp_path / "b")
    assert same(resumed, straight)
    assert float(straight["vqvae.dictionary.started"]) == 1
    assert float((straight["vqvae.dictionary.counts"] != 1).float().mean()) > 0.2


def test_gradients_do_not_move_codes_that_move_by_themselves(clips: stages.Clips):
    config = configuration()
    for update, expected in (("naive", True), ("ema", False), ("ema_reset", False)):
        vq = dataclasses.replace(
            config.system.vq, dictionary=dataclasses.replace(config.system.vq.dictionary, update=update)
        )
        chosen = dataclasses.replace(config, system=dataclasses.replace(config.system, vq=vq))
        stage: Stage = stages.vqvae_stage(chosen, emotalker.start(chosen, clips), clips)
        assert ("vqvae.dictionary.codes.weight" in dict(stage.trainable)) == expected


def test_codes_of_unit_size_change_nothing_that_is_decoded(clips: stages.Clips):
    system = emotalker.start(configuration(), clips)
    motion = stages.face_of(system, [(clips.train[0], 0)], 96)
    system.vqvae(motion * 3, learn=True, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        system.vqvae.dictionary.codes.weight.mul_(9)
        before = system.vqvae(motion)
        stages.unit_codes(system)
        after = system.vqvae(motion)
    assert torch.equal(before.quantised.indices, after.quantised.indices)
    torch.testing.assert_close(before.motion, after.motion, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(before.emotion, after.emotion, rtol=1e-3, atol=1e-4)
    counts = system.vqvae.dictionary.counts
    size = (system.vqvae.dictionary.codes.weight.square().mean(1) * counts).sum() / counts.sum()
    assert float(size.detach()) == pytest.approx(1.0, rel=1e-3)


# ---- from end to end ------------------------------------------------------------------------------------------------


def _one_of_each(clips: stages.Clips) -> list[Take]:
    """A take relabelled as every emotion and level."""
    first = clips.tune[0]
    cells = [(emotion, level) for emotion in range(len(LABELS)) for level in ((1, 2, 3) if emotion else (0,))]
    return [dataclasses.replace(first, emotion=emotion, level=level) for emotion, level in cells]


def test_a_run_ends_in_a_model_that_the_report_can_measure(clips: stages.Clips, cache: Path, tmp_path: Path):
    config = configuration(cache=str(cache), runs=str(tmp_path))
    run = tmp_path / "emotalker_smoke"
    assert emotalker.run(config, "ear") == run / "ear.safetensors"
    assert {path.stem for path in run.glob("*.safetensors")} == {"ear"}
    path = emotalker.run(config)
    assert {path.stem for path in run.glob("*.safetensors")} == {*STAGES, "model"}
    assert not (run / "state.pt").exists()
    _, info = load_emo_talker(path)
    assert json.loads(info.metadata["trained"])["name"] == "emotalker_smoke"
    written = path.stat().st_size
    assert written < 100_000

    rows = emotalker_report.voice([path], clips.tune)
    assert rows["truth"][0]["emotion"] == 1.0
    assert rows["truth"][0]["F-LMD"] == 0
    assert rows["still face"][0]["emotion"] == pytest.approx(1 / 8)
    assert rows["model"][0]["F-LMD"] > 0
    shown = emotalker_report.table(rows)
    assert "Spearman with level" in shown
    assert "still face" in shown
    codes = emotalker_report.reconstruction(load_emo_talker(path)[0], clips.tune)
    assert 0 < codes["used"] <= 1 <= codes["perplexity"] <= 16
    sheet = emotalker_report.faces(path, _one_of_each(clips))
    assert sheet.shape[2] == 3
    assert sheet.shape[1] == 8 * emotalker_report.SHEET_SIDE
    sampled = emotalker_report.modes([path], clips.tune[:1])
    assert sampled["continuous"][0]["diversity"] == 0 < sampled["sample"][0]["diversity"]


def test_the_report_makes_the_same_motion_as_the_system(clips: stages.Clips):
    """From a take's kept spectrograms, and from the sound itself."""
    system, take = emotalker.start(configuration(), clips).eval().requires_grad_(False), clips.tune[0]
    frames = 40
    audio = stages.heard_by(system, [(take, 0)], frames)

    class Kept:
        width = system.config.ear.width

        def frames(self, samples: torch.Tensor, first: int, last: int, gain: float) -> torch.Tensor:
            return audio[0, first:last]

    silence = torch.zeros(frames * 640)
    streamed = np.concatenate(list(system.stream(silence, MotionSettings(blinks_per_minute=0), features=Kept())))
    tokens = stages.free_running(system, audio, frames // 4)
    face = system.vqvae.decode(tokens)[0]
    opened = 10  # the system shows open eyes first
    np.testing.assert_allclose(streamed[opened:, system.face_columns], face.numpy()[opened:], rtol=1e-3, atol=1e-4)


# ---- instruments ----------------------------------------------------------------------------------------------------


def test_the_prototype_reader_reads_the_truth_and_its_strength(clips: stages.Clips):
    reader = PrototypeReader()
    for take in (*clips.train, *clips.tune):
        units = mean_units(take.motion)
        assert reader.read(units) == take.emotion, take.key
        if take.level:
            strength = reader.strengths(units)[take.emotion - 1]
            assert strength == pytest.approx(take.strength, abs=0.2)
    assert reader.read(np.zeros(20)) == 0


def test_landmark_distances_are_pixels_of_what_moved():
    identity, motion = person("test", 0), np.zeros((2, FACE.size), np.float32)
    rest = landmarks(identity, motion)
    assert rest.shape == (2, 68, 2)
    assert (rest > 0).all()
    assert (rest < 256).all()
    # the 68-point order: jaw from left to right, brows above eyes above mouth
    assert (np.diff(rest[0, :17, 0]) > 0).all()
    assert (np.diff(rest[0, 17:27, 0]) > 0).all()
    assert rest[0, 17:27, 1].max() < rest[0, 36:48, 1].mean() < rest[0, 48:, 1].min()
    assert landmark_distances(rest, rest) == (0.0, 0.0)
    face, mouth = landmark_distances(rest + 2.0, rest)
    assert (face, mouth) == (pytest.approx(2.0), pytest.approx(2.0))
    opened = motion.copy()
    opened[:, FACE.index["open"]] = 1.0
    face, mouth = landmark_distances(landmarks(identity, opened), rest)
    assert mouth > 2 * face > 0
    raised = motion.copy()
    raised[:, [FACE.index["AU1"], FACE.index["AU2"]]] = 1.0
    face, mouth = landmark_distances(landmarks(identity, raised), rest)
    assert face > 0.1
    assert mouth == 0.0


def test_an_interval_is_students():
    found = interval([1.0, 2.0, 3.0])
    assert found.mean == 2.0
    assert found.half == pytest.approx(4.303 / 3**0.5, rel=1e-3)
    assert str(interval([0.5])) == "0.500"


def test_the_data_of_a_take_fit_together(clips: stages.Clips):
    take: Take = clips.train[0]
    assert take.voice.shape == (2 * len(take), 12)
    assert MotionDataConfig().frames == 96


def test_another_voice_has_other_formants_at_the_same_times():
    rng = np.random.default_rng(0)
    mel = torch.from_numpy(rng.normal(size=(3, 80, 16)).astype(np.float32))
    same = stages.another_voice(mel, torch.ones(3), torch.zeros(3))
    torch.testing.assert_close(same, mel, atol=1e-4, rtol=0)
    peak = torch.zeros(2, 80, 16)
    peak[:, 40, 5:9] = 1.0  # 1.84 kHz, for a while
    warped = stages.another_voice(peak, torch.tensor([1.15, 1 / 1.15]), torch.zeros(2))
    assert warped[0, :, 6].argmax() in (43, 44)  # 2.1 kHz
    assert warped[1, :, 6].argmax() in (36, 37)  # 1.6 kHz
    assert not warped[:, :, :5].any()
    assert not warped[:, :, 9:].any()
    tilted = stages.another_voice(mel, torch.ones(3), torch.tensor([0.2, 0.0, -0.2])) - mel
    assert tilted[0, -1, 0] == pytest.approx(0.2, abs=1e-3)
    assert tilted[0, 0, 0] == pytest.approx(-0.2, abs=1e-3)
    assert tilted[2, -1, 0] == pytest.approx(-0.2, abs=1e-3)
