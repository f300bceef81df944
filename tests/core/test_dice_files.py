"""DICE-Talk's files: adapters completed from Stable Video Diffusion, and everything as one file of ours."""

from __future__ import annotations

import json
import struct
import weakref
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moee_core.emotion.bank import EmotionBankConfig
from moee_core.emotion.prior_embedder import PriorEmbedderConfig
from moee_core.emotion.priors import Prior, write_prior
from moee_core.emotion.vocabulary import LABELS
from moee_core.errors import CheckpointError
from moee_core.networks.config import VideoUNetConfig
from moee_core.ops import Build
from moee_core.selfcheck import ruled
from moee_core.systems.dice_talk import DiceConfig, DiceTalkSystem
from moee_core.weights import dice_file
from moee_core.weights.checkpoint import config_to_dict, read_header, state_hash, write_state
from moee_core.weights.dice_file import (
    ARCHITECTURE,
    EMBEDDED_AROUND,
    convert_dice_talk,
    dice_config,
    file_size,
    inspect_dice_file,
    load_dice_file,
    load_dice_parts,
    save_dice_file,
)
from moee_core.weights.dice_talk import ADAPTERS, FILES, LICENCE, OURS, PUBLISHED, dice_files, load_dice_talk
from moee_core.weights.key_map import VIDEO_UNET, KeyMap
from moee_core.weights.stable_video import single_file_names

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
DIFFUSERS = KeyMap(rows=VIDEO_UNET)


@pytest.fixture(scope="module")
def system() -> DiceTalkSystem:
    """Weights that half precision holds exactly."""
    made = DiceTalkSystem(TINY).eval().requires_grad_(False)
    state = {
        key: torch.ones_like(value) if key in OURS else ruled(key, tuple(value.shape)).half().float()
        for key, value in made.state_dict().items()
    }
    made.load_state_dict(state)
    return made


def parts_of(system: DiceTalkSystem) -> dict[str, dict[str, Tensor]]:
    """As the four files name and shape them."""
    found: dict[str, dict[str, Tensor]] = {part: {} for part in FILES}
    for key, value in system.state_dict().items():
        part, inside = key.split(".", 1)
        if key not in OURS:
            theirs = FILES[part][1].theirs(inside)
            found[part][theirs] = value.flatten() if theirs.endswith("mix_factor") else value
    return found


