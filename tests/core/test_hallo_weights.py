"""Names and shapes of published weights at full size, and what the loaders accept and refuse."""

from __future__ import annotations

import json
import re
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moee_core.errors import CheckpointError
from moee_core.networks.config import PortraitUNetConfig, SystemConfig
from moee_core.networks.masked_audio import SpeechRegions
from moee_core.ops import Build
from moee_core.systems.hallo import HalloSystem
from moee_core.weights.checkpoint import config_from_dict, config_to_dict, read_header
from moee_core.weights.detect import KINDS, OURS, detect, missing, survey
from moee_core.weights.fresh import fresh_state
from moee_core.weights.hallo import (
    HALLO,
    PARTS,
    base_shapes,
    convert_hallo,
    load_hallo,
    load_hallo_base,
    position_tables,
    read_autoencoder,
    read_net,
)
from moee_core.weights.key_map import AUTOENCODER, AUTOENCODER_BEFORE_2023, BACKBONE, KeyMap, Rows, single_file
from moee_core.weights.stable_diffusion import read_motion, read_unet, start_base

from ..fixtures.hallo_parity import TINY, autoencoder_state, manifest, net_state
from ..fixtures.tiny import TINY as MOEE

Shapes = dict[str, tuple[int, ...]]


# ---- full size, without a byte of memory ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def full_size() -> Shapes:
    return base_shapes(HALLO)[0]


def count(shapes: Shapes) -> int:
    return sum(torch.Size(shape).numel() for shape in shapes.values())


def named(shapes: Shapes, part: str, rows: Rows, keep: Callable[[str], bool] = lambda key: True) -> Shapes:
    inside = {key.removeprefix(f"{part}."): shape for key, shape in shapes.items() if key.startswith(f"{part}.")}
    return {KeyMap(rows=rows).theirs(key): shape for key, shape in inside.items() if keep(key)}


def test_every_tensor_of_the_published_file_has_its_place(full_size: Shapes):
    expected: Shapes = {}
    for ours, shape in full_size.items():
        part, inside = ours.split(".", 1)
        if part in PARTS:
            expected[PARTS[part].theirs(inside)] = shape
    tables = position_tables(expected)
    assert expected | tables == manifest("net")
    assert len(manifest("net")) == 2656
    assert count(tables) == 1_208_320
    assert count(expected | tables) == 2_424_802_964


def test_half_of_the_audio_modules_are_half_as_wide_inside(full_size: Shapes):
    """Their inner width is what enters the block: an accident that the published weights are made of."""
    end = ".audio.proj_in.weight"
    inner = {key.removesuffix(end): shape[:2] for key, shape in full_size.items() if key.endswith(end)}
    start = "denoiser.backbone."
    assert inner[f"{start}down_blocks.1.sites.0"] == (320, 640)
    assert inner[f"{start}down_blocks.1.sites.1"] == (640, 640)
    assert inner[f"{start}up_blocks.1.sites.2"] == (640, 1280)
    assert inner[f"{start}mid_block.sites.0"] == (1280, 1280)
    assert sum(narrow < wide for narrow, wide in inner.values()) == 8
    assert len(inner) == 16


def test_stable_diffusion_and_animatediff_are_inside(full_size: Shapes):
    unet = named(full_size, "denoiser", BACKBONE, lambda key: ".audio." not in key and ".motion." not in key)
    motion = named(full_size, "denoiser", BACKBONE, lambda key: ".motion." in key)
    assert unet == manifest("sd15")
    assert motion | position_tables(motion) == manifest("motion")
    reference = named(full_size, "reference_net", BACKBONE)
    without = {key: x for key, x in manifest("sd15").items() if not key.startswith(("conv_norm_out.", "conv_out."))}
    assert reference == without


@pytest.mark.parametrize(("rows", "name"), [(AUTOENCODER, "vae"), (AUTOENCODER_BEFORE_2023, "vae_legacy")])
def test_the_autoencoder_in_both_namings(full_size: Shapes, rows: Rows, name: str):
    assert named(full_size, "autoencoder", rows) == manifest(name)


