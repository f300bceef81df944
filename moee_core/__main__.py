"""The command line: ``python -m moee_core animate | motion | emotions | inspect | convert | evaluate | selfcheck |
experts``.

Exit code 0 on success, 2 for anything the user can put right (one line on standard error, no traceback),
130 when interrupted. An output file appears whole or not at all.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .emotion.options import ENCODERS, add_emotion, add_encoders, emotion_of, encoders_of
from .errors import MoEEError
from .experts.commands import add_experts, parse_weighted
from .instant import add_generator, add_instant, add_motion, animate_instant
from .weights.commands import add_weights

if TYPE_CHECKING:
    from .pipeline import SamplingSettings
    from .systems.moee import MoEESystem

MAX_MESSAGE = 300
SHEET_FRAMES = 24
EMBEDDED = Path(__file__).parent / "assets" / "embedded.safetensors"


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return options.run(options)
    except (MoEEError, ValueError, OSError) as error:
        message = " ".join(str(error).split())
        if len(message) > MAX_MESSAGE - 7:
            message = message[: MAX_MESSAGE - 8] + "…"
        sys.stderr.write(f"error: {message}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped\n")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m moee_core", description="Emotional talking portraits.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    animate = commands.add_parser("animate", help="make a portrait speak a recording with an emotion")
    animate.add_argument("--portrait", required=True, help="a picture with one face that fills the frame")
    animate.add_argument("--audio", required=True, help="a recording of speech (anything PyAV reads)")
    add_emotion(animate)
    animate.add_argument("--output", required=True, help="the video to write (.mp4, .mov or .mkv)")
    animate.add_argument("--contact-sheet", help="also write a picture of evenly spaced frames (.png or .jpg)")
    animate.add_argument("--model", default=str(EMBEDDED), help="a checkpoint; the embedded model if not given")
    _add_sampling(animate)
    animate.add_argument(
        "--expert",
        action="append",
        metavar="FILE[:STRENGTH]",
        help="an emotion expert's file, -2 to 2 times; may be given several times",
    )
    animate.add_argument("--device", default="cpu", help="where to compute: cpu (default), cuda, cuda:1, mps")
    animate.add_argument(
        "--size", type=int, help="side of the video in pixels (default 256; instant: the picture's own)"
    )
    animate.add_argument(
        "--renderer", choices=("model", "instant"), default="model", help="instant moves any picture, without weights"
    )
    add_encoders(animate)
    add_instant(animate)
    animate.set_defaults(run=_animate)

    add_motion(commands.add_parser("motion", help="make, plot or describe motion files"))

    emotions = commands.add_parser("emotions", help="list labels, compounds and the grammar")
    emotions.set_defaults(run=_emotions)

    add_weights(commands)

    evaluate = commands.add_parser("evaluate", help="measure a checkpoint on an evaluation set")
    evaluate.add_argument("set", help="a folder written by: python training/evaluation_set.py OUT")
    evaluate.add_argument("--model", default=str(EMBEDDED), help="a checkpoint; the embedded model if not given")
    evaluate.add_argument("--people", type=int, default=0, help="measure only the first N people (0 = all)")
    _add_sampling(evaluate)
    evaluate.add_argument("--report", help="also write the figures as JSON")
    evaluate.add_argument(
        "--renderer",
        choices=("model", "instant"),
        default="model",
        help="instant: no checkpoint, the portrait is moved; needs a set written with --large",
    )
    evaluate.add_argument(
        "--portraits",
        choices=("neutral", "mixed"),
        default="neutral",
        help="mixed: every other portrait already shows another emotion",
    )
    evaluate.add_argument(
        "--sources", action="store_true", help="measure every way to say an emotion instead, compounds and single units"
    )
    evaluate.add_argument("--phrasings", help="sources: a JSON list of texts and the labels they mean")
    evaluate.add_argument(
        "--parts",
        nargs="+",
        help="sources: measure only these of sources, truth, ear, compounds, units (ear: no video)",
    )
    add_encoders(evaluate)
    add_generator(evaluate)
    evaluate.set_defaults(run=_evaluate)

    check = commands.add_parser("selfcheck", help="compare what this machine computes with stored results of a CPU")
    check.add_argument("--device", default="cpu", help="where to compute: cpu (default), cuda, cuda:1, mps")
    check.set_defaults(run=_selfcheck)

    add_experts(commands.add_parser("experts", help="list, make or merge emotion experts"), str(EMBEDDED))
    return parser


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    """The sampling options; what is not given comes from the checkpoint."""
    parser.add_argument("--steps", type=int, help="sampling steps per window (default: the model's own)")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same video")
    parser.add_argument("--emotion-guidance", type=float, help="above 1 exaggerates the emotion (default: the model's)")
    parser.add_argument("--audio-guidance", type=float, help="above 1 opens the mouth wider (default: the model's)")
    parser.add_argument("--noise-sharing", type=float, help="noise common to all frames, 0 to 1 (default: the model's)")
    faster = parser.add_argument_group("faster", "all but --compile change the frames")
    faster.add_argument("--solver", default="ddim", help="ddim (default), or dpmpp_2m, which needs fewer steps")
    faster.add_argument(
        "--guidance-between",
        nargs=2,
        type=float,
        default=(0.0, 1.0),
        metavar=("FROM", "UNTIL"),
        help="parts of the way from noise to picture where guidance acts (default: 0 1, all of it)",
    )
    faster.add_argument("--reuse", type=int, default=1, metavar="N", help="work out deep features every Nth step only")
    faster.add_argument(
        "--compile", action="store_true", help="torch.compile the denoiser, which takes a while at first"
    )


def _settings(options: argparse.Namespace, recommended: dict[str, float]) -> SamplingSettings:
    """What the user gave, over what the checkpoint recommends, over the defaults."""
    from .diffusion.sampler import Savings
    from .pipeline import SamplingSettings

    given = {
        "num_inference_steps": options.steps,
        "emotion_guidance": options.emotion_guidance,
        "audio_guidance": options.audio_guidance,
        "noise_sharing": options.noise_sharing,
    }
    asked = {name: value if value is not None else recommended.get(name) for name, value in given.items()}
    chosen: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if "num_inference_steps" in chosen:
        chosen["num_inference_steps"] = int(chosen["num_inference_steps"])
    start, end = options.guidance_between
    savings = Savings(solver=options.solver, guidance_from=start, guidance_until=end, reuse=options.reuse)
    return SamplingSettings(seed=options.seed, savings=savings, **chosen)


def _compiled(options: argparse.Namespace, system: MoEESystem) -> None:
    """Where asked for. The layers keep their names, so what is loaded or merged later finds them."""
    if options.compile:
        system.denoiser.compile()


def _animate(options: argparse.Namespace) -> int:
    if options.renderer == "instant":
        if options.expert:
            raise ValueError("--expert belongs to the model, and --renderer instant has no experts; leave one out")
        _without_model(options)
        return animate_instant(options, _ProgressLine("frames"))
    for name in ("points", "motion", "save_motion"):
        if getattr(options, name):
            raise ValueError(f"--{name.replace('_', '-')} belongs to --renderer instant; add that, or leave it out")
    from .audio.read import read_audio
    from .experts.apply import apply_experts
    from .experts.file import load_expert
    from .pipeline import animate, reconstruction_error
    from .portrait.image import read_portrait
    from .video.encode import VideoWriter
    from .video.frames import PICTURE_SUFFIXES, contact_sheet, num_frames, writable_target, write_image
    from .weights.checkpoint import load_system

    began = time.monotonic()
    options.size = options.size or 256
    if not 64 <= options.size <= 2048:
        raise ValueError(f"--size must be between 64 and 2048 pixels, got {options.size}")
    if options.contact_sheet:
        writable_target(options.contact_sheet, "picture", PICTURE_SUFFIXES)  # now, not when the video is done
    emotion = emotion_of(options)
    portrait = read_portrait(options.portrait)
    waveform = read_audio(options.audio)
    device = _device(options.device)
    system, info = load_system(options.model)
    system.to(device).with_frozen(encoders_of(options))
    if options.expert:
        apply_experts(system, [(load_expert(path), weight) for path, weight in map(parse_weighted, options.expert)])
    _compiled(options, system)
    settings = _settings(options, info.sampling)
    progress = _ProgressLine("frames")
    total = num_frames(waveform.samples.shape[1], waveform.sample_rate, system.config.fps)
    wanted = set(np.linspace(0, total - 1, min(SHEET_FRAMES, total)).round().astype(int).tolist())
    frames = animate(system, portrait, waveform, emotion, settings, progress)
    shown: list[np.ndarray] = []
    with VideoWriter(
        options.output, width=options.size, height=options.size, fps=system.config.fps, waveform=waveform
    ) as writer:
        _warn_outside_domain(reconstruction_error(system, portrait), info.domain, options.portrait)
        for index, frame in enumerate(_resized(frames, options.size)):
            writer.write(frame)
            if options.contact_sheet and index in wanted:
                shown.append(frame)
    progress.end()
    if options.contact_sheet:
        labels = [f"{index / system.config.fps:.2f} s" for index in sorted(wanted)]
        write_image(options.contact_sheet, contact_sheet(shown, 6, labels))
    sys.stdout.write(f"{options.output}: {time.monotonic() - began:.1f} s for {waveform.duration:.2f} s of speech\n")
    return 0


def _without_model(options: argparse.Namespace) -> None:
    for name in ENCODERS:
        if getattr(options, name) is not None:
            raise ValueError(f"--{name.replace('_', '-')} belongs to --renderer model; leave one of the two out")


def _device(name: str) -> str:
    """Check that PyTorch knows and has the device before anything is computed."""
    import torch

    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        first = str(error).splitlines()[0]
        raise ValueError(f"--device {name!r} cannot be used here ({first}); use cpu") from error
    return name


def _selfcheck(options: argparse.Namespace) -> int:
    from .selfcheck import report

    return report(_device(options.device))


def _resized(frames: Iterator[np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Frames at the side asked for, cubic up and area down."""
    import cv2

    for frame in frames:
        if frame.shape[0] == size:
            yield frame
        else:
            how = cv2.INTER_CUBIC if size > frame.shape[0] else cv2.INTER_AREA
            yield cv2.resize(frame, (size, size), interpolation=how)


