"""Denoiser and ReferenceNet: Stable Diffusion 1.5 underneath (diffusers is the oracle), ours on top.

The key table below is the whole difference in layout between diffusers' UNet2DConditionModel and our backbone.
"""

from __future__ import annotations

import re
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor, nn

from moee_core.diffusion.schedule import alpha_sigma, alphas_cumprod
from moee_core.experts.mixture import Routing
from moee_core.networks.config import PortraitUNetConfig
from moee_core.networks.portrait_unet import DenoiserSite, EmotionContext, PortraitUNet
from moee_core.networks.reference_net import ReferenceFeatures, ReferenceNet
from moee_core.ops import Build, torch_attention

SD15_PARAMETERS = 859_520_964
TINY: dict[str, Any] = {
    "block_widths": (32, 64),
    "attention_levels": (True, True),
    "heads": 2,
    "norm_groups": 8,
    "identity_width": 24,
    "audio_width": 12,
    "emotion_width": 16,
    "motion_attentions": 1,
}
SMALL: dict[str, Any] = {**TINY, "block_widths": (16, 32), "layers_per_block": 1, "identity_width": 0, "ff_multiple": 2}
FRAMES = 3

KEYS = (  # ours -> diffusers
    (r"^backbone\.", ""),
    (r"\.sites\.(\d+)\.(spatial\.)?", r".attentions.\1."),
    (r"\.downsample\.", ".downsamplers.0."),
    (r"\.upsample\.", ".upsamplers.0."),
)
OURS_ALONE = re.compile(r"\.(audio|emotion|motion)\.|^anchor_std|^audio_embedding")


def diffusers_key(key: str) -> str:
    for ours, theirs in KEYS:
        key = re.sub(ours, theirs, key)
    return key


def sites(network: nn.Module) -> list[nn.Module]:
    """Modules at the attention places, in the order they run: down, mid, up."""
    backbone: Any = network.backbone
    blocks = [*backbone.down_blocks, backbone.mid_block, *backbone.up_blocks]
    return [site for block in blocks for site in block.sites]


def sd_unet(config: PortraitUNetConfig) -> Any:
    diffusers = pytest.importorskip("diffusers")
    down = ["CrossAttnDownBlock2D" if on else "DownBlock2D" for on in config.attention_levels]
    up = ["CrossAttnUpBlock2D" if on else "UpBlock2D" for on in reversed(config.attention_levels)]
    return diffusers.UNet2DConditionModel(
        in_channels=config.latent_channels,
        out_channels=config.latent_channels,
        block_out_channels=config.block_widths,
        layers_per_block=config.layers_per_block,
        down_block_types=tuple(down),
        up_block_types=tuple(up),
        cross_attention_dim=config.identity_width,
        attention_head_dim=config.heads,  # SD-1.5's convention: the count, in spite of the name
        norm_num_groups=config.norm_groups,
    ).eval()


def silence(*layers: Any) -> None:
    for layer in layers:
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)


def reference_of(
    config: PortraitUNetConfig, clips: int, tokens: int, latent: Tensor | None = None, k: int = 0, side: int = 8
) -> ReferenceFeatures:
    """Random features for every site; ``tokens`` per site (0 = a reference that says nothing), motion on a grid."""
    build = Build(device="meta")
    shapes = []
    hooks_net = PortraitUNet(config, build)
    for site in sites(hooks_net):
        assert isinstance(site, DenoiserSite)
        shapes.append(site.spatial.norm.num_channels)
    grids = site_grids(config, side)
    return ReferenceFeatures(
        sites=tuple(torch.randn(clips, tokens, width) for width in shapes),
        latent=torch.randn(clips, config.latent_channels, side, side) if latent is None else latent,
        motion=tuple(torch.randn(clips, k, grid * grid, width) for width, grid in zip(shapes, grids, strict=True))
        if k
        else None,
    )