def test_a_step_of_full_size_runs_at_512_pixels():
    """Shapes only: 16 frames, 64 x 64 latents, every level's maps, in half precision."""
    system = HalloSystem(HALLO, Build(device="meta", dtype=torch.float16))

    def of(*shape: int) -> Tensor:
        return torch.zeros(shape, device="meta", dtype=torch.float16)

    maps = SpeechRegions.of(torch.ones(1, 3, 64, 64), levels=4)
    assert [x.shape[-1] for x in maps.levels] == [64, 32, 16, 8]
    one = system.portrait(of(1, 3, 512, 512), torch.zeros(1, 512), torch.zeros(1, 3, 512, 512), maps)
    assert all(x.is_meta for x in one.regions.levels)  # given on the CPU, needed where the networks are
    known, unknown = system.references(one, of(2, 4, 64, 64), 16)
    for reference in (known, unknown):
        with torch.no_grad():
            out = system.denoiser(
                of(16, 4, 64, 64),
                of(16),
                frames=16,
                reference=reference,
                audio_NSA=of(16, 32, 768),
                identity_BKC=one.known_1KC,
                regions=one.regions.frames(16),
                added_NCHW=one.located_1Dhw.expand(16, -1, -1, -1),
            )
        assert out.shape == (16, 4, 64, 64)


def test_names_of_a_single_file():
    """diffusers turns them back into its own."""
    tools = pytest.importorskip("diffusers.loaders.single_file_utils")
    levels, layers = HALLO.unet.attention_levels, HALLO.unet.layers_per_block
    single = {
        f"model.diffusion_model.{single_file(key, levels, layers)}": torch.tensor(number)
        for number, key in enumerate(manifest("sd15"))
    }
    assert len(single) == 686
    assert "model.diffusion_model.input_blocks.8.1.proj_in.weight" in single
    config = {"layers_per_block": layers, "class_embed_type": None, "addition_embed_type": None}
    back = tools.convert_ldm_unet_checkpoint(single, config)
    assert {key: int(number) for key, number in back.items()} == {
        key: number for number, key in enumerate(manifest("sd15"))
    }


# ---- loading --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(hallo_files: tuple[Path, Path]) -> tuple[Path, Path]:
    return hallo_files


def test_a_pickle_and_a_safetensors_file_are_the_same(files: tuple[Path, Path], tmp_path: Path):
    save_file(net_state(), tmp_path / "net.safetensors")
    pickled, saved = read_net(files[0], TINY), read_net(tmp_path / "net.safetensors", TINY)
    assert pickled.keys() == saved.keys()
    assert all(torch.equal(pickled[key], saved[key]) for key in saved)
    assert all(value.dtype == torch.float16 for value in saved.values())


def test_both_namings_of_the_autoencoder_are_the_same(files: tuple[Path, Path], tmp_path: Path):
    ours = [key for key in base_shapes(TINY)[0] if key.startswith("autoencoder.")]
    new, old = KeyMap(rows=AUTOENCODER), KeyMap(rows=AUTOENCODER_BEFORE_2023)
    state = autoencoder_state()
    inside = [key.removeprefix("autoencoder.") for key in ours]
    save_file({old.theirs(key): state[new.theirs(key)] for key in inside}, tmp_path / "old.safetensors")
    first, second = read_autoencoder(files[1], TINY), read_autoencoder(tmp_path / "old.safetensors", TINY)
    assert first.keys() == second.keys() == set(ours)
    assert all(torch.equal(first[key], second[key]) for key in ours)


MIDDLE = "denoising_unet.mid_block.motion_modules.0.temporal_transformer."
NEVER_RUN = "denoising_unet.up_blocks.0.motion_modules.2.temporal_transformer.norm.bias"
TABLE = MIDDLE + "transformer_blocks.0.attention_blocks.0.pos_encoder.pe"


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("imageproj.proj.bias", None, "1 of 2652 tensors do not fit: 'imageproj.proj.bias' is missing"),
        (NEVER_RUN, None, f"'{NEVER_RUN}' is missing"),
        (TABLE, None, f"'{TABLE}' is missing"),
        ("denoising_unet.more", torch.zeros(1), "'denoising_unet.more' is unknown"),
        ("audioproj.norm.bias", torch.zeros(3), "'audioproj.norm.bias' has shape (3,), this architecture needs (40,)"),
        (TABLE, torch.zeros(1, 32, 64), f"'{TABLE}' does not hold the sinusoids of AnimateDiff's second version"),
        (TABLE, torch.zeros(1, 32, 64), "it deviates by up to 1 (0.005 is allowed); take Hallo's own net.pth"),
        ("audioproj.norm.bias", torch.zeros(40, dtype=torch.int8), "'audioproj.norm.bias' is of type int8, a weight"),
    ],
    ids=["projector", "idle module", "table", "unknown", "shape", "positions", "deviation", "quantised"],
)
def test_a_net_that_does_not_fit_is_refused(tmp_path: Path, key: str, value: Tensor | None, message: str):
    state = net_state()
    if value is None:
        del state[key]
    else:
        state[key] = value
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match=f"^net.pth: .*{re.escape(message)}"):
        read_net(tmp_path / "net.pth", TINY)


