"""``python -m moee_core``: usable input gives the right video, unusable input a single line and exit code 2."""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from moee_core.__main__ import main
from moee_core.audio.read import read_audio, resample_mono
from moee_core.emotion.vocabulary import COMPOUNDS, LABELS
from moee_core.networks.portrait_unet import PortraitUNet
from moee_core.portrait.image import read_portrait
from moee_core.video.frames import read_video
from moee_core.weights.checkpoint import config_to_dict, inspect_checkpoint

from ..fixtures.tiny import TINY, save_tiny, tiny_system
from .test_media import lag_of, noise, opened, wav, write_sound
from .test_portrait_image import colourful, encoded, png, png_chunk, with_orientation

ROOT = Path(__file__).resolve().parents[2]
RATE = 16_000  # hertz of most recordings here
SECONDS = 0.2  # of most recordings here
SIDE = 64  # pixels of every video here
MAX_LINE = 300  # characters of a message


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call of the command line returned and printed, below Python as well (a codec's own words)."""

    code: int
    out: str
    err: str

    @property
    def complaints(self) -> list[str]:
        return self.err.splitlines()


Command = Callable[..., Outcome]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: str | Path) -> Outcome:
        capfd.readouterr()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as stop:  # argparse: help and its own errors
            code = int(stop.code or 0)
        out, err = capfd.readouterr()
        return Outcome(code=code, out=out, err=err)

    return call


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    """A folder of ordinary and impossible portraits, recordings and checkpoints."""
    folder = tmp_path_factory.mktemp("media")
    (folder / "face.png").write_bytes(encoded(".png", colourful(80, 72)))
    write_wav(folder / "speech.wav", noise(round(SECONDS * RATE)))

    (folder / "text.png").write_bytes(b"This is a letter, not a picture.\n" * 20)
    (folder / "one_pixel.png").write_bytes(encoded(".png", colourful(1, 1)))
    (folder / "cut.png").write_bytes((folder / "face.png").read_bytes()[:-200])
    (folder / "cut.jpg").write_bytes(encoded(".jpg", colourful(80, 72))[:-200])
    (folder / "empty.png").write_bytes(b"")
    (folder / "empty.wav").write_bytes(b"")
    (folder / "no_samples.wav").write_bytes(wav(b""))
    (folder / "text.mp3").write_bytes(b"Dear reader, this is no recording.\n" * 60)

    whole = tiny_checkpoint.read_bytes()
    (folder / "cut.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "cut_in_header.safetensors").write_bytes(whole[:500])
    (folder / "empty.safetensors").write_bytes(b"")
    (folder / "random.safetensors").write_bytes(np.random.default_rng(0).bytes(4096))
    save_file({"weight": torch.zeros(3)}, folder / "anonymous.safetensors")
    save_file({"weight": torch.zeros(3)}, folder / "other.safetensors", metadata={"architecture": "unet"})
    metadata = inspect_checkpoint(tiny_checkpoint).metadata
    state = load_file(tiny_checkpoint)
    first = min(state)
    save_file({k: v for k, v in state.items() if k != first}, folder / "lacks_one.safetensors", metadata=metadata)
    save_file({**state, first: torch.zeros(1)}, folder / "other_shape.safetensors", metadata=metadata)
    save_file(state, folder / "newer.safetensors", metadata={**metadata, "format": "99"})
    foreign = json.dumps({**json.loads(metadata["config"]), "tea": 1})
    save_file(state, folder / "setting.safetensors", metadata={**metadata, "config": foreign})
    for name, header in (
        ("list", "[]"),
        ("number", '{"a": 1}'),
        ("bare", '{"a": {}}'),
        ("words", '{"__metadata__": 3}'),
    ):
        (folder / f"header_{name}.safetensors").write_bytes(len(header).to_bytes(8, "little") + header.encode())
    return folder


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """(S,) or (S, C) float in [-1, 1] as 16-bit PCM."""
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    path.write_bytes(wav(np.round(samples * 32767).astype("<i2").tobytes(), channels=channels, rate=rate))
    return path


def animate_arguments(media: Path, model: Path, output: Path, /, **changes: str | Path) -> list[str | Path]:
    """The arguments of an ordinary call; ``changes`` replaces or adds options (``emotion_guidance="2"``)."""
    options: dict[str, str | Path] = {
        "portrait": media / "face.png",
        "audio": media / "speech.wav",
        "output": output,
        "model": model,
        "size": str(SIDE),
        "steps": "1",
        **changes,
    }
    return ["animate", *(word for name, value in options.items() for word in ("--" + name.replace("_", "-"), value))]


def assert_refused(outcome: Outcome, *words: str) -> None:
    assert outcome.code == 2
    assert outcome.out == ""
    assert len(outcome.complaints) == 1, outcome.err
    line = outcome.complaints[0]
    assert line.startswith("error: ")
    assert len(line) <= MAX_LINE, len(line)
    for word in words:
        assert word in line, line


# ---- recordings that must work --------------------------------------------------------------------------------------


def silence(folder: Path) -> tuple[Path, float]:
    return write_wav(folder / "silence.wav", np.zeros(RATE // 2)), 0.5


def a_blink(folder: Path) -> tuple[Path, float]:
    return write_wav(folder / "blink.wav", noise(800)), 0.05


def one_sample(folder: Path) -> tuple[Path, float]:
    return write_wav(folder / "click.wav", np.array([0.5])), 1 / RATE


def telephone(folder: Path) -> tuple[Path, float]:
    return write_wav(folder / "telephone.wav", noise(5_000, 2), 8_000), 0.625


def surround(folder: Path) -> tuple[Path, float]:
    sound_CS = np.repeat(noise(44_100)[None], 6, axis=0)
    return write_sound(folder / "surround.flac", "flac", sound_CS, 44_100, "5.1", "s16"), 1.0


@pytest.mark.parametrize("make", [silence, a_blink, one_sample, telephone, surround])
def test_a_video_is_as_long_as_its_recording(tmp_path, media, tiny_checkpoint, command, make):
    """ceil(seconds * fps) frames, the container as long as the sound to a frame, the sound in place to 10 ms."""
    recording, seconds = make(tmp_path)
    done = command(*animate_arguments(media, tiny_checkpoint, tmp_path / "out.mp4", audio=recording))
    assert (done.code, done.err) == (0, "")
    assert "out.mp4" in done.out
    with opened(str(tmp_path / "out.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.width, stream.height, stream.average_rate) == (SIDE, SIDE, 25)
        assert sum(1 for _ in container.decode(video=0)) == math.ceil(seconds * 25)
        assert abs(container.duration / av.time_base - seconds) <= 1 / 25
    if make is one_sample:  # too short for a sound track
        return
    heard = resample_mono(read_audio(tmp_path / "out.mp4"))
    assert abs(len(heard) / RATE - seconds) <= 1 / 25
    if make is not silence:
        assert abs(lag_of(heard, resample_mono(read_audio(recording)))) < 0.010 * RATE


# ---- portraits that must work ---------------------------------------------------------------------------------------


def test_a_picture_of_48_megapixels(tmp_path, media, tiny_checkpoint, command):
    picture = np.full((6000, 8000, 3), (90, 130, 200), np.uint8)
    cv2.imwrite(str(tmp_path / "huge.jpg"), picture, [cv2.IMWRITE_JPEG_QUALITY, 50])
    done = command(*animate_arguments(media, tiny_checkpoint, tmp_path / "out.mp4", portrait=tmp_path / "huge.jpg"))
    assert (done.code, done.err) == (0, "")
    assert sum(1 for _ in read_video(tmp_path / "out.mp4")) == math.ceil(SECONDS * 25)


def palette_png() -> bytes:
    palette = b"".join(bytes([index, 255 - index, 128]) for index in range(256))
    return png(SIDE, SIDE, 8, 3, [bytes(range(SIDE))] * SIDE, png_chunk(b"PLTE", palette))


UNUSUAL_PORTRAITS: dict[str, Callable[[], bytes]] = {
    "rgba.png": lambda: png(SIDE, SIDE, 8, 6, [bytes([200, 100, 0, 128] * SIDE)] * SIDE),
    "grey.jpg": lambda: cv2.imencode(".jpg", colourful(70, 90)[:, :, 0])[1].tobytes(),
    "deep.png": lambda: cv2.imencode(".png", colourful(70, 90).astype(np.uint16) * 257)[1].tobytes(),
    "palette.png": palette_png,
    "turned.jpg": lambda: with_orientation(encoded(".jpg", colourful(90, 70)), 6, ">"),
    "肖像 ✓.webp": lambda: encoded(".webp", colourful(32, 400)),
}


@pytest.mark.parametrize("name", UNUSUAL_PORTRAITS)
def test_any_common_picture_becomes_the_first_of_the_video(tmp_path, media, tiny_checkpoint, command, name):
    """A portrait read by the command line gives the video that the same pixels give as a plain PNG."""
    (tmp_path / name).write_bytes(UNUSUAL_PORTRAITS[name]())
    (tmp_path / "plain.png").write_bytes(encoded(".png", read_portrait(tmp_path / name)))
    videos = []
    for portrait in (name, "plain.png"):
        output = tmp_path / f"out {portrait}.mp4"
        done = command(*animate_arguments(media, tiny_checkpoint, output, portrait=tmp_path / portrait))
        assert (done.code, done.err) == (0, "")
        videos.append(np.stack(list(read_video(output))))
    assert videos[0].shape == (math.ceil(SECONDS * 25), SIDE, SIDE, 3)
    assert (videos[0] == videos[1]).all()


# ---- options --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "emotion",
    [
        "happy",
        "happy:0.6 + surprised:0.4",
        "Happily Surprised 0.8",
        "0 neutral; 0.1 happy ease 0.05; 0.15 sad:1.5",
        "0",
    ],
)
def test_emotions_are_taken_as_blends_and_as_timelines(tmp_path, media, tiny_checkpoint, command, emotion):
    done = command(*animate_arguments(media, tiny_checkpoint, tmp_path / "out.mp4", emotion=emotion))
    if emotion == "0":  # a time without an emotion: the one of these that means nothing
        assert_refused(done, "timeline key 1")
        return
    assert (done.code, done.err) == (0, "")
    assert sum(1 for _ in read_video(tmp_path / "out.mp4")) == math.ceil(SECONDS * 25)


def test_every_sampling_option_reaches_the_video(tmp_path, media, tiny_checkpoint, command):
    changes: dict[str, dict[str, str | Path]] = {
        "plain": {},
        "seed": {"seed": "1"},
        "emotion": {"emotion": "happy"},
        "steps": {"steps": "2"},
        "audio_guidance": {"audio_guidance": "3"},
        "noise_sharing": {"noise_sharing": "0.9"},
        "emotion_guidance": {"emotion": "happy", "emotion_guidance": "3"},
    }
    videos = {}
    for name, change in changes.items():
        done = command(*animate_arguments(media, tiny_checkpoint, tmp_path / f"{name}.mp4", **change))
        assert (done.code, done.err) == (0, "")
        videos[name] = np.stack(list(read_video(tmp_path / f"{name}.mp4"))).tobytes()
    assert len(set(videos.values())) == len(changes)


@pytest.mark.parametrize(("size", "suffix"), [(96, ".mov"), (75, ".mkv")])
def test_size_and_container(tmp_path, media, tiny_checkpoint, command, size, suffix):
    done = command(*animate_arguments(media, tiny_checkpoint, tmp_path / f"out{suffix}", size=str(size)))
    assert (done.code, done.err) == (0, "")
    even = size + size % 2
    assert {frame.shape for frame in read_video(tmp_path / f"out{suffix}")} == {(even, even, 3)}


def test_the_contact_sheet_shows_the_frames_of_the_video(tmp_path, media, tiny_checkpoint, command):
    sheet = tmp_path / "sheet.png"
    done = command(*animate_arguments(media, tiny_checkpoint, tmp_path / "out.mp4", contact_sheet=sheet))
    assert (done.code, done.err) == (0, "")
    picture = read_portrait(sheet)
    assert picture.shape[1] == 6 * SIDE
    for index, frame in enumerate(read_video(tmp_path / "out.mp4")):
        cell = picture[:SIDE, index * SIDE : (index + 1) * SIDE]
        # Averages over 16 pixels: the video's compression takes away the finest detail of these patterns.
        shown, kept = (cv2.resize(image, (4, 4), interpolation=cv2.INTER_AREA).astype(int) for image in (cell, frame))
        assert np.abs(shown - kept).max() < 25


def test_the_module_runs_as_a_program(tmp_path, media, tiny_checkpoint):
    """A fresh interpreter: nothing but the result on standard output, nothing at all on standard error."""
    arguments = map(str, animate_arguments(media, tiny_checkpoint, tmp_path / "out.mp4"))
    program = [sys.executable, "-m", "moee_core", *arguments]
    single = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, cwd=ROOT, env=single, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 1
    assert sum(1 for _ in read_video(tmp_path / "out.mp4")) == math.ceil(SECONDS * 25)


# ---- what must be refused -------------------------------------------------------------------------------------------

IN_MEDIA = ("portrait", "audio", "model")  # options whose value below is a name in the media folder
REFUSED: list[tuple[str, str, str]] = [
    ("portrait", "absent.png", "no such file"),
    ("portrait", ".", "folder"),
    ("portrait", "text.png", "text"),
    ("portrait", "one_pixel.png", "1x1"),
    ("portrait", "empty.png", "empty"),
    ("portrait", "cut.png", "cut short"),
    ("portrait", "cut.jpg", "cut short"),
    ("portrait", "speech.wav", "give a PNG"),
    ("portrait", "line\nbreak.png", "no such file"),
    ("portrait", "n" * 600 + ".png", ".png"),
    ("audio", "absent.wav", "no such file"),
    ("audio", ".", "folder"),
    ("audio", "empty.wav", "empty"),
    ("audio", "no_samples.wav", "no samples"),
    ("audio", "face.png", "no audio track"),
    ("audio", "text.mp3", "not a media file"),
    ("model", "absent.safetensors", "absent.safetensors"),
    ("model", ".", "not a file"),
    ("model", "n" * 600 + ".safetensors", "checkpoint"),
    ("model", "empty.safetensors", "not a safetensors file"),
    ("model", "cut.safetensors", "damaged"),
    ("model", "cut_in_header.safetensors", "cut off"),
    ("model", "random.safetensors", "not a safetensors file"),
    ("model", "face.png", "not a safetensors file"),
    ("model", "anonymous.safetensors", "not a MoEE checkpoint"),
    ("model", "other.safetensors", "'unet', 1 tensors"),
    ("model", "lacks_one.safetensors", "is missing"),
    ("model", "other_shape.safetensors", "shape (1,)"),
    ("model", "newer.safetensors", "format '99'"),
    ("model", "setting.safetensors", "'tea'"),
    ("model", "header_list.safetensors", "not a safetensors file"),
    ("model", "header_number.safetensors", "not a safetensors file"),
    ("model", "header_bare.safetensors", "not a safetensors file"),
    ("model", "header_words.safetensors", "not a safetensors file"),
    ("emotion", "hapy", "'happy'"),
    ("emotion", "", "emotion"),
    ("emotion", "  ", "emotion"),
    ("emotion", "x" * 2000, "unknown emotion"),
    ("emotion", "happy:nan", "nan"),
    ("emotion", "happy:-0.5", "-0.5"),
    ("emotion", "happy:1.6", "1.5"),
    ("emotion", "happy:1 + sad:1", "add up to 2"),
    ("emotion", "0 happy; 2 sad; 1 angry", "times must rise"),
    ("emotion", "0 happy; 0 sad", "times must rise"),
    ("emotion", "happy + ", "+"),
    ("emotion", "happy:0.5:0.5", "happy"),
    ("emotion", "0 happy ease", "ease"),
    ("emotion", '[{"seconds": 0}]', "emotion"),
    ("emotion", "[" * 5000, "JSON"),
    ("output", "absent/out.mp4", "folder does not exist"),
    ("output", "out.gif", ".mp4, .mov, .mkv"),
    ("output", "out", ".mp4, .mov, .mkv"),
    ("output", ".", "folder"),
    ("steps", "0", "steps"),
    ("steps", "1001", "steps"),
    ("noise_sharing", "1", "noise_sharing"),
    ("size", "63", "--size"),
    ("size", "2049", "--size"),
    ("emotion_guidance", "nan", "guidance"),
    ("audio_guidance", "nan", "guidance"),
    ("audio_guidance", "inf", "guidance"),
    ("emotion_guidance", "-1", "guidance"),
    ("contact_sheet", "sheet.gif", ".png"),
    ("contact_sheet", "absent/sheet.png", "folder does not exist"),
]


@pytest.mark.parametrize(("option", "value", "word"), REFUSED, ids=[f"{o}={v[:24]!r}" for o, v, _ in REFUSED])
def test_what_cannot_work_is_refused_in_one_line(tmp_path, media, tiny_checkpoint, command, option, value, word):
    folder = tmp_path / "out"
    folder.mkdir()
    change: str | Path = value
    if option in IN_MEDIA:
        change = media / value
    elif option in ("output", "contact_sheet"):
        change = folder / value
    done = command(*animate_arguments(media, tiny_checkpoint, folder / "out.mp4", **{option: change}))
    assert_refused(done, word)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [[], ["dance"], ["animate"], ["animate", "--steps", "few"], ["inspect"], ["animate", "--emotion-guidance", "x"]],
)
def test_arguments_that_argparse_refuses(command, arguments):
    done = command(*arguments)
    assert done.code == 2
    assert done.out == ""
    assert "Traceback" not in done.err


def test_a_refusal_says_nothing_else_even_for_an_unusual_portrait(tmp_path, media, command):
    """A portrait outside the model's domain and a place that cannot be written to: the error, not both lines."""
    model = save_tiny(tmp_path / "strict.safetensors", usual_error=0.5)
    assert_refused(command(*animate_arguments(media, model, tmp_path / "absent" / "out.mp4")), "folder does not exist")


@pytest.mark.parametrize("change", [{"emotion": "hapy"}, {"steps": "0"}, {"contact_sheet": "sheet.gif"}])
def test_an_earlier_video_survives_a_refusal(tmp_path, media, tiny_checkpoint, command, change):
    (tmp_path / "out.mp4").write_bytes(b"an earlier video")
    assert_refused(command(*animate_arguments(media, tiny_checkpoint, tmp_path / "out.mp4", **change)))
    assert (tmp_path / "out.mp4").read_bytes() == b"an earlier video"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mp4"]


def test_an_earlier_video_survives_an_interruption(tmp_path, media, tiny_checkpoint, command):
    """Ctrl-C in the second window, when frames have been written: exit code 130, the old file, no leftovers."""
    (tmp_path / "out.mp4").write_bytes(b"an earlier video")
    recording = write_wav(tmp_path / "long.wav", noise(RATE))
    calls = []

    def interrupt(module: nn.Module, _inputs: object, _output: object) -> None:
        calls.append(isinstance(module, PortraitUNet))
        if sum(calls) == 2:
            raise KeyboardInterrupt

    hook = nn.modules.module.register_module_forward_hook(interrupt)
    try:
        done = command(*animate_arguments(media, tiny_checkpoint, tmp_path / "out.mp4", audio=recording))
    finally:
        hook.remove()
    assert (done.code, done.out, done.err) == (130, "", "stopped\n")
    assert (tmp_path / "out.mp4").read_bytes() == b"an earlier video"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["long.wav", "out.mp4"]


# ---- outside the domain ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["noise.png", "noise with a name " + "as long as they come " * 8 + ".png", "two\nlines.png"]
)
def test_a_portrait_the_model_does_not_know_is_warned_about(tmp_path, media, command, name):
    portrait = tmp_path / name
    portrait.write_bytes(encoded(".png", np.random.default_rng(0).integers(0, 256, (80, 80, 3), dtype=np.uint8)))
    strict = save_tiny(tmp_path / "strict.safetensors", usual_error=0.5)
    done = command(*animate_arguments(media, strict, tmp_path / "out.mp4", portrait=portrait))
    assert done.code == 0
    assert len(done.complaints) == 1, done.err
    assert done.complaints[0].startswith("warning: ")
    assert "usual below 0.5" in done.complaints[0]
    assert len(done.complaints[0]) <= MAX_LINE
    assert (tmp_path / "out.mp4").exists()


def test_no_warning_inside_the_domain(tmp_path, media, command):
    easy = save_tiny(tmp_path / "easy.safetensors", usual_error=500.0)
    done = command(*animate_arguments(media, easy, tmp_path / "out.mp4"))
    assert (done.code, done.err) == (0, "")


# ---- the other commands ---------------------------------------------------------------------------------------------


def test_help_names_the_commands(command):
    done = command("--help")
    assert done.code == 0
    for name in ("animate", "emotions", "inspect", "convert", "evaluate", "selfcheck"):
        assert re.search(rf"\n    {name}\s", done.out), name
        assert command(name, "--help").code == 0


def test_emotions_lists_all_that_can_be_written(command):
    done = command("emotions")
    assert (done.code, done.err) == (0, "")
    listed = done.out.replace("*", "").replace(",", " ").split()
    assert set(LABELS) | set(COMPOUNDS) <= set(listed)
    assert "ease" in done.out


def test_inspect_says_what_a_checkpoint_is(tiny_checkpoint, command):
    done = command("inspect", tiny_checkpoint)
    assert (done.code, done.err) == (0, "")
    count = sum(value.numel() for value in tiny_system().state_dict().values())
    for text in (
        f"{count:,}",
        "moee, format 1",
        "64 px, 25 fps, windows of 6 frames",
        "6 experts",
        "Apache-2.0",
        "F16",
    ):
        assert text in done.out
    assert "not stated" not in done.out


def test_inspect_as_json_gives_back_the_configuration(tiny_checkpoint, command):
    done = command("inspect", tiny_checkpoint, "--json")
    assert (done.code, done.err) == (0, "")
    body = json.loads(done.out)
    assert body["config"] == json.loads(json.dumps(config_to_dict(TINY)))
    assert body["config"] == json.loads(body["metadata"]["config"])  # nothing that the file does not say
    assert body["parameters"] == sum(value.numel() for value in tiny_system().state_dict().values())
    assert body["metadata"]["architecture"] == "moee"


@pytest.mark.parametrize("name", ["random.safetensors", "face.png", "absent", "header_bare.safetensors"])
def test_inspect_refuses_other_files(media, command, name):
    assert_refused(command("inspect", media / name))