def site_grids(config: PortraitUNetConfig, side: int) -> list[int]:
    levels = range(len(config.block_widths))
    down = [level for level in levels if config.attention_levels[level] for _ in range(config.layers_per_block)]
    up = [
        level
        for level in reversed(levels)
        if config.attention_levels[level]
        for _ in range(config.layers_per_block + 1)
    ]
    return [side >> level for level in [*down, levels[-1], *up]]


# ---- diffusers as the oracle ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("levels", [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("grid", [(8, 8), (9, 7)])
def test_without_audio_and_motion_the_denoiser_is_sd15(levels: tuple[bool, bool], grid: tuple[int, int]):
    config = PortraitUNetConfig(**{**TINY, "attention_levels": levels})
    oracle, ours = sd_unet(config), PortraitUNet(config, Build()).eval()
    theirs, state = oracle.state_dict(), ours.state_dict()
    shared = {key for key in state if not OURS_ALONE.search(key)}
    assert {diffusers_key(key) for key in shared} == set(theirs)
    ours.load_state_dict({key: theirs[diffusers_key(key)] if key in shared else state[key] for key in state})
    for site in sites(ours):
        assert isinstance(site, DenoiserSite)
        silence(site.audio.attention.to_out, site.motion.proj_out)

    x, identity = torch.randn(2 * FRAMES, 4, *grid), torch.randn(2, 5, 24)
    steps = torch.tensor([0, 1, 250, 500, 998, 999])
    with torch.no_grad():
        expected = oracle(x, steps, encoder_hidden_states=identity.repeat_interleave(FRAMES, dim=0)).sample
        found = ours(
            x,
            steps,
            frames=FRAMES,
            reference=reference_of(config, 2, 0),
            audio_NSA=torch.randn(6, 2, 12),
            identity_BKC=identity,
        )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("levels", [(True, False), (False, True), (True, True)])
def test_reference_net_reads_what_sd15_has_in_front_of_its_self_attention(levels: tuple[bool, bool]):
    config = PortraitUNetConfig(**{**TINY, "attention_levels": levels})
    oracle, ours = sd_unet(config), ReferenceNet(config, Build()).eval()
    theirs = oracle.state_dict()
    ours.load_state_dict({key: theirs[diffusers_key(key)] for key in ours.state_dict()})
    seen: list[Tensor] = []
    for name, module in oracle.named_modules():
        if name.endswith(".norm1") and "transformer_blocks" in name:
            module.register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    x, identity = torch.randn(2, 4, 8, 8), torch.randn(2, 5, 24)
    with torch.no_grad():
        oracle(x, 0, encoder_hidden_states=identity)
        found = ours(x, identity)
    assert len(found) == len(seen) == len(site_grids(config, 8))
    for ours_one, theirs_one in zip(found, seen, strict=True):
        torch.testing.assert_close(ours_one, theirs_one, rtol=0, atol=1e-5)


def test_reference_net_leaves_out_only_what_runs_behind_its_last_site():
    config = PortraitUNetConfig(**{**TINY, "attention_levels": (False, True)})
    keys = {diffusers_key(key) for key in ReferenceNet(config, Build(device="meta")).state_dict()}
    left_out = set(sd_unet(config).state_dict()) - keys
    assert keys.isdisjoint(left_out)
    assert left_out
    assert all(key.startswith(("up_blocks.1.", "conv_norm_out.", "conv_out.")) for key in left_out)


# ---- full size, without a byte of memory ----------------------------------------------------------------------------


def count(module: nn.Module, keep: Any = lambda name: True) -> int:
    return sum(parameter.numel() for name, parameter in module.named_parameters() if keep(name))


@pytest.fixture(scope="module")
def full_size() -> PortraitUNet:
    return PortraitUNet(PortraitUNetConfig(), Build(device="meta"))


def test_full_size_holds_exactly_sd15(full_size: PortraitUNet):
    assert count(full_size, lambda name: not OURS_ALONE.search(name)) == SD15_PARAMETERS


