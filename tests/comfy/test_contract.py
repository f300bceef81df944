"""What the nodes promise a host, against the recorded APIs of the oldest and the newest one; no ComfyUI needed."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file, save_file

from moee_core.weights.checkpoint import read_header
from moee_core.weights.hallo import convert_hallo

from ..fixtures.hallo_parity import TINY, write_hallo
from ..fixtures.host_double import ROOT, VERSIONS, Described, host, recorded

IDS = {
    "MoEELoadModel",
    "MoEELoadExpert",
    "MoEELoadEmotionEncoders",
    "MoEESamples",
    "MoEEPortrait",
    "MoEESpeech",
    "MoEEEmotion",
    "MoEEEmotionTimeline",
    "MoEEEmotionFromText",
    "MoEEEmotionFromVoice",
    "MoEEActionUnits",
    "MoEEReferenceExpression",
    "MoEEContactSheet",
    "MoEEEffectMeter",
    "MoEEGateViewer",
    "MoEEEmotionToLatents",
    "MoEEConditioning",
    "MoEESampler",
    "MoEEVideoCombine",
    "MoEEFacePoints",
    "MoEEMotionFromSpeech",
    "MoEEMotionFromVideo",
    "MoEELoadMotion",
    "MoEESaveMotion",
    "MoEEEditMotion",
    "MoEESwapMotion",
    "MoEEPlotMotion",
    "MoEERenderMotion",
    "MoEELoadDiceTalk",
    "MoEEDicePrior",
    "MoEESaveDicePrior",
    "MoEEDiceSampler",
    "MoEEDiceConditioning",
    "MoEEShiftedWindows",
    "MoEELoadRIFE",
}
"""Final: a name may be added and never removed (docs/adr/0010)."""

WORKFLOWS = sorted(path.stem for path in (ROOT / "workflows" / "api").glob("*.json"))
NATIVE = {
    "MODEL",
    "VAE",
    "IMAGE",
    "AUDIO",
    "LATENT",
    "VIDEO",
    "CONDITIONING",
    "INT",
    "FLOAT",
    "STRING",
    "COMBO",
    "BOOLEAN",
}
NATIVE |= {"FACE_LANDMARKS", "AUDIO_ENCODER", "AUDIO_ENCODER_OUTPUT", "CLIP_VISION"}
NATIVE |= {"INSIGHTFACE"}  # of other packs
OURS = {
    "MOEE_ENCODERS",
    "MOEE_PORTRAIT",
    "MOEE_SPEECH",
    "MOEE_EMOTION",
    "MOEE_EMOTION_LATENTS",
    "MOEE_FACE",
    "MOEE_MOTION",
    "MOEE_DICE_ENCODERS",
    "MOEE_DICE_PRIOR",
    "MOEE_INTERPOLATION",
}


def load(version: str, models: Path) -> dict[str, tuple[type, Described]]:
    """Node id -> (class, schema)."""
    with host(version, models) as pack:
        extension = asyncio.run(pack.comfy_entrypoint())
        nodes = asyncio.run(extension.get_node_list())
        assert isinstance(nodes, list)
        schemas = [node.define_schema() for node in nodes]
        return {schema.node_id: (node, schema) for node, schema in zip(nodes, schemas, strict=True)}


@pytest.fixture(scope="module", params=VERSIONS)
def nodes(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict:
    return load(request.param, tmp_path_factory.mktemp("models"))


def inputs_of(schema: Described) -> list[Described]:
    """All inputs, with what they wrap and what their options hold."""
    found = []
    for one in schema.inputs:
        found.append(one)
        for option in one.options or []:
            if isinstance(option, Described):
                found += option.inputs
    return found


def name_of(one: Described) -> str:
    return one.id.id if isinstance(one.id, Described) else one.id


def tooltip_of(one: Described) -> str:
    return one.tooltip or (one.id.tooltip if isinstance(one.id, Described) else "")


def test_two_hosts_are_recorded():
    assert VERSIONS[0].startswith("0.14")
    assert len(VERSIONS) >= 2


def test_the_ids_are_final(nodes: dict):
    assert set(nodes) == IDS


def test_each_input_is_explained_and_in_range(nodes: dict):
    for node, schema in nodes.values():
        assert schema.description
        assert schema.display_name
        for one in inputs_of(schema):
            where = f"{schema.node_id}.{name_of(one)}"
            assert len(tooltip_of(one)) > 15, where
            if one.io_type in ("INT", "FLOAT"):
                assert one.min <= one.default <= one.max, where
            if one.io_type == "COMBO":
                assert one.default in one.options, where
        assert node.__doc__ is None or "Returns" not in node.__doc__


def test_execute_takes_the_inputs_by_name(nodes: dict):
    for node, schema in nodes.values():
        wanted = {name_of(one) for one in schema.inputs}
        optional = {name_of(one) for one in schema.inputs if one.optional}
        taken = inspect.signature(node.execute).parameters
        assert set(taken) == wanted, schema.node_id
        defaults = {name for name, parameter in taken.items() if parameter.default is not inspect.Parameter.empty}
        assert defaults == optional, schema.node_id


def test_validation_names_inputs_and_leaves_the_hosts_own_checks_on(nodes: dict):
    for node, schema in nodes.values():
        if not hasattr(node, "validate_inputs"):
            continue
        taken = inspect.signature(node.validate_inputs).parameters
        assert all(parameter.kind is not inspect.Parameter.VAR_KEYWORD for parameter in taken.values())
        assert set(taken) <= {name_of(one) for one in schema.inputs}
        dynamic = {name_of(one) for one in schema.inputs if one.io_type == "COMFY_DYNAMICCOMBO_V3"}
        assert dynamic <= set(taken), "the host hands dynamic groups to every validation"


def test_sockets_are_the_hosts_or_ours(nodes: dict):
    for _, schema in nodes.values():
        for one in schema.outputs:
            assert one.io_type in NATIVE | OURS
        for one in schema.inputs:
            kinds = [kind.io_type for kind in one.types] if one.types else [one.io_type]
            assert set(kinds) <= NATIVE | OURS | {"COMFY_DYNAMICCOMBO_V3"}


def test_each_node_has_a_help_page_and_an_english_entry(nodes: dict):
    english = json.loads((ROOT / "locales" / "en" / "nodeDefs.json").read_text(encoding="utf-8"))
    assert set(english) == IDS
    for name, (_, schema) in nodes.items():
        page = (ROOT / "nodes" / "web" / "docs" / f"{name}.md").read_text(encoding="utf-8")
        assert page.startswith(f"# {schema.display_name}\n"), name
        assert english[name]["display_name"] == schema.display_name
        assert english[name]["description"] == schema.description
        for one in schema.inputs:
            assert english[name]["inputs"][name_of(one)]["tooltip"] == tooltip_of(one), name_of(one)
        assert [entry["name"] for entry in english[name]["outputs"].values()] == [
            one.display_name for one in schema.outputs
        ]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_recorded_host_saw_the_nodes_that_are_here(version: str, tmp_path: Path):
    seen = recorded(version)["nodes"]
    for name, (_, schema) in load(version, tmp_path).items():
        info = seen[name]
        names = [*info["input"].get("required", {}), *info["input"].get("optional", {})]
        assert sorted(names) == sorted(name_of(one) for one in schema.inputs), f"{name}: record the host again"
        assert info["output"] == [one.io_type for one in schema.outputs]
        assert info["output_node"] is bool(schema.is_output_node)


def test_loading_the_pack_touches_nothing(tmp_path: Path):
    load(VERSIONS[-1], tmp_path)
    assert not list(tmp_path.iterdir()), "no folder is made before a user asks for something"


def test_texts_are_judged_before_the_queue_starts(nodes: dict):
    check = nodes["MoEESampler"][0].validate_inputs
    assert check(emotion="happy 0.6 + sad 0.3") is True
    assert check(emotion=None) is True
    assert "hapy" in check(emotion="hapy")
    assert "key 2" in nodes["MoEEEmotionTimeline"][0].validate_inputs(timeline="0 happy; x sad")


@pytest.mark.parametrize("version", VERSIONS)
def test_files_are_listed_and_judged_before_the_queue_starts(version: str, tmp_path: Path):
    (tmp_path / "moee" / "experts").mkdir(parents=True)
    (tmp_path / "moee" / "bogus.safetensors").write_bytes(b"not a model")
    (tmp_path / "moee" / "experts" / "smile.safetensors").write_bytes(b"not an expert")
    with host(version, tmp_path) as pack:
        listed = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
        nodes = {node.define_schema().node_id: node for node in listed}
        model = nodes["MoEELoadModel"]
        choices = model.define_schema().inputs[0].options
        assert choices == ["embedded (ships with the pack)", "bogus.safetensors"]
        assert model.validate_inputs(checkpoint=choices[0]) is True
        assert "bogus.safetensors is not a safetensors file" in model.validate_inputs(checkpoint=choices[1])
        expert = nodes["MoEELoadExpert"]
        choices = expert.define_schema().inputs[1].options
        *shipped, smile, none = choices
        assert smile == str(Path("experts") / "smile.safetensors")
        assert "smile.safetensors is not a safetensors file" in expert.validate_inputs(expert=smile)
        assert all(expert.validate_inputs(expert=choice) is True for choice in (*shipped, none))


@pytest.mark.parametrize("version", VERSIONS)
def test_a_base_and_its_ear_are_listed_and_judged(version: str, tmp_path: Path, hallo_base: Path):
    models = tmp_path / "moee"
    for name, settings in (("wav2vec2", '{"model_type": "wav2vec2"}'), ("hubert", '{"model_type": "hubert"}')):
        (models / "encoders" / name).mkdir(parents=True)
        (models / "encoders" / name / "config.json").write_text(settings, encoding="utf-8")
    (models / "encoders" / "broken").mkdir()
    shutil.copy(hallo_base, models / "base.safetensors")
    state, metadata = load_file(hallo_base), read_header(hallo_base)[1]
    del state["face_locator.conv_in.bias"]
    save_file(state, models / "lacking.safetensors", metadata=metadata)
    with host(version, tmp_path) as pack:
        listed = asyncio.run(asyncio.run(pack.comfy_entrypoint()).get_node_list())
        nodes = {node.define_schema().node_id: node for node in listed}
        loader = nodes["MoEELoadModel"]
        assert loader.define_schema().inputs[2].options == ["none", "wav2vec2"]
        assert loader.validate_inputs(checkpoint="base.safetensors") is True
        assert "'face_locator.conv_in.bias' is missing" in loader.validate_inputs(checkpoint="lacking.safetensors")
        voices = nodes["MoEELoadEmotionEncoders"].define_schema().inputs[2].options
        assert "wav2vec2" not in voices
        assert {"hubert", "broken"} <= set(voices)


@pytest.fixture(scope="module")
def hallo_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A converted base with made-up weights at a small width."""
    folder = tmp_path_factory.mktemp("hallo")
    convert_hallo(*write_hallo(folder / "downloads"), folder / "base.safetensors", config=TINY)
    return folder / "base.safetensors"


