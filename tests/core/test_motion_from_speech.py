"""Motion from speech without learning: the mouth, silence, emotion, blinks, rates, and the sliders."""

from __future__ import annotations

import numpy as np
import pytest

from moee_core.audio.encoder import SpeechEncoder
from moee_core.audio.read import Waveform, read_audio
from moee_core.emotion.timeline import parse_emotion
from moee_core.motion.coefficients import FACE, SADTALKER, Motion, MotionError, still
from moee_core.motion.expression import expression, prototype
from moee_core.motion.generate import MotionSettings, blinks, speech_motion
from moee_core.motion.mouth import CHUNK_FRAMES, EMBEDDED, heard_mouth, load_ear, speaking
from moee_core.motion.plot import groups, plot

SPEECH = EMBEDDED.parent / "speech"
RATE = 16_000


@pytest.fixture(scope="module")
def ear() -> SpeechEncoder:
    return load_ear()


@pytest.fixture(scope="module")
def recording() -> Waveform:
    return read_audio(SPEECH / "hello.ogg")


def quiet_around(waveform: Waveform, seconds: float) -> Waveform:
    rest = np.random.default_rng(0).normal(0, 1e-4, (waveform.samples.shape[0], round(seconds * waveform.sample_rate)))
    samples = np.concatenate([rest, waveform.samples, rest], axis=1).astype(np.float32)
    return Waveform(samples=samples, sample_rate=waveform.sample_rate)


def test_the_mouth_moves_in_speech_and_is_shut_in_silence(ear: SpeechEncoder, recording: Waveform):
    motion = speech_motion(ear, quiet_around(recording, 1.0), parse_emotion("neutral"))
    opening = motion.curve("open")
    assert len(motion) == round((recording.duration + 2) * 25 + 0.5)
    assert float(opening[:20].max()) < 0.02, "silence before"
    assert float(opening[-20:].max()) < 0.02, "and behind"
    assert float(opening[25:-25].max()) > 0.4
    assert float(motion.curve("press").max()) > 0.5, "hello has no p, but people close their lips"


@pytest.mark.parametrize("samples", [np.zeros((1, 3 * RATE)), np.zeros((2, 800))])
def test_digital_silence_is_a_still_mouth(ear: SpeechEncoder, samples: np.ndarray):
    motion = speech_motion(ear, Waveform(samples=samples.astype(np.float32), sample_rate=RATE), parse_emotion("happy"))
    lips = motion.values[:, FACE.indices("lip")]
    assert float(np.abs(lips).max()) == 0.0
    assert float(motion.curve("AU12L").min()) > 0.9, "the emotion is there all the same"


def test_the_emotion_is_its_prototype_and_follows_the_timeline(ear: SpeechEncoder, recording: Waveform):
    motion = speech_motion(ear, recording, parse_emotion("0 sad ease 0; 1 happy ease 0"))
    assert motion.curve("AU15")[10] == pytest.approx(1.0)
    assert motion.curve("AU15")[30] == 0.0
    assert motion.curve("AU12L")[30] == motion.curve("AU12R")[30] == pytest.approx(1.0)


def test_compounds_pass_from_the_sum_of_two_prototypes_to_their_own():
    lone = parse_emotion("happy:0.5").sample(1, 25)
    order = parse_emotion("happily surprised").sample(1, 25)
    np.testing.assert_allclose(expression(order)[0], prototype("happily_surprised"), atol=1e-6)
    np.testing.assert_allclose(expression(lone)[0], 0.5 * prototype("happy"), atol=1e-6)


def test_sliders_scale_what_they_say(ear: SpeechEncoder, recording: Waveform):
    def made(**settings: float) -> Motion:
        return speech_motion(ear, recording, parse_emotion("happy"), settings=MotionSettings(**settings))  # type: ignore[arg-type]

    plain = made()
    wide, calm, stiff, dull, staring = (
        made(mouth_amplitude=1.5),
        made(blinks_per_minute=0.0),
        made(head_motion=0.0),
        made(expressiveness=0.5),
        made(gaze_motion=0.0),
    )
    np.testing.assert_allclose(wide.curve("open"), 1.5 * plain.curve("open"), atol=1e-6)
    np.testing.assert_array_equal(wide.curve("press"), plain.curve("press"), "lips that close, close")
    assert float(calm.curve("lidL").max()) == 0.0 < float(made(blinks_per_minute=60.0).curve("lidL").max())
    assert float(np.abs(stiff.values[:, FACE.indices("pose")]).max()) == 0.0
    assert float(np.abs(plain.values[:, FACE.indices("pose")]).max()) > 0.01
    np.testing.assert_allclose(dull.curve("AU12L"), 0.5 * plain.curve("AU12L"), atol=1e-6)
    assert float(np.abs(staring.curve("gaze_x")).max()) == 0.0
    with pytest.raises(ValueError, match="mouth_amplitude must be between 0 and 2, got 3"):
        MotionSettings(mouth_amplitude=3.0)
    with pytest.raises(ValueError, match="blinks_per_minute"):
        MotionSettings(blinks_per_minute=float("nan"))


