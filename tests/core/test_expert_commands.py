"""``python -m moee_core experts extract | merge``: what is taken out and put in adds up, and nothing is ever lost."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from moee_core.__main__ import main
from moee_core.emotion.vocabulary import EXPERTS
from moee_core.experts.file import (
    MAX_CARD,
    MAX_PREVIEW,
    expert_deltas,
    load_expert,
    save_expert,
)
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import load_parts, load_system, read_header, save_system, state_hash

from ..fixtures.tiny import tiny_system

HAPPY, SAD = EXPERTS.index("happy"), EXPERTS.index("sad")
HALF_STEP = 2.0**-10  # of a half-precision number, relative


@dataclass(frozen=True, kw_only=True)
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


def caller(capsys: pytest.CaptureFixture[str]) -> Command:
    def call(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main(["experts", *map(str, arguments)])
        out, err = capsys.readouterr()
        return Outcome(code=code, out=out, err=err)

    return call


def change(system: MoEESystem, part: str, spread: float, seed: int) -> None:
    """Move the parameters whose name has ``part``: each by a factor of 1 ± ``spread`` at most, and a little."""
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, value in system.named_parameters():
            if part in key:
                value.mul_(1 + spread * (2 * torch.rand(value.shape, generator=random) - 1))


def save_models(folder: Path) -> Path:
    """base; happy, sad: one expert changed within a factor of 2; far: happy changed wholly; both; more; other."""

    def save(name: str, *changes: tuple[str, float, int], seed: int = 0, data: str = "none") -> None:
        system = tiny_system(seed)
        for one in changes:
            change(system, *one)
        about = {"licence": "CC0-1.0", "data_licence": data, "domain": '{"reconstruction_error": 7.5}'}
        save_system(folder / f"{name}.safetensors", system, metadata=about)

    happy, sad = (f".emotion.experts.{HAPPY}.", 0.4, 1), (f".emotion.experts.{SAD}.", 0.4, 2)
    save("base")
    save("happy", happy, data="smiles")
    save("sad", sad)
    save("far", (f".emotion.experts.{HAPPY}.", 30.0, 3))
    save("both", happy, sad)
    save("more", happy, ("audio_projector.", 0.1, 4))
    save("other", seed=5)
    return folder


def save_experts(models: Path, folder: Path) -> Path:
    """smile, grin (happy) and frown (sad) of ``base``; elsewhere.safetensors is of another one."""
    base = denoiser(models / "base.safetensors")
    for name, emotion, model in (("smile", "happy", "happy"), ("grin", "happy", "far"), ("frown", "sad", "sad")):
        deltas = expert_deltas(denoiser(models / f"{model}.safetensors"), base, emotion)
        about = {"licence": "CC0-1.0" if name != "grin" else "MIT", "author": "Mira", "own": "kept"}
        save_expert(folder / f"{name}.safetensors", emotion, state_hash(base), deltas, about)
        if name == "smile":
            save_expert(folder / "elsewhere.safetensors", emotion, "0123456789abcdef", deltas)
    return folder


@pytest.fixture
def experts(capsys: pytest.CaptureFixture[str]) -> Command:
    return caller(capsys)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def made(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_experts(models, tmp_path_factory.mktemp("made"))


def denoiser(path: Path) -> dict[str, Tensor]:
    return load_parts(path)[0]["denoiser"]


def hash_of(path: Path) -> str:
    return state_hash(denoiser(path))


def picture(path: Path, height: int, width: int, *, noise: bool = False) -> Path:
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (height, width, 3), np.uint8) if noise else np.full((height, width, 3), 90, np.uint8)
    cv2.imwrite(str(path), image)
    return path


def refuses(outcome: Outcome, *says: str) -> None:
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) == 1
    for text in says:
        assert text in outcome.err


def only(folder: Path, *names: str) -> None:
    """No other file, above all no unfinished one, is in the folder."""
    assert {path.name for path in folder.iterdir()} == set(names)


# extract and merge --into


def test_extracted_and_merged_into_its_base_an_expert_is_the_tuned_model(
    models: Path, tmp_path: Path, experts: Command
):
    """Where values change by less than a factor of two their difference is a half-precision number: bit for bit."""
    base, tuned, smile = models / "base.safetensors", models / "happy.safetensors", tmp_path / "smile.safetensors"
    outcome = experts("extract", tuned, "--base", base, "--emotion", "happy", "-o", smile)
    assert outcome.code == 0, outcome.err
    assert hash_of(base) in outcome.out
    expert = load_expert(smile)
    assert (expert.emotion, expert.base) == ("happy", hash_of(base))
    assert (expert.metadata["licence"], expert.metadata["data_licence"]) == ("CC0-1.0", "smiles")
    again = tmp_path / "again.safetensors"
    assert experts("merge", smile, "--into", base, "-o", again).code == 0
    expected, found = load_file(tuned), load_file(again)
    assert found.keys() == expected.keys()
    assert all(found[key].dtype == torch.float16 for key in found)
    assert all(torch.equal(found[key], expected[key]) for key in expected)
    assert hash_of(again) == hash_of(tuned)


def test_a_large_change_is_reproduced_to_half_precision(models: Path, tmp_path: Path, experts: Command):
    base, tuned = models / "base.safetensors", models / "far.safetensors"
    grin, again = tmp_path / "grin.safetensors", tmp_path / "again.safetensors"
    assert experts("extract", tuned, "--base", base, "--emotion", "happy", "-o", grin).code == 0
    assert experts("merge", grin, "--into", base, "-o", again).code == 0
    before, expected, found = load_file(base), load_file(tuned), load_file(again)
    for key, value in expected.items():
        step = HALF_STEP * torch.maximum(value.float().abs(), before[key].float().abs()).clamp_min(2.0**-14)
        assert ((found[key].float() - value.float()).abs() <= step).all(), key


def test_any_emotions_go_into_one_checkpoint_that_says_so(models: Path, made: Path, tmp_path: Path, experts: Command):
    both = tmp_path / "both.safetensors"
    outcome = experts(
        "merge",
        made / "smile.safetensors",
        made / "frown.safetensors",
        "--into",
        models / "base.safetensors",
        "-o",
        both,
    )
    assert outcome.code == 0, outcome.err
    expected = load_file(models / "both.safetensors")
    assert all(torch.equal(value, expected[key]) for key, value in load_file(both).items())
    system, info = load_system(both)
    assert system.config.unet.experts == len(EXPERTS)
    assert info.domain == {"reconstruction_error": 7.5}
    merged = json.loads(info.metadata["merged_experts"])
    assert [one["into"] for one in merged] == [hash_of(models / "base.safetensors")]
    assert [(part["file"], part["weight"]) for part in merged[0]["parts"]] == [
        ("smile.safetensors", 1.0),
        ("frown.safetensors", 1.0),
    ]
    assert info.metadata["licence"] == "CC0-1.0"
    assert info.metadata["data_licence"] == "none + unstated"


def test_a_second_merge_into_a_checkpoint_keeps_the_first_in_its_metadata(
    models: Path, made: Path, tmp_path: Path, experts: Command
):
    once, own, twice = (tmp_path / f"{name}.safetensors" for name in ("once", "own", "twice"))
    assert experts("merge", made / "smile.safetensors", "--into", models / "base.safetensors", "-o", once).code == 0
    frown = load_expert(made / "frown.safetensors")
    save_expert(own, "sad", hash_of(once), frown.deltas)
    assert experts("merge", own, "--into", once, "-o", twice).code == 0
    merged = json.loads(read_header(twice)[1]["merged_experts"])
    assert [one["parts"][0]["file"] for one in merged] == ["smile.safetensors", "own.safetensors"]


def test_into_another_model_is_refused(models: Path, made: Path, tmp_path: Path, experts: Command):
    out = tmp_path / "out.safetensors"
    other = models / "other.safetensors"
    refuses(experts("merge", made / "smile.safetensors", "--into", other, "-o", out), "trained from another model")
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes((models / "base.safetensors").read_bytes()[:-2])
    refuses(experts("merge", made / "smile.safetensors", "--into", cut, "-o", out), "cut.safetensors is damaged")
    missing = tmp_path / "missing.safetensors"
    save_file({"x": torch.zeros(1)}, str(missing), metadata=read_header(models / "base.safetensors")[1])
    refuses(experts("merge", made / "smile.safetensors", "--into", missing, "-o", out), "do not fit")
    only(tmp_path, "cut.safetensors", "missing.safetensors")


def test_what_would_overflow_a_checkpoint_is_refused(models: Path, tmp_path: Path, experts: Command):
    base = models / "base.safetensors"
    shapes = {key.replace(f"experts.{HAPPY}", "expert"): value for key, value in denoiser(base).items()}
    deltas = {key: torch.full_like(value, 6e4) for key, value in shapes.items() if ".emotion.expert." in key}
    huge, out = tmp_path / "huge.safetensors", tmp_path / "out.safetensors"
    save_expert(huge, "happy", hash_of(base), deltas)
    refuses(experts("merge", f"{huge}:2", "--into", base, "-o", out), "too large for float16")
    refuses(experts("merge", f"{huge}:2", "-o", out), "too large for float16")
    bad = {key: torch.full_like(value, float("nan")) for key, value in deltas.items()}
    save_file(bad, str(tmp_path / "bad.safetensors"), metadata=load_expert(huge).metadata)
    refuses(experts("merge", tmp_path / "bad.safetensors", "--into", base, "-o", out), "not finite", "bad.safetensors")
    assert not out.exists()


def test_everything_given_to_extract_is_in_the_file(models: Path, tmp_path: Path, experts: Command):
    card = {"instrument": "faces-2", "people": 50, "emotion": 0.96}
    (tmp_path / "card.json").write_text(json.dumps(card), encoding="utf-8")
    out = tmp_path / "smile.safetensors"
    outcome = experts(
        *(
            "extract",
            models / "happy.safetensors",
            "--base",
            models / "base.safetensors",
            "--emotion",
            "joy",
            "-o",
            out,
        ),
        *("--licence", "CC-BY-4.0", "--data-licence", "own recordings", "--name", "Wärme", "--author", "Mira"),
        *("--note", "soft", "--preview", picture(tmp_path / "face.png", 300, 600), "--card", tmp_path / "card.json"),
    )
    assert outcome.code == 0, outcome.err
    expert = load_expert(out)
    stated = {key: expert.metadata[key] for key in ("licence", "data_licence", "name", "author", "note")}
    assert list(stated.values()) == ["CC-BY-4.0", "own recordings", "Wärme", "Mira", "soft"]
    assert expert.emotion == "happy"
    assert expert.card() == card
    data = expert.preview()
    assert data is not None
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (128, 256, 3)


def test_a_preview_is_small_whatever_the_picture(models: Path, made: Path, tmp_path: Path, experts: Command):
    noise = picture(tmp_path / "noise.png", 400, 400, noise=True)
    out = tmp_path / "out.safetensors"
    assert experts("merge", made / "smile.safetensors", "-o", out, "--preview", noise).code == 0
    data = load_expert(out).preview()
    assert data is not None
    assert len(data) <= MAX_PREVIEW
    small = picture(tmp_path / "small.png", 40, 50)
    assert experts("merge", made / "smile.safetensors", "-o", out, "--preview", small, "--force").code == 0
    data = load_expert(out).preview()
    assert data is not None
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (40, 50, 3)  # never enlarged


def test_extract_refuses_models_that_differ_elsewhere(models: Path, tmp_path: Path, experts: Command):
    arguments = ("extract", models / "more.safetensors", "--base", models / "base.safetensors", "--emotion", "happy")
    out = tmp_path / "out.safetensors"
    refuses(experts(*arguments, "-o", out), "would not reproduce the tuned model", "--force", "audio_projector.")
    assert not out.exists()
    outcome = experts(*arguments, "-o", out, "--force")
    assert outcome.code == 0
    assert outcome.err.startswith("warning: the expert alone does not reproduce")
    assert "audio_projector." in outcome.err
    arguments = ("extract", models / "both.safetensors", "--base", models / "base.safetensors", "--emotion", "happy")
    refuses(experts(*arguments, "-o", tmp_path / "b.safetensors"), f"emotion.experts.{SAD}.")


def test_extract_refuses_another_configuration(models: Path, tmp_path: Path, experts: Command):
    system = load_system(models / "happy.safetensors")[0]
    system.config = replace(system.config, fps=30.0)
    save_system(tmp_path / "fps.safetensors", system)
    arguments = ("extract", tmp_path / "fps.safetensors", "--base", models / "base.safetensors", "--emotion", "happy")
    refuses(experts(*arguments, "-o", tmp_path / "out.safetensors"), "anyway): their configuration")


def test_extract_refuses_a_model_with_one_attention_for_all(models: Path, tmp_path: Path, experts: Command):
    config = tiny_system().config
    save_system(tmp_path / "one.safetensors", MoEESystem(replace(config, unet=replace(config.unet, experts=1))))
    one, base, out = tmp_path / "one.safetensors", models / "base.safetensors", tmp_path / "out.safetensors"
    for tuned, before in ((one, base), (base, one)):
        refuses(experts("extract", tuned, "--base", before, "--emotion", "angry", "-o", out, "--force"), "6 experts")


def test_extract_refuses_when_nothing_was_learned(models: Path, tmp_path: Path, experts: Command):
    arguments = (
        "extract",
        models / "happy.safetensors",
        "--base",
        models / "base.safetensors",
        "-o",
        tmp_path / "o.safetensors",
    )
    refuses(experts(*arguments, "--emotion", "sad"), "nothing to extract", "changed: happy")
    same = (models / "base.safetensors", "--base", models / "base.safetensors", "-o", tmp_path / "o.safetensors")
    refuses(experts("extract", *same, "--emotion", "sad"), "nothing to extract", "changed: none")


@pytest.mark.parametrize(
    ("emotion", "says"),
    [("neutral", "no expert for 'neutral'"), ("happily_surprised", "no expert for"), ("hapy", "happy")],
)
def test_only_the_six_have_experts(models: Path, made: Path, tmp_path: Path, experts: Command, emotion: str, says: str):
    models_ = (models / "happy.safetensors", "--base", models / "base.safetensors")
    refuses(experts("extract", *models_, "--emotion", emotion, "-o", tmp_path / "o.safetensors"), says)
    refuses(experts("merge", made / "smile.safetensors", "--emotion", emotion, "-o", tmp_path / "o.safetensors"), says)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[1, 2]", "not a JSON object"),
        ("{", "is not JSON"),
        ('{"a": NaN}', "not a finite number"),
        ('{"a": 1e999}', "not a finite number"),
        ('{"a": ' + "[" * 20 + "]" * 20 + "}", "levels deep"),
        ("[" * 8000, "is not JSON"),
        ('{"a": "' + "x" * MAX_CARD + '"}', "at most 8192"),
        (None, "cannot be read"),
        (b"\xff\xfe\x00", "not UTF-8"),
    ],
)
def test_an_impossible_card_is_refused(
    made: Path, tmp_path: Path, experts: Command, text: str | bytes | None, says: str
):
    if text is not None:
        (tmp_path / "card.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    smile, out = made / "smile.safetensors", tmp_path / "out.safetensors"
    outcome = experts("merge", smile, "-o", out, "--card", tmp_path / "card.json")
    refuses(outcome, says, "card.json")
    assert not out.exists()


def test_what_is_no_picture_is_no_preview(made: Path, tmp_path: Path, experts: Command):
    (tmp_path / "letter.png").write_text("a letter")
    out = tmp_path / "out.safetensors"
    refuses(experts("merge", made / "smile.safetensors", "-o", out, "--preview", tmp_path / "letter.png"), "letter.png")
    assert not out.exists()


# merge


def test_weights_add_up(made: Path, tmp_path: Path, experts: Command):
    smile, grin = load_expert(made / "smile.safetensors"), load_expert(made / "grin.safetensors")
    out = tmp_path / "out.safetensors"
    outcome = experts("merge", f"{made / 'smile.safetensors'}:0.5", f"{made / 'grin.safetensors'}:-1.25", "-o", out)
    assert outcome.code == 0, outcome.err
    assert "smile.safetensors × 0.5, grin.safetensors × -1.25" in outcome.out
    found = load_expert(out)
    assert (found.emotion, found.base) == ("happy", smile.base)
    assert found.deltas.keys() == smile.deltas.keys()
    for key, value in found.deltas.items():
        assert torch.equal(value, (smile.deltas[key].float() * 0.5 + grin.deltas[key].float() * -1.25).half())
    assert found.metadata["licence"] == "CC0-1.0 + MIT"
    assert found.metadata["author"] == "Mira"
    assert found.metadata["own"] == "kept"  # both say so
    weights = {part["file"]: part["weight"] for part in json.loads(found.metadata["parts"])}
    assert weights == {"smile.safetensors": 0.5, "grin.safetensors": -1.25}


def test_a_file_taken_twice_counts_twice_and_cancels_itself(made: Path, tmp_path: Path, experts: Command):
    smile, out = made / "smile.safetensors", tmp_path / "out.safetensors"
    assert experts("merge", smile, f"{smile}:1", "-o", out).code == 0
    single = load_expert(smile).deltas
    assert all(torch.equal(value, 2 * single[key]) for key, value in load_expert(out).deltas.items())
    assert experts("merge", smile, f"{smile}:-1", "-o", out, "--force").code == 0
    assert all(not value.any() for value in load_expert(out).deltas.values())


def test_parts_of_parts_are_named_with_their_weight_in_the_whole(made: Path, tmp_path: Path, experts: Command):
    pair, out = tmp_path / "pair.safetensors", tmp_path / "out.safetensors"
    names = [f"{made / 'smile.safetensors'}:0.5", made / "grin.safetensors"]
    assert experts("merge", *names, "-o", pair, "--name", "Pair", "--author", "Noor").code == 0
    assert experts("merge", f"{pair}:-0.5", made / "smile.safetensors", "-o", out).code == 0
    header = load_expert(out).metadata
    parts = [(part["file"], part["weight"], part["licence"]) for part in json.loads(header["parts"])]
    assert parts == [
        ("smile.safetensors", -0.25, "CC0-1.0"),
        ("grin.safetensors", -0.5, "MIT"),
        ("smile.safetensors", 1.0, "CC0-1.0"),
    ]
    assert header["licence"] == "CC0-1.0 + MIT"  # nothing twice
    assert load_expert(pair).metadata["author"] == "Noor"
    assert "name" not in header  # the parts do not agree on one


@pytest.mark.parametrize(
    "parts", ["{}", "[", "[1]", '[{"weight": "2"}]', '[{"weight": 1e300}]', '[{"weight": true, "x": []}]']
)
def test_anybodys_record_of_parts_does_no_harm(made: Path, tmp_path: Path, experts: Command, parts: str):
    smile = load_expert(made / "smile.safetensors")
    save_expert(tmp_path / "odd.safetensors", "happy", smile.base, smile.deltas, {"parts": parts})
    assert experts("merge", f"{tmp_path / 'odd.safetensors'}:2", "-o", tmp_path / "out.safetensors").code == 0
    found = json.loads(load_expert(tmp_path / "out.safetensors").metadata["parts"])
    assert [part["weight"] for part in found] == [2.0]


def test_a_single_unchanged_expert_keeps_its_preview_and_card(made: Path, tmp_path: Path, experts: Command):
    shown, out = tmp_path / "shown.safetensors", tmp_path / "out.safetensors"
    (tmp_path / "card.json").write_text('{"people": 5}')
    face = picture(tmp_path / "face.png", 64, 64)
    given = ("--preview", face, "--card", tmp_path / "card.json", "--name", "Smile")
    assert experts("merge", made / "smile.safetensors", "-o", shown, *given).code == 0
    assert experts("merge", shown, "-o", out, "--note", "copied").code == 0
    assert load_expert(out).card() == {"people": 5}
    assert load_expert(out).preview() is not None
    assert (load_expert(out).metadata["name"], load_expert(out).metadata["own"]) == ("Smile", "kept")
    for change_ in ((f"{shown}:0.5",), (shown, "--emotion", "sad"), (shown, made / "grin.safetensors")):
        assert experts("merge", *change_, "-o", out, "--force").code == 0
        assert load_expert(out).card() == {}
        assert load_expert(out).preview() is None


def test_a_relabelled_expert_lands_in_the_other_experts_keys(
    models: Path, made: Path, tmp_path: Path, experts: Command
):
    sad, model = tmp_path / "sad.safetensors", tmp_path / "model.safetensors"
    assert experts("merge", made / "smile.safetensors", "--emotion", "sadness", "-o", sad).code == 0
    assert load_expert(sad).emotion == "sad"
    assert json.loads(load_expert(sad).metadata["parts"])[0]["emotion"] == "happy"
    base = denoiser(models / "base.safetensors")
    direct = ("merge", made / "smile.safetensors", "--emotion", "sad", "--into", models / "base.safetensors")
    for command in (("merge", sad, "--into", models / "base.safetensors"), direct):
        assert experts(*command, "-o", model, "--force").code == 0
        found = denoiser(model)
        assert {key for key in base if not torch.equal(base[key], found[key])} == {
            key for key in base if f".emotion.experts.{SAD}." in key
        }
        smile = load_expert(made / "smile.safetensors").for_denoiser("sad")
        for key, value in smile.items():
            assert torch.equal(found[key], (base[key].float() + value.float()).half())


def test_emotions_are_mixed_only_when_it_is_said_for_which(made: Path, tmp_path: Path, experts: Command):
    names, out = (made / "smile.safetensors", made / "frown.safetensors"), tmp_path / "out.safetensors"
    refuses(experts("merge", *names, "-o", out), "'happy' and 'sad'", "--emotion", "--into")
    assert not out.exists()
    assert experts("merge", *names, "-o", out, "--emotion", "sad").code == 0
    smile, frown = (load_expert(name).deltas for name in names)
    for key, value in load_expert(out).deltas.items():
        assert torch.equal(value, (smile[key].float() + frown[key].float()).half())


def test_bases_are_never_mixed(made: Path, tmp_path: Path, experts: Command):
    out = tmp_path / "out.safetensors"
    refuses(
        experts("merge", made / "smile.safetensors", made / "elsewhere.safetensors", "-o", out),
        "smile.safetensors",
        "elsewhere.safetensors",
        "'0123456789abcdef'",
        "one base",
    )
    nameless = tmp_path / "nameless.safetensors"
    save_expert(nameless, "happy", "", load_expert(made / "smile.safetensors").deltas)
    refuses(experts("merge", nameless, nameless, "-o", out), "unknown")


def test_experts_of_one_base_and_other_shapes_are_refused(made: Path, tmp_path: Path, experts: Command):
    smile = load_expert(made / "smile.safetensors")
    wide = {key: torch.zeros(*value.shape, 2) for key, value in smile.deltas.items()}
    save_expert(tmp_path / "wide.safetensors", "happy", smile.base, wide)
    out = tmp_path / "out.safetensors"
    refuses(experts("merge", made / "smile.safetensors", tmp_path / "wide.safetensors", "-o", out), "wide.safetensors:")


@pytest.mark.parametrize("weight", ["2.01", "-3", "nan", "inf", "-inf", "1e400"])
def test_a_weight_beyond_two_is_refused_with_the_reason(made: Path, tmp_path: Path, experts: Command, weight: str):
    out = tmp_path / "out.safetensors"
    refuses(experts("merge", f"{made / 'smile.safetensors'}:{weight}", "-o", out), "from -2 to 2", "trained at 1")
    assert not out.exists()


def test_a_colon_may_be_part_of_a_path(made: Path, tmp_path: Path, experts: Command):
    out = tmp_path / "out.safetensors"
    refuses(experts("merge", f"{made / 'smile.safetensors'}:strong", "-o", out), "'strong' is not a weight", "FILE:0.5")
    refuses(experts("merge", r"C:\missing.safetensors", "-o", out), "missing.safetensors")
    if os.name == "posix":
        named = tmp_path / "take:2"
        named.write_bytes((made / "smile.safetensors").read_bytes())
        assert experts("merge", named, "-o", out).code == 0
        assert json.loads(load_expert(out).metadata["parts"])[0]["weight"] == 1.0
        assert experts("merge", f"{named}:0.5", "-o", out, "--force").code == 0
        assert json.loads(load_expert(out).metadata["parts"])[0]["weight"] == 0.5


@pytest.mark.parametrize("option", ["name", "author", "note", "preview", "card"])
def test_a_checkpoint_takes_no_experts_description(
    models: Path, made: Path, tmp_path: Path, experts: Command, option: str
):
    out = tmp_path / "out.safetensors"
    command = ("merge", made / "smile.safetensors", "--into", models / "base.safetensors", "-o", out)
    refuses(experts(*command, f"--{option}", "x"), f"--{option} describes an expert")


# nothing is lost


def test_an_existing_file_is_replaced_only_with_force(models: Path, made: Path, tmp_path: Path, experts: Command):
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"mine")
    extract = ("extract", models / "happy.safetensors", "--base", models / "base.safetensors", "--emotion", "happy")
    into = ("merge", made / "smile.safetensors", "--into", models / "base.safetensors")
    for command in (extract, ("merge", made / "smile.safetensors"), into):
        refuses(experts(*command, "-o", out), "exists", "--force")
        assert out.read_bytes() == b"mine"
        assert experts(*command, "-o", out, "--force").code == 0
        assert out.stat().st_size > 100
        out.write_bytes(b"mine")
    only(tmp_path, "out.safetensors")


def test_a_file_that_is_read_is_never_written(models: Path, made: Path, tmp_path: Path, experts: Command):
    smile = tmp_path / "smile.safetensors"
    smile.write_bytes((made / "smile.safetensors").read_bytes())
    before = smile.read_bytes()
    refuses(experts("merge", f"{smile}:0.5", "-o", smile, "--force"), "one of the files to read")
    base = tmp_path / "base.safetensors"
    base.write_bytes((models / "base.safetensors").read_bytes())
    refuses(experts("merge", smile, "--into", base, "-o", base, "--force"), "one of the files to read")
    extract = ("extract", models / "happy.safetensors", "--base", base, "--emotion", "happy", "-o", base, "--force")
    refuses(experts(*extract), "one of the files to read")
    assert smile.read_bytes() == before
    assert base.read_bytes() == (models / "base.safetensors").read_bytes()


@pytest.mark.parametrize("name", ["missing/out.safetensors", "out.ckpt", "."])
def test_an_impossible_output_is_refused_before_anything_is_read(tmp_path: Path, experts: Command, name: str):
    refuses(experts("merge", tmp_path / "not_there.safetensors", "-o", tmp_path / name), "output")


@pytest.mark.parametrize("where", ["safetensors.torch.save_file", "os.replace"])
def test_a_failed_write_leaves_the_old_file(
    models: Path, made: Path, tmp_path: Path, experts: Command, monkeypatch: pytest.MonkeyPatch, where: str
):
    out = tmp_path / "out.safetensors"
    out.write_bytes(b"mine")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(where, full)
    for more in ((), ("--into", models / "base.safetensors")):
        refuses(experts("merge", made / "smile.safetensors", *more, "-o", out, "--force"), "No space left", "out.safe")
    assert out.read_bytes() == b"mine"
    only(tmp_path, "out.safetensors")
