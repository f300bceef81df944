"""The command line's ways to say an emotion: what each option makes, what is told about it, and what is refused."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import wave
from pathlib import Path

import numpy as np
import pytest

from moee_core.__main__ import main
from moee_core.emotion.options import add_emotion, emotion_of
from moee_core.emotion.source import EmotionSource
from moee_core.motion.files import read_motion
from moee_core.video.frames import read_video

from ..fixtures.tiny import EVERY_SOURCE, tiny_system
from .test_command_line import animate_arguments, write_wav
from .test_media import noise
from .test_portrait_image import colourful, encoded

ROOT = Path(__file__).resolve().parents[2]
ASSETS = ROOT / "moee_core" / "assets"


def said(*arguments: str) -> EmotionSource:
    parser = argparse.ArgumentParser()
    add_emotion(parser)
    return emotion_of(parser.parse_args(arguments))


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    (folder / "face.png").write_bytes(encoded(".png", colourful(80, 72)))
    write_wav(folder / "speech.wav", noise(3200))
    return folder


@pytest.fixture(scope="module")
def every_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny checkpoint that knows every source."""
    from moee_core.weights.checkpoint import save_system

    path = tmp_path_factory.mktemp("model") / "every.safetensors"
    metadata = {"domain": '{"reconstruction_error": 1e6}', "trained": "{}"}
    save_system(path, tiny_system(config=EVERY_SOURCE), metadata=metadata)
    return path


@pytest.mark.parametrize(
    ("given", "parts", "words"),
    [
        ([], ("timeline",), "neutral"),
        (["--emotion", "happy:0.5"], ("timeline",), "happy:0.5"),
        (["--emotion-text", "a bit sad"], ("text",), "sad"),
        (["--action-units", "12:0.8, R14"], ("units",), "AU12 0.8, AUR14 1"),
        (["--voice-mood"], ("voice",), "the mood of the voice"),
        (["--voice-mood", "0.5"], ("voice",), "the mood of the voice x 0.5"),
        (["--voice-mood", "0"], ("timeline",), "neutral"),
        (["--voice-mood", "0", "--emotion", "sad"], ("timeline",), "sad"),
        (["--voice-mood", "--emotion", "sad", "--action-units", "4"], ("timeline", "units", "voice"), "sad"),
    ],
)
def test_what_the_options_say(given: list[str], parts: tuple[str, ...], words: str):
    source = said(*given)
    assert source.parts == parts
    assert words in source.explain()


def test_what_a_text_was_understood_to_say_is_told(capsys: pytest.CaptureFixture[str]):
    said("--emotion-text", "slightly sad and zorgle")
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("understood: sad 0.")
    assert "zorgle" in told.err
    assert told.err.count("\n") == 1
    said("--emotion", "sad")
    assert capsys.readouterr().err == ""


def test_sources_reach_the_video(media: Path, every_source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    changes: dict[str, dict[str, str | Path]] = {
        "none": {},
        "text": {"emotion_text": "furious"},
        "units": {"action_units": "4, 15"},
        "voice": {"voice_mood": "1.5"},
        "all": {"emotion_text": "furious", "action_units": "4, 15", "voice_mood": "1.5", "emotion": "happy"},
    }
    videos = {}
    for name, change in changes.items():
        arguments = animate_arguments(media, every_source, tmp_path / f"{name}.mp4", **change)
        assert main([str(argument) for argument in arguments]) == 0, capsys.readouterr().err
        assert ("understood: angry" in capsys.readouterr().err) == ("emotion_text" in change)
        videos[name] = np.stack(list(read_video(tmp_path / f"{name}.mp4"))).tobytes()
    assert len(set(videos.values())) == len(changes)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"emotion_text": " "}, "--emotion-text is empty"),
        ({"emotion": "hapy"}, "did you mean 'happy'"),
        ({"action_units": ""}, "there are no action units"),
        ({"action_units": "99"}, "there is no action unit '99'"),
        ({"action_units": "19"}, "the faces here cannot show action unit 19 (tongue show)"),
        ({"voice_mood": "2"}, "counts 0 to 1.5 times, got 2"),
        ({"voice_mood": "nan"}, "got nan"),
        ({"voice_mood": "-1"}, "got -1"),
        ({"voice_mood": "1"}, "this model cannot hear the mood of a voice"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_refused_in_one_line_and_writes_nothing(
    media: Path,
    tiny_checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    given: dict[str, str | Path],
    words: str,
):
    arguments = animate_arguments(media, tiny_checkpoint, tmp_path / "out.mp4", **given)
    assert main([str(argument) for argument in arguments]) == 2
    told = capsys.readouterr()
    assert told.err.startswith("error: ")
    assert told.err.count("\n") == 1
    assert words in told.err
    assert not list(tmp_path.iterdir())


def speech(path: Path, seconds: float) -> Path:
    """The beginning of the speech that ships."""
    from moee_core.audio.read import read_audio

    waveform = read_audio(ASSETS / "speech" / "hello.ogg")
    samples = (waveform.samples[0, : round(seconds * waveform.sample_rate)] * 32767).astype("<i2")
    with wave.open(str(path), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(waveform.sample_rate)
        stream.writeframes(samples.tobytes())
    return path


def test_a_motion_takes_every_source(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recording = speech(tmp_path / "speech.wav", 0.6)

    def made(*more: str) -> np.ndarray:
        given = ["motion", "--audio", str(recording), "--output", str(tmp_path / "out.npz"), *more]
        assert main(given) == 0, capsys.readouterr().err
        motion = read_motion(tmp_path / "out.npz")
        return np.stack([motion.curve(f"AU{unit}") for unit in ("4", "12L", "15")])

    plain, smile = made(), made("--action-units", "12:0.5")
    np.testing.assert_allclose(smile - plain, [[0] * 15, [0.5] * 15, [0] * 15], atol=1e-6)
    sad = made("--emotion-text", "sad")
    assert (sad[2] > 0.4).all()
    both = made("--emotion-text", "sad", "--action-units", "12:0.5")
    np.testing.assert_allclose(both - sad, smile - plain, atol=1e-6)
    full, none = made("--voice-mood"), made("--voice-mood", "0")
    np.testing.assert_array_equal(none, plain)
    assert np.abs(full - plain).max() > 0.01
    louder = made("--voice-mood", "1.5")
    assert np.abs(louder - plain).sum() > np.abs(full - plain).sum()


@pytest.mark.parametrize("given", [["--emotion-text", "sad"], ["--action-units", "12"], ["--voice-mood"]])
def test_emotalker_takes_no_other_source(given: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    recording = speech(tmp_path / "speech.wav", 0.1)
    assert main(["motion", "--audio", str(recording), "--generator", "emotalker", *given]) == 2
    told = capsys.readouterr().err
    assert f"--generator emotalker hears the emotion in the voice; leave {given[0]} out" in told
    assert told.count("\n") == 1


def test_listing_the_emotions_does_not_wait_for_torch():
    program = [sys.executable, "-X", "importtime", "-m", "moee_core", "emotions"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    assert "moee_core.emotion.options" in imported
    assert not imported & {"torch", "cv2", "av", "moee_core.emotion.source", "moee_core.emotion.words"}
