"""Frozen public encoders in the layout of the hub: what they compute, what is refused, and a model that uses them.

The networks are tiny and random; what they must give is written out here from their weights.
"""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from moee_core.__main__ import main
from moee_core.audio.emotion2vec import Emotion2Vec, Emotion2VecConfig, slopes
from moee_core.audio.emotion_features import RATE, FeatureReader
from moee_core.audio.hubert import load_hubert
from moee_core.emotion.frozen import FrozenEncoders, around_frames
from moee_core.emotion.latents import EmotionToLatentsConfig
from moee_core.emotion.sentence_t5 import load_sentence_t5
from moee_core.emotion.source import EmotionSource, as_source
from moee_core.emotion.stand_ins import MOOD_SECONDS
from moee_core.emotion.timeline import parse_emotion
from moee_core.errors import CheckpointError, EmotionError
from moee_core.networks.config import SystemConfig
from moee_core.ops import Build
from moee_core.pipeline import SamplingSettings, animate
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import save_system
from moee_core.weights.emo_talker import EMBEDDED, load_emo_talker
from moee_core.weights.emotion2vec import load_emotion2vec, published
from moee_core.weights.frozen import load_frozen

from ..fixtures.public_encoders import (
    AUDIO,
    E2V,
    T5_WIDTH,
    TEXTS,
    WIDTH,
    WORDS,
    emotion2vec_state,
    write_emotion2vec,
    write_hubert,
    write_json,
    write_t5,
)
from ..fixtures.tiny import TINY, tiny_system
from .test_pipeline import FPS, WINDOW, recording
from .test_portrait_image import colourful


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_args: Any, **_more: Any) -> None:
        raise AssertionError("something asked for the network")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refused)
    monkeypatch.setattr(socket, "getaddrinfo", refused)


# ---- folders in the public layouts ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("hub")
    write_t5(root / "t5")
    write_hubert(root / "hubert")
    write_emotion2vec(root / "emotion2vec")
    return root


def copied(hub: Path, tmp_path: Path, name: str = "t5") -> Path:
    return Path(shutil.copytree(hub / name, tmp_path / name))


# ---- sentence-T5 ----------------------------------------------------------------------------------------------------


def expected_embedding(folder: Path, text: str) -> Tensor:
    """One text alone, without padding: the mean of the states, times the matrix, brought to length 1."""
    from transformers import T5EncoderModel

    model = T5EncoderModel.from_pretrained(folder).eval()
    ids = [WORDS.index(word) for word in text.split()] + [WORDS.index("</s>")]
    with torch.no_grad():
        states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
    out = load_file(folder / "2_Dense" / "model.safetensors")["linear.weight"] @ (states.sum(dim=0) / len(ids))
    return out / out.square().sum().sqrt()


def test_a_text_is_the_mean_of_its_tokens_through_the_matrix_at_length_one(hub: Path):
    encoder = load_sentence_t5(hub / "t5")
    found = encoder(TEXTS)
    assert encoder.width == WIDTH
    assert found.shape == (len(TEXTS), WIDTH)
    for row, text in zip(found, TEXTS, strict=True):
        torch.testing.assert_close(row, expected_embedding(hub / "t5", text), atol=1e-5, rtol=1e-4)
    assert (found[0] - found[1]).norm() > 0.05
    torch.testing.assert_close(encoder(TEXTS * 20)[-3:], found, atol=1e-5, rtol=1e-4)
    assert encoder([]).shape == (0, WIDTH)


def test_weights_may_be_in_half_precision_pickled_and_have_a_decoder_beside_them(hub: Path, tmp_path: Path):
    folder = copied(hub, tmp_path)
    whole = load_sentence_t5(folder)(TEXTS)
    state = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    state = {name: value.half() for name, value in state.items()} | {"decoder.final_layer_norm.weight": torch.ones(32)}
    state["encoder.embed_tokens.weight"] = state["shared.weight"]  # older files name the tied table twice
    torch.save(state, folder / "pytorch_model.bin")
    dense = folder / "2_Dense"
    torch.save(load_file(dense / "model.safetensors"), dense / "pytorch_model.bin")
    (dense / "model.safetensors").unlink()
    write_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": T5_WIDTH, "pooling_mode": "mean"})
    encoder = load_sentence_t5(folder)
    assert {p.dtype for p in encoder.model.parameters()} == {torch.float32}
    torch.testing.assert_close(encoder(TEXTS), whole, atol=5e-3, rtol=0)


