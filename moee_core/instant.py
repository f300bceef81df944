"""The command line of motions and of the instant renderer: no weights but small listeners to speech.

``animate --renderer instant`` makes a motion from the recording (or reads one), finds the face or reads its points,
and writes the video; ``motion`` makes, plots or describes a motion file.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .emotion.options import NAMES, add_emotion, emotion_of
from .motion.coefficients import FACE, Motion, MotionError

if TYPE_CHECKING:
    from .audio.read import Waveform
    from .emotion.source import EmotionSource
    from .emotion.timeline import EmotionTimeline
    from .renderer.points import FacePoints

LARGEST = 2048
SHEET_FRAMES = 24
POINTS_SUFFIX = ".points.json"
"""mira.png has its points in mira.points.json."""


def add_instant(parser: argparse.ArgumentParser) -> None:
    """Options of ``animate`` that belong to the instant renderer, and those of a motion made from speech."""
    parser.add_argument(
        "--points", help="instant: a JSON of points on the face (default: PICTURE.points.json, or found)"
    )
    parser.add_argument("--motion", help="instant: a motion file to draw instead of making one from the recording")
    parser.add_argument("--save-motion", help="instant: also write the motion that was drawn (.npz)")
    add_generator(parser)


def add_generator(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--generator",
        choices=("process", "emotalker"),
        default="process",
        help="instant: what makes the motion; emotalker hears the emotion in the voice",
    )
    parser.add_argument("--emotalker", help="emotalker: a checkpoint (default: the embedded one)")
    parser.add_argument("--hubert", help="emotalker: a local HuBERT folder, for a checkpoint that listens through it")
    parser.add_argument(
        "--mode", choices=("continuous", "snap", "sample"), default="continuous", help="emotalker: how codes are chosen"
    )
    parser.add_argument("--temperature", type=float, default=1.0, help="emotalker, mode sample: above 1 is wilder")
    parser.add_argument("--mouth", type=float, default=1.0, help="instant: how far the mouth opens, 0 to 2")
    parser.add_argument("--expressiveness", type=float, default=1.0, help="instant: strength of the expression, 0 to 2")
    parser.add_argument("--head-motion", type=float, default=1.0, help="instant: sway and nods of the head, 0 to 2")
    parser.add_argument("--blinks", type=float, default=16.0, help="instant: blinks a minute, 0 to 60")
    parser.add_argument("--fps", type=float, default=25.0, help="instant: frames a second, 1 to 120")


def add_motion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--audio", help="a recording of speech to make a motion from")
    parser.add_argument("--read", help="a motion file, or SadTalker's coefficients, to read instead")
    parser.add_argument("--video", help="a video of one face to follow instead (needs: pip install mediapipe)")
    parser.add_argument("--calm-at", type=float, help="video: a moment in seconds at which the person is at rest")
    add_emotion(parser)
    parser.add_argument("--seed", type=int, default=0, help="other blinks, looks and sways")
    parser.add_argument("--set", default="", help='coefficients to hold or add to: "AU12L = 0.5; yaw += 0.1"')
    parser.add_argument("--take", nargs=2, metavar=("PART", "FILE"), help="pose, lip, expression or face of another")
    parser.add_argument("--output", help="the motion to write (.npz)")
    parser.add_argument("--plot", help="a picture of the curves to write (.png or .jpg)")
    add_generator(parser)
    parser.set_defaults(run=_motion)


Generate = Callable[["Waveform", "EmotionSource | EmotionTimeline"], Motion]


def motion_maker(options: argparse.Namespace) -> tuple[Generate, dict[str, Any]]:
    """(recording and emotion -> motion, the settings as a report names them)."""
    if options.generator == "emotalker":
        return _emotalker_maker(options)
    for name, default in (("emotalker", None), ("hubert", None), ("mode", "continuous"), ("temperature", 1.0)):
        if getattr(options, name) != default:
            raise ValueError(f"--{name} belongs to --generator emotalker; add that, or leave it out")
    from .emotion.source import as_source
    from .motion.generate import MotionSettings, speech_motion
    from .motion.mouth import load_ear

    settings = MotionSettings(
        seed=options.seed,
        mouth_amplitude=options.mouth,
        expressiveness=options.expressiveness,
        head_motion=options.head_motion,
        blinks_per_minute=options.blinks,
    )
    ear = load_ear()

    def make(waveform: Waveform, emotion: EmotionSource | EmotionTimeline) -> Motion:
        listener = None
        if as_source(emotion).voice:
            from .weights.emo_talker import EMBEDDED, load_emo_talker

            listener = load_emo_talker(EMBEDDED)[0].ear
        return speech_motion(ear, waveform, emotion, fps=options.fps, settings=settings, mood_ear=listener)

    noted = {"renderer": "instant", "generator": "process", "fps": options.fps, **dataclasses.asdict(settings)}
    return make, noted


def _emotalker_maker(options: argparse.Namespace) -> tuple[Generate, dict[str, Any]]:
    """EmoTalker makes the motion from the voice alone; the sliders scale what it made."""
    from .audio.hubert import load_hubert
    from .systems.emo_talker import MotionSettings
    from .weights.emo_talker import EMBEDDED, load_emo_talker

    factors = {"lip": options.mouth, "expression": options.expressiveness, "pose": options.head_motion}
    for part, amount in factors.items():
        if not 0.0 <= amount <= 2.0:
            raise ValueError(f"the factor on {part} must be between 0 and 2, got {amount:g}")
    settings = MotionSettings(
        mode=options.mode, temperature=options.temperature, seed=options.seed, blinks_per_minute=options.blinks
    )
    system, _ = load_emo_talker(options.emotalker or EMBEDDED)
    features = load_hubert(options.hubert) if options.hubert else None

    def make(waveform: Waveform, emotion: EmotionSource | EmotionTimeline) -> Motion:
        motion = system.generate(waveform, options.fps, settings, features=features)
        for part, amount in factors.items():
            motion = motion.scaled(part, amount) if amount != 1.0 else motion
        return motion

    noted = {"renderer": "instant", "generator": "emotalker", "fps": options.fps, "scaled": factors}
    return make, noted | dataclasses.asdict(settings)


def refuse_emotion(options: argparse.Namespace, why: str, instead: str) -> None:
    """Raises ``ValueError`` for an emotion beside what has its own: it would do nothing."""
    for name in NAMES:
        if getattr(options, name) not in (None, "neutral"):
            raise ValueError(f"{why}; leave --{name.replace('_', '-')} out, or {instead}")


def _made(options: argparse.Namespace, waveform: Waveform) -> Motion:
    if options.generator == "emotalker":
        refuse_emotion(options, "--generator emotalker hears the emotion in the voice", "use process")
    emotion = emotion_of(options)
    return motion_maker(options)[0](waveform, emotion)


def _motion(options: argparse.Namespace) -> int:
    from .audio.read import read_audio
    from .motion.files import SUFFIXES, read_motion, save_motion
    from .motion.plot import plot
    from .video.frames import PICTURE_SUFFIXES, writable_target, write_image

    if sum(map(bool, (options.audio, options.read, options.video))) != 1:
        raise ValueError("give one of --audio, to make a motion, --video, to follow a face, and --read, to read one")
    if options.calm_at is not None and not options.video:
        raise ValueError("--calm-at belongs to --video; add that, or leave it out")
    if not options.audio:
        given = "--read" if options.read else "--video"
        refuse_emotion(options, f"the motion of {given} has its own expression", "make one from --audio")
    for path, kind, suffixes in ((options.output, "motion", SUFFIXES), (options.plot, "picture", PICTURE_SUFFIXES)):
        if path:
            writable_target(path, kind, suffixes)  # now, not when everything is done
    if options.video:
        motion = _followed(options.video, options.calm_at)
    else:
        motion = read_motion(options.read) if options.read else _made(options, read_audio(options.audio))
    if options.take:
        motion = motion.with_part_of(read_motion(options.take[1]), options.take[0])
    motion = motion.with_text(options.set)
    if options.output:
        save_motion(options.output, motion)
    if options.plot:
        write_image(options.plot, plot(motion))
    rows = [f"space:   {motion.space.name} ({motion.space.size} coefficients)"]
    rows += [f"length:  {len(motion)} frames at {motion.fps:g} fps, {motion.seconds:.2f} s"]
    low, high = motion.values.min(axis=0), motion.values.max(axis=0)
    moving = [i for i in np.argsort(low - high) if high[i] - low[i] > 1e-3]
    rows += [
        f"  {motion.space.names[i]:8} {low[i]:7.3f} .. {high[i]:.3f}  ({motion.space.units[i]})" for i in moving[:12]
    ]
    sys.stdout.write("\n".join(rows) + "\n")
    return 0


def _followed(path: str, calm_at: float | None) -> Motion:
    """The motion of the face in a video, at the video's own rate."""
    from .renderer.detector import meshes_of
    from .tracking.track import motion_of_meshes
    from .video.frames import read_video, video_rate

    fps = video_rate(path)
    meshes = np.stack(list(meshes_of(read_video(path))))
    return motion_of_meshes(meshes, fps, calm_at=calm_at, about=f"video {Path(path).name}")


