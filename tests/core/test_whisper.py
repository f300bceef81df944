"""Whisper's encoder as DICE-Talk hears with it, beside transformers' own class: values, counts, files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from moee_core.audio.whisper import WhisperFeatures, load_whisper
from moee_core.errors import CheckpointError
from moee_core.selfcheck import given, ruled

SETTINGS = {
    "model_type": "whisper", "d_model": 8, "encoder_layers": 2, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 12, "decoder_ffn_dim": 12, "num_mel_bins": 80, "vocab_size": 16,
    "max_source_positions": 1500, "max_target_positions": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "decoder_start_token_id": 1,
}  # fmt: skip


def whole() -> Any:
    """transformers' class, decoder and all, with made-up weights."""
    transformers = pytest.importorskip("transformers")
    model = transformers.WhisperModel(transformers.WhisperConfig(**SETTINGS)).eval()
    model.load_state_dict({key: ruled(key, tuple(value.shape)) for key, value in model.state_dict().items()})
    return model


def write(folder: Path, state: dict[str, Tensor], settings: dict[str, Any] = SETTINGS) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(settings), encoding="utf-8")
    save_file({key: value.contiguous().clone() for key, value in state.items()}, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def model() -> Any:
    return whole()


@pytest.fixture(scope="module")
def folder(model: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the hub has it: a prefix before every name."""
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    return write(tmp_path_factory.mktemp("whisper"), state)


@pytest.fixture(scope="module")
def ear(folder: Path) -> WhisperFeatures:
    return load_whisper(folder)


def recording(samples: int) -> Tensor:
    loudness = 0.05 + 0.05 * torch.sin(torch.arange(samples) / 8000)
    return given("recording", samples) * loudness


def test_states_are_those_of_the_library(model: Any, ear: WhisperFeatures):
    """Of two blocks, the second one short: embeddings, layer 1, layer 2 behind the norm."""
    from transformers import WhisperFeatureExtractor

    samples = recording(480000 + 5000)
    found = ear.features(samples)
    assert found.dtype == torch.float32
    assert (ear.layers, ear.width, found.shape) == (3, 8, (1516, 3, 8))
    extractor = WhisperFeatureExtractor(feature_size=80)
    for block, rows in ((samples[:480000], slice(0, 1500)), (samples[480000:], slice(1500, 1516))):
        mel = extractor(block.numpy(), sampling_rate=16000, return_tensors="pt")["input_features"]
        with torch.no_grad():
            states = model.encoder(mel, output_hidden_states=True).hidden_states
        expected = torch.stack([*states], dim=2)[0, : rows.stop - rows.start]
        torch.testing.assert_close(found[rows], expected, rtol=0, atol=1e-5)
    assert not torch.allclose(found[:, 2], found[:, 1])


@pytest.mark.parametrize(
    ("samples", "tokens", "official"),
    [(1, 1, 0), (320, 1, 0), (321, 2, 0), (639, 2, 0), (640, 2, 2), (1279, 4, 2), (1280, 4, 4), (16000, 50, 50)],
)
def test_a_token_for_every_part_of_the_recording(ear: WhisperFeatures, samples: int, tokens: int, official: int):
    heard = recording(samples)
    found = ear.features(heard)
    assert len(found) == tokens
    kept = ear.features(heard, official=True)
    assert torch.equal(kept, found[:official])
    assert kept.shape == (official, 3, 8)


def test_blocks_are_heard_by_themselves(ear: WhisperFeatures):
    """What comes later changes nothing, and a block that the authors' count does not reach is not heard."""
    samples = recording(480000 + 900)
    heard: list[int] = []
    mel = ear.mel
    ear.mel = lambda part: (heard.append(len(part)), mel(part))[1]  # type: ignore[method-assign]
    try:
        found = ear.features(samples)
        assert heard == [480000, 900]
        heard.clear()
        official = ear.features(samples[:480500], official=True)
        assert heard == [480000]
    finally:
        del ear.mel
    assert torch.equal(official, found[:1500])


def test_silence_and_nothing(ear: WhisperFeatures):
    assert torch.isfinite(ear.features(torch.zeros(900))).all()
    for bad in (torch.zeros(0), torch.zeros(1, 900)):
        with pytest.raises(ValueError, match="a recording is"):
            ear.features(bad)


# ---- files ----------------------------------------------------------------------------------------------------------


def test_a_pickle_and_a_half(model: Any, ear: WhisperFeatures, tmp_path: Path):
    """Without the prefix, as a pickle, in half precision, without a decoder."""
    state = {key: value.half() for key, value in model.state_dict().items() if key.startswith("encoder.")}
    folder = write(tmp_path, state)
    (folder / "model.safetensors").unlink()
    torch.save(state, folder / "pytorch_model.bin")
    loaded = load_whisper(folder)
    assert {value.dtype for value in loaded.encoder.state_dict().values()} == {torch.float32}
    samples = recording(3200)
    torch.testing.assert_close(loaded.features(samples), ear.features(samples), rtol=0, atol=0.05)


def test_what_is_wrong_with_a_folder_is_said(model: Any, tmp_path: Path):
    state = {f"model.{key}": value for key, value in model.state_dict().items()}
    key = "model.encoder.layers.1.fc1.weight"
    cases = {
        "lacks": ({one: value for one, value in state.items() if one != key}, SETTINGS, r"'layers\.1\.fc1\.weight' is"),
        "shape": ({**state, key: torch.zeros(3, 3)}, SETTINGS, r"has shape \(3, 3\)"),
        "unknown": ({**state, "model.other.weight": torch.zeros(1)}, SETTINGS, r"'other\.weight' is unknown"),
        "whole numbers": ({**state, key: torch.zeros(12, 8, dtype=torch.int8)}, SETTINGS, "of type int8"),
        "heads": (state, {**SETTINGS, "encoder_attention_heads": 3}, "no Whisper can be built"),
        "another": (state, {**SETTINGS, "model_type": "wav2vec2"}, "whisper is needed"),
    }
    for name, (tensors, settings, message) in cases.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            load_whisper(write(tmp_path / name, tensors, settings))
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        load_whisper(tmp_path)
    folder = write(tmp_path / "none", state)
    (folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model\.safetensors or pytorch_model\.bin"):
        load_whisper(folder)