def test_a_text_longer_than_the_encoder_reads_is_refused(hub: Path):
    encoder = load_sentence_t5(hub / "t5")
    assert encoder(["sad " * 31]).shape == (1, WIDTH)
    with pytest.raises(EmotionError, match="has 33 tokens, and this sentence-T5 reads 32; make it shorter"):
        encoder(["sad " * 32])


def spoil(folder: Path, how: str) -> None:
    """One thing of a sentence-T5 folder gone or wrong."""
    weights, dense = folder / "model.safetensors", folder / "2_Dense"
    state, matrix = load_file(weights), load_file(dense / "model.safetensors")
    described = json.loads((dense / "config.json").read_text())
    if how == "weight":
        del state["encoder.block.1.layer.0.SelfAttention.k.weight"]
        save_file(state, weights, metadata={"format": "pt"})
    elif how == "unknown":
        save_file(state | {"encoder.more": torch.ones(2)}, weights, metadata={"format": "pt"})
    elif how == "shape":
        save_file(state | {"encoder.final_layer_norm.weight": torch.ones(8)}, weights, metadata={"format": "pt"})
    elif how == "cut":
        weights.write_bytes(weights.read_bytes()[:-200])
    elif how == "kind":
        write_json(folder / "config.json", {"model_type": "bert"})
    elif how == "pooling":
        write_json(folder / "1_Pooling" / "config.json", {"pooling_mode_cls_token": True})
    elif how == "spiece":
        (folder / "tokenizer.json").rename(folder / "spiece.model")
    elif how == "tokenizer":
        (folder / "tokenizer.json").write_text("{}")
    elif how == "end":
        tokenizer = json.loads((folder / "tokenizer.json").read_text())
        write_json(folder / "tokenizer.json", tokenizer | {"post_processor": None})
    elif how == "bias":
        write_json(dense / "config.json", described | {"bias": True})
    elif how == "tanh":
        write_json(dense / "config.json", described | {"activation_function": "torch.nn.modules.activation.Tanh"})
    elif how == "matrix":
        save_file({"linear.weight": torch.ones(WIDTH, 7)}, dense / "model.safetensors")
    elif how == "names":
        save_file({"weight": matrix["linear.weight"]}, dense / "model.safetensors")
    elif how == "no matrix":
        shutil.rmtree(dense)
    elif how == "no weights":
        (dense / "model.safetensors").unlink()
    elif how == "pickle":
        (dense / "model.safetensors").unlink()
        torch.save({"linear.weight": Path("anything")}, dense / "pytorch_model.bin")
    elif how == "json":
        (folder / "sentence_bert_config.json").write_text("[1]")


@pytest.mark.parametrize(
    ("how", "complaint"),
    [
        ("weight", r"lacks weight 'encoder\.block\.1\.layer\.0\.SelfAttention\.k\.weight' \(1 in all\); download"),
        ("unknown", r"has the unknown weight 'encoder\.more'"),
        ("shape", "cannot be loaded as T5's encoder|have other shapes"),
        ("cut", "cannot be loaded as T5's encoder"),
        ("kind", "holds a model of type 'bert', t5 is needed"),
        ("pooling", "pools by .*pooling_mode_cls_token.*; sentence-T5 takes the mean"),
        ("spiece", r"needs tokenizer\.json \(spiece\.model alone needs another library\)"),
        ("tokenizer", "is no tokeniser"),
        ("end", "does not end a text with T5's token 1"),
        ("bias", "is linear with bias True"),
        ("tanh", "'torch.nn.modules.activation.Tanh' after it"),
        ("matrix", r"has shape \(24, 7\), .* ask for \(24, 32\)"),
        ("names", "lacks weight 'linear.weight'"),
        ("no matrix", "holds no linear map after the mean"),
        ("no weights", "holds no model.safetensors or pytorch_model.bin"),
        ("pickle", "holds no weights that can be read"),
        ("json", "is not a table of settings"),
    ],
)
def test_a_folder_that_is_not_a_whole_sentence_t5_is_refused(hub: Path, tmp_path: Path, how: str, complaint: str):
    folder = copied(hub, tmp_path)
    spoil(folder, how)
    with pytest.raises(CheckpointError, match=complaint) as caught:
        load_sentence_t5(folder)
    assert "\n" not in str(caught.value)


