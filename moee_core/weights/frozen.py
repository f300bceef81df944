"""Frozen encoders from the user's folders, as ``emotion.frozen.FrozenEncoders``.

A text encoder is a sentence-T5. A voice encoder is a HuBERT where the folder has a config.json, else an emotion2vec.
With a voice encoder the listener is loaded that ships with the pack, which says whom a voice calls.

Raises ``CheckpointError`` naming the folder and what is wrong in it. Nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

from ..audio.hubert import load_hubert
from ..emotion.frozen import FrozenEncoders, VoiceFeatures
from ..emotion.sentence_t5 import load_sentence_t5
from ..emotion.vocabulary import quote
from ..errors import CheckpointError
from .emo_talker import EMBEDDED, load_emo_talker
from .emotion2vec import load_emotion2vec


def load_frozen(text: str | Path | None = None, voice: str | Path | None = None) -> FrozenEncoders:
    """The encoders of the given folders, in float32 on the CPU."""
    for folder in (text, voice):
        if folder is not None and not Path(folder).is_dir():
            raise CheckpointError(f"{quote(folder, 120)} is not a folder; give the one that an encoder was put into")
    return FrozenEncoders(
        text=None if text is None else load_sentence_t5(text),
        voice=None if voice is None else _voice(Path(voice)),
        listener=None if voice is None else load_emo_talker(EMBEDDED)[0].ear,
    )


def _voice(folder: Path) -> VoiceFeatures:
    return load_hubert(folder) if (folder / "config.json").is_file() else load_emotion2vec(folder)
