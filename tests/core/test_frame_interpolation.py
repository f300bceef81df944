"""RIFE's network, its loader and twice as many frames, with made-up weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moee_core.errors import CheckpointError
from moee_core.networks.frame_interpolation import FrameInterpolator, Slopes, read_at
from moee_core.ops import Build
from moee_core.video.interpolate import count_before, doubled, drawn_frames, heard_frames
from moee_core.weights.rife import PREFIX, TEACHER, load_rife, rife_shapes


def weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """By a rule: matrices keep the size of what goes through, numbers per channel are small."""
    made = torch.Generator().manual_seed(5)
    return {
        key: torch.randn(shape, generator=made) * (shape[1:].numel() ** -0.5 if len(shape) > 1 else 0.1)
        for key, shape in ((key, torch.Size(shape)) for key, shape in shapes.items())
    }


@pytest.fixture(scope="module")
def network() -> FrameInterpolator:
    """Of eight channels instead of ninety."""
    found = FrameInterpolator(8, Build())
    found.load_state_dict(weights({key: tuple(value.shape) for key, value in found.state_dict().items()}))
    return found.eval().requires_grad_(False)


@pytest.fixture
def still() -> FrameInterpolator:
    """It sees no motion and prefers nobody."""
    found = FrameInterpolator(8, Build())
    for parameter in found.parameters():
        nn.init.zeros_(parameter)
    return found.eval().requires_grad_(False)


def pictures(*size: int) -> tuple[Tensor, Tensor]:
    made = torch.Generator().manual_seed(6)
    return torch.rand(1, 3, *size, generator=made), torch.rand(1, 3, *size, generator=made)


# ---- the network ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 96), (32, 32), (37, 50), (1, 3)])
def test_a_middle_frame_has_the_size_of_the_others(network: FrameInterpolator, size: tuple[int, int]):
    found = network.middle(*pictures(*size))
    assert found.shape == (1, 3, *size)
    assert found.min() >= 0
    assert found.max() <= 1


def test_other_sizes_are_continued_by_their_edges(network: FrameInterpolator):
    a, b = pictures(37, 50)
    wider = [F.pad(one, (0, 14, 0, 27), mode="replicate") for one in (a, b)]
    assert torch.equal(network.middle(a, b), network.middle(wider[0], wider[1])[..., :37, :50])


def test_both_directions_have_one_middle(network: FrameInterpolator):
    a, b = pictures(32, 64)
    torch.testing.assert_close(network.middle(a, b), network.middle(b, a), rtol=0, atol=1e-5)


def test_pairs_do_not_see_each_other(network: FrameInterpolator):
    a, b = pictures(32, 64)
    both = network.middle(torch.cat([a, b]), torch.cat([b, b]))
    torch.testing.assert_close(both[:1], network.middle(a, b), rtol=0, atol=1e-5)
    torch.testing.assert_close(both[1:], network.middle(b, b), rtol=0, atol=1e-5)


def test_an_even_grey_stays_as_it_is(network: FrameInterpolator):
    grey = torch.full((1, 3, 32, 32), 0.3)
    torch.testing.assert_close(network.middle(grey, grey), grey, rtol=0, atol=1e-6)


def test_without_motion_the_middle_is_the_mean(still: FrameInterpolator):
    a, b = pictures(33, 40)
    torch.testing.assert_close(still.middle(a, b), (a + b) / 2, rtol=0, atol=2e-5)
    torch.testing.assert_close(still.middle(a, a), a, rtol=0, atol=2e-5)


def test_every_scale_adds_to_the_flow_in_whole_pixels(still: FrameInterpolator):
    """One pixel at a quarter, half and full size is 4 + 2 + 1 pixels. What is the same for both pictures does not
    cancel: both are read seven to the right and one below."""
    for block in still.blocks:
        block.to_flow.conv_out.bias.copy_(torch.tensor([1.0, 1 / 7, 1.0, 1 / 7]))  # type: ignore[union-attr,operator]
    a, b = pictures(64, 64)
    found = still.middle(a, b)
    expected = (a + b)[..., 1:40, 7:40] / 2
    torch.testing.assert_close(found[..., :39, :33], expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        found[..., :39, 60:], (a + b)[..., 1:40, -1:].expand(-1, -1, -1, 4) / 2, rtol=0, atol=1e-4
    )


def test_a_picture_is_read_between_its_pixels():
    ramp = torch.arange(8.0).expand(1, 1, 4, 8)
    flow = torch.zeros(1, 2, 4, 8)
    flow[:, 0] = 0.25
    torch.testing.assert_close(read_at(ramp, flow)[0, 0, 2], torch.tensor([*(v + 0.25 for v in range(7)), 7.0]))
    flow[:, 0] = -100
    assert read_at(ramp, flow).max() == 0, "beyond the edge is the edge"


def test_slopes_are_those_of_prelu():
    ours, theirs = Slopes(5, Build()), nn.PReLU(5)
    numbers = torch.linspace(-1, 1, 5)
    ours.below.weight.data[0], theirs.weight.data = numbers, numbers.clone()
    x = torch.randn(2, 5, 3, 4)
    assert torch.equal(ours(x), theirs(x))


def test_every_weight_is_in_a_leaf_a_host_can_stream(network: FrameInterpolator):
    owners = [one for one in network.modules() if any(True for _ in one.parameters(recurse=False))]
    assert {type(one) for one in owners} == {nn.Conv2d, nn.ConvTranspose2d, nn.Embedding}


def test_half_precision_is_near(network: FrameInterpolator):
    a, b = pictures(32, 32)
    half = FrameInterpolator(8, Build(dtype=torch.bfloat16))
    half.load_state_dict(network.state_dict())
    with torch.no_grad():
        found = half.middle(a.bfloat16(), b.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found.float() - network.middle(a, b)).abs().mean() < 0.05


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 4, 32, 32), (1, 3, 0, 32)])
def test_other_shapes_are_refused(network: FrameInterpolator, shape: tuple[int, ...]):
    with pytest.raises(ValueError, match="a middle frame needs two pictures"):
        network.middle(torch.zeros(shape), torch.zeros(shape))
    with pytest.raises(ValueError, match="of one size"):
        network.middle(torch.zeros(1, 3, 32, 32), torch.zeros(1, 3, 32, 64))


# ---- the file -------------------------------------------------------------------------------------------------------


def published() -> dict[str, Tensor]:
    return weights(rife_shapes())


def saved(folder: Path, state: dict[str, Tensor]) -> Path:
    torch.save(state, folder / "flownet.pkl")
    return folder / "flownet.pkl"


def test_the_published_file_has_160_tensors():
    shapes = rife_shapes()
    assert len(shapes) == 160
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == 3_038_015
    assert shapes["block_tea.conv0.0.0.weight"] == (45, 14, 3, 3)
    assert shapes["block0.conv1.2.weight"] == (45, 4, 4, 4)
    assert shapes["block2.convblock3.1.1.weight"] == (90,)


def test_with_and_without_the_prefix_it_is_one_network(tmp_path: Path):
    state = published()
    plain = load_rife(saved(tmp_path, state)).state_dict()
    prefixed = {PREFIX + key: value for key, value in state.items()} | {"optimiser": torch.ones(2)}
    other = load_rife(saved(tmp_path, prefixed)).state_dict()
    assert len(plain) == 120
    assert all(torch.equal(plain[key], other[key]) for key in plain)
    assert torch.equal(plain["blocks.1.shrinking.0.slopes.below.weight"][0], state["block1.conv0.0.1.weight"])
    assert torch.equal(plain["blocks.2.residuals.3.1.conv.bias"], state["block2.convblock3.1.0.bias"])
    assert torch.equal(plain["blocks.0.to_preference.conv_out.weight"], state["block0.conv2.2.weight"])


@pytest.mark.parametrize("gone", [f"{TEACHER}conv2.2.bias", "block0.conv0.0.0.weight"])
def test_a_file_that_lacks_something_is_refused(tmp_path: Path, gone: str):
    state = {PREFIX + key: value for key, value in published().items() if key != gone}
    with pytest.raises(CheckpointError, match=rf"flownet\.pkl.*{gone}' is missing"):
        load_rife(saved(tmp_path, state))


def test_a_file_that_is_something_else_is_refused(tmp_path: Path):
    state = published()
    with pytest.raises(CheckpointError, match=r"flownet\.pkl.*'more' is unknown"):
        load_rife(saved(tmp_path, state | {"more": torch.ones(1)}))
    with pytest.raises(CheckpointError, match=r"'block1\.conv1\.0\.bias' has shape \(44,\)"):
        load_rife(saved(tmp_path, state | {"block1.conv1.0.bias": torch.ones(44)}))
    with pytest.raises(CheckpointError, match="int8"):
        load_rife(saved(tmp_path, state | {"block1.conv1.0.bias": torch.ones(45, dtype=torch.int8)}))
    with pytest.raises(CheckpointError, match="there is no file"):
        load_rife(tmp_path / "elsewhere.pkl")


# ---- frames ---------------------------------------------------------------------------------------------------------


def frames(count: int, height: int = 20, width: int = 30) -> list[np.ndarray]:
    return list(np.random.default_rng(7).integers(0, 256, (count, height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_frames_that_came_go_out_as_they_are(still: FrameInterpolator, count: int):
    given = frames(count)
    found = list(doubled(given, still))
    assert len(found) == max(0, 2 * count - 1)
    for one, other in zip(found[::2], given, strict=True):
        assert np.array_equal(one, other)
    for middle, a, b in zip(found[1::2], given, given[1:], strict=False):
        assert middle.dtype == np.uint8
        assert np.abs(middle - (a.astype(float) + b) / 2).max() <= 0.51, "the mean, rounded"


def test_no_more_than_two_frames_are_asked_for_ahead(still: FrameInterpolator):
    taken = 0

    def source() -> Iterator[np.ndarray]:
        nonlocal taken
        for frame in frames(4):
            taken += 1
            yield frame

    asked = []
    for _ in doubled(source(), still):
        asked.append(taken)
    assert asked == [2, 2, 3, 3, 4, 4, 4]


def test_pairs_are_told_and_may_end_the_work(still: FrameInterpolator):
    told: list[int] = []
    list(doubled(frames(4), still, told.append))
    assert told == [1, 2, 3]

    def cancel(pair: int) -> None:
        if pair == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(doubled(frames(4), still, cancel))


def test_gradients_stay_on_for_who_takes_the_frames(still: FrameInterpolator):
    assert all(torch.is_grad_enabled() for _ in doubled(frames(3), still))


def test_a_frame_that_does_not_fit_is_named(still: FrameInterpolator):
    with pytest.raises(ValueError, match=r"frame 1 must be .* got \(20, 31, 3\) uint8 after \(20, 30, 3\)"):
        list(doubled([*frames(1), *frames(1, width=31)], still))
    with pytest.raises(ValueError, match=r"frame 0 must be .* float64"):
        list(doubled([np.zeros((20, 30, 3))], still))


def test_enough_frames_are_drawn_and_never_one_too_many():
    assert [count_before(wanted) for wanted in (1, 2, 3, 4, 24, 25)] == [1, 2, 2, 3, 13, 13]
    for factor in (1, 2, 4):
        for wanted in range(1, 60):
            drawn = count_before(wanted, factor)
            assert (drawn - 1) * factor + 1 >= wanted
            assert drawn == 1 or (drawn - 2) * factor + 1 < wanted
    with pytest.raises(ValueError, match="got 0 and 2"):
        count_before(0)


def test_frames_of_a_recording():
    assert [heard_frames(samples) for samples in (0, 639, 640, 16000, 504000)] == [0, 0, 1, 25, 787]
    assert [drawn_frames(samples) for samples in (0, 1279, 1280, 16000, 504000)] == [0, 0, 1, 12, 393]
