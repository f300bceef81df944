"""Load Emotion Encoders: which folders it lists, what it attaches, what it refuses; no ComfyUI needed."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from pathlib import Path
from typing import Any

import pytest

from ..core.test_frozen_encoders import BOTH
from ..fixtures.host_double import PACK, VERSIONS, host
from ..fixtures.public_encoders import WIDTH, write_emotion2vec, write_hubert, write_t5


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    write_t5(root / "moee" / "encoders" / "t5")
    write_emotion2vec(root / "moee" / "encoders" / "e2v")
    write_hubert(root / "moee" / "hubert" / "er")
    return root


def encoder_set(**emotion: Any) -> Any:
    """What Load Talking Portrait Model gives, without the networks, which are not asked for here."""
    config = dataclasses.replace(BOTH, emotion=dataclasses.replace(BOTH.emotion, **emotion))
    kind = sys.modules[f"{PACK}.nodes.sockets"].EncoderSet
    parts = dict.fromkeys(("reference_net", "speech", "emotion"))
    return kind(config=config, key="k", sampling={}, domain={}, **parts)


@pytest.mark.parametrize("version", VERSIONS)
def test_folders_are_listed_by_what_they_are_and_never_as_models(version: str, models: Path):
    with host(version, models) as pack:
        nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
        schemas = {node.define_schema().node_id: node.define_schema() for node in nodes}
        _, text, voice = schemas["MoEELoadEmotionEncoders"].inputs
        assert text.options == ["none", "t5"]
        assert voice.options == ["none", "er", "e2v"]
        assert schemas["MoEELoadModel"].inputs[0].options == ["embedded (ships with the pack)"]


def test_encoders_are_attached_or_refused(models: Path):
    with host(VERSIONS[-1], models) as pack:
        nodes = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
        node = next(one for one in nodes if one.define_schema().node_id == "MoEELoadEmotionEncoders")
        given = encoder_set()
        (attached,) = node.execute(given, "t5", "er").args
        assert given.frozen.text is None, "what a node was given stays as it was"
        assert attached.frozen.text.width == attached.frozen.voice.width == WIDTH
        assert dataclasses.replace(attached, frozen=given.frozen) == given
        assert node.execute(attached, "none", "none").args[0].frozen.text is None
        listens = encoder_set(audio="emotion2vec")
        assert node.execute(listens, "none", "e2v").args[0].frozen.voice.kind == "emotion2vec"
        with pytest.raises(ValueError, match="reads audio by emotion2vec; leave the encoder hubert out"):
            node.execute(listens, "none", "er")
        with pytest.raises(ValueError, match=r"gives 24 numbers and this model takes 768 \(text_width\)"):
            node.execute(encoder_set(text_width=768), "t5", "none")