def write_files(folder: Path, system: DiceTalkSystem, unet: dict[str, Tensor] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part, state in parts_of(system).items():
        torch.save(state if part != "unet" or unet is None else unet, folder / FILES[part][0])
    return folder


def adapters_of(system: DiceTalkSystem) -> dict[str, Tensor]:
    return {key: value for key, value in parts_of(system)["unet"].items() if ".processor." in key}


def write_svd(folder: Path, system: DiceTalkSystem) -> tuple[Path, Path]:
    """(folder of diffusers, single file)."""
    single_names = single_file_names(replace(TINY.unet, adapters=0))
    plain, single = {}, {}
    for key, value in system.unet.state_dict().items():
        if ADAPTERS not in f".{key}":
            value = value.flatten() if key.endswith("mix_factor.weight") else value
            plain[DIFFUSERS.theirs(key)], single[single_names.theirs(key)] = value, value
    (folder / "svd" / "unet").mkdir(parents=True)
    save_file(plain, folder / "svd" / "unet" / "diffusion_pytorch_model.fp16.safetensors")
    save_file({**single, "conditioner.weight": torch.zeros(1)}, folder / "svd_xt.safetensors")
    return folder / "svd", folder / "svd_xt.safetensors"


def write_priors(folder: Path, width: int = 6) -> Path:
    for label in LABELS:
        mean = ruled(f"{label}.mean", (width,)).half().float().numpy()
        write_prior(folder / f"{label}.safetensors", Prior(mean=mean))
    return folder


def same(found: DiceTalkSystem, expected: DiceTalkSystem) -> None:
    state = found.state_dict()
    assert state.keys() == expected.state_dict().keys()
    for key, value in expected.state_dict().items():
        assert torch.equal(state[key].float(), value), key


# ---- adapters alone -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "single", "file"])
def test_adapters_are_completed(tmp_path: Path, system: DiceTalkSystem, form: str):
    folder, single = write_svd(tmp_path, system)
    base = {
        "folder": folder,
        "single": single,
        "file": folder / "unet" / "diffusion_pytorch_model.fp16.safetensors",
    }[form]
    files = write_files(tmp_path / "dice", system, adapters_of(system))
    same(load_dice_talk(files, TINY, base=base), system)


def test_a_whole_unet_needs_no_base_and_reads_none(tmp_path: Path, system: DiceTalkSystem):
    files = write_files(tmp_path, system)
    same(load_dice_talk(files, TINY), system)
    same(load_dice_talk(files, TINY, base=tmp_path / "is-not-there"), system)


def test_adapters_alone_ask_for_a_base(tmp_path: Path, system: DiceTalkSystem):
    count = len(adapters_of(system))
    files = write_files(tmp_path, system, adapters_of(system))
    with pytest.raises(CheckpointError, match=rf"unet\.pth holds the adapters alone \({count} tensors\).*as base"):
        load_dice_talk(files, TINY)
    with pytest.raises(CheckpointError, match="there is no file"):
        load_dice_talk(files, TINY, base=tmp_path / "is-not-there")
    other = tmp_path / "other.safetensors"
    save_file({"conv_in.weight": torch.zeros(1)}, other)
    with pytest.raises(CheckpointError, match=r"other\.safetensors"):
        load_dice_talk(files, TINY, base=other)


def test_anything_in_between_is_refused_by_name(tmp_path: Path, system: DiceTalkSystem):
    whole, adapters = parts_of(system)["unet"], adapters_of(system)
    base = write_svd(tmp_path, system)[0]
    first, adapter = sorted(whole.keys() - adapters.keys())[0], sorted(adapters)[0]
    cases: dict[str, tuple[dict[str, Tensor], str]] = {
        "one of the base": ({**adapters, "conv_in.weight": whole["conv_in.weight"]}, "add_embedding"),
        "all but one of the base": ({key: x for key, x in whole.items() if key != first}, first),
        "all but one adapter": ({key: x for key, x in whole.items() if key != adapter}, adapter),
        "adapters but one": ({key: x for key, x in adapters.items() if key != adapter}, adapter),
        "no adapter": ({key: x for key, x in whole.items() if key not in adapters}, adapter),
        "nothing": ({}, first),
        "more": ({**adapters, "other.weight": torch.zeros(1)}, "is missing"),
        "another shape": ({**adapters, adapter: torch.zeros(3, 3)}, r"has shape \(3, 3\)"),
    }
    for name, (unet, message) in cases.items():
        files = write_files(tmp_path / name, system, unet)
        with pytest.raises(CheckpointError, match=message) as caught:
            load_dice_talk(files, TINY, base=base)
        assert "unet.pth" in str(caught.value), name


def test_safetensors_do_as_well(tmp_path: Path, system: DiceTalkSystem):
    for part, state in parts_of(system).items():
        save_file({key: x.clone() for key, x in state.items()}, tmp_path / FILES[part][0].replace("pth", "safetensors"))
    assert {path.suffix for path in dice_files(tmp_path).values()} == {".safetensors"}
    same(load_dice_talk(tmp_path, TINY), system)


def test_a_configuration_that_no_published_file_fills(tmp_path: Path, system: DiceTalkSystem):
    with pytest.raises(CheckpointError, match=r"published files bring no 'priors\.weight'"):
        load_dice_talk(write_files(tmp_path, system), replace(TINY, named_priors=True))


# ---- one file -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_round_trip(tmp_path: Path, system: DiceTalkSystem, dtype: torch.dtype):
    files = write_files(tmp_path / "files", system)
    path = tmp_path / "deep" / "dice.safetensors"
    convert_dice_talk(files, path, config=TINY, dtype=dtype)
    loaded = load_dice_file(path)
    assert loaded.config == TINY
    assert not loaded.training
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    if dtype is not torch.bfloat16:
        same(loaded, load_dice_talk(files, TINY))
    else:
        expected = system.state_dict()
        assert all(torch.equal(x, expected[key].bfloat16().float()) for key, x in loaded.state_dict().items())
    stored = load_file(path)  # by the library, which checks the layout
    assert {value.dtype for value in stored.values()} == {dtype}
    assert stored.keys() == system.state_dict().keys()
    header = struct.unpack("<Q", path.read_bytes()[:8])[0]
    assert path.stat().st_size == 8 + header + file_size(TINY, dtype)
    assert header % 8 == 0
    assert [one.name for one in path.parent.iterdir()] == ["dice.safetensors"]
    halved = load_dice_file(path, Build(dtype=torch.float16))
    assert {value.dtype for value in halved.parameters()} == {torch.float16}


def test_a_file_says_what_it_is_and_what_it_is_of(tmp_path: Path, system: DiceTalkSystem):
    path = tmp_path / "dice.safetensors"
    convert_dice_talk(write_files(tmp_path, system), path, config=TINY)
    config, metadata = inspect_dice_file(path)
    assert config == TINY
    assert metadata["architecture"] == ARCHITECTURE
    assert metadata["licence"] == LICENCE
    assert "non-commercial" in metadata["licence"]
    assert "MEAD" in metadata["data_licence"]
    sources = json.loads(metadata["sources"])
    assert {part: one["name"] for part, one in sources.items()} == {part: name for part, (name, _) in FILES.items()}
    bank = {f"bank.{key}": x for key, x in system.bank.state_dict().items() if f"bank.{key}" not in OURS}
    assert sources["bank"]["hash"] == state_hash(bank)


def test_sources_with_a_base_and_priors(tmp_path: Path, system: DiceTalkSystem):
    base = write_svd(tmp_path, system)[0]
    files = write_files(tmp_path / "dice", system, adapters_of(system))
    path = tmp_path / "dice.safetensors"
    convert_dice_talk(files, path, base=base, priors=write_priors(tmp_path / "priors"), config=TINY)
    loaded = load_dice_file(path)
    assert loaded.config == replace(TINY, named_priors=True)
    state = loaded.state_dict()
    assert all(torch.equal(state[key], value) for key, value in system.state_dict().items())
    for row, label in zip(state["priors.weight"], LABELS, strict=True):
        assert torch.equal(row, ruled(f"{label}.mean", (6,)).half().float())
    sources = json.loads(inspect_dice_file(path)[1]["sources"])
    assert sources["base"]["name"] == "diffusion_pytorch_model.fp16.safetensors"
    assert sources["priors"]["name"] == "priors"
    adapters = {key: x for key, x in state.items() if ADAPTERS in key}
    assert sources["unet"]["hash"] == state_hash(adapters)
    assert len({one["hash"] for one in sources.values()}) == 6
    whole = tmp_path / "whole.safetensors"
    convert_dice_talk(write_files(tmp_path / "whole", system), whole, base=tmp_path / "not-read", config=TINY)
    assert "base" not in json.loads(inspect_dice_file(whole)[1]["sources"])


def test_priors_have_to_be_complete_and_to_fit(tmp_path: Path, system: DiceTalkSystem):
    files, path = write_files(tmp_path, system), tmp_path / "dice.safetensors"
    priors = write_priors(tmp_path / "priors")
    (priors / "fear.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"no prior of fear \(1 of 8 are missing\); put fear\.npy there"):
        convert_dice_talk(files, path, priors=priors, config=TINY)
    with pytest.raises(CheckpointError, match=r"the prior of neutral has 7 numbers, this network reads 6"):
        convert_dice_talk(files, path, priors=write_priors(tmp_path / "wide", 7), config=TINY)
    assert not path.exists()


def test_parts_for_a_host(tmp_path: Path, system: DiceTalkSystem):
    path = tmp_path / "dice.safetensors"
    convert_dice_talk(write_files(tmp_path, system), path, config=TINY, dtype=torch.float32)
    parts, config, metadata = load_dice_parts(path)
    assert parts.keys() == FILES.keys()
    assert config == TINY
    assert metadata["licence"] == LICENCE
    for part, state in parts.items():
        system.get_submodule(part).load_state_dict(state, strict=True)


def test_a_system_of_our_own_is_saved(tmp_path: Path, system: DiceTalkSystem):
    """With what no published file has; its licence is ours unless it says otherwise."""
    config = replace(
        TINY,
        embedder=PriorEmbedderConfig(
            width=6,
            coefficients=5,
            speech_layers=2,
            speech_width=4,
            layers=1,
            fusion_layers=1,
            heads=1,
            hidden=8,
            frames=6,
        ),
        named_priors=True,
        picture="latent",
        ear="embedded",
        change_scale=0.25,
    )
    own = DiceTalkSystem(config).eval()
    state = {key: ruled(key, (*x.shape, 1)).view(x.shape).half().float() for key, x in own.state_dict().items()}
    own.load_state_dict(state)
    path = tmp_path / "own.safetensors"
    save_dice_file(path, own, metadata={"trained": "here", "data_licence": "procedural"})
    loaded = load_dice_file(path)
    assert loaded.config == config
    same(loaded, own)
    metadata = inspect_dice_file(path)[1]
    assert (metadata["licence"], metadata["trained"], metadata["data_licence"]) == ("Apache-2.0", "here", "procedural")
    save_dice_file(path, own, dtype=torch.float32)
    same(load_dice_file(path), own)
    assert EMBEDDED_AROUND.is_file()


def test_converting_holds_no_more_than_a_few_tensors(
    tmp_path: Path, system: DiceTalkSystem, monkeypatch: pytest.MonkeyPatch
):
    """Of what is made in the type to be written, beside the mapped files."""
    files = write_files(tmp_path, system)
    live, most = [0], [0]
    plain = Tensor.to

    def counted(self: Tensor, *arguments: Any, **more: Any) -> Tensor:
        found = plain(self, *arguments, **more)
        if found.data_ptr() != self.data_ptr():
            size = found.numel() * found.element_size()
            live[0] += size
            most[0] = max(most[0], live[0])
            weakref.finalize(found, lambda: live.__setitem__(0, live[0] - size))
        return found

    monkeypatch.setattr(Tensor, "to", counted)
    convert_dice_talk(files, tmp_path / "dice.safetensors", config=TINY)
    largest = max(value.numel() for value in system.state_dict().values()) * 2
    assert largest <= most[0] <= 2 * largest < file_size(TINY) / 4


# ---- settings as JSON -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Inner:
    sides: tuple[int, ...] = (1, 2)


def test_settings_go_through_json_and_back():
    embedder = PriorEmbedderConfig(width=256)
    for config in (DiceConfig(), TINY, replace(DiceConfig(), embedder=embedder, ear="embedded", picture="latent")):
        assert dice_config(json.loads(json.dumps(config_to_dict(config)))) == config
    assert dice_config({}) == PUBLISHED, "what is not there has its default"
    assert dice_config({"embedder": None}).embedder is None
    assert dice_config({"unet": {"heads": [5, 10, 20, 20]}}).unet.heads == (5, 10, 20, 20)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"colour": 3}, "unknown setting 'colour' in DiceConfig"),
        ({"unet": {"colour": 3}}, "unknown setting 'colour' in VideoUNetConfig"),
        ({"embedder": {"colour": 3}}, "unknown setting 'colour' in PriorEmbedderConfig"),
        ({"unet": None}, "VideoUNetConfig is a table of settings, got 'None'"),
        ({"bank": 3}, "EmotionBankConfig is a table of settings"),
        ([], "DiceConfig is a table of settings"),
        ({"ear": "other"}, "DiceConfig.ear must be one of"),
        ({"ear": 3}, "DiceConfig.ear must be a text, got 3"),
        ({"fps": "12.5"}, "DiceConfig.fps must be a finite number, got '12.5'"),
        ({"fps": True}, "DiceConfig.fps must be a finite number, got True"),
        ({"fps": 0}, "DiceConfig.fps must be above 0"),
        ({"change_scale": float("inf")}, "DiceConfig.change_scale must be a finite number, got inf"),
        ({"window_frames": 0}, "DiceConfig.window_frames must be a whole number of at least 1"),
        ({"window_frames": 4.5}, "DiceConfig.window_frames must be a whole number, got 4.5"),
        ({"named_priors": 1}, "DiceConfig.named_priors must be true or false, got 1"),
        ({"locator_widths": 4}, "DiceConfig.locator_widths must be a list, got 4"),
        ({"locator_widths": [4, "4"]}, "DiceConfig.locator_widths must be a whole number, got '4'"),
        ({"bank": {"tokens": "3"}}, "EmotionBankConfig.tokens must be a whole number, got '3'"),
        ({"bank": {"head_widths": [4, 4, 4]}}, "EmotionBankConfig.head_widths must be a list of 2, got"),
        ({"embedder": {"frames": 6.5}}, "PriorEmbedderConfig.frames must be a whole number, got 6.5"),
    ],
)
def test_settings_that_are_none(values: Any, message: str):
    with pytest.raises(ValueError, match=message):
        dice_config(values)