def test_an_autoencoder_that_does_not_fit_is_refused(tmp_path: Path):
    state = autoencoder_state()
    del state["decoder.conv_out.bias"]
    save_file(state, tmp_path / "vae.safetensors")
    with pytest.raises(CheckpointError, match=r"^vae.safetensors: .*'decoder.conv_out.bias' is missing"):
        read_autoencoder(tmp_path / "vae.safetensors", TINY)


@pytest.mark.parametrize("cut", [0.05, 0.3, 0.6, 0.9])
def test_what_is_left_of_an_old_pickle_is_refused_by_name(tmp_path: Path, cut: float):
    """Before 2020 PyTorch saved no archive; each place to break off fails in its own way."""
    whole = tmp_path / "whole.pth"
    torch.save({f"weight.{i}": torch.ones(3) for i in range(20)}, whole, _use_new_zipfile_serialization=False)
    content = whole.read_bytes()
    whole.unlink()
    size = int(cut * len(content))
    for name, damaged in (("cut.pth", content[:size]), ("torn.pth", content[:size] + content[size + 7 :])):
        (tmp_path / name).write_bytes(damaged)
        with pytest.raises(CheckpointError, match=f"^{name} is damaged"):
            read_net(tmp_path / name, TINY)
    assert len(survey(tmp_path).unknown) == 2