def test_folders_that_hold_nothing_are_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"'.*nowhere' is not a folder"):
        load_frozen(text=tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"holds no sentence-T5 \(no config\.json\); download"):
        load_frozen(text=tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no emotion2vec .* and no HuBERT"):
        load_frozen(voice=tmp_path)


# ---- emotion2vec ----------------------------------------------------------------------------------------------------


def expected_states(state: dict[str, Tensor], wave: Tensor) -> Tensor:
    """The published network written out, (S,) of mean 0 and variance 1 -> (T, D)."""

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    def linear(x: Tensor, name: str) -> Tensor:
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    x = wave[None]
    for i in range(7):
        layer = f"{AUDIO}local_encoder.conv_layers.{i}"
        x = F.conv1d(x, state[f"{layer}.0.weight"], stride=2 if i else 5)
        x = F.gelu(norm(x.T, f"{layer}.2.1")).T
    x = linear(norm(x.T, f"{AUDIO}project_features.1"), f"{AUDIO}project_features.2")
    place = x
    for i in range(1, 6):
        layer = f"{AUDIO}relative_positional_encoder.{i}.0"
        weight, bias = state[f"{layer}.weight"], state[f"{layer}.bias"]
        place = F.conv1d(place.T, weight, bias, padding=E2V["reach"] // 2, groups=E2V["groups"]).T
        place = F.gelu(F.layer_norm(place, place.shape[-1:]))
    x = torch.cat([state[f"{AUDIO}extra_tokens"][0], x + place])
    x = norm(x, f"{AUDIO}context_encoder.norm")
    heads, extra, size = E2V["heads"], E2V["extra"], WIDTH // E2V["heads"]
    total = len(x)
    names = [f"{AUDIO}context_encoder.blocks.{i}" for i in range(E2V["early"])]
    for name in [*names, *(f"blocks.{i}" for i in range(E2V["late"]))]:
        qkv = linear(x, f"{name}.attn.qkv").view(total, 3, heads, size)
        mixed = []
        for head, slope in enumerate((2.0**-4, 2.0**-8, 2.0**-2)):
            q, k, v = qkv[:, 0, head], qkv[:, 1, head], qkv[:, 2, head]
            scores = q @ k.T / math.sqrt(size)
            strength = slope * max(0.0, float(state[f"{AUDIO}alibi_scale"].flatten()[head]))
            for i in range(extra, total):
                for j in range(extra, total):
                    scores[i, j] -= strength * abs(i - j)
            mixed.append(scores.softmax(dim=-1) @ v)
        x = norm(x + linear(torch.cat(mixed, dim=-1), f"{name}.attn.proj"), f"{name}.norm1")
        x = norm(x + linear(F.gelu(linear(x, f"{name}.mlp.fc1")), f"{name}.mlp.fc2"), f"{name}.norm2")
    return x[extra:]


def sound(seconds: float) -> Tensor:
    generator = torch.Generator().manual_seed(6)
    time = torch.arange(round(seconds * 16_000)) / 16_000
    return 0.1 * torch.sin(2 * math.pi * 180 * time) + 0.03 * torch.randn(len(time), generator=generator)


def test_emotion2vec_gives_what_the_published_network_gives(hub: Path):
    features = load_emotion2vec(hub / "emotion2vec")
    samples = sound(1.0)
    found = features.frames(samples, 0, 50, 2.0)
    assert features.width == WIDTH
    assert found.shape == (50, WIDTH)
    louder = 2 * samples
    wave = F.pad((louder - louder.mean()) / (louder.var(correction=0) + 1e-5).sqrt(), (40, 40))
    torch.testing.assert_close(found, expected_states(emotion2vec_state(), wave), atol=2e-4, rtol=1e-3)
    assert found.std(dim=0).mean() > 0.05


def test_the_published_sizes_have_the_published_weights():
    """The file of emotion2vec_plus_large holds 185 tensors, two of them the classifier's."""
    config = Emotion2VecConfig(width=1024, hidden=4096, heads=16)
    state = Emotion2Vec(config, Build(device="meta")).state_dict()
    shapes = {published(name): tuple(value.shape) for name, value in state.items()}
    assert len(shapes) == 183
    assert shapes["blocks.7.attn.qkv.weight"] == (3072, 1024)
    assert shapes[f"{AUDIO}context_encoder.blocks.3.mlp.fc1.bias"] == (4096,)
    assert shapes[f"{AUDIO}relative_positional_encoder.5.0.weight"] == (1024, 64, 19)
    assert shapes[f"{AUDIO}local_encoder.conv_layers.0.0.weight"] == (512, 1, 10)
    assert shapes[f"{AUDIO}local_encoder.conv_layers.6.2.1.weight"] == (512,)
    assert shapes[f"{AUDIO}alibi_scale"] == (1, 1, 16, 1, 1)


def test_the_slopes_of_heads_that_are_no_power_of_two_lie_between():
    torch.testing.assert_close(slopes(4), torch.tensor([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8]))
    twelve = [2.0**-i for i in range(1, 9)] + [2.0 ** -(i + 0.5) for i in range(4)]
    torch.testing.assert_close(slopes(12), torch.tensor(twelve))


def test_finetuned_and_older_checkpoints_are_the_same_encoder(hub: Path, tmp_path: Path):
    state = {name: value for name, value in emotion2vec_state().items() if ".decoder." not in name}
    tuned = {f"d2v_model.{name}": value for name, value in state.items()} | {"proj.weight": torch.ones(9, WIDTH)}
    older = state | {f"{AUDIO}alibi_scale": state[f"{AUDIO}alibi_scale"][0]}
    (tmp_path / "safe").mkdir()
    save_file({name: value.contiguous() for name, value in state.items()}, tmp_path / "safe" / "model.safetensors")
    wanted = load_emotion2vec(hub / "emotion2vec").model.state_dict()
    tuned_folder, older_folder = (write_emotion2vec(tmp_path / n, s) for n, s in (("tuned", tuned), ("older", older)))
    for folder in (tuned_folder, older_folder, tmp_path / "safe"):
        found = load_emotion2vec(folder).model.state_dict()
        assert all(torch.equal(found[name], value) for name, value in wanted.items())


@pytest.mark.parametrize(
    ("without", "more", "complaint"),
    [
        ("blocks.1.attn.proj.bias", {}, r"'blocks\.1\.attn\.proj\.bias' is missing"),
        (f"{AUDIO}context_encoder.norm.weight", {}, r"context_encoder\.norm\.weight' is missing"),
        (f"{AUDIO}alibi_scale", {}, r"is not an emotion2vec encoder: '.*alibi_scale' is missing"),
        ("", {"blocks.0.more": torch.ones(1)}, r"'blocks\.0\.more' is unknown"),
        ("", {"norm.weight": torch.ones(WIDTH)}, r"'norm\.weight' is unknown"),
        ("", {"blocks.1.norm2.weight": torch.ones(3)}, r"'blocks\.1\.norm2\.weight' has shape \(3,\)"),
        ("", {f"{AUDIO}extra_tokens": torch.ones(3)}, r"has shape \(3,\), emotion2vec's has 3 sides"),
    ],
)
def test_an_emotion2vec_that_is_not_whole_is_refused(tmp_path: Path, without: str, more: dict, complaint: str):
    state = {name: value for name, value in emotion2vec_state().items() if name != without} | more
    with pytest.raises(CheckpointError, match=complaint):
        load_emotion2vec(write_emotion2vec(tmp_path, state))


def test_a_pickle_that_holds_more_than_weights_is_not_opened(tmp_path: Path):
    torch.save({"model": emotion2vec_state(), "cfg": Path("anything")}, tmp_path / "emotion2vec_base.pt")
    with pytest.raises(CheckpointError, match=r"holds more than weights and is not opened.*'model' as model\.safetens"):
        load_emotion2vec(tmp_path)
    (tmp_path / "emotion2vec_base.pt").write_bytes(b"PK\x03\x04 cut off")
    with pytest.raises(CheckpointError, match=r"emotion2vec_base\.pt is damaged"):
        load_emotion2vec(tmp_path)
    shutil.copy(tmp_path / "emotion2vec_base.pt", tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=r"holds 2 \.pt files; leave one"):
        load_emotion2vec(tmp_path)


# ---- the voice, frame by frame --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["hubert", "emotion2vec"])
def test_a_voice_is_averaged_over_the_seconds_around_every_frame(hub: Path, kind: str):
    voice = load_frozen(voice=hub / kind).voice
    assert voice is not None
    assert voice.kind == kind
    samples, frames = sound(7.0), 175
    found = around_frames(voice, samples, frames, 25.0)
    reader = FeatureReader(voice, samples)
    whole = reader.read(0, reader.total).double()
    reach = round(MOOD_SECONDS * RATE)
    assert found.shape == (frames, WIDTH)
    for frame in (0, 1, 60, 88, 174):
        middle = int((frame + 0.5) * RATE / 25)
        around = whole[max(0, middle - reach) : middle + reach + 1].mean(dim=0)
        np.testing.assert_allclose(found[frame], around, atol=1e-4)
    assert np.abs(found[0] - found[100]).max() > 1e-4
    assert around_frames(voice, samples, 0, 25.0).shape == (0, WIDTH)
    assert around_frames(voice, samples[:100], 1, 25.0).shape == (1, WIDTH)


def test_a_long_recording_in_chunks_is_that_of_one_piece():
    """Features that say where they are: means of them are exact, whatever the chunks and rates."""

    class Places:
        width = 1

        def frames(self, samples: Tensor, first: int, last: int, gain: float) -> Tensor:
            return torch.arange(first, last).float()[:, None]

    samples, reach = torch.zeros(16_000 * 50), round(MOOD_SECONDS * RATE)
    for fps in (1.0, 12.5, 25.0, 60.0):
        frames = round(50 * fps)
        found = around_frames(Places(), samples, frames, fps)[:, 0]
        middle = np.minimum(((np.arange(frames) + 0.5) * RATE / fps).astype(int), 2499)
        expected = (np.maximum(middle - reach, 0) + np.minimum(middle + reach, 2499)) / 2
        np.testing.assert_allclose(found, expected, atol=1e-3)


# ---- with a model ---------------------------------------------------------------------------------------------------


def reading(**emotion: Any) -> SystemConfig:
    return dataclasses.replace(TINY, emotion=dataclasses.replace(TINY.emotion, **emotion))


BOTH = reading(text="sentence-t5", text_width=WIDTH, audio="hubert", audio_width=WIDTH)
TEXT, VOICE = EmotionSource(text="furious"), EmotionSource(voice=1.0)


def frames_of(model: MoEESystem, source: EmotionSource) -> np.ndarray:
    settings = SamplingSettings(num_inference_steps=1)
    return np.stack(list(animate(model, colourful(80, 72), recording(2 * WINDOW), source, settings))).astype(int)


def test_a_model_shows_a_text_and_a_voice_by_encoders_beside_it(hub: Path):
    model = tiny_system(config=BOTH).with_frozen(load_frozen(hub / "t5", hub / "hubert"))
    assert set(model.state_dict()) == set(tiny_system(config=BOTH).state_dict()), "they are no part of its weights"
    made = {name: frames_of(model, source) for name, source in (("text", TEXT), ("voice", VOICE))}
    made["both"] = frames_of(model, TEXT.joined(VOICE))
    made["neutral"] = frames_of(model, as_source(parse_emotion("neutral")))
    names = list(made)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            assert np.abs(made[one] - made[other]).mean() > 0.02, (one, other)
    assert (frames_of(model, EmotionSource(text="angry")) != made["text"]).any(), "another word for the same label"


def test_what_the_networks_take_is_what_the_encoders_give(hub: Path):
    encoders = load_frozen(hub / "t5", hub / "hubert")
    model = tiny_system(config=BOTH).with_frozen(encoders)
    samples = sound(2.0)
    rows = model.rows(TEXT.joined(VOICE), samples, 50)
    given = model.signals(rows.take([3, 40])).inputs
    assert list(given) == ["text", "audio"]
    assert encoders.text is not None
    torch.testing.assert_close(given["text"], encoders.text(["furious"]).expand(2, -1))
    expected = around_frames(load_hubert(hub / "hubert"), samples, 50, FPS)
    np.testing.assert_allclose(given["audio"], expected[[3, 40]], atol=1e-6)
    listener = load_emo_talker(EMBEDDED)[0].ear
    assert listener is not None
    alone = VOICE.rows(50, float(FPS), rows.mood).vectors
    np.testing.assert_allclose(rows.vectors, (alone + TEXT.rows(50, float(FPS)).vectors) / 2, atol=1e-6)


@pytest.mark.parametrize(
    ("source", "complaint"),
    [
        (TEXT, r"reads text by sentence-t5, which is not at hand; give its folder \(--text-encoder, or the node"),
        (VOICE, r"listens by hubert, which is not at hand; give its folder \(--voice-encoder"),
    ],
)
def test_an_encoder_that_is_not_at_hand_is_named(source: EmotionSource, complaint: str):
    with pytest.raises(EmotionError, match=complaint):
        frames_of(tiny_system(config=BOTH), source)


def test_a_voice_of_another_strength_is_refused(hub: Path):
    model = tiny_system(config=BOTH).with_frozen(load_frozen(voice=hub / "hubert"))
    with pytest.raises(EmotionError, match=r"counts 0\.5 times, and features of hubert have no strength; use 1"):
        frames_of(model, EmotionSource(voice=0.5))


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ({"text_width": 16}, r"sentence-t5 gives 24 numbers and this model takes 16 \(text_width\)"),
        ({"audio": "hubert", "audio_width": 768}, r"hubert gives 24 numbers and this model takes 768 \(audio_width\)"),
        ({"audio": "emotion2vec", "audio_width": 24}, "reads audio by emotion2vec; leave the encoder hubert out"),
        ({"text": "words", "text_width": 24}, "reads text by words, which it has inside; leave the encoder sentence"),
        ({"audio": "ear", "audio_width": 16}, "reads audio by ear, which it has inside"),
        ({"text_width": 0}, "takes no text; leave the encoder sentence-t5 out"),
    ],
)
def test_an_encoder_that_a_model_does_not_take_is_refused(hub: Path, given: dict[str, Any], complaint: str):
    fits = {"text": "sentence-t5", "text_width": WIDTH, "audio": "hubert", "audio_width": WIDTH}
    model = tiny_system(config=reading(**(fits | given)))
    with pytest.raises(CheckpointError, match=complaint):
        model.with_frozen(load_frozen(hub / "t5", hub / "hubert"))