def _warn_outside_domain(error: float, domain: dict[str, float], name: str) -> None:
    from .emotion.vocabulary import quote

    limit = domain.get("reconstruction_error")
    if limit is not None and error > limit:
        sys.stderr.write(
            f"warning: {quote(Path(name).name)} does not look like what this model was trained on (reconstruction "
            f"error {error:.1f}, usual below {limit:.1f}); expect a poor face. The embedded model knows drawn faces "
            "that fill the frame: crop closely, or use one of moee_core/assets/portraits.\n"
        )


class _ProgressLine:
    """``frames 36/150`` on standard error, rewritten in place on a terminal, quiet otherwise."""

    def __init__(self, what: str):
        self.what = what
        self.live = sys.stderr.isatty()

    def __call__(self, done: int, total: int) -> None:
        if self.live:
            sys.stderr.write(f"\r{self.what} {done}/{total}")
            sys.stderr.flush()

    def end(self) -> None:
        if self.live:
            sys.stderr.write("\n")


def _emotions(_options: argparse.Namespace) -> int:
    from .emotion.vocabulary import COMPOUNDS, LABELS, TRAINED_COMPOUNDS

    lines = ["labels:    " + ", ".join(LABELS)]
    lines += ["compounds: " + ", ".join(f"{n}{'' if n in TRAINED_COMPOUNDS else '*'}" for n in COMPOUNDS)]
    lines += ["           (* not among the compounds the experts' gates were trained on)"]
    lines += ['blend:     happy | happy:0.6 | "happy:0.6 + surprised:0.4" | "happily surprised 0.8"   (sum up to 1.5)']
    lines += ['timeline:  "0 neutral; 1.5 happy ease 0.4; 3 surprised:1.2; 4.5 sad"   (seconds rising)']
    sys.stdout.write("\n".join(lines) + "\n")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from .metrics.evaluate import evaluate_folder, format_report, instant_maker, model_maker
    from .metrics.sources import format_sources
    from .weights.checkpoint import load_system

    if options.sources and options.renderer == "instant":
        raise ValueError("--sources measures a checkpoint; leave --renderer instant out")
    if options.parts and not options.sources:
        raise ValueError("--parts are parts of --sources; add that, or leave it out")
    hear = None
    if options.renderer == "instant":
        _without_model(options)
        from .instant import motion_maker

        generate, noted = motion_maker(options)
        make = instant_maker(generate)
    else:
        system, info = load_system(options.model)
        system.with_frozen(encoders_of(options))
        _compiled(options, system)
        settings = _settings(options, info.sampling)
        make, noted, hear = model_maker(system, settings), _noted(settings), _hearing(system)
    if options.sources:
        report = _sources(options, make, hear) | {"settings": noted}
        sys.stdout.write(format_sources(report))
    else:
        report = evaluate_folder(
            make,
            Path(options.set),
            noted,
            people=options.people,
            large=options.renderer == "instant",
            mixed_portraits=options.portraits == "mixed",
            on_progress=_ProgressLine("people"),
        )
        sys.stdout.write(format_report(report))
    if options.report:
        Path(options.report).write_text(json.dumps(report, indent=1), encoding="utf-8")
    return 0