class Harmful:
    def __reduce__(self) -> Any:
        return print, ("this must not run",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"model": Harmful()}, "holds more than weights and is not opened"),
        ([torch.zeros(1)], "is not a table of weights: it holds a list"),
        ({"step": 3, "weight": torch.zeros(1)}, "is not a table of weights: 'step' is none"),
        (b"PK\x03\x04 cut off", "is damaged"),
        (b"", "is damaged"),
        (b"<!DOCTYPE html>", "it begins with b'<!DOCTYPE html>'; a download may have saved a page or a pointer"),
    ],
)
def test_a_file_that_is_no_table_of_weights_is_refused(
    tmp_path: Path, content: Any, message: str, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "net.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=message):
        read_net(path, TINY)
    assert "must not run" not in capsys.readouterr().out


def test_a_file_that_is_not_there_is_named(tmp_path: Path):
    with pytest.raises(CheckpointError, match=r"there is no file .*net\.pth"):
        read_net(tmp_path / "net.pth", TINY)


# ---- one file of ours -----------------------------------------------------------------------------------------------


def test_a_converted_base_is_the_same_network(hallo: HalloSystem, files: tuple[Path, Path], tmp_path: Path):
    path = tmp_path / "base.safetensors"
    convert_hallo(*files, path, config=TINY)
    system, metadata = load_hallo_base(path)
    assert system.config == TINY
    expected, found = hallo.state_dict(), system.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    assert "OpenRAIL" in metadata["licence"]
    sources = json.loads(metadata["sources"])
    assert {role: one["name"] for role, one in sources.items()} == {"net": "net.pth", "autoencoder": "vae.safetensors"}
    stored, _ = read_header(path)
    assert set(stored) == set(base_shapes(TINY)[0])
    assert not any(".emotion." in key for key in stored)


def test_files_of_the_same_name_make_a_whole_base(tmp_path: Path):
    """As they lie in the hub's folders."""
    net, autoencoder = (tmp_path / part / "model.safetensors" for part in ("net", "vae"))
    for path, state in ((net, net_state()), (autoencoder, autoencoder_state())):
        path.parent.mkdir()
        save_file(state, path)
    convert_hallo(net, autoencoder, tmp_path / "base.safetensors", config=TINY)
    _, metadata = load_hallo_base(tmp_path / "base.safetensors")
    sources = json.loads(metadata["sources"])
    assert [one["name"] for one in sources.values()] == ["model.safetensors"] * 2
    assert sources["net"]["hash"] != sources["autoencoder"]["hash"]


def test_a_base_that_does_not_fit_is_refused(files: tuple[Path, Path], tmp_path: Path):
    path = tmp_path / "base.safetensors"
    convert_hallo(*files, path, config=TINY)
    state, metadata = load_file(path), read_header(path)[1]
    del state["face_locator.conv_in.bias"]
    save_file(state, path, metadata=metadata)
    with pytest.raises(CheckpointError, match=r"'face_locator.conv_in.bias' is missing"):
        load_hallo_base(path)
    save_file(state, path, metadata={**metadata, "config": json.dumps({"unet": {"more": 1}})})
    with pytest.raises(CheckpointError, match=r"its metadata cannot be used.*unknown setting 'more'"):
        load_hallo_base(path)
    sizes = json.loads(metadata["config"])
    sizes["unet"]["layers_per_block"] = 1.5
    save_file(state, path, metadata={**metadata, "config": json.dumps(sizes)})
    with pytest.raises(CheckpointError, match=r"^base\.safetensors: no Hallo network can be built from this config"):
        load_hallo_base(path)
    save_file(state, path)
    with pytest.raises(CheckpointError, match="is not a Hallo base of format 1"):
        load_hallo_base(path)


def test_settings_that_came_later_are_written_only_where_they_are_used():
    plain = config_to_dict(MOEE)
    assert not {"audio_layout", "motion_layout", "motion_levels"} & set(plain["unet"])
    assert config_from_dict(SystemConfig, json.loads(json.dumps(plain))) == MOEE
    assert config_to_dict(TINY.unet)["audio_layout"] == "masked"
    assert config_from_dict(PortraitUNetConfig, config_to_dict(TINY.unet)) == TINY.unet


# ---- a base of one's own --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A UNet in both namings and motion modules, cut out of the made-up net."""
    folder = tmp_path_factory.mktemp("sources")
    start = "denoising_unet."
    inside = {key.removeprefix(start): value for key, value in net_state().items() if key.startswith(start)}
    motion = {key: value for key, value in inside.items() if ".motion_modules." in key}
    unet = {key: value for key, value in inside.items() if ".audio_modules." not in key and key not in motion}
    levels, layers = TINY.unet.attention_levels, TINY.unet.layers_per_block
    single = {f"model.diffusion_model.{single_file(key, levels, layers)}": value for key, value in unet.items()}
    single["first_stage_model.decoder.conv_in.weight"] = torch.zeros(1)
    paths = {name: folder / f"{name}.safetensors" for name in ("unet", "single")}
    save_file(unet, paths["unet"])
    save_file(single, paths["single"])
    paths["motion"] = folder / "mm.ckpt"
    torch.save({"state_dict": motion}, paths["motion"])
    return paths


@pytest.mark.parametrize("name", ["unet", "single"])
def test_a_unet_serves_as_reference_net_and_denoiser(sources: dict[str, Path], files: tuple[Path, Path], name: str):
    found, whole = read_unet(sources[name], TINY), read_net(files[0], TINY)
    denoiser = {key for key in found if key.startswith("denoiser.")}
    assert all(torch.equal(found[key], whole[key]) for key in denoiser)
    for key in found.keys() - denoiser:
        inside = key.removeprefix("reference_net.")
        twin = f"denoiser.{inside}"
        if twin not in found:  # a site of the denoiser has more than a spatial transformer
            twin = re.sub(r"(\.sites\.\d+\.)", r"\1spatial.", twin)
        assert torch.equal(found[key], found[twin])
    assert {key for key in found if key.startswith("reference_net.")} == {
        key for key in whole if key.startswith("reference_net.")
    }


def test_motion_modules_come_from_animatediff(sources: dict[str, Path], files: tuple[Path, Path]):
    found, whole = read_motion(sources["motion"], TINY), read_net(files[0], TINY)
    assert found.keys() == {key for key in whole if ".motion." in key}
    assert all(torch.equal(found[key], whole[key]) for key in found)


def test_a_fresh_base_hears_nothing_and_moves_as_its_sources(sources: dict[str, Path], files: tuple[Path, Path]):
    still = start_base(sources["unet"], None, files[1], TINY)
    moving = start_base(sources["single"], sources["motion"], files[1], replace_levels("all"))
    frames = 3
    x = torch.randn(frames, 4, 8, 8)
    regions = SpeechRegions.of(torch.rand(1, 3, 8, 8), levels=4).frames(frames)

    def run(system: HalloSystem, audio: Tensor) -> Tensor:
        identity = system.identity_projector(torch.ones(1, 512))
        with torch.no_grad():
            return system.denoiser(
                x,
                torch.full((frames,), 500),
                frames=frames,
                reference=system.reference_net.reference(x[:1], identity_BKC=identity),
                audio_NSA=audio,
                identity_BKC=identity,
                regions=regions,
                added_NCHW=system.face_locator(torch.rand(1, 3, 64, 64)).expand(frames, -1, -1, -1),
            )

    silence, noise = torch.zeros(frames, 32, 40), torch.randn(frames, 32, 40)
    assert torch.equal(run(still, silence), run(still, noise))
    assert torch.equal(run(moving, silence), run(moving, noise))
    assert not torch.allclose(run(still, silence), run(moving, silence), atol=1e-3)


def test_fresh_weights_are_the_same_everywhere():
    shapes = {key: shape for key, shape in base_shapes(TINY)[1].items() if ".sites.0." in key}
    first, second = fresh_state(shapes), fresh_state(shapes)
    assert all(torch.equal(first[key], second[key]) for key in shapes)
    assert all((value == 0).all() for key, value in first.items() if ".to_out." in key or key.endswith(".bias"))
    queries = [value for key, value in first.items() if key.endswith("experts.0.to_q.weight")]
    assert all(0.8 < value.std() * value.shape[1] ** 0.5 < 1.2 for value in queries)


def replace_levels(levels: str) -> Any:
    return replace(TINY, unet=replace(TINY.unet, motion_levels=levels))


@pytest.mark.parametrize("name", ["unet", "single"])
def test_a_unet_that_does_not_fit_is_refused(sources: dict[str, Path], tmp_path: Path, name: str):
    state = load_file(sources[name])
    gone = next(key for key in state if key.endswith("attn2.to_k.weight"))
    del state[gone]
    save_file(state, tmp_path / "unet.safetensors")
    with pytest.raises(CheckpointError, match=f"^unet.safetensors: .*'{gone}' is missing"):
        read_unet(tmp_path / "unet.safetensors", TINY)


def test_a_quantised_unet_is_refused(sources: dict[str, Path], tmp_path: Path):
    state = load_file(sources["unet"])
    state["conv_in.weight"] = state["conv_in.weight"].to(torch.int8)
    save_file(state, tmp_path / "unet.safetensors")
    with pytest.raises(CheckpointError, match=r"^unet.safetensors: 'conv_in.weight' is of type int8, a weight"):
        read_unet(tmp_path / "unet.safetensors", TINY)


def test_fresh_weights_are_made_one_by_one(files: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch):
    """At full size they are more than a gigabyte, beside a system that holds them already."""
    alive: list[weakref.ref[Tensor]] = []
    most = 0

    def counting(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        nonlocal most
        made = fresh_state(shapes)
        alive.extend(weakref.ref(value) for value in made.values())
        most = max(most, sum(one() is not None for one in alive))
        return made

    monkeypatch.setattr("moee_core.weights.hallo.fresh_state", counting)
    system = load_hallo(*files, TINY)
    assert len(alive) > 100
    assert most <= 2
    key = next(key for key in base_shapes(TINY)[1] if key.endswith("experts.0.to_q.weight"))
    value = system.state_dict()[key]
    assert torch.equal(value, fresh_state({key: tuple(value.shape)})[key])


# ---- what is this file ----------------------------------------------------------------------------------------------


def empty_file(path: Path, keys: Any) -> Path:
    save_file({key: torch.zeros(1) for key in keys}, path)
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("net", "hallo"),
        ("motion", "motion"),
        ("sd15", "unet"),
        ("vae", "autoencoder"),
        ("vae_legacy", "autoencoder"),
        ("wav2vec2", "wav2vec2"),
        ("wav2vec2_ctc", "wav2vec2"),
    ],
)
def test_a_published_file_is_told_by_its_names(tmp_path: Path, name: str, kind: str):
    if kind == "wav2vec2":
        (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}', encoding="utf-8")
    assert detect(empty_file(tmp_path / "some.safetensors", manifest(name))).name == kind