def test_no_encoder_fits_every_model_and_a_voice_needs_its_listener(hub: Path):
    FrozenEncoders().check(EmotionToLatentsConfig())
    with pytest.raises(ValueError, match="needs a listener"):
        FrozenEncoders(voice=load_hubert(hub / "hubert"))


# ---- the command line -----------------------------------------------------------------------------------------------


SAMPLES = (("portraits", (".png", ".jpg", ".webp")), ("speech", (".wav", ".flac", ".ogg")))


def test_the_command_line_reads_a_text_by_a_folder(hub: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_system(tmp_path / "model.safetensors", tiny_system(config=BOTH))
    assets = Path(EMBEDDED).parent
    portrait, speech = (next(p for p in sorted((assets / n).iterdir()) if p.suffix in s) for n, s in SAMPLES)
    given = ["animate", "--portrait", str(portrait), "--audio", str(speech), "--steps", "1", "--size", "64"]
    given += ["--model", str(tmp_path / "model.safetensors"), "--output", str(tmp_path / "out.mp4")]
    text = ["--emotion-text", "furious"]
    assert main([*given, *text]) == 2
    assert "give its folder (--text-encoder" in capsys.readouterr().err
    assert main([*given, *text, "--renderer", "instant", "--text-encoder", str(hub / "t5")]) == 2
    assert "--text-encoder belongs to --renderer model" in capsys.readouterr().err
    assert not (tmp_path / "out.mp4").exists()
    assert main([*given, *text, "--text-encoder", str(hub / "t5")]) == 0
    assert (tmp_path / "out.mp4").stat().st_size > 1000