def animate_instant(options: argparse.Namespace, progress: Callable[[int, int], None]) -> int:
    """``animate --renderer instant``."""
    from .audio.read import read_audio
    from .motion.files import SUFFIXES, read_motion, save_motion
    from .portrait.image import read_portrait
    from .renderer.instant import InstantRenderer
    from .video.encode import VideoWriter
    from .video.frames import PICTURE_SUFFIXES, contact_sheet, num_frames, writable_target, write_image

    began = time.monotonic()
    if options.motion:
        refuse_emotion(options, "the motion of --motion has its own expression", "leave --motion out")
    if options.contact_sheet:
        writable_target(options.contact_sheet, "picture", PICTURE_SUFFIXES)
    if options.save_motion:
        writable_target(options.save_motion, "motion", SUFFIXES)
    if options.size is not None and not 64 <= options.size <= LARGEST:
        raise ValueError(f"--size must be between 64 and {LARGEST} pixels, got {options.size}")
    portrait, waveform = read_portrait(options.portrait), read_audio(options.audio)
    points = _points(portrait, options.portrait, options.points)
    longest = max(portrait.shape[:2])
    if longest > (options.size or LARGEST) or options.size:
        portrait, points = _resized(portrait, points, (options.size or LARGEST) / longest)
    motion = _made(options, waveform) if not options.motion else read_motion(options.motion)
    if motion.space is not FACE:
        raise MotionError(f"--motion is of the space {motion.space.name!r}; the instant renderer draws 'face'")
    total = num_frames(waveform.samples.shape[1], waveform.sample_rate, options.fps)
    motion = motion.resampled(options.fps, total) if options.motion else motion
    if options.save_motion:
        save_motion(options.save_motion, motion)
    height, width = portrait.shape[:2]
    wanted = set(np.linspace(0, total - 1, min(SHEET_FRAMES, total)).round().astype(int).tolist())
    shown = []
    renderer = InstantRenderer(portrait, points)
    with VideoWriter(options.output, width=width, height=height, fps=options.fps, waveform=waveform) as writer:
        for index, frame in enumerate(renderer.frames(motion)):
            writer.write(frame)
            if options.contact_sheet and index in wanted:
                shown.append(frame)
            progress(index + 1, total)
    if options.contact_sheet:
        labels = [f"{index / options.fps:.2f} s" for index in sorted(wanted)]
        write_image(options.contact_sheet, contact_sheet(shown, 6, labels, scale=min(1.0, 320 / width)))
    sys.stdout.write(f"{options.output}: {time.monotonic() - began:.1f} s for {waveform.duration:.2f} s of speech\n")
    return 0


def _points(portrait: np.ndarray, path: str, given: str | None) -> FacePoints:
    """The points file given, or the one beside the picture, or a guess that says so."""
    from .renderer.detector import detected_points
    from .renderer.find import start_points
    from .renderer.points import read_points

    height, width = portrait.shape[:2]
    beside = Path(path).with_suffix(POINTS_SUFFIX)
    if given or beside.is_file():
        return read_points(given or beside, width, height)
    found = detected_points(portrait)
    if found is not None:
        sys.stderr.write(
            f"note: the installed landmark detector marked the face; save better points as {beside.name}, or give "
            "--points\n"
        )
        return found
    sys.stderr.write(
        "warning: no points for this picture, so an average face is assumed; expect a poor fit. Mark them with the "
        f"node Face Points and save its text as {beside.name}, give --points, or pip install mediapipe\n"
    )
    return start_points(portrait)


def _resized(portrait: np.ndarray, points: FacePoints, factor: float) -> tuple[np.ndarray, FacePoints]:
    """Picture and points with the longest side scaled by ``factor``."""
    import cv2

    height, width = (max(2, round(side * factor)) for side in portrait.shape[:2])
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(portrait, (width, height), interpolation=how), points.scaled(width, height)
