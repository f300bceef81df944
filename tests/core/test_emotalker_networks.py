"""EmoTalker's networks and their system: masks against their formula, causality, streams against whole passes."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from moee_core.__main__ import main
from moee_core.audio import prosody
from moee_core.audio.emotion_ear import STATISTICS, SWING_RATES, EmotionEar, EmotionEarConfig, described
from moee_core.audio.emotion_features import FeatureReader
from moee_core.audio.hubert import load_hubert
from moee_core.audio.read import Waveform
from moee_core.audio.spectrogram import LIP_MEL, lip_window_start, lip_windows, spectrogram
from moee_core.emotion.dictionary import DictionaryConfig
from moee_core.errors import CheckpointError
from moee_core.motion.coefficients import FACE, SADTALKER, MotionError, still
from moee_core.networks.lip_branch import LipBranch, LipBranchConfig
from moee_core.networks.motion_transformer import (
    MotionTransformer,
    MotionTransformerConfig,
    TokenStream,
    alignment_mask,
    fourier,
    temporal_bias,
)
from moee_core.networks.motion_vqvae import SMALL_VQ, MotionVQConfig, MotionVQVAE
from moee_core.ops import DEFAULT_BUILD, Build, plain_attention
from moee_core.systems.emo_talker import EmoTalkerConfig, EmoTalkerSystem, MotionSettings, blink_track
from moee_core.weights.emo_talker import inspect_emo_talker, load_emo_talker, save_emo_talker

CODE = 6
TINY_VQ = MotionVQConfig(width=8, depth=2, dictionary=DictionaryConfig(codes=12, width=CODE))
TINY_TRANSFORMER = MotionTransformerConfig(width=16, layers=2, heads=2, hidden=16, window=5)
TINY = EmoTalkerConfig(
    space="face",
    ear=EmotionEarConfig(width=8, pool=10),
    vq=TINY_VQ,
    transformer=TINY_TRANSFORMER,
    lip=LipBranchConfig(widths=(8, 8, 8, 8), audio_width=16),
)


def tiny_system(seed: int = 0, config: EmoTalkerConfig = TINY) -> EmoTalkerSystem:
    torch.manual_seed(seed)
    return EmoTalkerSystem(config).eval().requires_grad_(False)


def sound(seconds: float, seed: int = 0) -> Waveform:
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * 16000)) / 16000
    wave = 0.2 * np.sin(2 * np.pi * 150 * time) * (1 + np.sin(2 * np.pi * 3 * time)) + 0.02 * rng.normal(size=len(time))
    return Waveform(samples=wave[None].astype(np.float32), sample_rate=16000)


# ---- masks and time -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("heads", "period", "window"), [(4, 4, 24), (4, 4, 5), (2, 3, 9), (8, 1, 24)])
def test_the_temporal_bias_is_the_papers_formula(heads: int, period: int, window: int):
    count = 12
    expected = np.full((heads, count, count), -np.inf)
    for head in range(heads):
        slope = 2 ** (-8 * (head + 1) / heads)
        for i in range(count):
            for j in range(count):
                if 0 <= i - j < window:
                    expected[head, i, j] = -slope * math.floor((i - j) / period)
    np.testing.assert_allclose(temporal_bias(count, count, heads, period, window).numpy(), expected, rtol=1e-6)
    last = temporal_bias(3, count, heads, period, window).numpy()
    np.testing.assert_allclose(last, expected[:, -3:], rtol=1e-6)
    plain = temporal_bias(count, count, heads, period, window, bias=False).numpy()
    np.testing.assert_array_equal(plain, np.where(np.isfinite(expected), 0.0, -np.inf))


@pytest.mark.parametrize(("tokens", "frames"), [(6, 48), (6, 47), (6, 41), (1, 3)])
def test_the_alignment_mask_is_the_papers_formula(tokens: int, frames: int):
    expected = np.full((tokens, frames), -np.inf)
    for i in range(tokens):
        expected[i, max(8 * i - 8, 0) : min(8 * i + 8, frames)] = 0
    np.testing.assert_array_equal(alignment_mask(tokens, frames, 8, 8).numpy(), expected)
    transformer = tiny_system().transformer
    for i in range(tokens):
        first, last = transformer.visible(i, frames)
        assert (first, last) == (max(8 * i - 8, 0), min(8 * i + 8, frames))


def test_fourier_features_repeat_after_the_period_and_tell_instants_apart():
    seconds = torch.arange(0, 8, 0.02, dtype=torch.float64)
    features = fourier(seconds, 32, 8.0)
    torch.testing.assert_close(features, fourier(seconds + 8.0 * 500, 32, 8.0), rtol=0, atol=1e-5)
    distances = torch.cdist(features, features) + 9 * torch.eye(len(seconds))
    assert float(distances.min()) > 0.1
    np.testing.assert_allclose(features[3, :1].numpy(), np.sin(2 * np.pi * 0.06 / 8), rtol=1e-5)


def test_tokens_and_audio_share_one_clock_and_the_literal_factor_is_an_option():
    transformer = tiny_system().transformer
    # token 5 is centred on (8 * 5 + 4) / 50 s, between audio frames 43 and 44
    between = fourier(torch.tensor(44 / 50), 16, 8.0)
    torch.testing.assert_close(transformer.token_time(torch.tensor(5)), between)
    torch.testing.assert_close(transformer.audio_time(torch.tensor(43.5)), between)
    config = dataclasses.replace(TINY_TRANSFORMER, time="literal")
    literal = MotionTransformer(8, CODE, config, DEFAULT_BUILD)
    torch.testing.assert_close(literal.token_time(torch.tensor(5)), literal.audio_time(torch.tensor(10)))


# ---- transformer ----------------------------------------------------------------------------------------------------


def transformer_inputs(tokens: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(4)
    return torch.randn(2, 8 * tokens, 8, generator=generator), torch.randn(2, tokens, CODE, generator=generator)


def test_a_token_sees_earlier_tokens_and_the_audio_near_it_only():
    transformer = tiny_system().transformer
    audio, tokens = transformer_inputs()
    whole = transformer(audio, tokens)
    assert whole.shape == (2, 9, CODE)
    later = tokens.clone()
    later[:, 4:] += 1
    changed = transformer(audio, later)
    torch.testing.assert_close(changed[:, :5], whole[:, :5])
    assert not torch.allclose(changed[:, 5], whole[:, 5])
    ahead = audio.clone()
    ahead[:, 8 * 4 + 8 :] += 1
    changed = transformer(ahead, tokens)
    torch.testing.assert_close(changed[:, :5], whole[:, :5])
    assert not torch.allclose(changed[:, 5], whole[:, 5])


def test_without_the_alignment_mask_every_token_sees_all_audio():
    config = dataclasses.replace(TINY_TRANSFORMER, align=False)
    transformer = MotionTransformer(8, CODE, config, DEFAULT_BUILD).eval()
    audio, tokens = transformer_inputs()
    ahead = audio.clone()
    ahead[:, -1] += 1
    assert not torch.allclose(transformer(ahead, tokens)[:, 0], transformer(audio, tokens)[:, 0])


@pytest.mark.parametrize("attention", ["torch", "plain"])
@pytest.mark.parametrize("changes", [{}, {"window": 1}, {"window": 64}, {"align": False}, {"time": "literal"}])
def test_a_stream_gives_what_one_pass_gives(changes: dict, attention: str):
    """With the keys and values of the last ``window`` tokens alone."""
    config = dataclasses.replace(TINY_TRANSFORMER, **changes)
    build = DEFAULT_BUILD if attention == "torch" else Build(attention=plain_attention)
    transformer = MotionTransformer(8, CODE, config, build).eval().requires_grad_(False)
    audio, tokens = transformer_inputs(12)
    expected = transformer(audio, tokens)
    stream, before = TokenStream(), transformer.start(audio)
    for number in range(12):
        first, last = transformer.visible(number, audio.shape[1])
        out = transformer.step(stream, before, transformer.memory(audio[:, first:last], first))
        torch.testing.assert_close(out, expected[:, number], rtol=1e-4, atol=1e-5)
        assert stream.past is not None
        assert stream.past[0][0].shape[1] == min(number + 1, config.window - 1)
        before = transformer.token_in(tokens[:, number])


def test_a_clip_may_begin_anywhere_in_the_period():
    transformer = tiny_system().transformer
    audio, tokens = transformer_inputs()
    period = round(8.0 * 50 / 8)
    torch.testing.assert_close(transformer(audio, tokens, period), transformer(audio, tokens), rtol=1e-4, atol=1e-4)
    rows = transformer(audio, tokens, torch.tensor([0, 7]))
    torch.testing.assert_close(rows[0], transformer(audio, tokens)[0])
    torch.testing.assert_close(rows[1], transformer(audio, tokens, 7)[1])


def test_scores_are_the_negative_squared_distance_over_tau():
    config = dataclasses.replace(TINY_TRANSFORMER, tau=3.0)
    transformer = MotionTransformer(8, CODE, config, DEFAULT_BUILD)
    out, codes = torch.randn(4, CODE), torch.randn(7, CODE)
    expected = -((out.numpy()[:, None] - codes.numpy()[None]) ** 2).sum(-1) / 3
    np.testing.assert_allclose(transformer.scores(out, codes).numpy(), expected, rtol=1e-4, atol=1e-5)


# ---- VQ-VAE ---------------------------------------------------------------------------------------------------------


def test_the_papers_sizes_and_the_small_ones():
    full = MotionVQVAE(57, MotionVQConfig(), Build(device="meta"))
    assert full.encode(torch.empty(2, 96, 57, device="meta")).shape == (2, 24, 256)
    assert full.decode(torch.empty(2, 24, 256, device="meta")).shape == (2, 96, 57)
    assert full.dictionary.codes.weight.shape == (1024, 256)
    assert full.encoder.first.conv.weight.shape == (512, 57, 3)
    small = MotionVQVAE(30, SMALL_VQ, DEFAULT_BUILD)
    assert small(torch.randn(1, 16, 30)).emotion.shape == (1, 8)
    system = EmoTalkerSystem(EmoTalkerConfig(), Build(device="meta"))
    assert system.ear is None
    assert len(system.face_columns) == 57
    assert len(system.lip_columns) == 13
    assert system.lip_branch.head.weight.shape == (13, 512 + 64 + 1)


def test_what_a_decoded_frame_depends_on_is_within_the_stated_context():
    """Exactly what decoding in chunks rests on."""
    for config in (TINY_VQ, dataclasses.replace(TINY_VQ, depth=1), dataclasses.replace(TINY_VQ, halvings=1)):
        vqvae = MotionVQVAE(5, config, DEFAULT_BUILD).eval().requires_grad_(False)
        count, place = 60, 30
        tokens = torch.randn(1, count, CODE)
        other = tokens.clone()
        other[:, place] += 10
        difference = (vqvae.decode(other) - vqvae.decode(tokens))[0].abs().amax(-1)
        touched = torch.nonzero(difference)[:, 0] // config.rate
        reach = max(int(touched.max()) - place, place - int(touched.min()))
        assert reach <= config.context_tokens <= reach + 3


def test_mean_and_scale_are_taken_away_and_given_back():
    vqvae = MotionVQVAE(5, TINY_VQ, DEFAULT_BUILD).eval().requires_grad_(False)
    x, tokens = torch.randn(1, 8, 5), torch.randn(1, 2, CODE)
    plain, code = vqvae.decode(tokens), vqvae.encode(x)
    mean, scale = torch.randn(5), torch.rand(5) + 0.5
    vqvae.mean.copy_(mean)
    vqvae.scale.copy_(scale)
    torch.testing.assert_close(vqvae.decode(tokens), plain * scale + mean)
    torch.testing.assert_close(vqvae.encode(x * scale + mean), code)


@pytest.mark.parametrize("shape", [(1, 6, 5), (1, 8, 4), (1, 0, 5)])
def test_a_motion_that_cannot_be_cut_into_tokens_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"must be \(batch, frames, 5\) with a multiple of 4 frames"):
        MotionVQVAE(5, TINY_VQ, DEFAULT_BUILD).encode(torch.zeros(shape))


# ---- lips and listening ---------------------------------------------------------------------------------------------


def test_the_lips_are_the_published_mixture():
    branch = LipBranch(4, 28, LipBranchConfig(widths=(8, 8, 8, 8), audio_width=16, mixing=0.8), DEFAULT_BUILD)
    mel, reference, blink = torch.randn(3, 80, 16), torch.randn(3, 28), torch.rand(3)
    y = branch.head(torch.cat([branch.encoder(mel), reference, blink[:, None]], dim=1))
    torch.testing.assert_close(branch(mel, reference, blink), 0.8 * branch.mix(y) + 0.2 * y)


def test_a_lip_window_is_a_fifth_of_a_second_around_its_frame():
    samples = torch.zeros(16000)
    samples[round(0.58 * 16000)] = 1.0  # the middle of frame 14 at 25 per second
    first = lip_window_start(0)
    mel = spectrogram(samples, LIP_MEL, first, lip_window_start(24) + 16)
    windows = lip_windows(mel, 0, 25, first)
    loud = (windows.mean(1) > windows.mean(1).min() + 0.1).float()  # (25, 16)
    centre = (loud * torch.arange(16)).sum(1) / loud.sum(1).clamp_min(1)
    assert 7 <= float(centre[14]) <= 8.5
    heard_in = {i for i in range(25) if loud[i].sum() > 0}
    assert set(range(12, 17)) <= heard_in <= set(range(11, 18))


def test_a_spectrogram_may_be_read_in_pieces_and_beyond_its_ends():
    samples = torch.from_numpy(sound(1.0).samples[0])
    whole = spectrogram(samples, LIP_MEL, -5, 60)
    pieces = [spectrogram(samples, LIP_MEL, a, b) for a, b in ((-5, 3), (3, 40), (40, 60))]
    torch.testing.assert_close(torch.cat(pieces), whole)
    assert float(spectrogram(samples, LIP_MEL, 90, 95).std()) < 1e-6


def random_ear() -> EmotionEar:
    torch.manual_seed(3)
    return EmotionEar(EmotionEarConfig(width=8, pool=20), DEFAULT_BUILD).eval().requires_grad_(False)


def voice(hertz: float, seconds: float = 3.0, **changes: float) -> torch.Tensor:
    """A buzz at ``hertz``; ``creak`` weakens every second pulse, ``breath`` adds noise, ``swing`` moves the pitch at
    ``rate`` times a second by so many octaves, ``rise`` by so many octaves a second."""
    time = torch.arange(round(seconds * 16000)) / 16000
    octaves = changes.get("rise", 0.0) * time
    octaves = octaves + changes.get("swing", 0.0) * torch.sin(2 * math.pi * changes.get("rate", 3.0) * time)
    phase = torch.cumsum(hertz * 2**octaves / 16000, 0)
    pulses = torch.diff(phase.floor(), prepend=torch.zeros(1)).clamp(0, 1)
    pulses = pulses * (1 - changes.get("creak", 0.0) * (phase.floor() % 2))
    ring = torch.exp(-torch.arange(400) / 60.0) * torch.cos(torch.arange(400) * 0.28)
    sound = nn.functional.conv1d(pulses[None, None], ring.flip(0)[None, None], padding=399)[0, 0, : len(time)]
    noise = torch.randn(len(time), generator=torch.Generator().manual_seed(0))
    return 0.1 * sound / sound.std() + changes.get("breath", 0.0) * 0.1 * noise


@pytest.mark.parametrize("hertz", [90.0, 140.0, 230.0])
def test_pitch_is_read_to_a_hundredth_of_an_octave(hertz: float):
    raw = prosody.descriptors(voice(hertz), 10, 140)
    assert raw[:, 1].mean() == 1.0, "voiced throughout"
    assert (raw[:, 0] - math.log2(hertz / 120)).abs().max() < 0.015


def test_silence_reads_as_silence_inside_and_outside_of_a_recording():
    for first, last in ((0, 5), (-9, -4), (300, 305)):
        raw = prosody.descriptors(torch.zeros(8000), first, last)
        torch.testing.assert_close(raw, torch.tensor(prosody.SILENCE).expand(5, -1))


def test_creak_doubles_the_period_and_breath_fills_the_upper_bands():
    names = prosody.DESCRIPTORS
    plain, creaky, breathy = (
        prosody.descriptors(voice(140.0, **change), 20, 130).mean(0) for change in ({}, {"creak": 0.5}, {"breath": 0.3})
    )
    assert plain[names.index("r1")] > 0.95
    assert creaky[names.index("pitch")] == pytest.approx(float(plain[names.index("pitch")]) - 1, abs=0.02)
    assert breathy[names.index("high")] < plain[names.index("high")] - 0.3
    assert breathy[names.index("low")] > breathy[names.index("high")] + 0.2
    assert breathy[names.index("high_db")] > plain[names.index("high_db")] + 0.5


def test_contours_know_the_melody_and_not_the_voice():
    """An octave higher and twice as loud, the same melody has the same contours; its slope is in octaves a second."""
    low, high = (prosody.descriptors(voice(hertz, rise=0.2), -200, 350) for hertz in (100.0, 200.0))
    louder = prosody.descriptors(2 * voice(100.0, rise=0.2), -200, 350)
    one, two, three = (prosody.contours(raw[None])[0, 260:290] for raw in (low, high, louder))
    torch.testing.assert_close(one[:, [0, 12]], two[:, [0, 12]], atol=0.05, rtol=0)
    torch.testing.assert_close(one, three, atol=2e-2, rtol=0)
    assert one[:, 13].mean() == pytest.approx(0.2, abs=0.02)
    assert one[:, 14].mean() == pytest.approx(0.2, abs=0.02)


@pytest.mark.parametrize("rate", SWING_RATES[1:])
def test_the_ear_measures_swings_of_the_pitch_at_their_own_rate(rate: float):
    raw = prosody.descriptors(voice(120.0, 4.0, swing=0.1, rate=rate), -300, 500)[None]
    strong = described(raw, 60)[0, 400, : len(SWING_RATES)]
    assert SWING_RATES[int(strong.argmax())] == rate
    assert described(raw, 60).shape[-1] == STATISTICS


def test_the_ear_of_a_checkpoint_is_normalised_by_its_own_range():
    ear = random_ear()
    rows = torch.randn(200, STATISTICS) * 3 + 5
    ear.set_range(rows)
    normal = ear.normalised(rows)
    torch.testing.assert_close(normal.mean(0), torch.zeros(STATISTICS), atol=1e-4, rtol=0)
    torch.testing.assert_close(normal.std(0), torch.ones(STATISTICS), atol=1e-4, rtol=0)
    assert {"mean", "scale"} <= set(ear.state_dict())


def test_the_ear_hears_in_chunks_what_it_hears_in_one_pass():
    ear = random_ear().eval().requires_grad_(False)
    samples = torch.from_numpy(sound(3.0).samples[0])
    readers = [FeatureReader(ear, samples, chunk) for chunk in (1000, 17)]
    whole = readers[0].read(0, 150)
    assert whole.shape == (150, 8)
    pieces = torch.cat([readers[1].read(a, min(a + 16, 150)) for a in range(0, 150, 16)])
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="not within the recording's 150"):
        readers[0].read(140, 151)


def test_hubert_is_read_from_a_folder_strictly(tmp_path: Path):
    from transformers import HubertConfig, HubertForSequenceClassification, HubertModel

    config = HubertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        conv_dim=(8,) * 7,
        num_conv_pos_embeddings=8,
        num_conv_pos_embedding_groups=2,
        classifier_proj_size=4,
    )
    torch.manual_seed(0)
    HubertForSequenceClassification(config).save_pretrained(tmp_path / "er")
    source = load_hubert(tmp_path / "er")
    samples = torch.from_numpy(sound(3.84).samples[0])
    features = source.frames(samples, 0, 192, 1.0)
    assert source.width == 16
    assert features.shape == (192, 16)
    wave = nn.functional.pad((samples - samples.mean()) / samples.std(correction=0), (40, 40))
    whole = source.model(wave[None]).last_hidden_state[0]
    torch.testing.assert_close(features, whole, rtol=1e-3, atol=1e-3)
    assert FeatureReader(source, samples, chunk=100).read(95, 111).shape == (16, 16)
    system = tiny_system(config=dataclasses.replace(TINY, ear=EmotionEarConfig(source="hubert", width=16)))
    assert len(system.generate(sound(1.0), features=source)) == 25

    state = HubertModel(config).state_dict()
    del state["encoder.layers.0.attention.q_proj.weight"]
    HubertModel(config).save_pretrained(tmp_path / "torn", state_dict=state)
    with pytest.raises(CheckpointError, match=r"lacks weight .*q_proj\.weight"):
        load_hubert(tmp_path / "torn")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    with pytest.raises(CheckpointError, match="of type 'wav2vec2', hubert is needed"):
        load_hubert(tmp_path)
    with pytest.raises(CheckpointError, match=r"holds no HuBERT model \(no config\.json\)"):
        load_hubert(tmp_path / "nothing")


# ---- the system -----------------------------------------------------------------------------------------------------


def test_a_voice_becomes_a_motion_of_its_length():
    system = tiny_system()
    for seconds in (0.01, 0.5, 1.3):
        motion = system.generate(sound(seconds))
        assert motion.space is FACE
        assert len(motion) == math.ceil(round(seconds * 25, 6))
    assert len(system.generate(sound(1.3), fps=30.0)) == 39
    assert not np.allclose(system.generate(sound(1.3)).values, system.generate(sound(1.3, seed=1)).values)


@pytest.mark.parametrize("mode", ["continuous", "snap", "sample"])
def test_a_long_recording_is_streamed_and_chunks_do_not_show(mode: str):
    system, waveform = tiny_system(), sound(7.0)
    whole = system.generate(waveform, settings=MotionSettings(mode=mode, chunk_tokens=10_000)).values
    pieces = system.generate(waveform, settings=MotionSettings(mode=mode, chunk_tokens=3)).values
    np.testing.assert_allclose(pieces, whole, rtol=1e-4, atol=1e-4)


def test_the_first_block_comes_before_the_end_was_read():
    system = tiny_system()
    read: list[int] = []

    class Watched:
        width = TINY.ear.width

        def frames(self, samples: torch.Tensor, first: int, last: int, gain: float) -> torch.Tensor:
            read.append(last)
            assert system.ear is not None
            return system.ear.frames(samples, first, last, gain)

    samples = torch.from_numpy(sound(24.0).samples[0])
    blocks = system.stream(samples, MotionSettings(chunk_tokens=8), features=Watched())
    assert next(blocks).shape == (32, FACE.size)
    assert max(read) == 1000
    assert sum(len(block) for block in blocks) == 600 - 32


def test_snapped_and_sampled_tokens_are_codes_and_seeds_repeat():
    system, out = tiny_system(), torch.randn(5, CODE)
    codes, generator = system.vqvae.dictionary.codes.weight, torch.Generator()
    for mode in ("snap", "sample"):
        chosen = system.chosen(out, MotionSettings(mode=mode), generator.manual_seed(1))
        assert float(torch.cdist(chosen, codes).min(dim=1).values.max()) < 1e-6
    assert torch.equal(system.chosen(out, MotionSettings(), generator), out)
    cold = system.chosen(out, MotionSettings(mode="sample", temperature=1e-4), generator)
    torch.testing.assert_close(cold, system.chosen(out, MotionSettings(mode="snap"), generator))
    first, again, other = (
        system.generate(sound(2.0), settings=MotionSettings(mode="sample", seed=seed)).values for seed in (3, 3, 4)
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


def test_parts_are_driven_by_other_motions():
    system = tiny_system()
    plain = system.generate(sound(2.0))
    other = still(10, 25.0, yaw=0.3, open=0.9, AU12L=1.0)
    for part, name in (("pose", "yaw"), ("lip", "open"), ("expression", "AU12L")):
        driven = system.generate(sound(2.0), driven={part: other})
        columns = FACE.indices(part)
        np.testing.assert_allclose(driven.values[:, columns], np.repeat(other.values[:1, columns], 50, axis=0))
        rest = sorted(set(range(FACE.size)) - set(columns))
        np.testing.assert_array_equal(driven.values[:, rest], plain.values[:, rest])
        assert float(driven.curve(name).max()) > 0
    with pytest.raises(MotionError, match="unknown part to drive 'nose'; choose of: pose, lip, expression"):
        system.generate(sound(1.0), driven={"nose": other})


def test_the_lips_follow_the_face_the_sound_and_the_mouth_at_rest():
    system = tiny_system()
    mel, face, rest, blink = torch.randn(2, 80, 16), torch.randn(2, 30), torch.zeros(2, 4), torch.zeros(2)
    plain = system.lips(mel, face, rest, blink)
    raised = face.clone()
    raised[:, system.face_columns.index(FACE.index["AU12L"])] += 1
    turned = face.clone()
    turned[:, system.face_columns.index(FACE.index["yaw"])] += 1
    assert not torch.allclose(system.lips(mel, raised, rest, blink), plain)
    torch.testing.assert_close(system.lips(mel, turned, rest, blink), plain)
    assert not torch.allclose(system.lips(mel, face, rest, blink + 1), plain)
    columns, opened = system.lip_columns, still(1, 25.0, open=1.0).values[0]
    shut = system.generate(sound(1.0)).values[:, columns]
    assert not np.allclose(system.generate(sound(1.0), reference=opened).values[:, columns], shut)


def test_blinks_depend_on_seed_and_time_alone():
    whole = blink_track(0, 3000, 25.0, 15.0, 7)
    pieces = np.concatenate([blink_track(a, a + 100, 25.0, 15.0, 7) for a in range(0, 3000, 100)])
    np.testing.assert_array_equal(whole, pieces)
    peaks = np.flatnonzero(whole == 1.0)
    assert len(peaks) == 30
    np.testing.assert_allclose(whole[peaks[3] - 2 : peaks[3] + 3], (0.5, 0.9, 1.0, 0.9, 0.5), rtol=1e-6)
    assert not np.array_equal(whole, blink_track(0, 3000, 25.0, 15.0, 8))
    assert blink_track(0, 100, 25.0, 0.0, 7).max() == 0
    lids = tiny_system().generate(sound(20.0), settings=MotionSettings(seed=7, blinks_per_minute=15.0)).curve("lidL")
    assert (lids[whole[:500] == 1.0] >= 1.0).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"mode": "best"}, "mode must be one of continuous, snap, sample; got 'best'"),
        ({"temperature": 0.0}, "temperature must be above 0, got 0.0"),
        ({"blinks_per_minute": -1.0}, "blinks_per_minute must be 0 to 120, got -1.0"),
        ({"chunk_tokens": 0}, "chunk_tokens must be at least 1, got 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict, words: str):
    with pytest.raises(MotionError, match=words):
        MotionSettings(**settings)


def test_features_of_another_width_and_a_reference_of_another_size_are_refused():
    system = tiny_system()
    with pytest.raises(MotionError, match="the features have 16 numbers, this checkpoint takes 8"):
        system.generate(sound(1.0), features=EmotionEar(EmotionEarConfig(width=16), DEFAULT_BUILD))
    with pytest.raises(MotionError, match=r"a reference has 34 finite numbers, got shape \(70,\)"):
        system.generate(sound(1.0), reference=np.zeros(SADTALKER.size))
    deaf = tiny_system(config=dataclasses.replace(TINY, ear=EmotionEarConfig(source="hubert", width=8)))
    with pytest.raises(MotionError, match="listens through HuBERT"):
        deaf.generate(sound(1.0))


def test_every_weight_comes_from_the_operations_handed_in():
    made: list[nn.Module] = []

    class Recorded:
        def __getattr__(self, name: str):
            def build(*arguments, **settings):
                made.append(getattr(nn, name)(*arguments, **settings))
                return made[-1]

            return build

    system = EmoTalkerSystem(TINY, Build(operations=Recorded()))
    owned = {id(parameter) for module in made for parameter in module.parameters()}
    assert {id(parameter) for parameter in system.parameters()} == owned


# ---- the file -------------------------------------------------------------------------------------------------------


def test_nobody_begins_with_closed_eyes():
    system = tiny_system()
    with torch.no_grad():
        system.vqvae.mean.fill_(0.8)  # lids too
    lid = system.space.index["lidL"]
    values = system.generate(sound(1.0), settings=MotionSettings(blinks_per_minute=0)).values[:, lid]
    assert values[0] == 0
    assert (np.diff(values[:11]) > 0).all()
    assert values[12:].min() > 0.4


def test_a_checkpoint_is_one_strict_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    system, path = tiny_system(), tmp_path / "model.safetensors"
    system.vqvae.dictionary.counts[3] = 41.0
    save_emo_talker(path, system, metadata={"trained": "{}"}, dtype=torch.float32)
    loaded, info = load_emo_talker(path)
    assert loaded.config == TINY == info.config
    assert info.metadata["architecture"] == "emo_talker"
    assert info.parameters == sum(value.numel() for value in system.state_dict().values())
    for key, value in system.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value), key
    np.testing.assert_array_equal(loaded.generate(sound(1.0)).values, system.generate(sound(1.0)).values)
    assert main(["inspect", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "architecture: emo_talker, format 1" in shown
    assert "listens:      by itself, 8 numbers" in shown
    assert main(["inspect", "--json", str(path)]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["ear"]["pool"] == 10


def test_a_file_that_does_not_fit_is_refused_by_name(tmp_path: Path):
    from safetensors.torch import load_file, save_file

    path = tmp_path / "model.safetensors"
    save_emo_talker(path, tiny_system())
    metadata, state = inspect_emo_talker(path).metadata, load_file(str(path))
    key = "transformer.out.weight"
    for changed, words in (
        ({name: value for name, value in state.items() if name != key}, rf"'{key}' is missing"),
        ({**state, "extra": torch.zeros(1)}, "'extra' is unknown"),
        ({**state, key: torch.zeros(2, 2)}, rf"'{key}' has shape \(2, 2\)"),
    ):
        save_file(changed, str(path), metadata=metadata)
        with pytest.raises(CheckpointError, match=words):
            load_emo_talker(path)
    for changed, words in (
        ({"architecture": "moee"}, "is not an EmoTalker checkpoint \\(architecture 'moee'"),
        ({"format": "9"}, "has format '9', this version reads 1"),
        ({"config": '{"space": "wax"}'}, "its metadata cannot be used: 'EmoTalkerConfig.space must be one of"),
    ):
        save_file(state, str(path), metadata={**metadata, **changed})
        with pytest.raises(CheckpointError, match=words):
            inspect_emo_talker(path)
