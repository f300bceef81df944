"""The SVD family's UNet against diffusers', its adapters against NumPy; and what it costs at full size."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from moee_core.networks.config import VideoUNetConfig
from moee_core.networks.video_blocks import AdaptedAttention
from moee_core.networks.video_unet import VideoUNet, mask_at
from moee_core.ops import Build
from moee_core.selfcheck import ruled
from moee_core.weights.key_map import VIDEO_UNET, KeyMap

TINY = VideoUNetConfig(
    block_widths=(32, 32, 64, 64), layers_per_block=(2, 1, 1, 1), heads=(2, 4, 4, 8), context_width=24, id_width=16
)
PLAIN = replace(TINY, adapters=0)
BRANCHES, FRAMES = 2, 3
NAMES = KeyMap(rows=VIDEO_UNET)


def diffusers_unet(config: VideoUNetConfig) -> Any:
    diffusers = pytest.importorskip("diffusers")
    attention = [("CrossAttn" if one else "") for one in config.attention_levels]
    return diffusers.UNetSpatioTemporalConditionModel(
        in_channels=config.channels_in,
        out_channels=config.channels_out,
        down_block_types=tuple(f"{one}DownBlockSpatioTemporal" for one in attention),
        up_block_types=tuple(f"{one}UpBlockSpatioTemporal" for one in reversed(attention)),
        block_out_channels=config.block_widths,
        addition_time_embed_dim=config.id_width,
        projection_class_embeddings_input_dim=config.ids * config.id_width,
        layers_per_block=config.layers_per_block,
        cross_attention_dim=config.context_width,
        num_attention_heads=config.heads,
        num_frames=FRAMES,
    )


def network(config: VideoUNetConfig) -> VideoUNet:
    made = VideoUNet(config, Build()).eval().requires_grad_(False)
    state = {key: ruled(NAMES.theirs(key), tuple(value.shape)).float() for key, value in made.state_dict().items()}
    made.load_state_dict(state)
    return made


def inputs(height: int = 8, width: int = 16) -> dict[str, Tensor]:
    rows = BRANCHES * FRAMES
    return {
        "x": torch.randn(rows, 8, height, width),
        "ids": torch.tensor([[12.5, 8.0, 16.0], [25.0, 127.0, 0.02]]),
        "image": torch.randn(rows, 1, 24),
        "audio": torch.randn(rows, 4, 24),
        "emotion": torch.randn(rows, 5, 24),
        "mask": torch.rand(1, 8 * height, 8 * width),
        "located": torch.randn(1, 32, height, width),
        "t": torch.tensor([0.7]),
    }


def drawn(made: VideoUNet, given: dict[str, Tensor], adapted: list[Tensor | None], **more: Any) -> Tensor:
    kept = made.kept(given["image"], adapted, FRAMES)
    return made(given["x"], given["t"], frames=FRAMES, ids_BK=given["ids"], kept=kept, **more)


@pytest.mark.parametrize(("height", "width"), [(8, 16), (9, 13)])
def test_without_adapters_it_is_stable_video_diffusion(height: int, width: int):
    """One context for all frames of a branch: then the mean along time is that of the first frame."""
    theirs, ours = diffusers_unet(TINY).eval(), network(PLAIN)
    state = {NAMES.theirs(key): value for key, value in ours.state_dict().items()}
    theirs.load_state_dict({key: value.view(theirs.state_dict()[key].shape) for key, value in state.items()})
    given = inputs(height, width)
    image = torch.randn(BRANCHES, 1, 24)
    given["image"] = image.repeat_interleave(FRAMES, dim=0)
    found = drawn(ours, given, [])
    with torch.no_grad():
        window = given["x"].unflatten(0, (BRANCHES, FRAMES))
        expected = theirs(window, given["t"][0], image, added_time_ids=given["ids"]).sample.flatten(0, 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_a_context_of_several_tokens_is_diffusers_too():
    theirs, ours = diffusers_unet(TINY).eval(), network(PLAIN)
    state = {NAMES.theirs(key): value for key, value in ours.state_dict().items()}
    theirs.load_state_dict({key: value.view(theirs.state_dict()[key].shape) for key, value in state.items()})
    given, image = inputs(), torch.randn(BRANCHES, 3, 24)
    given["image"] = image.repeat_interleave(FRAMES, dim=0)
    with torch.no_grad():
        window = given["x"].unflatten(0, (BRANCHES, FRAMES))
        expected = theirs(window, given["t"][0], image, added_time_ids=given["ids"]).sample.flatten(0, 1)
    torch.testing.assert_close(drawn(ours, given, []), expected, rtol=0, atol=1e-4)


def test_the_names_at_full_size_are_diffusers_and_the_adapters():
    with torch.device("meta"):
        theirs = diffusers_unet(VideoUNetConfig()).state_dict()
    ours = VideoUNet(VideoUNetConfig(), Build(device="meta")).state_dict()
    found = {NAMES.theirs(key): value for key, value in ours.items()}
    assert len(ours) == len(found) == 1556
    adapters = set(found) - set(theirs)
    assert set(theirs) - set(found) == set()
    assert len(adapters) == 128
    pattern = r"(.+\.)attentions\.\d\.(temporal_)?transformer_blocks\.0\.attn2\.processor\.to_[kv]_ip\.[01]\.weight"
    assert all(re.fullmatch(pattern, key) for key in adapters)
    assert all(found[key].numel() == value.numel() for key, value in theirs.items())
    assert sum(value.numel() for value in found.values()) == 1_626_859_242


def test_a_call_of_full_size_takes_fewer_operations_than_the_authors():
    """512 x 512, 25 frames, 3 branches: 104.9 T in the authors' code, counted alike."""
    made = VideoUNet(VideoUNetConfig(), Build(device="meta"))

    def of(*shape: int) -> Tensor:
        return torch.zeros(shape, device="meta")

    with torch.no_grad():
        with FlopCounterMode(display=False) as once:
            kept = made.kept(of(75, 1, 1024), [of(75, 32, 1024)] * 2, 25)
        with FlopCounterMode(display=False) as counter:
            made(
                of(75, 8, 64, 64),
                of(1),
                frames=25,
                ids_BK=of(3, 3),
                kept=kept,
                mask_RHW=of(1, 512, 512),
                added_NCHW=of(1, 320, 64, 64),
            )
    both = (once.get_total_flops() + counter.get_total_flops()) / 1e12
    assert 80 < both <= 96