def test_full_size_reference_net_is_sd15_without_its_output_layers():
    """Attention runs at level 0, so the last site lies at the very end: nothing else can be left out."""
    missing = 2 * 320 + (320 * 4 * 9 + 4)  # conv_norm_out, conv_out
    assert count(ReferenceNet(PortraitUNetConfig(), Build(device="meta"))) == SD15_PARAMETERS - missing


def test_an_expert_of_full_size_has_44_million_parameters(full_size: PortraitUNet):
    places = {320: 5, 640: 5, 1280: 6}
    each = sum(n * (2 * width * width + 2 * 768 * width + width) for width, n in places.items())
    assert round(each / 1e6) == 44
    assert len(sites(full_size)) == sum(places.values()) == 16
    assert count(full_size, lambda name: ".emotion.experts." in name) == 6 * each


# ---- what the denoiser reads ----------------------------------------------------------------------------------------


def emotion_of(config: PortraitUNetConfig, rows: int, prior: Tensor | None = None) -> EmotionContext:
    prior = torch.tensor([0.4, 0, 0, 0.6, 0, 0]).repeat(rows, 1) if prior is None else prior
    return EmotionContext(latents_NMD=torch.randn(rows, 8, config.emotion_width), routing=Routing.of(prior))


def inputs(config: PortraitUNetConfig, clips: int = 2, k: int = 2) -> dict[str, Any]:
    rows = clips * FRAMES
    return {
        "x_NZHW": torch.randn(rows, 4, 8, 8),
        "t_N": torch.tensor([300, 700])[:clips].repeat_interleave(FRAMES),
        "frames": FRAMES,
        "reference": reference_of(config, clips, 5, k=k),
        "audio_NSA": torch.randn(rows, 2, config.audio_width),
        "emotion": emotion_of(config, rows),
        "identity_BKC": torch.randn(clips, 2, config.identity_width) if config.identity_width else None,
    }


@pytest.mark.parametrize("identity", [0, 24])
def test_attention_runs_where_and_how_often_the_design_says(identity: int):
    calls: list[dict] = []

    def counting(q: Tensor, k: Tensor, v: Tensor, heads: int, mask: Tensor | None = None, **options: Any) -> Tensor:
        calls.append(options["transformer_options"])
        return torch_attention(q, k, v, heads, mask)

    config = PortraitUNetConfig(**{**SMALL, "identity_width": identity, "motion_attentions": 2})
    network = PortraitUNet(config, Build(attention=counting))
    options = {"sigmas": (1.0,)}
    with torch.no_grad():
        network(**inputs(config), options=options)
    open_experts = 2
    per_site = 1 + bool(identity) + 1 + open_experts + 2  # self, identity, audio, experts, temporal
    assert len(sites(network)) == 7  # 2 down, 1 mid, 4 up
    assert len(calls) == 7 * per_site
    assert all(one is options for one in calls)


@pytest.mark.parametrize("what", ["audio_NSA", "emotion", "identity_BKC", "sites", "motion", "t_N"])
def test_every_condition_reaches_the_output(what: str):
    config = PortraitUNetConfig(**{**SMALL, "identity_width": 24})
    network, given = PortraitUNet(config, Build()), inputs(config)
    other = dict(given)
    reference: ReferenceFeatures = given["reference"]
    if what in ("sites", "motion"):
        changed = {"sites": reference.sites, "motion": reference.motion, "latent": reference.latent}
        changed[what] = tuple(x + 1.0 for x in changed[what])  # type: ignore[union-attr]
        other["reference"] = ReferenceFeatures(**changed)  # type: ignore[arg-type]
    elif what == "emotion":
        other[what] = emotion_of(config, 2 * FRAMES)
    else:
        other[what] = given[what].flip(0)
    with torch.no_grad():
        assert not torch.allclose(network(**given), network(**other), atol=1e-5)


