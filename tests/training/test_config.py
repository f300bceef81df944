"""Training configurations: what is shipped loads, and a mistake is answered with the setting's full name."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from moee_core.errors import MoEEError
from moee_core.ops import Build
from moee_core.systems.moee import MoEESystem
from training.config import (
    ConfigError,
    DataConfig,
    DiffusionStage,
    ExpertsStage,
    StagesConfig,
    TrainConfig,
    load_config,
    read_table,
    to_dict,
)
from training.run import claim

CONFIGS = Path(__file__).resolve().parents[2] / "training" / "configs"
EMBEDDED = CONFIGS / "embedded.toml"
SHIPPED = [path for path in sorted(CONFIGS.glob("*.toml")) if "system_kind" not in read_table(path)]
"""This system's; another's name their kind."""
SMALLEST = """
name = "x"
[system.unet]
[system.emotion]
[system.audio]
[system.autoencoder]
"""


def load(tmp_path: Path, text: str) -> TrainConfig:
    path = tmp_path / "config.toml"
    path.write_text(text, encoding="utf-8")
    return load_config(path)


def refusal(tmp_path: Path, text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    message = str(caught.value)
    assert "\n" not in message
    return message


# ---- what loads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_every_shipped_configuration_loads_and_its_networks_fit_together(path: Path):
    config = load_config(path)
    assert config.name == path.stem
    window = config.stages.reference.window
    system = config.system.build(config.data.image_size, window)
    assert system.window_frames == window
    assert system.image_size == config.data.image_size
    assert system.unet.audio_width == system.audio.token_width
    assert system.unet.emotion_width == system.emotion.width
    assert system.unet.latent_channels == system.autoencoder.latent_channels
    assert config.data.frames >= window + system.unet.motion_frames
    assert len(list(MoEESystem(system, Build(device="meta")).parameters())) > 100


def test_the_embedded_configuration_says_what_its_file_says():
    config = load_config(EMBEDDED)
    assert config.system.unet.block_widths == (64, 96)
    assert config.system.unet.attention_levels == (False, True)
    assert config.system.unet.anchor
    assert config.system.emotion.query_tokens >= 8
    assert config.stages.experts.learning_rate == 5e-4
    assert config.stages.experts.init == "upcycle"
    assert config.stages.gates.local_bias == 3.0  # a default
    assert config.precision == "auto"


def test_what_a_file_leaves_out_is_the_default(tmp_path: Path):
    config = load(tmp_path, SMALLEST)
    assert config.data == DataConfig()
    assert config.stages == StagesConfig()
    assert config.seed == 0
    assert isinstance(config.stages.experts, ExpertsStage)


def test_whole_numbers_serve_as_fractions_and_lists_become_tuples(tmp_path: Path):
    config = load(tmp_path, SMALLEST + "[stages.reference]\nlearning_rate = 1\n")
    assert config.stages.reference.learning_rate == 1.0
    assert isinstance(config.stages.reference.learning_rate, float)
    assert isinstance(load_config(EMBEDDED).system.unet.block_widths, tuple)


def test_a_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        load_config(EMBEDDED).seed = 2  # type: ignore[misc]


def test_a_configuration_can_be_written_as_plain_data():
    table = to_dict(load_config(EMBEDDED))
    assert table["system"]["unet"]["block_widths"] == (64, 96)
    assert table["stages"]["gates"]["iterations"] == load_config(EMBEDDED).stages.gates.iterations


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("[stages.reference]\nlearning_rte = 1e-3", "stages.reference.learning_rte: .* did you mean 'learning_rate'?"),
        ("[stages.expert]\niterations = 1", "stages.expert: .* did you mean 'experts'?"),
        ("[data]\nclip = 3", "data.clip: .* did you mean 'clips'?"),
        ("[data]\nxyzzy = 3", "data.xyzzy: no such setting in DataConfig; known: clips, frames"),
        ("[sytem]\nx = 1", "sytem: .* did you mean 'system'?"),
    ],
)
def test_an_unknown_setting_is_named_in_full_with_the_nearest_known(tmp_path: Path, line: str, words: str):
    with pytest.raises(ConfigError, match=words):
        load(tmp_path, SMALLEST + line)


def test_an_unknown_setting_of_the_network_is_named_too(tmp_path: Path):
    text = SMALLEST.replace("[system.unet]", "[system.unet]\nblock_width = [32]")
    assert refusal(tmp_path, text).startswith(
        "system.unet.block_width: no such setting in PortraitUNetConfig; did you mean"
    )


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('[stages.reference]\niterations = "many"', "stages.reference.iterations must be int, got 'many'"),
        ("[stages.reference]\niterations = 2.5", "stages.reference.iterations must be int, got 2.5"),
        ("[stages.reference]\niterations = true", "stages.reference.iterations must be int, got True"),
        ("[stages.reference]\nlearning_rate = true", "stages.reference.learning_rate must be float, got True"),
        ("[stages.reference]\nlearning_rate = [1.0]", "stages.reference.learning_rate must be float, got [1.0]"),
        ("[stages.experts]\ntrain_latents = 1", "stages.experts.train_latents must be bool, got 1"),
        ("[stages.experts]\ninit = 3", "stages.experts.init must be str, got 3"),
        ("[stages]\nexperts = 3", "stages.experts must be a table, got int"),
    ],
)
def test_a_setting_of_the_wrong_type_is_named_in_full(tmp_path: Path, line: str, words: str):
    assert refusal(tmp_path, SMALLEST + line) == words


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("block_widths = 64", "system.unet.block_widths must be a list, got 64"),
        ('block_widths = [64, "wide"]', "system.unet.block_widths[1] must be int, got 'wide'"),
        ("attention_levels = [0, 1]", "system.unet.attention_levels[0] must be bool, got 0"),
        ("heads = 7", "system.unet: block width 320 must be a multiple of norm_groups 32 and heads 7"),
        (
            'local_gate = "key"',
            "system.unet: PortraitUNetConfig.local_gate must be one of output, query, off; got 'key'",
        ),
    ],
)
def test_a_bad_size_of_the_network_is_named_in_full(tmp_path: Path, setting: str, words: str):
    assert refusal(tmp_path, SMALLEST.replace("[system.unet]", f"[system.unet]\n{setting}")) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (SMALLEST.replace('name = "x"', ""), "the file: missing setting 'name'"),
        (SMALLEST.replace("[system.audio]", ""), "system: missing setting 'audio'"),
        ('name = "x"', "the file: missing setting 'system'"),
    ],
)
def test_a_missing_setting_is_named(tmp_path: Path, text: str, words: str):
    assert refusal(tmp_path, text) == words


@pytest.mark.parametrize("text", ["name = ", "[unclosed", "a = 1\na = 2", "\x00", 'name = "x\ny"'])
def test_broken_toml_names_the_file(tmp_path: Path, text: str):
    assert "config.toml is not valid TOML" in refusal(tmp_path, text)


def test_a_file_in_another_encoding_or_not_there_at_all_is_named(tmp_path: Path):
    (tmp_path / "latin.toml").write_bytes('name = "Müller"'.encode("latin-1"))
    with pytest.raises(ConfigError, match=r"latin\.toml is not valid TOML"):
        load_config(tmp_path / "latin.toml")
    with pytest.raises(ConfigError, match=r"cannot read the training configuration .*none\.toml: No such file"):
        load_config(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="cannot read the training configuration"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (
            "[data]\nneutral = 0.9",
            "data: data: neutral + compound + blend + contempt must leave room for single emotions",
        ),
        (
            '[stages.experts]\ninit = "magic"',
            "stages.experts: stages.experts.init must be upcycle or zero, got 'magic'",
        ),
    ],
)
def test_settings_that_contradict_each_other_are_refused(tmp_path: Path, line: str, words: str):
    message = refusal(tmp_path, SMALLEST + line)
    assert message.endswith(words.split(": ", 1)[1])


def test_an_unknown_precision_is_refused(tmp_path: Path):
    text = SMALLEST.replace('name = "x"', 'name = "x"\nprecision = "fp8"')
    assert refusal(tmp_path, text) == "precision must be auto, bf16 or fp32, got 'fp8'"


def test_configuration_errors_are_ours_and_value_errors():
    assert issubclass(ConfigError, MoEEError)
    assert issubclass(ConfigError, ValueError)


def test_a_stage_of_diffusion_has_the_papers_window_and_drops():
    """What the masked noisy emotion sampling of MoEE 4.2 and the first window rest on."""
    settings = ExpertsStage()
    assert settings.other_emotion + settings.neutral_reference <= 1
    for name in ("audio_drop", "motion_drop", "mask_probability", "time_last", "other_reference"):
        assert 0 <= getattr(settings, name) <= 1
    assert isinstance(settings, DiffusionStage)


def test_a_run_that_began_before_a_setting_existed_goes_on(tmp_path: Path):
    config = load_config(CONFIGS / "smoke.toml")
    claim(tmp_path, config)
    path = tmp_path / "config.json"
    table = json.loads(path.read_text(encoding="utf-8"))
    del table["data"]["shown"], table["system"]["unet"]["expert_multiple"]
    path.write_text(json.dumps(table), encoding="utf-8")
    claim(tmp_path, config)
    table["data"]["clips"] += 1
    path.write_text(json.dumps(table), encoding="utf-8")
    with pytest.raises(ConfigError, match="other settings"):
        claim(tmp_path, config)
    path.write_text(json.dumps(table | {"no such": 1}), encoding="utf-8")
    with pytest.raises(ConfigError, match="other settings"):
        claim(tmp_path, config)