@pytest.mark.parametrize("name", WORKFLOWS)
@pytest.mark.parametrize("version", VERSIONS)
def test_workflows_fit_the_nodes(name: str, version: str):
    """Every class known, every required input there, every link of the right type, every choice among the options."""
    known: dict[str, Any] = recorded(version)["nodes"]
    graph = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    core_outputs = {"KSampler": ["LATENT"], "PreviewImage": [], "VAEDecode": ["IMAGE"]}
    for node in graph.values():
        if node["class_type"] not in known:
            assert node["class_type"] in core_outputs
            continue
        info = known[node["class_type"]]["input"]
        required, optional = info.get("required", {}), info.get("optional", {})
        assert set(required) <= set(node["inputs"])
        known_inputs = required | optional
        for key, (kind, options) in list(known_inputs.items()):
            if kind == "COMFY_DYNAMICCOMBO_V3":  # the chosen option's own inputs are called "group.name"
                chosen = next(one for one in options["options"] if one["key"] == node["inputs"][key])
                own = chosen["inputs"].get("required", {}) | chosen["inputs"].get("optional", {})
                assert set(chosen["inputs"].get("required", {})) <= {
                    name.removeprefix(f"{key}.") for name in node["inputs"] if name.startswith(f"{key}.")
                }
                known_inputs |= {f"{key}.{name}": value for name, value in own.items()}
        for key, value in node["inputs"].items():
            kind, options = known_inputs[key]
            if isinstance(value, list):
                source = graph[value[0]]["class_type"]
                outputs = core_outputs.get(source) or known[source]["output"]
                assert outputs[value[1]] in kind.split(","), f"{name}: {key}"
            elif kind == "COMBO":
                assert value in options["options"]
            elif kind in ("INT", "FLOAT"):
                assert options["min"] <= value <= options["max"]


@pytest.mark.parametrize("name", WORKFLOWS)
def test_each_workflow_is_a_template_and_an_api_file(name: str):
    drawn = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    plain = json.loads((ROOT / "workflows" / "api" / f"{name}.json").read_text(encoding="utf-8"))
    assert {str(node["id"]): node["type"] for node in drawn["nodes"]} == {
        key: node["class_type"] for key, node in plain.items()
    }
    links = {link[0]: link for link in drawn["links"]}
    for node in drawn["nodes"]:
        for one in node["inputs"]:
            if one.get("link") is not None:
                _, source, slot, *_ = links[one["link"]]
                assert plain[str(node["id"])]["inputs"][one["name"]] == [str(source), slot]


def test_no_node_file_does_what_the_registry_forbids():
    for path in (ROOT / "nodes").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(?<![.\w])(eval|exec)\(|subprocess|os\.system|pip install", text), path.name