# ---- damaged --------------------------------------------------------------------------------------------------------


def test_a_file_that_does_not_fit_its_settings_is_refused(tmp_path: Path, system: DiceTalkSystem):
    state, path = system.state_dict(), tmp_path / "dice.safetensors"

    def write(
        tensors: dict[str, Tensor], config: Any = TINY, architecture: str = ARCHITECTURE, form: str = "1"
    ) -> None:
        write_state(path, architecture, form, tensors, config, {}, torch.float16)

    key = sorted(state)[3]
    cases: list[tuple[dict[str, Any], str]] = [
        ({"tensors": {name: x for name, x in state.items() if name != key}}, f"'{key}' is missing"),
        ({"tensors": {**state, "more": torch.zeros(1)}}, "'more' is unknown"),
        ({"tensors": {**state, key: torch.zeros(7)}}, r"has shape \(7,\)"),
        ({"tensors": state, "config": replace(TINY, speech_hidden=9)}, "this architecture needs"),
        ({"tensors": state, "config": Inner()}, "unknown setting 'sides'"),
        ({"tensors": state, "architecture": "moee"}, r"not a DICE-Talk of format 1 \(found 'moee, format 1'\)"),
        ({"tensors": state, "form": "2"}, "found 'dice_talk, format 2'"),
    ]
    for given, message in cases:
        write(**given)
        for read in (inspect_dice_file, load_dice_file, load_dice_parts):
            with pytest.raises(CheckpointError, match=message) as caught:
                read(path)
            assert "dice.safetensors" in str(caught.value)
            assert "\n" not in str(caught.value)
    write(state)
    same(load_dice_file(path), system)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match="is damaged"):
        load_dice_file(path)


