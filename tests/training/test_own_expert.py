"""An expert of one's own from its configuration to its file; and the arms that experts and gates are compared by."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.experts.file import check_fits, load_expert
from moee_core.experts.mixture import MixtureOfEmotionExperts, Routing
from moee_core.experts.own import from_file
from moee_core.ops import DEFAULT_BUILD
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import load_system, save_system, state_hash
from training import own_expert
from training.ablation_gates import ARMS, table
from training.cli import main
from training.config import ConfigError, DataConfig, from_table, read_table
from training.data.clips import cache_folder, shown_units
from training.stages.moee import grow_experts

from ..fixtures.tiny import TINY, tiny_system

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "training" / "configs" / "own_expert.toml"
SHIPPED = ROOT / "moee_core" / "assets" / "experts" / "smirk.safetensors"


def small(folder: Path, **changed: object) -> own_expert.OwnTrain:
    """The configuration that ships, at a size that takes seconds."""
    table = read_table(CONFIG) | {"cache": str(folder / "cache"), "runs": str(folder / "runs"), "threads": 1}
    table["precision"] = "fp32"
    table["data"] = table["data"] | {"clips": 20, "shard": 20, "workers": 1, "shown": "L12:0.9"}
    table["stage"] = {"iterations": 14, "batch_size": 3, "learning_rate": 6e-3, "warmup": 1, "save_every": 5}
    table["stage"]["validate_every"] = 1000
    return from_table(own_expert.OwnTrain, table | changed, "")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[own_expert.OwnTrain, Path]:
    config = small(tmp_path_factory.mktemp("own"))
    threads = torch.get_num_threads()
    path = own_expert.run(config)
    torch.set_num_threads(threads)
    return config, path


def test_training_leaves_one_file_that_fits_its_model_and_says_how_good_it_is(trained):
    _, path = trained
    file = load_expert(path)
    system, _ = load_system(own_expert.EMBEDDED)
    state = system.denoiser.state_dict()
    check_fits(file, file.title, state_hash(state), {key: tuple(value.shape) for key, value in state.items()})
    assert file.emotion == "@smirk"
    assert file.metadata["licence"] == "CC0-1.0"
    card = file.card()
    assert card["shown"] == "L12:0.9"
    assert card["loss_with"] < card["loss_without"], "what it learned helps on clips it has not seen"
    assert file.preview() is not None
    expert = from_file(file, system.denoiser, DEFAULT_BUILD)
    assert all(site.attention.to_out[0].weight.abs().max() > 0 for site in expert.sites)


def test_a_finished_run_is_left_alone_and_another_one_does_not_take_its_folder(trained, tmp_path: Path):
    config, path = trained
    before = path.read_bytes()
    assert own_expert.run(config) == path
    assert path.read_bytes() == before
    other = dataclasses.replace(config, data=dataclasses.replace(config.data, shown="R12:0.9"))
    with pytest.raises(ConfigError, match="holds a run with other settings"):
        own_expert.run(other)


def test_a_run_is_not_continued_over_another_model(trained, tmp_path: Path):
    config, path = trained
    kept = tmp_path / "smirk.safetensors"
    path.rename(kept)  # as if it had been stopped before its end
    other = tmp_path / "other.safetensors"
    system, _ = load_system(own_expert.EMBEDDED)
    with torch.no_grad():
        next(system.denoiser.parameters()).add_(1.0)
    save_system(other, system)
    with pytest.raises(ConfigError, match="began with another model"):
        own_expert.run(dataclasses.replace(config, start_from=str(other)))
    kept.rename(path)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"call": "9"}, "no name of an expert of your own"),
        ({"tokens": 0}, "tokens must be at least 1"),
        ({"data": {"clips": 3}}, "data.shown is empty"),
        ({"data": {"shown": "99:1"}}, "99"),
    ],
)
def test_a_configuration_that_cannot_be_used_says_why(tmp_path: Path, changed: dict, says: str):
    with pytest.raises(ValueError, match=says):
        small(tmp_path, **changed)


def test_the_command_trains_it_and_refuses_a_model_of_another_size(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    text = CONFIG.read_text(encoding="utf-8").replace("clips = 600", "clips = 4\nimage_size = 64\nshard = 4")
    text = text.replace(
        'call = "smirk"', f'call = "smirk"\nprecision = "fp32"\ncache = "{tmp_path}"\nruns = "{tmp_path}"'
    )
    (tmp_path / "own.toml").write_text(text, encoding="utf-8")
    assert main([str(tmp_path / "own.toml")]) == 2
    assert "data.image_size is 64, and the model draws 128" in capsys.readouterr().err


def test_what_clips_show_is_part_of_their_cache_and_an_old_cache_keeps_its_name(tmp_path: Path):
    plain, shown = DataConfig(), DataConfig(shown="L12:0.5, 1:0.2")
    assert cache_folder(plain, 0, tmp_path) != cache_folder(shown, 0, tmp_path)
    np.testing.assert_allclose(shown_units(shown).sum(), 0.7)


def test_the_expert_that_ships_belongs_to_the_model_that_ships():
    file = load_expert(SHIPPED)
    system, _ = load_system(own_expert.EMBEDDED)
    state = system.denoiser.state_dict()
    check_fits(file, file.title, state_hash(state), {key: tuple(value.shape) for key, value in state.items()})
    assert file.card()["loss_with"] < file.card()["loss_without"]
    assert file.preview() is not None


# the arms of the comparison


def arm(name: str) -> MoEESystem:
    unet = dataclasses.replace(TINY.unet, **ARMS[name])
    return MoEESystem(dataclasses.replace(TINY, unet=unet))


def weights(system: MoEESystem) -> int:
    return sum(
        p.numel() for name, p in system.denoiser.named_parameters() if ".experts." in name and "bias" not in name
    )


def test_one_attention_has_the_weights_of_six_and_every_arm_starts_as_the_shared_one():
    shared = tiny_system(config=dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, experts=1)))
    rng = torch.Generator().manual_seed(2)
    x = torch.randn(2, 5, TINY.unet.block_widths[-1], generator=rng)
    latents = torch.randn(2, 8, TINY.unet.emotion_width, generator=rng)
    first = next(m for m in shared.denoiser.modules() if isinstance(m, MixtureOfEmotionExperts))
    wanted = first(x, latents, Routing.of(torch.ones(2, 1), gated=False), 2)
    assert (wanted - x).abs().max() > 1e-3
    counts = set()
    for name in ARMS:
        system = arm(name)
        grow_experts(shared, system, "upcycle", 3.0)
        counts.add(weights(system))
        mixture = next(m for m in system.denoiser.modules() if isinstance(m, MixtureOfEmotionExperts))
        experts = len(mixture.experts)
        prior = torch.full((2, experts), 1.0 / experts)
        torch.testing.assert_close(mixture(x, latents, Routing.of(prior, gated=False), 2), wanted)
    assert len(counts) == 1


def test_without_the_global_gate_the_blend_that_is_asked_for_is_what_counts():
    with_gate, without = arm("six_output"), arm("six_no_global")
    prior = torch.tensor([[0.7, 0.3, 0, 0, 0, 0]])
    x, latents = torch.randn(1, 5, TINY.unet.block_widths[-1]), torch.randn(1, 8, TINY.unet.emotion_width)
    outs = []
    for system in (with_gate, without):
        system.load_state_dict(with_gate.state_dict())
        mixture = next(m for m in system.denoiser.modules() if isinstance(m, MixtureOfEmotionExperts))
        torch.nn.init.constant_(mixture.gates.local_gate.weight, 0.0)
        torch.nn.init.constant_(mixture.gates.local_gate.bias, 40.0)  # open: s = 1
        torch.nn.init.normal_(mixture.gates.global_gate.weight, std=3.0)
        outs.append(mixture(x, latents, Routing.of(prior), 1))
        plain = mixture(x, latents, Routing.of(prior, gated=False), 1)
    torch.testing.assert_close(outs[1], plain)
    assert (outs[0] - plain).abs().max() > 1e-4
    with pytest.raises(ValueError, match="global_gate must be one of softmax, off"):
        dataclasses.replace(TINY.unet, global_gate="on")


def test_the_table_pairs_arms_by_seed():
    rows = []
    for seed, (a, b) in enumerate([(1.0, 1.5), (2.0, 2.3), (3.0, 3.7)]):
        for name, value in (("six_output", a), ("one_equal", b)):
            rows.append(
                {"arm": name, "seed": seed} | dict.fromkeys(("single", "several", "label", "both", "weaker"), value)
            )
    text = table(json.loads(json.dumps(rows)))
    assert "2.500 (+0.500 ± 0.497)" in text  # 4.303 * 0.2 / sqrt(3)
    assert len(text.splitlines()) == 3