def test_a_relative_of_wav2vec2_is_told_by_its_settings(tmp_path: Path):
    """HuBERT's file has the same names."""
    path = empty_file(tmp_path / "model.safetensors", manifest("wav2vec2"))
    assert detect(path).title == "wav2vec 2.0 or a relative"
    assert "wav2vec 2.0" in survey(tmp_path).missing
    (tmp_path / "config.json").write_text('{"model_type": "hubert"}', encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"is a model of type 'hubert' by the config\.json beside it"):
        detect(path)
    assert survey(tmp_path).unknown == (path,)


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("wav2vec2", "encoder.layers.0.attention.rel_attn_embed.weight"),
        ("sd15", "controlnet_cond_embedding.conv_in.weight"),
        ("single", "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight"),
        ("single", "cond_stage_model.model.ln_final.weight"),
    ],
    ids=["WavLM", "ControlNet", "SDXL", "Stable Diffusion 2"],
)
def test_a_network_that_has_more_is_another(tmp_path: Path, name: str, more: str):
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}', encoding="utf-8")
    keys = ["model.diffusion_model.input_blocks.0.0.weight"] if name == "single" else [*manifest(name)]
    assert detect(empty_file(tmp_path / "plain.safetensors", keys)).name
    with pytest.raises(CheckpointError, match="none of the files that are known here"):
        detect(empty_file(tmp_path / "other.safetensors", [*keys, more]))


