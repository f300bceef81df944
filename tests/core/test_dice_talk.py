"""DICE-Talk's parts beside NumPy and diffusers: bank, windows that shift, guidance as a chain, loader, a whole clip."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from moee_core.diffusion.shifting import chain_weights, karras_sigmas, sample_shifting, shifted_windows
from moee_core.emotion.bank import DiscriminationHead, EmotionBank, EmotionBankConfig
from moee_core.errors import CheckpointError, MediaError
from moee_core.networks.config import VideoUNetConfig
from moee_core.ops import Build, plain_attention, torch_attention
from moee_core.selfcheck import ruled
from moee_core.systems.dice_talk import DiceConditions, DiceConfig, DiceSampling, DiceTalkSystem
from moee_core.weights.dice_talk import FILES, OURS, dice_shapes, load_dice_talk

TINY = DiceConfig(
    unet=VideoUNetConfig(
        block_widths=(16, 16), attention_levels=(True, False), layers_per_block=(1, 1), heads=(2, 2),
        context_width=12, id_width=8, norm_groups=8,
    ),
    bank=EmotionBankConfig(
        prior_width=6, hidden=10, tokens=3, width=12, codes=4, heads=2, features=8, head_widths=(6, 5), classes=7
    ),
    speech_layers=2,
    speech_width=4,
    speech_hidden=8,
    locator_widths=(4, 4, 4, 4),
    window_frames=4,
)  # fmt: skip


def made_up(config: DiceConfig = TINY) -> DiceTalkSystem:
    system = DiceTalkSystem(config).eval().requires_grad_(False)
    state = {
        key: torch.ones_like(value) if key in OURS else ruled(key, tuple(value.shape))
        for key, value in system.state_dict().items()
    }
    system.load_state_dict(state)
    return system


# ---- the bank -------------------------------------------------------------------------------------------------------


def tokens_by_hand(weights: dict[str, np.ndarray], prefix: str, x: np.ndarray, tokens: int) -> np.ndarray:
    for name in ("proj1", "proj2"):
        x = np.maximum(x @ weights[f"{prefix}.{name}.weight"].T + weights[f"{prefix}.{name}.bias"], 0)
    x = (x @ weights[f"{prefix}.proj3.weight"].T + weights[f"{prefix}.proj3.bias"]).reshape(len(x), tokens, -1)
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return x * weights[f"{prefix}.norm.weight"] + weights[f"{prefix}.norm.bias"]


@pytest.mark.parametrize("retrieval", [False, True])
def test_a_prior_reads_the_bank(retrieval: bool):
    bank = EmotionBank(TINY.bank, Build(dtype=torch.float64)).eval()
    weights = {key: value.detach().numpy() for key, value in bank.state_dict().items()}
    prior = torch.randn(2, 6).double()
    found = bank(prior, retrieval=retrieval).detach().numpy()
    asked = tokens_by_hand(weights, "prior_tokens", prior.numpy(), 3)
    codes = weights["dictionary.codes.weight"]
    for row in range(2):
        if retrieval:
            wanted = prior[row].numpy() @ weights["to_code.weight"].T + weights["to_code.bias"]
            told = tokens_by_hand(weights, "code_tokens", codes[[np.square(codes - wanted).sum(1).argmin()]], 3)[0]
        else:
            told = tokens_by_hand(weights, "code_tokens", codes, 3).reshape(-1, 12)
        q, k, v = (
            x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]
            for name, x in (("to_q", asked[row]), ("to_k", told), ("to_v", told))
        )
        parts = []
        for head in range(2):
            at = slice(6 * head, 6 * head + 6)
            shares = np.exp(q[:, at] @ k[:, at].T / 6**0.5)
            parts.append(shares / shares.sum(1, keepdims=True) @ v[:, at])
        np.testing.assert_allclose(found[row], np.concatenate(parts, axis=1), atol=1e-9)


def expanded(bank: EmotionBank, prior_RP: Tensor) -> Tensor:
    """The bank's answer with all codes' tokens laid out for every prior."""
    told = bank.code_tokens(bank.dictionary.codes.weight).flatten(0, 1).expand(len(prior_RP), -1, -1)
    asked = bank.to_q(bank.prior_tokens(prior_RP))
    return bank.attention(asked, bank.to_k(told), bank.to_v(told), bank.config.heads)


@pytest.mark.parametrize("attention", [torch_attention, plain_attention])
def test_the_bank_is_read_once_for_all_priors(attention: Any):
    bank = EmotionBank(TINY.bank, Build(dtype=torch.float64, attention=attention)).eval()
    prior = torch.randn(5, 6).double()
    rows: list[int] = []
    for layer in (bank.to_k, bank.to_v):
        layer.register_forward_pre_hook(lambda _m, seen: rows.append(len(seen[0])))
    found = bank(prior)
    assert rows == [1, 1]
    torch.testing.assert_close(found, expanded(bank, prior), rtol=1e-12, atol=1e-12)
    made = bank.whole(prior)
    rows.clear()
    assert torch.equal(bank(prior, whole=made), found)
    assert rows == []
    wanted, given = torch.autograd.grad(expanded(bank, prior)[0].sum(), bank.to_v.weight), bank(prior)[0].sum()
    torch.testing.assert_close(torch.autograd.grad(given, bank.to_v.weight), wanted, rtol=1e-9, atol=1e-12)


def test_another_prior_costs_only_its_own_question():
    bank = EmotionBank(TINY.bank, Build(device="meta")).eval()
    found = []
    for rows in (1, 2, 9):
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            bank(torch.zeros(rows, 6, device="meta"))
        found.append(counter.get_total_flops())
    size, codes = TINY.bank, TINY.bank.codes * TINY.bank.tokens
    projected = size.prior_width * size.hidden + size.hidden**2 + size.hidden * size.tokens * size.width
    asked = size.tokens * size.width**2 + 2 * size.tokens * codes * size.width
    assert found[1] - found[0] == 2 * (projected + asked)
    assert found[2] - found[0] == 8 * (found[1] - found[0])


def test_retrieval_learns_straight_through():
    bank = EmotionBank(TINY.bank, Build())
    prior = torch.randn(3, 6, requires_grad=True)
    bank(prior, retrieval=True).square().mean().backward()
    assert prior.grad is not None
    assert prior.grad.abs().min(dim=1).values.max() > 0
    found = bank.retrieved(prior)
    (found.codebook + 0.25 * found.commitment).backward()
    met = sorted(set(found.indices.tolist()))
    grad = bank.dictionary.codes.weight.grad
    assert grad is not None
    assert grad[met].abs().sum() > 0


def test_the_head_names_an_emotion():
    head = DiscriminationHead(8, (6, 5), 7, Build())
    features = torch.randn(2, 8, 3, 4)
    assert head(features).shape == (2, 7)
    assert not torch.equal(head(features), head(features)), "dropout while it learns"
    head.eval()
    assert torch.equal(head(features), head(features.mean(dim=(2, 3), keepdim=True).expand(-1, -1, 5, 2)))


def test_a_bank_says_what_does_not_fit():
    bank = EmotionBank(TINY.bank, Build())
    with pytest.raises(ValueError, match=r"priors must be \(R, 6\), got \(6,\)"):
        bank(torch.zeros(6))
    with pytest.raises(ValueError, match="cannot be split into 5 heads"):
        replace(TINY.bank, heads=5)
    with pytest.raises(ValueError, match="codes must be at least 1"):
        replace(TINY.bank, codes=0)


# ---- the loop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 7, 25])
def test_one_window_is_diffusers_euler(steps: int):
    diffusers = pytest.importorskip("diffusers")
    scheduler: Any = diffusers.EulerDiscreteScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        interpolation_type="linear", steps_offset=1, timestep_spacing="leading", timestep_type="continuous",
        use_karras_sigmas=True, sigma_min=0.002, sigma_max=700.0,
    )  # fmt: skip
    scheduler.set_timesteps(steps)
    torch.testing.assert_close(karras_sigmas(steps), scheduler.sigmas, rtol=1e-5, atol=1e-7)
    noise = torch.randn(4, 2, 3, 3)

    def toy(x: Tensor, time: Tensor) -> Tensor:
        return torch.tanh(x) * (1 + time)

    x = noise * scheduler.sigmas[0]
    for t in scheduler.timesteps:
        x = scheduler.step(toy(scheduler.scale_model_input(x, t), t), t, x).prev_sample

    def predict(_frames: Tensor, seen: Tensor, time: Tensor, _part: float) -> Tensor:
        return toy(seen, time)

    found = sample_shifting(predict, noise, steps=steps, window=4)
    torch.testing.assert_close(found, x, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("total", "window", "overlap", "shift"), [(18, 5, 0, 3), (16, 5, 2, 4), (5, 5, 0, 2), (7, 4, 3, 0)]
)
def test_windows_reach_every_frame(total: int, window: int, overlap: int, shift: int):
    found = [numbers.tolist() for numbers in shifted_windows(total, window, overlap, shift)]
    assert {number for numbers in found for number in numbers} == set(range(total))
    assert found[0][0] == -shift % total
    assert all((b - a) % total == 1 for numbers in found for a, b in pairwise(numbers))


def test_what_windows_say_of_a_frame_is_averaged():
    """Each window claims another clean frame; where two overlap, the step goes to the middle."""
    calls: list[list[int]] = []

    def predict(frames: Tensor, seen: Tensor, time: Tensor, _part: float) -> Tensor:
        calls.append(frames.tolist())
        sigma = (4 * time).exp()
        clean = torch.full_like(seen, float(len(calls)))
        x = seen * (sigma**2 + 1).sqrt()
        return (x / (sigma**2 + 1) - clean) * (sigma**2 + 1).sqrt() / sigma

    found = sample_shifting(predict, torch.randn(6, 1, 1, 1), steps=1, window=4, overlap=2)
    assert calls == [[0, 1, 2, 3], [2, 3, 4, 5], [4, 5, 0, 1]]
    torch.testing.assert_close(found.flatten(), torch.tensor([2.0, 2.0, 1.5, 1.5, 2.5, 2.5]), rtol=0, atol=1e-3)


def test_windows_move_from_step_to_step():
    firsts: list[int] = []

    def predict(frames: Tensor, seen: Tensor, _time: Tensor, _part: float) -> Tensor:
        firsts.append(int(frames[0]))
        return torch.zeros_like(seen)

    sample_shifting(predict, torch.randn(10, 1, 1, 1), steps=3, window=5, shift=3)
    assert firsts == [0, 5, 7, 2, 9, 4]


@pytest.mark.parametrize(
    ("scales", "weights"),
    [
        ((3.0, 6.0, 6.0), (-2.0, -3.0, 0.0, 6.0)),
        ((1.0, 1.0, 1.0), (0.0, 0.0, 0.0, 1.0)),
        ((3.0, 3.0, 3.0), (-2.0, 0.0, 0.0, 3.0)),
        ((2.0, 4.0, 7.0), (-1.0, -2.0, -3.0, 7.0)),
        ((3.0, 6.0, 0.0), (-2.0, -3.0, 6.0, 0.0)),
    ],
)
def test_a_chain_of_guidance(scales: tuple[float, ...], weights: tuple[float, ...]):
    assert chain_weights(scales) == pytest.approx(weights)
    v = torch.randn(4).tolist()
    told = v[0] + sum(s * (v[i + 1] - v[i]) for i, s in enumerate(scales))
    assert sum(w * one for w, one in zip(weights, v, strict=True)) == pytest.approx(told)


def test_a_loop_says_what_does_not_fit():
    def predict(_frames: Tensor, seen: Tensor, _time: Tensor, _part: float) -> Tensor:
        return seen

    with pytest.raises(ValueError, match="a clip of 3 frames is shorter than a window of 4"):
        sample_shifting(predict, torch.zeros(3, 1, 1, 1), steps=2, window=4)
    with pytest.raises(ValueError, match="overlap in 0 to 3, got 4"):
        sample_shifting(predict, torch.zeros(8, 1, 1, 1), steps=2, window=4, overlap=4)
    with pytest.raises(ValueError, match="strength must be above 0"):
        sample_shifting(predict, torch.zeros(8, 1, 1, 1), steps=2, window=4, strength=0)
    with pytest.raises(ValueError, match="leave none"):
        sample_shifting(predict, torch.zeros(8, 1, 1, 1), steps=2, window=4, strength=0.4)
    with pytest.raises(ValueError, match="1 to 1000, got 0"):
        karras_sigmas(0)


# ---- a clip ---------------------------------------------------------------------------------------------------------


def conditions(system: DiceTalkSystem, frames: int = 6) -> DiceConditions:
    generator = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    features = normal(4 * frames, 2, 4)
    mask = torch.zeros(1, 32, 48)
    mask[:, 8:24, 12:36] = 1
    with torch.no_grad():
        return DiceConditions(
            image_1D=normal(1, 12),
            latent_1Zhw=normal(1, 4, 4, 6),
            located_1Chw=system.face_locator(mask.expand(3, -1, -1)[None]),
            mask_1HW=mask,
            audio_TSD=system.audio_tokens(features, torch.arange(frames)),
            emotion_USD=system.bank(normal(1, 6)),
            which_T=torch.zeros(frames, dtype=torch.long),
            silence_1SD=system.silence(features),
            nothing_1SD=system.bank(torch.zeros(1, 6)),
        )


def noise(frames: int) -> Tensor:
    return torch.randn(frames, 4, 4, 6, generator=torch.Generator().manual_seed(2))


FAST = DiceSampling(steps=3, padding=4, shift=3)


def test_a_clip_has_the_frames_of_its_speech():
    system = made_up()
    found = system.sample(conditions(system), noise(10), FAST)
    assert found.shape == (6, 4, 4, 6)
    assert torch.isfinite(found).all()


def test_branches_that_weigh_nothing_are_not_computed():
    system, rows = made_up(), Counter()
    given = conditions(system)
    system.unet.register_forward_pre_hook(lambda _m, seen, _k: rows.update([len(seen[0]) // 4]), with_kwargs=True)
    cases = {
        (1.0, 1.0, None): 1,
        (3.0, 3.0, None): 2,
        (3.0, 6.0, None): 3,
        (3.0, 6.0, 6.0): 3,
        (3.0, 6.0, 4.0): 4,
    }
    for (reference, audio, emotion), branches in cases.items():
        rows.clear()
        more = {"reference_guidance": reference, "audio_guidance": audio, "emotion_guidance": emotion}
        system.sample(given, noise(10), replace(FAST, **more))
        assert set(rows) == {branches}


def test_emotion_has_a_scale_of_its_own():
    system = made_up()
    given = conditions(system)
    plain = system.sample(given, noise(10), FAST)
    same = system.sample(given, noise(10), replace(FAST, emotion_guidance=6.0))
    torch.testing.assert_close(plain, same, rtol=0, atol=1e-4)
    more = system.sample(given, noise(10), replace(FAST, emotion_guidance=9.0))
    assert (more - plain).abs().max() > 1e-2
    felt = replace(given, emotion_USD=given.nothing_1SD)
    nothing = [system.sample(felt, noise(10), replace(FAST, emotion_guidance=g)) for g in (6.0, 9.0)]
    torch.testing.assert_close(nothing[0], nothing[1], rtol=0, atol=1e-4)


def test_an_emotion_may_change_with_the_frames():
    """It is felt most where it is told: windows of four frames, and no other step carries it further."""
    system = made_up()
    given = conditions(system)
    steady = replace(given, emotion_USD=torch.cat([given.emotion_USD, given.nothing_1SD]))
    once = replace(FAST, steps=1)
    before = system.sample(steady, noise(10), once)
    changed = replace(steady, which_T=torch.tensor([0, 1, 0, 0, 0, 0]))
    moved = (system.sample(changed, noise(10), once) - before).flatten(1).abs().mean(1)
    assert moved[1] == moved.max() > 0
    assert moved[4:].max() == 0, "the other window"
    torch.testing.assert_close(before, system.sample(given, noise(10), once), rtol=0, atol=1e-5)


def test_tokens_of_a_window_are_those_laid_out_for_every_frame():
    """Bit for bit, as if every frame and every frame of padding had tokens of its own."""
    system = made_up()
    with torch.no_grad():
        felt = system.bank(torch.randn(2, 6, generator=torch.Generator().manual_seed(3)))
    given = replace(conditions(system), emotion_USD=felt, which_T=torch.tensor([0, 1, 1, 0, 1, 0]))
    silent, nothing = (one.expand(4, -1, -1) for one in (given.silence_1SD, given.nothing_1SD))
    audio = torch.cat([given.audio_TSD, silent])
    emotion = torch.cat([felt[given.which_T], nothing])
    for numbers in (torch.arange(4), torch.arange(4, 8), torch.tensor([8, 9, 0, 1]), torch.tensor([6, 7, 8, 9])):
        heard, known = given.tokens(numbers)
        assert torch.equal(heard, audio[numbers])
        assert torch.equal(known, emotion[numbers])
    laid_out = replace(given, audio_TSD=audio, emotion_USD=emotion, which_T=torch.arange(10))
    expected = system.sample(laid_out, noise(10), replace(FAST, padding=0))
    assert torch.equal(system.sample(given, noise(10), FAST, tail=4), expected)
    other = replace(given, which_T=torch.zeros(6, dtype=torch.long))
    assert not torch.equal(system.sample(other, noise(10), FAST, tail=4), expected)


def test_speech_is_heard_around_a_frame():
    """Features 50 times a second: four before the frame, itself and five after; silence outside of the recording."""
    system = made_up()
    features = torch.randn(40, 2, 4)
    windows: list[Tensor] = []
    system.audio_projector.register_forward_pre_hook(lambda _m, seen: windows.append(seen[0]))
    system.audio_tokens(features, torch.tensor([0, 3, 9]))
    found = windows[0]
    assert found.shape == (3, 10, 2, 4)
    assert torch.equal(found[1], features[8:18])
    assert torch.equal(found[0], torch.cat([torch.zeros(4, 2, 4), features[:6]]))
    assert torch.equal(found[2], torch.cat([features[32:], torch.zeros(2, 2, 4)]))


def test_a_clip_says_what_does_not_fit():
    system = made_up()
    given = conditions(system)
    with pytest.raises(ValueError, match="noise is for 9 frames, the clip has 6 and 4 of padding"):
        system.sample(given, noise(9), FAST)
    with pytest.raises(ValueError, match=r"noise is \(4, 4, 5\) a frame, the portrait's latent \(4, 4, 6\)"):
        system.sample(given, noise(10)[..., :5], FAST)
    with pytest.raises(ValueError, match="which_T names emotions 0 to 3, emotion_USD has 1"):
        system.sample(replace(given, which_T=torch.tensor([0, 1, 2, 3, 0, 0])), noise(10), FAST)
    with pytest.raises(ValueError, match="no frame to speak in"):
        system.sample(replace(given, audio_TSD=given.audio_TSD[:0], which_T=given.which_T[:0]), noise(4), FAST)
    with pytest.raises(ValueError, match="emotion is told for 2 frames, the clip has 6"):
        system.sample(replace(given, which_T=given.which_T[:2]), noise(10), FAST)

    def cancel(done: int, _steps: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        system.sample(given, noise(10), FAST, on_step=cancel)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_frame_that_is_not_finite_is_named(bad: float):
    """The second of the second window of four, in the second of three steps, whose windows begin three before."""
    system, calls = made_up(), []

    def spoil(_module: Any, _given: Any, answer: Tensor) -> Tensor:
        calls.append(len(answer))
        if len(calls) == 5:
            answer = answer.clone()
            answer[1, 0, 0, 0] = bad
        return answer

    system.unet.register_forward_hook(spoil)
    with pytest.raises(MediaError, match=r"frame 2 \(counted from 0\) is not finite.*as bf16 or fp32"):
        system.sample(conditions(system), noise(10), FAST)
    assert len(calls) == 5, "at once, not behind the last step"


@pytest.mark.parametrize(
    ("features", "said"),
    [
        (torch.zeros(0, 2, 4), "there are no speech features"),
        (torch.zeros(9, 2, 5), r"must be \(R, 2, 4\), got \(9, 2, 5\)"),
        (torch.zeros(9, 3, 4), r"must be \(R, 2, 4\), got \(9, 3, 4\)"),
        (torch.zeros(9, 8), r"must be \(R, 2, 4\), got \(9, 8\)"),
    ],
)
def test_features_that_do_not_fit(features: Tensor, said: str):
    with pytest.raises(ValueError, match=said):
        made_up().audio_tokens(features, torch.arange(2))


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"padding": -3}, "padding must be a whole number of at least 0, got -3"),
        ({"padding": 2.5}, "padding must be a whole number"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"steps": True}, "steps must be a whole number of at least 1, got True"),
        ({"overlap": -1}, "overlap must be"),
        ({"shift": -1}, "shift must be"),
        ({"reference_guidance": float("nan")}, "reference_guidance must be a finite number, got nan"),
        ({"audio_guidance": float("inf")}, "audio_guidance must be a finite number, got inf"),
        ({"emotion_guidance": "6"}, "emotion_guidance must be a finite number, got '6'"),
        ({"strength": 0.0}, "strength must be above 0 and at most 1, got 0.0"),
        ({"strength": 1.5}, "strength must be above 0 and at most 1, got 1.5"),
        ({"ramp_from": (1.0, 2.0)}, "ramp_from must be three finite numbers or None"),
        ({"ramp_from": (1.0, 2.0, float("nan"))}, "ramp_from must be three finite numbers or None"),
    ],
)
def test_ways_of_sampling_that_are_none(settings: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=f"DiceSampling.{said}"):
        DiceSampling(**settings)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"window_frames": 0}, "window_frames must be a whole number of at least 1, got 0"),
        ({"window_frames": 25.0}, "window_frames must be a whole number of at least 1, got 25.0"),
        ({"fps": 0}, "fps must be above 0, got 0"),
        ({"fps": -12.5}, "fps must be above 0, got -12.5"),
        ({"fps": "12.5"}, "fps must be a finite number, got '12.5'"),
        ({"fps": float("inf")}, "fps must be a finite number, got inf"),
        ({"speech_step": 0}, "speech_step must be a whole number of at least 1, got 0"),
        ({"speech_before": -1}, "speech_before must be a whole number of at least 0, got -1"),
        ({"latent_scale": 0.0}, "latent_scale must be above 0, got 0.0"),
        ({"latent_scale": float("nan")}, "latent_scale must be a finite number, got nan"),
        ({"change_scale": float("inf")}, "change_scale must be a finite number, got inf"),
        ({"change_scale": -0.1}, "change_scale must be 0 or more, got -0.1"),
        ({"motion_bucket": float("nan")}, "motion_bucket must be a finite number, got nan"),
        ({"locator_widths": ()}, "locator_widths must be whole numbers of at least 1"),
        ({"locator_widths": (4, 0)}, "locator_widths must be whole numbers of at least 1"),
    ],
)
def test_sizes_that_are_none(settings: dict[str, Any], said: str):
    with pytest.raises(ValueError, match=f"DiceConfig.{said}"):
        replace(TINY, **settings)


# ---- the files ------------------------------------------------------------------------------------------------------


def write_files(folder: Path, system: DiceTalkSystem) -> None:
    for part, (name, names) in FILES.items():
        state = {}
        for key, value in system.state_dict().items():
            if key.startswith(f"{part}.") and key not in OURS:
                theirs = names.theirs(key.removeprefix(f"{part}."))
                state[theirs] = value.flatten() if theirs.endswith("mix_factor") else value
        torch.save(state, folder / name)


def test_the_four_files_make_a_system(tmp_path: Path):
    system = made_up()
    write_files(tmp_path, system)
    loaded = load_dice_talk(tmp_path, TINY)
    state = loaded.state_dict()
    assert all(torch.equal(state[key], value) for key, value in system.state_dict().items())
    assert len(dice_shapes(TINY)) == len(state) - len(OURS)


@pytest.mark.parametrize("part", FILES)
def test_a_file_that_lacks_something_is_refused(tmp_path: Path, part: str):
    write_files(tmp_path, made_up())
    path = tmp_path / FILES[part][0]
    state = torch.load(path, weights_only=True)
    gone = sorted(state)[0]
    torch.save({key: value for key, value in state.items() if key != gone}, path)
    with pytest.raises(CheckpointError, match=path.name):
        load_dice_talk(tmp_path, TINY)


def test_a_file_of_other_sizes_is_refused(tmp_path: Path):
    write_files(tmp_path, made_up())
    with pytest.raises(CheckpointError, match=r"unet\.pth"):
        load_dice_talk(tmp_path, replace(TINY, unet=replace(TINY.unet, block_widths=(24, 16))))