READERS = (inspect_dice_file, load_dice_file, load_dice_parts)


@pytest.mark.parametrize("every", [True, False])
def test_whole_numbers_are_no_weights(tmp_path: Path, system: DiceTalkSystem, every: bool):
    path = tmp_path / "dice.safetensors"
    save_dice_file(path, system)
    state, metadata = load_file(path), read_header(path)[1]
    first = sorted(state)[0]
    for kind, name in ((torch.int8, "I8"), (torch.uint8, "U8"), (torch.int64, "I64"), (torch.float8_e4m3fn, "F8_E4M3")):
        cast = {key: value.to(kind) if every or key == first else value for key, value in state.items()}
        save_file(cast, path, metadata=metadata)
        for read in READERS:
            with pytest.raises(CheckpointError, match=rf"dice\.safetensors: '{first}' is of type '{name}'.*quantised"):
                read(path)
    save_file({key: value.double() for key, value in state.items()}, path, metadata=metadata)
    same(load_dice_file(path), system)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"window_frames": 0}, "window_frames must be a whole number of at least 1, got 0"),
        ({"fps": 0}, "fps must be above 0, got 0"),
        ({"fps": "12.5"}, "fps must be a finite number, got"),
        ({"speech_step": 0}, "speech_step must be a whole number of at least 1, got 0"),
        ({"latent_scale": 0}, "latent_scale must be above 0, got 0"),
        ({"change_scale": float("inf")}, "change_scale must be a finite number, got inf"),
    ],
)
def test_a_file_with_settings_that_are_none(
    tmp_path: Path, system: DiceTalkSystem, settings: dict[str, Any], said: str
):
    path = tmp_path / "dice.safetensors"
    save_dice_file(path, system)
    metadata = read_header(path)[1]
    told = {**json.loads(metadata["config"]), **settings}
    save_file(load_file(path), path, metadata={**metadata, "config": json.dumps(told)})
    for read in READERS:
        with pytest.raises(
            CheckpointError, match=rf"dice\.safetensors: its metadata cannot be used.*DiceConfig\.{said}"
        ):
            read(path)