def test_clips_of_a_batch_do_not_hear_each_other():
    config = PortraitUNetConfig(**SMALL)
    network, given = PortraitUNet(config, Build()), inputs(config)
    rows, clip = slice(FRAMES, 2 * FRAMES), slice(1, 2)
    reference, emotion = given["reference"], given["emotion"]
    alone = {
        **{name: given[name][rows] for name in ("x_NZHW", "t_N", "audio_NSA")},
        "frames": FRAMES,
        "reference": ReferenceFeatures(
            sites=tuple(x[clip] for x in reference.sites),
            latent=reference.latent[clip],
            motion=tuple(x[clip] for x in reference.motion),
        ),
        "emotion": EmotionContext(
            latents_NMD=emotion.latents_NMD[rows], routing=Routing.of(emotion.routing.prior_NE[rows])
        ),
    }
    with torch.no_grad():
        torch.testing.assert_close(network(**alone), network(**given)[rows], rtol=0, atol=1e-5)


def test_guidance_branches_repeat_the_reference():
    config = PortraitUNetConfig(**SMALL)
    reference = reference_of(config, 2, 5, k=2)
    twice = reference.batched(2)
    assert reference.motion is not None
    assert twice.motion is not None
    pairs = [
        (reference.latent, twice.latent),
        *zip(reference.sites, twice.sites, strict=True),
        *zip(reference.motion, twice.motion, strict=True),
    ]
    assert all(torch.equal(torch.cat([one, one]), two) for one, two in pairs)


def test_a_neutral_window_is_the_window_without_emotion():
    config = PortraitUNetConfig(**SMALL)
    network, given = PortraitUNet(config, Build()), inputs(config)
    neutral = {**given, "emotion": emotion_of(config, 2 * FRAMES, torch.zeros(2 * FRAMES, 6))}
    with torch.no_grad():
        assert torch.equal(network(**neutral), network(**{**given, "emotion": None}))


def test_audio_may_also_enter_through_the_time_embedding():
    config = PortraitUNetConfig(**{**SMALL, "audio_time_embedding": True})
    network, given = PortraitUNet(config, Build()), inputs(config)
    for site in sites(network):
        assert isinstance(site, DenoiserSite)
        silence(site.audio.attention.to_out)
    other = {**given, "audio_NSA": given["audio_NSA"] + 1.0}
    with torch.no_grad():
        assert not torch.allclose(network(**given), network(**other), atol=1e-5)
        silence(network.audio_embedding)
        torch.testing.assert_close(network(**given), network(**other), rtol=0, atol=1e-6)


def test_latents_that_do_not_fill_windows_are_refused():
    config = PortraitUNetConfig(**SMALL)
    network, given = PortraitUNet(config, Build()), inputs(config)
    with pytest.raises(ValueError, match="6 latents cannot be split into windows of 4 frames"):
        network(**{**given, "frames": 4})


def test_portrait_and_motion_frames_in_one_batch_are_the_same_as_one_by_one():
    config = PortraitUNetConfig(**{**SMALL, "identity_width": 24})
    network = ReferenceNet(config, Build())
    portrait, motion, identity = torch.randn(2, 4, 8, 8), torch.randn(2, 3, 4, 8, 8), torch.randn(2, 5, 24)
    with torch.no_grad():
        together = network.reference(portrait, motion, identity)
        assert torch.equal(together.latent, portrait)
        assert together.motion is not None
        for clip in range(2):
            alone = network(portrait[clip : clip + 1], identity[clip : clip + 1])
            carried = [network(motion[clip, j : j + 1], identity[clip : clip + 1]) for j in range(3)]
            for index in range(len(alone)):
                torch.testing.assert_close(together.sites[index][clip], alone[index][0], rtol=0, atol=1e-5)
                for j in range(3):
                    torch.testing.assert_close(together.motion[index][clip, j], carried[j][index][0], rtol=0, atol=1e-5)
        assert network.reference(portrait).motion is None


# ---- the reference anchor -------------------------------------------------------------------------------------------

ANCHOR: dict[str, Any] = {**SMALL, "anchor": True, "grid": 8, "beta_schedule": "scaled_linear"}