def _hearing(system: MoEESystem) -> Callable[[np.ndarray], np.ndarray]:
    """(S,) samples at 16 kHz -> the mood that the model hears in every frame."""
    import torch

    from .audio.mel import SAMPLE_RATE
    from .video.frames import num_frames

    def hear(samples: np.ndarray) -> np.ndarray:
        return system.mood(torch.from_numpy(samples), num_frames(len(samples), SAMPLE_RATE, system.config.fps))

    return hear


def _sources(options: argparse.Namespace, make: Any, hear: Any) -> dict[str, Any]:
    """Every way to say an emotion, one at a time."""
    from .emotion.reference import read_units
    from .metrics.sources import PARTS, load_phrasings, measure_sources
    from .weights.expression_reader import load_expression_reader

    reader = load_expression_reader()
    return measure_sources(
        make,
        Path(options.set),
        people=options.people,
        phrasings=load_phrasings(Path(options.phrasings)) if options.phrasings else None,
        read_units=lambda pictures: read_units(reader, pictures),
        hear=hear,
        parts=options.parts or PARTS,
        on_progress=_ProgressLine("people"),
    )


def _noted(settings: SamplingSettings) -> dict[str, Any]:
    """Settings as a report names them; of speed by choice what is chosen."""
    from .diffusion.sampler import Savings

    names = ("emotion_guidance", "audio_guidance", "noise_sharing", "seed")
    noted = {"steps": settings.num_inference_steps} | {name: getattr(settings, name) for name in names}
    off = asdict(Savings())
    return noted | {name: value for name, value in asdict(settings.savings).items() if value != off[name]}


if __name__ == "__main__":
    raise SystemExit(main())