def test_other_files_are_told_too(tmp_path: Path, sources: dict[str, Path], files: tuple[Path, Path]):
    assert detect(sources["single"]).name == "single_file"
    assert detect(files[0]).name == "hallo"  # a pickle
    convert_hallo(*files, tmp_path / "base.safetensors", config=TINY)
    assert detect(tmp_path / "base.safetensors") is OURS["hallo_base"]


def test_an_unknown_file_is_refused_with_one_of_its_names(tmp_path: Path):
    path = empty_file(tmp_path / "some.safetensors", ["lora.up", "lora.down"])
    with pytest.raises(CheckpointError, match=r"none of the files that are known here \(2 tensors, for example 'lora"):
        detect(path)


def test_a_folder_is_surveyed(tmp_path: Path):
    (tmp_path / "vae").mkdir()
    vae = empty_file(tmp_path / "vae" / "some.safetensors", manifest("vae"))
    (tmp_path / "config.json").write_text('{"model_type": "wav2vec2"}', encoding="utf-8")
    ears = [empty_file(tmp_path / f"{name}.safetensors", manifest("wav2vec2")) for name in "ab"]
    (tmp_path / "net.pth").write_bytes(b"version https://git-lfs")
    (tmp_path / "readme.md").write_text("no weights", encoding="utf-8")
    found = survey(tmp_path)
    assert found.files == {"wav2vec2": tuple(ears), "autoencoder": (vae,)}
    assert found.unknown == (tmp_path / "net.pth",)
    assert len(found.missing) == 1
    assert "net.pth" in found.missing[0]
    with pytest.raises(CheckpointError, match="is not a folder"):
        survey(tmp_path / "readme.md")


def test_what_is_missing_is_said():
    titles = {kind.name: kind.title for kind in (*KINDS, *OURS.values())}
    assert missing(["hallo", "autoencoder", "wav2vec2"]) == []
    assert missing(["hallo_base", "wav2vec2"]) == []
    assert missing(["hallo"]) == [titles["autoencoder"], titles["wav2vec2"]]
    assert missing(["hallo_base"]) == [titles["wav2vec2"]]
    assert missing(["hallo", "autoencoder"]) == [titles["wav2vec2"]]
    assert missing(["wav2vec2", "hallo"]) == [titles["autoencoder"]]
