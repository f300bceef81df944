"""The command line of motions and of the instant renderer, on the portraits and the speech that ship."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from moee_core.__main__ import main
from moee_core.motion.coefficients import SADTALKER, Motion, still
from moee_core.motion.files import read_motion, save_motion
from moee_core.portrait.image import read_portrait
from moee_core.video.frames import read_video, write_image

ASSETS = Path(__file__).resolve().parents[2] / "moee_core" / "assets"
SIDE = 160


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small portrait that is wider than high, with its points beside it, and 0.6 s of speech."""
    from moee_core.audio.read import read_audio
    from moee_core.renderer.points import read_points

    made = tmp_path_factory.mktemp("instant")
    picture = read_portrait(ASSETS / "portraits" / "theo.png")
    small = cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    write_image(made / "theo.png", small)
    points = read_points(ASSETS / "portraits" / "theo.points.json", 512, 512).scaled(SIDE, SIDE)
    (made / "theo.points.json").write_text(points.to_json())
    write_image(made / "bare.png", small)
    waveform = read_audio(ASSETS / "speech" / "hello.ogg")
    samples = (waveform.samples[0, : round(0.6 * waveform.sample_rate)] * 32767).astype("<i2")
    import wave

    with wave.open(str(made / "speech.wav"), "wb") as stream:
        stream.setnchannels(1)
        stream.setsampwidth(2)
        stream.setframerate(waveform.sample_rate)
        stream.writeframes(samples.tobytes())
    return made


def animate(folder: Path, out: Path, *more: str) -> list[str]:
    given = ["animate", "--renderer", "instant", "--portrait", str(folder / "theo.png")]
    return [*given, "--audio", str(folder / "speech.wav"), "--output", str(out / "out.mp4"), *more]


def frames_of(path: Path) -> np.ndarray:
    return np.stack(list(read_video(path)))


