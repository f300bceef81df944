"""The command line's options that say an emotion, and what they make.

    --emotion TEXT              labels: a blend or timeline
    --emotion-text TEXT         plain words
    --action-units LIST         12:0.8, R14:0.5
    --voice-mood [STRENGTH]     the mood of the recording itself
    --expression-from FILE      the expression of another face, on a picture or in a video
    --text-encoder FOLDER       frozen encoders that a model reads text and voice by, where it has none inside
    --voice-encoder FOLDER

Raises ``EmotionError`` as the parsers do, ``CheckpointError`` for a folder that holds no encoder.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .frozen import FrozenEncoders
    from .source import EmotionSource

NAMES = ("emotion", "emotion_text", "action_units", "voice_mood", "expression_from")
ENCODERS = ("text_encoder", "voice_encoder")


def add_emotion(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--emotion", help='a blend or timeline of labels: "happy:0.8", "0 neutral; 2 sad" (see emotions)'
    )
    parser.add_argument("--emotion-text", metavar="WORDS", help='the emotion in plain words: "a bit sad, not angry"')
    parser.add_argument("--action-units", metavar="LIST", help='action units beside it: "12:0.8, R14:0.5"')
    parser.add_argument(
        "--voice-mood",
        nargs="?",
        const=1.0,
        type=float,
        metavar="STRENGTH",
        help="the mood of the recording itself, 0 to 1.5 times as strong as it is heard",
    )
    parser.add_argument(
        "--expression-from", metavar="FILE", help="the expression of another face, on a picture or in a video"
    )


def add_encoders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--text-encoder", metavar="FOLDER", help="sentence-T5 from the hub, for a model that reads text by it"
    )
    parser.add_argument(
        "--voice-encoder", metavar="FOLDER", help="HuBERT or emotion2vec, for a model that listens by it"
    )


def encoders_of(options: argparse.Namespace) -> FrozenEncoders:
    """The encoders of the folders that were given."""
    from ..weights.frozen import load_frozen

    return load_frozen(options.text_encoder, options.voice_encoder)


def emotion_of(options: argparse.Namespace) -> EmotionSource:
    """All that was said, neutral where nothing was; what a text was understood to say is told on standard error."""
    from ..errors import EmotionError
    from .source import EmotionSource
    from .timeline import parse_emotion
    from .units import parse_units, unit_track

    text = None if options.emotion_text is None else options.emotion_text.strip()
    if text == "":
        raise EmotionError("--emotion-text is empty; write what the face should show, such as: beaming with joy")
    units = None if options.action_units is None else unit_track(parse_units(options.action_units))
    voice = options.voice_mood or 0.0  # 0 times as it is heard is not at all
    seen = None if options.expression_from is None else _seen(options.expression_from)
    labels = options.emotion
    if labels is None and not (text or units or voice or seen):
        labels = "neutral"
    timeline = None if labels is None else parse_emotion(labels)
    if timeline is None and not (text or units or voice):
        source = seen
    else:
        source = EmotionSource(timeline=timeline, text=text or "", units=units, voice=voice)
        source = source if seen is None else source.joined(seen)
    assert source is not None  # without any of the others it is neutral
    if source.text:
        sys.stderr.write(f"understood: {source.understood.explain()}\n")
    return source


def _seen(path: str) -> EmotionSource:
    """The expression of the face in a file."""
    from ..portrait.image import read_portrait
    from ..video.frames import PICTURE_SUFFIXES, read_video, video_rate
    from ..weights.expression_reader import load_expression_reader
    from .reference import picture_source, video_source

    reader = load_expression_reader()
    if path.lower().endswith(PICTURE_SUFFIXES):
        seen = picture_source(reader, read_portrait(path)[..., :3])
    else:
        seen = video_source(reader, read_video(path), video_rate(path))
    sys.stderr.write(f"seen: {seen.explain()}\n")
    return seen