def test_a_seed_gives_one_motion_and_another_seed_another(ear: SpeechEncoder, recording: Waveform):
    first, again, other = (
        speech_motion(ear, recording, parse_emotion("neutral"), settings=MotionSettings(seed=seed))
        for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(first.values, again.values)
    lips = FACE.indices("lip")
    np.testing.assert_array_equal(first.values[:, lips], other.values[:, lips])
    assert float(np.abs(first.curve("yaw") - other.curve("yaw")).max()) > 0.005


@pytest.mark.parametrize("fps", [12.5, 30.0, 60.0])
def test_another_rate_shows_the_same_movement(ear: SpeechEncoder, recording: Waveform, fps: float):
    plain = speech_motion(ear, recording, parse_emotion("happy"))
    other = speech_motion(ear, recording, parse_emotion("happy"), fps=fps)
    assert len(other) == int(np.ceil(recording.samples.shape[1] / recording.sample_rate * fps))
    back = other.resampled(25.0, len(plain))
    assert float(np.abs(back.curve("yaw") - plain.curve("yaw")).max()) < 0.01
    assert np.corrcoef(back.curve("open")[2:-2], plain.curve("open")[2:-2])[0, 1] > 0.9


def test_a_rate_out_of_range_is_refused(ear: SpeechEncoder, recording: Waveform):
    with pytest.raises(MotionError, match="1 to 120 frames a second, got 500"):
        speech_motion(ear, recording, parse_emotion("happy"), fps=500.0)


def test_stretches_of_a_long_recording_fit_together(ear: SpeechEncoder):
    samples = np.random.default_rng(1).normal(0, 0.05, RATE * 70).astype(np.float32)
    frames = 70 * 25
    assert frames > CHUNK_FRAMES
    whole = heard_mouth(ear, samples, frames)
    shifted = heard_mouth(ear, samples[640 * 100 :], frames - 100)  # another place of the seam
    inside = slice(CHUNK_FRAMES - 60, CHUNK_FRAMES + 60)
    gap = np.abs(whole[inside] - shifted[CHUNK_FRAMES - 160 : CHUNK_FRAMES - 40])
    assert float(gap.max()) < 0.02


def test_blinks_come_at_their_rate_close_fully_and_never_twice_at_once():
    seconds = (np.arange(25 * 600) + 0.5) / 25
    said = (np.sin(seconds * 2.0) > 0).astype(np.float32)
    lids = blinks(seconds, said, 16.0, seed=3)
    starts = np.flatnonzero((lids[1:] > 0) & (lids[:-1] == 0))
    assert 120 <= len(starts) <= 190, "16 a minute for ten minutes, less what falls together"
    assert float(np.diff(seconds[starts]).min()) > 0.55
    assert all(float(lids[s + 1 : s + 8].max()) > 0.85 for s in starts[:-1]), "a lid that closes, closes"
    assert float(lids.max()) <= 1.0


def test_the_voice_gate_opens_for_speech_only():
    level = np.full(100, 1e-3, np.float32)
    level[40:60] = 0.2
    gate = speaking(level)
    assert float(gate[:30].max()) < 0.01
    assert float(gate[42:58].min()) > 0.99
    assert float(gate[70:].max()) < 0.01


def test_a_plot_draws_what_moves(ear: SpeechEncoder, recording: Waveform):
    motion = speech_motion(ear, recording, parse_emotion("happy"))
    shown = groups(motion)
    assert "AU12L" in shown["action units"]
    assert "AU15" not in shown["action units"], "nothing sad in it"
    image = plot(motion, width=640)
    assert image.shape[1] == 640
    assert image.dtype == np.uint8
    assert len(np.unique(image.reshape(-1, 3), axis=0)) > 50
    assert plot(still(3, 25.0)).shape[1] == 960, "a motion without movement has a plot too"
    other = Motion(values=np.random.default_rng(0).normal(0, 1, (5, 70)), fps=25.0, space=SADTALKER)
    assert set(groups(other)) == {"lips", "expression", "head"}
    with pytest.raises(ValueError, match="at least 320 pixels"):
        plot(motion, width=100)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("AU12L 0.5", "cannot read 'AU12L 0.5'"),
        ("AU12L = strong", "cannot read"),
        ("AU12L = nan", "cannot read"),
        ("AU99 = 1", "unknown coefficient 'AU99'"),
    ],
)
def test_a_text_that_sets_coefficients_is_judged(text: str, message: str):
    with pytest.raises(MotionError, match=message):
        still(2, 25.0).with_text(text)
    assert message.split("'")[0].strip() in FACE.problem(text)


def test_a_text_holds_and_adds():
    motion = still(2, 25.0, yaw=0.1).with_text("AU12L = 0.5; yaw += 0.1\nlidL = 1;")
    assert motion.curve("AU12L").tolist() == [0.5, 0.5]
    assert motion.curve("yaw").tolist() == pytest.approx([0.2, 0.2])
    assert motion.curve("lidL").tolist() == [1.0, 1.0]
    assert FACE.problem("AU1 = 1") == ""