def anchored(std: Tensor, **settings: Any) -> tuple[PortraitUNet, dict[str, Any]]:
    config = PortraitUNetConfig(**{**ANCHOR, **settings})
    network = PortraitUNet(config, Build()).eval()
    with torch.no_grad():
        network.anchor_std.weight.copy_(std.expand(4, config.grid**2))  # type: ignore[union-attr, operator]
    return network, inputs(config)


def noise_levels(steps: Tensor, kind: str = "scaled_linear") -> tuple[np.ndarray, np.ndarray]:
    table = alphas_cumprod(kind).numpy()[steps.numpy()][:, None, None, None]
    return np.sqrt(table), np.sqrt(1 - table)


@pytest.mark.parametrize("kind", ["linear", "scaled_linear"])
@pytest.mark.parametrize("steps", [(0, 999), (1, 500), (300, 998)])
def test_with_a_silent_network_the_anchor_is_the_best_linear_estimate(kind: str, steps: tuple[int, int]):
    """E[x_0 | x_t] and E[eps | x_t] of two Gaussians, then v = alpha eps - sigma x_0."""
    std = 0.05 + torch.rand(4, 64)
    network, given = anchored(std, beta_schedule=kind)
    silence(network.conv_out)
    given["t_N"] = torch.tensor(steps).repeat_interleave(FRAMES)
    with torch.no_grad():
        found = network(**given).double().numpy()
    alpha, sigma = noise_levels(given["t_N"], kind)
    x = given["x_NZHW"].double().numpy()
    ref = given["reference"].latent.double().numpy().repeat(FRAMES, axis=0)
    r2 = std.double().numpy().reshape(1, 4, 8, 8) ** 2
    surprise = (x - alpha * ref) / (alpha**2 * r2 + sigma**2)
    best_x0, best_eps = ref + alpha * r2 * surprise, sigma * surprise
    np.testing.assert_allclose(found, alpha * best_eps - sigma * best_x0, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("step", [0, 500, 999])
def test_the_network_is_asked_for_something_of_unit_size_at_every_noise(step: int):
    """With x_0 drawn as the anchor assumes, the ideal output F* = (v_lin - v) sqrt(w) / r has variance 1."""
    network, given = anchored(0.02 + torch.rand(4, 64))
    silence(network.conv_out)
    steps = given["t_N"] = torch.full((2 * FRAMES,), step)
    alpha, sigma = (torch.from_numpy(level).float() for level in noise_levels(steps))
    r = network.anchor_map(8, 8, torch.device("cpu")).detach()
    ref = given["reference"].latent.repeat_interleave(FRAMES, dim=0)
    clean, noise = ref + r * torch.randn_like(ref), torch.randn_like(ref)
    given["x_NZHW"] = alpha * clean + sigma * noise
    with torch.no_grad():
        linear = network(**given)
    wanted = (linear - (alpha * noise - sigma * clean)) * (alpha**2 * r**2 + sigma**2).sqrt() / r
    assert 0.9 < float(wanted.std()) < 1.1


def test_the_network_speaks_in_units_of_the_possible_change():
    """v - v_lin = -(r / sqrt(w)) F, read off with an output layer that says 1 everywhere."""
    std = 0.05 + torch.rand(4, 64)
    network, given = anchored(std)
    with torch.no_grad():
        silence(network.conv_out)
        linear = network(**given)
        network.conv_out.bias.fill_(1.0)  # type: ignore[union-attr, operator]
        difference = (network(**given) - linear).numpy()
    alpha, sigma = noise_levels(given["t_N"])
    r = std.numpy().reshape(1, 4, 8, 8)
    np.testing.assert_allclose(difference, -r / np.sqrt(alpha**2 * r**2 + sigma**2), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("step", [0, 1, 400, 999])
def test_where_nothing_ever_moves_one_step_gives_the_portrait_back(step: int):
    network, given = anchored(torch.full((4, 64), 1e-6))
    given["t_N"] = torch.full((2 * FRAMES,), step)
    alpha, sigma = noise_levels(given["t_N"])
    ref = given["reference"].latent.numpy().repeat(FRAMES, axis=0)
    for scale in (0.5, 1.0, 3.0):
        given["x_NZHW"] = torch.randn(2 * FRAMES, 4, 8, 8) * scale
        with torch.no_grad():
            velocity = network(**given).double().numpy()
        np.testing.assert_allclose(alpha * given["x_NZHW"].numpy() - sigma * velocity, ref, atol=2e-3)


@pytest.mark.parametrize("step", [0.0, 0.4, 998.7, 999.0])
@pytest.mark.parametrize("std", [0.0, 1e-4, 3.0])
def test_the_anchor_is_finite_at_both_ends(step: float, std: float):
    network, given = anchored(torch.full((4, 64), std))
    given["t_N"] = torch.full((2 * FRAMES,), step)
    with torch.no_grad():
        assert torch.isfinite(network(**given)).all()


def test_the_anchors_statistics_are_resized_for_other_latent_grids():
    std = 0.05 + torch.rand(4, 64)
    network, given = anchored(std)
    for height, width in ((16, 16), (12, 20)):
        expected = cv2.resize(std.view(4, 8, 8).permute(1, 2, 0).numpy(), (width, height))  # bilinear
        found = network.anchor_map(height, width, torch.device("cpu"))[0].detach().permute(1, 2, 0).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-6)
    torch.testing.assert_close(network.anchor_map(8, 8, torch.device("cpu"))[0].detach(), std.view(4, 8, 8))
    given["reference"] = reference_of(network.config, 2, 5, side=16)
    given["x_NZHW"] = torch.randn(2 * FRAMES, 4, 16, 16)
    with torch.no_grad():
        assert torch.isfinite(network(**given)).all()


def test_the_anchor_survives_half_precision():
    network, given = anchored(torch.full((4, 64), 0.05))
    with torch.no_grad():
        single = network(**given)
        half = network.to(torch.bfloat16)
        cast = {
            **given,
            "x_NZHW": given["x_NZHW"].bfloat16(),
            "audio_NSA": given["audio_NSA"].bfloat16(),
            "emotion": EmotionContext(
                latents_NMD=given["emotion"].latents_NMD.bfloat16(), routing=given["emotion"].routing
            ),
        }
        found = half(**cast)
    assert found.dtype == torch.bfloat16
    assert float((found.float() - single).abs().mean() / single.abs().mean()) < 0.03


def test_fractional_time_steps_lie_between_their_neighbours():
    table = alphas_cumprod("scaled_linear")
    alpha, sigma = alpha_sigma(torch.tensor([10.0, 10.25, 11.0, -3.0, 2000.0]), table)
    np.testing.assert_allclose(array_of(alpha[1] ** 2), 0.75 * table[10] + 0.25 * table[11], rtol=1e-6)
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(5))
    torch.testing.assert_close(alpha[3:] ** 2, torch.stack([table[0], table[999]]).float(), rtol=1e-6, atol=0)


def array_of(tensor: Tensor) -> np.ndarray:
    return tensor.detach().numpy()


# ---- settings that cannot be ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"attention_levels": (True,)}, "block_widths has 2 levels, attention_levels 1"),
        ({"block_widths": (32, 60)}, "block width 60 must be a multiple"),
        ({"heads": 5}, "block width 32 must be a multiple"),
        ({"local_gate": "key"}, "local_gate must be one of output, query, off; got 'key'"),
        ({"gate_pool": "all"}, "gate_pool must be one of"),
        ({"gate_prior": "none"}, "gate_prior must be one of"),
        ({"prediction_type": "x0"}, "prediction_type must be one of"),
        ({"prediction_type": "epsilon"}, "zero terminal SNR needs v_prediction"),
        ({"prediction_type": "epsilon", "zero_snr": False, "anchor": True}, "anchor is defined for v_prediction"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], words: str):
    with pytest.raises(ValueError, match=words):
        PortraitUNetConfig(**{**TINY, **settings})