def test_what_half_precision_cannot_hold_is_not_stored(tmp_path: Path):
    made = DiceTalkSystem(TINY).eval().requires_grad_(False)
    made.bank.to_q.weight[1, 2] = -1e5
    path = tmp_path / "dice.safetensors"
    with pytest.raises(
        CheckpointError, match=r"'bank\.to_q\.weight' holds 1e\+05, and float16 ends at 6\.55e\+04; save as"
    ):
        save_dice_file(path, made)
    assert list(tmp_path.iterdir()) == []
    for dtype in (torch.bfloat16, torch.float32):
        save_dice_file(path, made, dtype=dtype)
        assert float(load_dice_file(path).bank.to_q.weight[1, 2]) == pytest.approx(-1e5, rel=2**-8)
    for bad in (float("nan"), float("inf")):
        made.bank.to_q.weight[1, 2] = bad
        with pytest.raises(CheckpointError, match=r"'bank\.to_q\.weight' holds numbers that are not finite"):
            save_dice_file(path, made, dtype=torch.float32)


def test_an_old_file_stays_until_the_new_one_is_whole(
    tmp_path: Path, system: DiceTalkSystem, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "dice.safetensors"
    save_dice_file(path, system)
    before = path.read_bytes()

    def fails(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(dice_file.os, "replace", fails)
    with pytest.raises(OSError, match="no space left"):
        save_dice_file(path, system, dtype=torch.float32)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["dice.safetensors"]
    assert read_header(path)[1]["architecture"] == ARCHITECTURE