# ---- adapters -------------------------------------------------------------------------------------------------------


def by_hand(query: np.ndarray, keys: np.ndarray, values: np.ndarray, heads: int) -> np.ndarray:
    """(T, C) of one row, head by head."""
    size = query.shape[-1] // heads
    parts = []
    for head in range(heads):
        at = slice(head * size, (head + 1) * size)
        scores = query[:, at] @ keys[:, at].T / size**0.5
        shares = np.exp(scores - scores.max(axis=1, keepdims=True))
        parts.append(shares / shares.sum(axis=1, keepdims=True) @ values[:, at])
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("tokens", [1, 3])
def test_an_adapter_adds_what_it_reads(tokens: int):
    layer = AdaptedAttention(16, 12, 4, 2, Build(dtype=torch.float64)).requires_grad_(False)
    x, image = torch.randn(2, 5, 16).double(), torch.randn(2, tokens, 12).double()
    audio, emotion = torch.randn(2, 3, 12).double(), torch.randn(2, 2, 12).double()
    mask = torch.rand(1, 5, 1).double()
    kept = layer.kept_contexts(image, [audio, emotion])
    found = layer.read(x, kept, (0.7 * mask, 1.4 * mask)).numpy()
    weights = {name: value.numpy() for name, value in layer.state_dict().items()}
    for row in range(2):
        query = x[row].numpy() @ weights["to_q.weight"].T
        total = np.zeros((5, 16))
        prefixes = ("", "adapters.0.", "adapters.1.")
        for prefix, context, scale in zip(prefixes, (image, audio, emotion), (None, 0.7, 1.4), strict=True):
            keys = context[row].numpy() @ weights[f"{prefix}to_k.weight"].T
            values = context[row].numpy() @ weights[f"{prefix}to_v.weight"].T
            part = by_hand(query, keys, values, 4)
            total += part if scale is None else scale * mask[0].numpy() * part
        expected = total @ weights["to_out.0.weight"].T + weights["to_out.0.bias"]
        np.testing.assert_allclose(found[row], expected, atol=1e-12)


def test_an_adapter_that_is_off_is_one_of_scale_zero():
    made, given = network(TINY), inputs()
    off = drawn(made, given, [given["audio"], None], scales=(1.0, 1.0))
    zero = drawn(made, given, [given["audio"], given["emotion"]], scales=(1.0, 0.0))
    torch.testing.assert_close(off, zero, rtol=0, atol=1e-5)
    assert (off - drawn(made, given, [given["audio"], given["emotion"]])).abs().max() > 1e-2


