"""What is changed between two runs inside a real ComfyUI. Needs what ``test_in_host.py`` needs.

``in_host_dice_changes.py`` holds what is done there; here is what must come of it.
"""

from __future__ import annotations

from typing import Any

import pytest

from .test_in_host import HOST, in_host
from .test_in_host_dice import prepared

pytestmark = [pytest.mark.comfy, pytest.mark.skipif(not HOST, reason="COMFYUI_PATH names no checkout")]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_host(prepared(tmp_path_factory.mktemp("told")), "dice", "told", seconds=1200)


@pytest.fixture(scope="module")
def changes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return in_host(prepared(tmp_path_factory.mktemp("changes")), "dice", "changes", seconds=1200)


def test_samplers_in_the_direction_of_the_unconditional_branch_run(told: dict[str, Any]):
    assert len(told["samplers"]) >= 6
    for name, (finite, spread) in told["samplers"].items():
        assert finite, name
        assert 0.2 < spread / told["euler"] < 5, name
    assert told["guided"] > 1e-4, "another direction is another clip"
    assert told["nobody alone"] < 1e-5, "where only the unconditional branch weighs it is Euler's own step"
    assert told["passes without guidance"] == 2, "everything, and the branch that knows nothing"


def test_functions_behind_guidance_are_called_as_the_host_does(told: dict[str, Any]):
    seen = told["seen"]
    wanted = {"denoised", "cond", "uncond", "cond_scale", "model", "uncond_denoised", "cond_denoised", "sigma"}
    assert set(seen["keys"]) == wanted | {"model_options", "input"}
    assert seen["half"] < 1e-4, "what they give back is what is sampled with"
    assert seen["frames"] == [8, 1, 1], "one step has no padding"
    assert seen["scale"] == 3.0
    assert seen["finite"]
    assert seen["chain"] > 1e-6, "the chain has a branch between the two"


def test_the_talking_portrait_sampler_tells_them_too(told: dict[str, Any]):
    for scales in ("(1.0, 1.0)", "(1.0, 1.5)", "(1.3, 1.5)"):
        finite, spread, away = told["portrait"][scales]
        assert finite
        assert 0.2 < spread < 5
        assert away > 1e-3
    assert told["portrait"]["savings"]


def test_a_cache_on_the_model_is_another_job(told: dict[str, Any]):
    never, often, again = told["portrait"]["calls"]
    assert never > often > 0
    assert again == 0, "the same cache finds its job"


def test_a_finished_clip_is_taken_where_nothing_changed_and_only_there(changes: dict[str, Any]):
    assert changes["at first"]
    assert not changes["again"]
    assert not changes["a clone"]
    assert changes["windows"][:4] == [True, True, False, False]
    assert changes["windows"][4] > 1e-4
    assert changes["caches"] == [True, True, False]
    assert changes["carried"] == [True, True, False, True, True]
    assert changes["not to be told"] == [True, True]


def test_the_handler_of_a_model_stays_as_it_was(changes: dict[str, Any]):
    assert changes["own windows"] == [True, False]
    assert changes["left on it"] == []


def test_what_is_no_number_is_an_error_and_not_kept(changes: dict[str, Any]):
    assert "came out of the sampler as NaN or infinite" in changes["no numbers"]["said"]
    assert changes["no numbers"]["kept"] == 0


def test_a_model_and_encoders_of_two_files_are_refused(changes: dict[str, Any]):
    assert "model and encoders are of different DICE-Talk files" in changes["mixed"]


def test_a_prior_that_was_put_there_after_the_error_is_found(changes: dict[str, Any]):
    """Nothing is loaded anew for it; and a graph that saves a prior is at rest after it has."""
    missing, there, rested, again, written = changes["priors"]["runs"]
    assert not missing[0]
    assert "models/moee/dice_talk/priors" in missing[1][0]
    assert (there[0], there[3]) == (True, 2.0)
    assert "1" in there[2], "the model stays loaded"
    assert rested[0]
    assert set(again[2]) == {"1", "2", "3"}
    assert (written[0], written[3]) == (True, 3.0)