def test_a_picture_with_points_beside_it_talks(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    sheet, kept = tmp_path / "sheet.png", tmp_path / "motion.npz"
    arguments = ("--emotion", "happy", "--contact-sheet", str(sheet), "--save-motion", str(kept))
    assert main(animate(folder, tmp_path, *arguments)) == 0
    printed = capsys.readouterr()
    assert "out.mp4: " in printed.out
    assert printed.err == ""
    frames = frames_of(tmp_path / "out.mp4")
    assert frames.shape == (15, SIDE, SIDE, 3)
    assert np.abs(np.diff(frames.astype(int), axis=0)).max() > 40, "it moves"
    assert sheet.exists()
    motion = read_motion(kept)
    assert len(motion) == 15
    assert float(motion.curve("AU12L").min()) > 0.9


def test_a_motion_file_is_drawn_in_place_of_the_recordings(folder: Path, tmp_path: Path):
    save_motion(tmp_path / "shut.npz", still(5, 25.0, lidL=1.0, lidR=1.0))
    for name, more in (("shut", ("--motion", str(tmp_path / "shut.npz"))), ("plain", ("--blinks", "0"))):
        (tmp_path / name).mkdir()
        assert main(animate(folder, tmp_path / name, "--head-motion", "0", *more)) == 0
    shut, plain = (frames_of(tmp_path / name / "out.mp4") for name in ("shut", "plain"))
    assert len(shut) == len(plain) == 15, "as long as the recording; the last frame of the motion is held"
    assert np.abs(shut[3].astype(int) - shut[14]).max() < 12, "a still motion"
    assert np.abs(shut[14].astype(int) - plain[14]).max() > 40


def test_without_points_an_average_face_is_assumed_and_said(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = animate(folder, tmp_path)
    arguments[arguments.index(str(folder / "theo.png"))] = str(folder / "bare.png")
    assert main(arguments) == 0
    warned = capsys.readouterr().err
    assert "no points for this picture" in warned
    assert "bare.points.json" in warned
    assert warned.count("\n") == 1


@pytest.mark.parametrize("size", [96, 200])
def test_size_is_the_longest_side(folder: Path, tmp_path: Path, size: int):
    assert main(animate(folder, tmp_path, "--size", str(size))) == 0
    assert frames_of(tmp_path / "out.mp4").shape[1:] == (size, size, 3)


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--points", "absent.json"), "absent.json"),
        (("--motion", "absent.npz"), "absent.npz"),
        (("--size", "5000"), "--size must be between 64 and 2048"),
        (("--mouth", "7"), "mouth_amplitude must be between 0 and 2"),
        (("--blinks", "nan"), "blinks_per_minute"),
        (("--fps", "0"), "1 to 120 frames a second"),
        (("--emotion", "hapy"), "hapy"),
        (("--save-motion", "motion.txt"), "motion.txt"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: tuple[str, ...], words: str
):
    assert main(animate(folder, tmp_path, *more)) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert printed.err.count("\n") == 1
    assert len(printed.err) <= 300
    assert not list(tmp_path.iterdir())


def test_points_that_cross_and_motions_of_another_space_are_refused(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    save_motion(tmp_path / "other.npz", Motion(values=np.zeros((3, 70)), fps=25.0, space=SADTALKER))
    assert main(animate(folder, tmp_path, "--motion", str(tmp_path / "other.npz"))) == 2
    assert "space 'sadtalker'" in capsys.readouterr().err
    (tmp_path / "bad.json").write_text('{"format": "moee-points-1", "width": 160, "height": 160, "points": {}}')
    assert main(animate(folder, tmp_path, "--points", str(tmp_path / "bad.json"))) == 2
    assert "bad.json" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()


def test_options_of_the_instant_renderer_need_it(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    arguments = animate(folder, tmp_path, "--points", str(folder / "theo.points.json"))
    del arguments[1:3]
    assert main(arguments) == 2
    assert "--points belongs to --renderer instant" in capsys.readouterr().err


def test_emotalker_hears_the_emotion_and_its_sliders_scale_what_it_made(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    def made(*more: str) -> Motion:
        out = tmp_path / "heard.npz"
        given = ["motion", "--audio", str(folder / "speech.wav"), "--generator", "emotalker", "--output", str(out)]
        assert main([*given, *more]) == 0, capsys.readouterr().err
        return read_motion(out)

    plain, again = made("--blinks", "0"), made("--blinks", "0")
    assert plain.values.shape == (15, 34)
    np.testing.assert_array_equal(plain.values, again.values)
    opening = plain.values[:, plain.space.index["open"]]
    assert opening.max() - opening.min() > 0.2, "the mouth follows the speech"
    half = made("--blinks", "0", "--mouth", "0.5", "--head-motion", "0")
    lips, pose = plain.space.indices("lip"), plain.space.indices("pose")
    np.testing.assert_allclose(half.values[:, lips], 0.5 * plain.values[:, lips], atol=1e-6)
    assert np.abs(half.values[:, pose]).max() == 0
    assert not np.array_equal(made("--mode", "sample", "--seed", "1").values, made("--mode", "sample").values)
    assert len(made("--fps", "12.5").values) == 8
    assert main(animate(folder, tmp_path, "--generator", "emotalker")) == 0
    assert len(frames_of(tmp_path / "out.mp4")) == 15


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--generator", "emotalker", "--emotion", "happy"], "--generator emotalker hears the emotion in the voice"),
        (["--mode", "snap"], "--mode belongs to --generator emotalker"),
        (["--temperature", "2"], "--temperature belongs to --generator emotalker"),
        (["--hubert", "somewhere"], "--hubert belongs to --generator emotalker"),
        (["--generator", "emotalker", "--mouth", "3"], "the factor on lip must be between 0 and 2, got 3"),
        (["--generator", "emotalker", "--hubert", "nowhere"], "'nowhere' holds no HuBERT model"),
        (["--generator", "emotalker", "--emotalker", "nowhere.safetensors"], "nowhere.safetensors"),
        (["--generator", "emotalker", "--temperature", "0"], "temperature must be above 0"),
    ],
)
def test_options_of_a_generator_need_it(given: list[str], words: str, folder: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["motion", "--audio", str(folder / "speech.wav"), *given]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


def test_an_emotion_beside_a_ready_motion_is_refused(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """It would do nothing: a motion that is read or followed has its own expression."""
    save_motion(tmp_path / "nod.npz", still(4, 25.0, pitch=0.2))
    ready = {"--read": tmp_path / "nod.npz", "--video": folder / "nowhere.mp4"}
    for option, path in ready.items():
        assert main(["motion", option, str(path), "--emotion-text", "sad"]) == 2
        assert f"the motion of {option} has its own expression; leave --emotion-text out" in capsys.readouterr().err
    assert main(animate(folder, tmp_path, "--motion", str(tmp_path / "nod.npz"), "--emotion", "happy")) == 2
    assert "the motion of --motion has its own expression; leave --emotion out" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()
    assert main(["motion", "--read", str(tmp_path / "nod.npz"), "--emotion", "neutral"]) == 0


def test_a_motion_is_made_read_edited_combined_and_plotted(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    first, second, plot = (tmp_path / name for name in ("a.npz", "b.npz", "a.png"))
    made = ["motion", "--audio", str(folder / "speech.wav"), "--emotion", "sad", "--output", str(first)]
    assert main([*made, "--plot", str(plot)]) == 0
    said = capsys.readouterr().out
    assert "face (34 coefficients)" in said
    assert "15 frames at 25 fps" in said
    assert plot.exists()
    save_motion(tmp_path / "nod.npz", still(4, 25.0, pitch=0.2, AU1=1.0))
    edits = ["--set", "AU15 = 0; yaw += 0.1", "--take", "pose", str(tmp_path / "nod.npz"), "--output", str(second)]
    assert main(["motion", "--read", str(first), *edits]) == 0
    before, after = read_motion(first), read_motion(second)
    assert after.curve("pitch").tolist() == pytest.approx([0.2] * 15)
    assert after.curve("yaw").tolist() == pytest.approx([0.1] * 15), "the edit comes last"
    assert float(after.curve("AU15").max()) == 0.0
    np.testing.assert_array_equal(after.curve("AU4"), before.curve("AU4"))


@pytest.mark.parametrize("given", [[], ["--audio", "a.wav", "--read", "b.npz"]])
def test_a_motion_has_one_source(given: list[str], capsys: pytest.CaptureFixture[str]):
    assert main(["motion", *given]) == 2
    assert "give one of --audio, to make a motion" in capsys.readouterr().err