@pytest.mark.parametrize("what", ["audio", "emotion", "image", "mask", "located", "ids"])
def test_everything_that_is_read_matters(what: str):
    made, given = network(TINY), inputs()

    def now() -> Tensor:
        more = {"mask_RHW": given["mask"], "added_NCHW": given["located"]}
        return drawn(made, given, [given["audio"], given["emotion"]], **more)

    before = now()
    given[what] = given[what] * 0.3
    assert (now() - before).abs().max() > 1e-3


def test_frames_have_contexts_of_their_own():
    """A frame's speech reaches it within the frame, and the others through time."""
    made, given = network(TINY), inputs()
    before = drawn(made, given, [given["audio"], None])
    given["audio"] = given["audio"].clone()
    given["audio"][1] += 1.0
    moved = (drawn(made, given, [given["audio"], None]) - before).flatten(1).abs().mean(dim=1)
    assert moved[1] == moved.max()
    assert moved[:FRAMES].min() > 0
    assert moved[FRAMES:].max() == 0, "the other branch has nothing to do with it"


def test_a_branch_is_what_it_is_alone():
    made, given = network(TINY), inputs()
    both = drawn(made, given, [given["audio"], given["emotion"]])
    first = {key: value[:FRAMES] if len(value) == BRANCHES * FRAMES else value for key, value in given.items()}
    first["ids"] = given["ids"][:1]
    alone = drawn(made, first, [first["audio"], first["emotion"]])
    torch.testing.assert_close(both[:FRAMES], alone, rtol=0, atol=1e-5)


def test_each_row_may_have_a_mask_of_its_own():
    made, given = network(TINY), inputs()
    masks = torch.rand(BRANCHES, *given["mask"].shape[1:])
    adapted = [given["audio"], given["emotion"]]
    found = drawn(made, given, adapted, mask_RHW=masks).unflatten(0, (BRANCHES, FRAMES))
    for row in range(BRANCHES):
        alone = drawn(made, given, adapted, mask_RHW=masks[row : row + 1]).unflatten(0, (BRANCHES, FRAMES))
        torch.testing.assert_close(found[row], alone[row], rtol=0, atol=1e-5)
        assert (found[row - 1] - alone[row - 1]).abs().max() > 1e-4
    with pytest.raises(ValueError, match=f"3 masks are not one for each of {BRANCHES} rows"):
        drawn(made, given, adapted, mask_RHW=torch.rand(3, *given["mask"].shape[1:]))


def test_bfloat16_works_throughout():
    made, given = network(TINY), inputs()
    expected = drawn(made, given, [given["audio"], given["emotion"]], mask_RHW=given["mask"])
    halves = {key: value.bfloat16() for key, value in given.items()}
    found = drawn(made.bfloat16(), halves, [halves["audio"], halves["emotion"]], mask_RHW=halves["mask"])
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).square().mean().sqrt() < 0.05 * expected.square().mean().sqrt()


def test_gradients_are_those_of_the_same_numbers():
    """Where memory is used again without gradients, it must not be with them."""
    made, given = network(TINY), inputs()
    expected = drawn(made, given, [given["audio"], given["emotion"]])
    weight = made.attentions()[0][0].adapters[1].to_v.weight  # type: ignore[union-attr]
    weight.requires_grad_(True)
    found = drawn(made, given, [given["audio"], given["emotion"]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    found.square().mean().backward()
    assert weight.grad is not None
    assert weight.grad.abs().max() > 0


def test_a_mask_keeps_its_middle_at_every_size():
    mask = torch.zeros(1, 64, 128)
    mask[:, 16:48, 32:96] = 1.0
    for size in ((8, 16), (4, 8)):
        shown = mask_at(mask, size)
        assert shown.shape == (1, size[0] * size[1], 1)
        grid = shown.view(size)
        assert grid[size[0] // 2, size[1] // 2] > 0.9
        assert grid[0, 0].abs() < 0.1


def test_what_does_not_fit_is_refused():
    made, given = network(TINY), inputs()
    with pytest.raises(ValueError, match="2 adapters read a context each, got 1"):
        made.kept(given["image"], [given["audio"]], FRAMES)
    with pytest.raises(ValueError, match="adapter 1 needs a context for each of 6 frames, got 3"):
        made.kept(given["image"], [given["audio"], given["emotion"][:3]], FRAMES)
    kept = made.kept(given["image"], [None, None], FRAMES)
    with pytest.raises(ValueError, match="6 latents are not 4 frames"):
        made(given["x"], given["t"], frames=4, ids_BK=given["ids"], kept=kept)
    with pytest.raises(ValueError, match="heads is for 2 levels, block_widths for 4"):
        VideoUNetConfig(heads=(5, 10))
    with pytest.raises(ValueError, match="cannot be split into 7 heads"):
        replace(TINY, heads=(7, 4, 4, 8))
