"""An expert of one's own beside the six: its name in an emotion, its equation, its file, and what a user sees."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from moee_core.__main__ import main
from moee_core.audio.read import Waveform
from moee_core.emotion.condition import EmotionCondition, parse_blend
from moee_core.emotion.source import EmotionSource, UnitTrack, as_source
from moee_core.emotion.timeline import EmotionTimeline, parse_emotion
from moee_core.errors import CheckpointError, EmotionError
from moee_core.experts.apply import apply_experts
from moee_core.experts.file import (
    ExpertFile,
    check_fits,
    combined,
    expert_deltas,
    inspect_expert,
    load_expert,
    save_expert,
)
from moee_core.experts.own import OwnExpert, called, from_file, make, start
from moee_core.ops import DEFAULT_BUILD
from moee_core.pipeline import SamplingSettings, animate
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import load_system, save_system, state_hash

from ..fixtures.tiny import tiny_system

TOKENS = 3
ASSETS = Path(__file__).parents[2] / "moee_core" / "assets"


@torch.no_grad()
def loud(system: MoEESystem, seed: int = 5) -> OwnExpert:
    """An expert that shows: random weights everywhere."""
    expert = make(system.denoiser, TOKENS, DEFAULT_BUILD)
    generator = torch.Generator().manual_seed(seed)
    for parameter in expert.parameters():
        parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
    return expert.eval().requires_grad_(False)


def written(folder: Path, system: MoEESystem, name: str = "@smug", **about: str) -> Path:
    path = folder / "smug.safetensors"
    save_expert(path, name, state_hash(system.denoiser.state_dict()), loud(system).portable(), about)
    return path


def shapes_of(system: MoEESystem) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in system.denoiser.state_dict().items()}


def frames(system: MoEESystem, emotion: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    waveform = Waveform(samples=rng.normal(0, 0.1, (1, 6400)).astype(np.float32), sample_rate=16000)
    portrait = rng.integers(0, 255, (64, 64, 3)).astype(np.uint8)
    settings = SamplingSettings(num_inference_steps=1)
    return np.stack(list(animate(system, portrait, waveform, parse_emotion(emotion), settings)))


# names


def test_an_own_name_is_written_in_many_ways_and_kept_in_one():
    condition = parse_blend("@Very-Smug: 0.8 + joy:0.3")
    assert condition.weights == (("happy", 0.3), ("@very_smug", 0.8))
    assert condition.own == {"@very_smug": 0.8}
    assert parse_blend(condition.to_text()) == condition
    assert condition == EmotionCondition(weights=(("@very smug", 0.8), ("happy", 0.3)))
    assert condition.intensity == pytest.approx(1.1)
    assert condition.neutral == pytest.approx(0.7), "the six know nothing of it"
    np.testing.assert_allclose(parse_blend("@smug").vector(), [1, 0, 0, 0, 0, 0, 0, 0])
    assert not parse_blend("@smug").expert_mask().any()


@pytest.mark.parametrize("text", ["@", "@9lives", "@ü", "@" + "a" * 33, "@smug!"])
def test_what_is_no_name_is_refused_with_advice(text: str):
    with pytest.raises(EmotionError, match="no name of an expert of your own; write @"):
        parse_blend(text)


def test_own_weights_obey_the_rules_of_all_weights():
    with pytest.raises(EmotionError, match="appears twice"):
        parse_blend("@smug:0.2 + @SMUG:0.3")
    with pytest.raises(EmotionError, match=r"1\.5 at most"):
        parse_blend("@smug:1 + happy:0.6")


def test_a_timeline_eases_into_an_own_expert_and_out_of_it():
    timeline = parse_emotion("0 happy 0.4; 1 @smug ease 1; 3 @sly 0.5 ease 0")
    own = timeline.sample_own(100, 25.0)
    assert list(own) == ["@sly", "@smug"]
    at = {second: int(second * 25) for second in (0.5, 1.5, 2.5, 3.5)}
    assert own["@smug"][at[0.5]] == 0
    assert own["@smug"][at[1.5]] == pytest.approx(0.5, abs=0.04)
    assert own["@smug"][at[2.5]] == 1
    assert own["@smug"][at[3.5]] == 0
    assert own["@sly"][at[3.5]] == 0.5
    np.testing.assert_allclose(timeline.sample(100, 25.0).sum(axis=1), 1, rtol=1e-6)
    for text in (timeline.to_text(), timeline.to_json()):
        assert parse_emotion(text) == timeline
    assert EmotionTimeline(keys=timeline.keys[:1]).sample_own(4, 25.0) == {}


def test_a_source_keeps_it_beside_everything_else():
    units = UnitTrack(values=np.full((1, 20), 0.2, np.float32))
    source = as_source(parse_emotion("@smug 0.7")).joined(EmotionSource(units=units))
    rows = source.rows(10, 25.0)
    np.testing.assert_allclose(rows.own["@smug"], 0.7)
    assert rows.take([0, 3]).own["@smug"].shape == (2,)
    with pytest.raises(EmotionError, match=r"calls @smug.*EmoTalker has no experts"):
        rows.refuse_own("EmoTalker")
    as_source(parse_emotion("happy")).rows(3, 25.0).refuse_own("EmoTalker")


# the network


def test_the_equation_written_out():
    system = tiny_system()
    expert = loud(system)
    width = system.config.unet.block_widths[-1]
    x = torch.randn(2, 9, width, generator=torch.Generator().manual_seed(1))
    strength = torch.tensor([0.5, 1.2])
    site, heads = expert.sites[1], system.config.unet.heads
    normed = F.layer_norm(x, (width,), site.norm.weight, site.norm.bias)
    gate = torch.sigmoid(normed @ site.gate.weight.T + site.gate.bias)
    table = expert.tokens.weight
    wanted = []
    for n in range(2):
        context = table[:TOKENS] + strength[n] * table[TOKENS:]
        q, k, v = (
            (rows @ layer.weight.T).view(-1, heads, width // heads).transpose(0, 1)
            for rows, layer in (
                (normed[n], site.attention.to_q),
                (context, site.attention.to_k),
                (context, site.attention.to_v),
            )
        )
        seen = torch.softmax(q @ k.transpose(1, 2) / (width // heads) ** 0.5, dim=-1) @ v
        out = seen.transpose(0, 1).reshape(-1, width) @ site.attention.to_out[0].weight.T
        wanted.append(x[n] + strength[n] * gate[n] * (out + site.attention.to_out[0].bias))
    torch.testing.assert_close(expert(1, x, strength), torch.stack(wanted), rtol=1e-4, atol=1e-5)
    expert.scale = -0.5
    torch.testing.assert_close(expert(1, x, strength) - x, -0.5 * (torch.stack(wanted) - x), rtol=1e-4, atol=1e-5)


def test_a_frame_that_does_not_call_it_is_the_same_bit_for_bit():
    system = tiny_system()
    before = frames(system, "happy 0.8")
    system.with_own({"@smug": loud(system)})
    assert np.array_equal(frames(system, "happy 0.8"), before)
    both = frames(system, "happy 0.8 + @smug 0.5")
    assert np.abs(both.astype(int) - before).mean() > 1
    late = frames(system, "0 happy 0.8; 0.36 happy 0.8 + @smug 0.5 ease 0")
    assert np.array_equal(late[:6], before[:6]), "the first window calls it nowhere"
    assert not np.array_equal(late[6:], before[6:])


def test_a_new_expert_changes_nothing_until_it_learns():
    system = tiny_system()
    before = frames(system, "neutral")
    expert = make(system.denoiser, 8, DEFAULT_BUILD)
    mixtures = [site.emotion for _, site in system.denoiser.sites()]
    latents = system.emotion_to_latents({"label": torch.eye(8)[1:7]}).mean(dim=0)
    start(expert, [list(mixture.experts) for mixture in mixtures], latents)
    system.with_own({"@new": expert})
    assert np.array_equal(frames(system, "@new 1.2"), before)
    assert any(parameter.abs().max() > 0 for parameter in expert.sites[0].attention.to_v.parameters())


def test_one_that_is_not_loaded_is_named_with_those_that_are():
    system = tiny_system()
    with pytest.raises(EmotionError, match=r"calls '@smug', an expert of your own, and none is loaded"):
        frames(system, "@smug")
    system.with_own({"@sly": loud(system)})
    with pytest.raises(EmotionError, match="loaded: @sly"):
        frames(system, "@smug")
    assert list(called({}, {"@smug": torch.zeros(3)}, torch.device("cpu"))) == [], "asked for at strength 0"


# the file


def test_a_file_comes_back_as_it_was_saved(tmp_path: Path):
    system = tiny_system()
    path = written(tmp_path, system, licence="CC0-1.0")
    file = load_expert(path)
    assert file.own
    assert (file.emotion, file.metadata["licence"]) == ("@smug", "CC0-1.0")
    check_fits(file, file.title, state_hash(system.denoiser.state_dict()), shapes_of(system))
    check_fits(inspect_expert(path), "smug", state_hash(system.denoiser.state_dict()), shapes_of(system))
    back = from_file(file, system.denoiser, DEFAULT_BUILD, 0.5)
    assert (back.count, back.scale) == (TOKENS, 0.5)
    for mine, its in zip(loud(system).parameters(), back.parameters(), strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-3, atol=1e-3)


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path):
    system = tiny_system()
    file = load_expert(written(tmp_path, system))
    base, shapes = state_hash(system.denoiser.state_dict()), shapes_of(system)
    with pytest.raises(CheckpointError, match=r"smug.safetensors was trained from another model"):
        check_fits(file, file.title, "0" * 16, shapes)

    def with_deltas(**changed: torch.Tensor) -> ExpertFile:
        return dataclasses.replace(file, deltas={**file.deltas, **changed})

    first = next(key for key in file.deltas if key.endswith("to_k.weight"))
    with pytest.raises(CheckpointError, match=r"to_k.weight' is \(2, 2\), this model has"):
        check_fits(with_deltas(**{first: torch.zeros(2, 2)}), "x", base, shapes)
    with pytest.raises(CheckpointError, match=r"this model has None"):
        check_fits(with_deltas(**{"nowhere.emotion.own.gate.bias": torch.zeros(1)}), "x", base, shapes)
    missing = dataclasses.replace(file, deltas={k: v for k, v in file.deltas.items() if k != first})
    with pytest.raises(CheckpointError, match="is None, this model has"):
        check_fits(missing, "x", base, shapes)
    for tokens in (torch.zeros(3, 16), torch.zeros(2, 8), torch.zeros(0, 16), torch.zeros(4)):
        with pytest.raises(CheckpointError, match="'tokens' is"):
            check_fits(with_deltas(tokens=tokens), "x", base, shapes)
    with pytest.raises(CheckpointError, match="not as this model has it"):
        from_file(missing, system.denoiser, DEFAULT_BUILD)


@pytest.mark.parametrize("name", ["smug", "@Smug", "@", "contempt"])
def test_a_file_under_a_name_that_is_none_is_refused(tmp_path: Path, name: str):
    system = tiny_system()
    with pytest.raises(CheckpointError, match="known: angry"):
        load_expert(written(tmp_path, system, name))


def test_a_file_of_other_weights_is_no_expert(tmp_path: Path):
    metadata = {"architecture": "moee-expert", "format": "1", "emotion": "@smug", "base": "x"}
    save_file({"a.emotion.expert.to_q.weight": torch.zeros(1)}, str(tmp_path / "x.safetensors"), metadata)
    with pytest.raises(CheckpointError, match="holds no expert's weights"):
        load_expert(tmp_path / "x.safetensors")


def test_it_is_loaded_beside_the_six_and_beside_their_changes(tmp_path: Path):
    system = tiny_system()
    base = {key: value.clone() for key, value in system.denoiser.state_dict().items()}
    tuned = {key: value + 0.25 if ".experts.3." in key else value for key, value in base.items()}
    smile = ExpertFile(
        emotion="happy", base=state_hash(base), deltas=expert_deltas(tuned, base, "happy"), metadata={}, file="smile"
    )
    smug = load_expert(written(tmp_path, system))
    with pytest.raises(CheckpointError, match="load it beside them instead of adding it up"):
        combined([(smug, 1.0)], state_hash(base), shapes_of(system))
    with pytest.raises(CheckpointError, match="two experts are called @smug"):
        apply_experts(system, [(smug, 1.0), (smug, 0.5)])
    with pytest.raises(ValueError, match="its weight must be a number from -2 to 2"):
        apply_experts(system, [(smug, 3.0)])
    with pytest.raises(CheckpointError, match="trained from another model"):
        apply_experts(system, [(dataclasses.replace(smug, base="other"), 1.0)])
    assert state_hash(system.denoiser.state_dict()) == state_hash(base), "a refusal leaves the model as it was"
    apply_experts(system, [(smile, 2.0), (smug, 0.5)])
    assert list(system.own_experts) == ["@smug"]
    key = next(key for key in base if ".experts.3." in key)
    torch.testing.assert_close(system.denoiser.state_dict()[key], base[key] + 0.5)


# the command line


def test_the_command_line_lists_it_and_animates_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    save_system(tmp_path / "tiny.safetensors", tiny_system(), metadata={"domain": '{"reconstruction_error": 1e6}'})
    system, _ = load_system(tmp_path / "tiny.safetensors")  # in the precision of the file, by which it is known
    path = written(tmp_path, system)
    assert main(["experts", "list", str(path), "--model", str(tmp_path / "tiny.safetensors")]) == 0
    row = capsys.readouterr().out.splitlines()[1]
    assert "@smug" in row
    assert "yes" in row
    said = [
        "animate",
        "--portrait",
        str(ASSETS / "portraits" / "mira.png"),
        "--audio",
        str(ASSETS / "speech" / "hello.ogg"),
    ]
    said += ["--model", str(tmp_path / "tiny.safetensors"), "--output", str(tmp_path / "v.mp4"), "--emotion", "@smug"]
    assert main([*said, "--expert", f"{path}:0.5"]) == 0
    assert main(said) == 2
    assert "none is loaded" in capsys.readouterr().err
    assert main([*said, "--expert", str(path), "--renderer", "instant"]) == 2
    assert "--expert belongs to the model" in capsys.readouterr().err
    assert main([*said, "--expert", f"{path}:9"]) == 2
    assert "from -2 to 2" in capsys.readouterr().err
    assert main(["experts", "merge", str(path), str(path), "-o", str(tmp_path / "m.safetensors")]) == 2
    assert "expert of its own" in capsys.readouterr().err
