"""Hallo's networks against the numbers of its authors' code, and what ours do beyond them.

Tolerance: 1e-4 absolute on values of size 1 to 6, in float32. The reference features that the authors store in half
precision differ by a rounding here and there, which is why the denoiser behind them is given the same bound.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from moee_core.emotion.frozen import FrozenEncoders
from moee_core.emotion.source import EmotionSource
from moee_core.emotion.timeline import parse_emotion
from moee_core.emotion.vocabulary import EXPERTS, LABELS
from moee_core.errors import EmotionError
from moee_core.experts.mixture import Routing
from moee_core.networks.blocks import ResnetBlock
from moee_core.networks.config import PortraitUNetConfig
from moee_core.networks.masked_audio import MaskedAudioAttention, SpeechRegions
from moee_core.networks.portrait_unet import EmotionContext, MotionSite, PortraitUNet
from moee_core.networks.reference_net import ReferenceFeatures
from moee_core.ops import Build
from moee_core.systems.hallo import HalloPortrait, HalloSampling, HalloSystem, emotion_config

from ..fixtures.hallo_parity import TINY, regions_of, stored
from ..fixtures.parity import equals

FRAMES, CARRIED, STEP = 4, 2, 749
EVEN = (1.0, 1.0, 1.0)


def close(found: Tensor, expected: Tensor, name: str) -> None:
    equals(found, expected, 1e-4, f"hallo unit_outputs {name}")


@pytest.fixture(scope="module")
def system(hallo: HalloSystem) -> HalloSystem:
    return hallo


@pytest.fixture(scope="module")
def features(system: HalloSystem) -> tuple[Tensor, ...]:
    """Of the stored pictures: (portrait, two frames) of the unknown branch and of the known one, tokens alternating."""
    inputs = stored("unit_inputs")
    with torch.no_grad():
        return system.reference_net(inputs["ref_latents"], inputs["image_tokens"].repeat(3, 1, 1))


def denoise(system: HalloSystem, branch: int, reference: ReferenceFeatures, strengths: tuple = EVEN) -> Tensor:
    """(Z, F, h, w) for the stored inputs of one guidance branch: 0 knows nobody, 1 does."""
    inputs = stored("unit_inputs")
    with torch.no_grad():
        out = system.denoiser(
            inputs["noisy_latents"][branch].transpose(0, 1),
            torch.full((FRAMES,), STEP),
            frames=FRAMES,
            reference=reference,
            audio_NSA=inputs["audio_tokens"][branch],
            identity_BKC=inputs["image_tokens"][branch : branch + 1],
            regions=regions_of(inputs, slice(FRAMES * branch, FRAMES * (branch + 1)), strengths),
            added_NCHW=inputs["mask_cond_fea"][branch].transpose(0, 1),
        )
    return out.transpose(0, 1)


def crossed_references(features: tuple[Tensor, ...]) -> list[ReferenceFeatures]:
    """Both branches as the authors' code hands them out."""
    rows = 1 + CARRIED
    alternating = [rows * ((FRAMES + frame) % 2) for frame in range(FRAMES)]
    latent = torch.zeros(1, 4, 16, 16)
    return [
        ReferenceFeatures(
            sites=tuple(x[:1, :0] if branch == 0 else x[alternating] for x in features),
            latent=latent,
            motion=tuple(x[None, branch * rows + 1 : (branch + 1) * rows] for x in features),
        )
        for branch in (0, 1)
    ]


# ---- the authors' numbers -------------------------------------------------------------------------------------------


SITES = (
    *(f"down_blocks.{block}.attentions.{i}" for block in range(3) for i in range(2)),
    "mid_block.attentions.0",
    *(f"up_blocks.{block}.attentions.{i}" for block in range(1, 4) for i in range(3)),
)


@pytest.mark.parametrize("number", range(len(SITES)), ids=SITES)
def test_reference_features(features: tuple[Tensor, ...], number: int):
    assert len(features) == len(SITES)
    name = f"ref.bank.{SITES[number]}.transformer_blocks.0"
    close(features[number], stored("unit_outputs")[name], name)


@pytest.mark.parametrize(
    ("case", "rounded", "even"),
    [
        ("official_path.bank_fp32", False, False),
        ("official_path.bank_fp16", True, False),
        ("official_path.no_motion_scale", False, True),
    ],
)
def test_denoiser(system: HalloSystem, features: tuple[Tensor, ...], case: str, rounded: bool, even: bool):
    pose, face, lip = stored("unit_inputs")["motion_scale"].tolist()
    for branch, reference in enumerate(crossed_references(features)):
        given = reference.rounded() if rounded else reference
        found = denoise(system, branch, given, EVEN if even else (pose, face, lip))
        close(found, stored("unit_outputs")[f"den.{case}"][branch], f"den.{case}")


def test_denoiser_without_guidance(system: HalloSystem):
    inputs = stored("unit_inputs")
    with torch.no_grad():
        alone = system.reference_net(inputs["ref_latents"][3:], inputs["image_tokens"][1:].repeat(3, 1, 1))
    reference = ReferenceFeatures(
        sites=tuple(x[:1] for x in alone),
        latent=inputs["ref_latents"][3:4],
        motion=tuple(x[None, 1:] for x in alone),
    )
    pose, face, lip = inputs["motion_scale"].tolist()
    found = denoise(system, 1, reference, (pose, face, lip))
    close(found, stored("unit_outputs")["den.no_cfg"][0], "den.no_cfg")


def test_blocks_of_the_denoiser(system: HalloSystem, features: tuple[Tensor, ...]):
    """Every kind of layer at two places, and every block that has one."""
    backbone: Any = system.denoiser.backbone
    first, second = backbone.down_blocks[0].sites[0], backbone.down_blocks[1].sites[0]
    places: dict[str, Any] = {
        "time_embedding": system.denoiser.time_embedding,
        "down_blocks.0.attentions.0": first.spatial,
        "down_blocks.0.audio_modules.0": first.audio,
        "down_blocks.0.motion_modules.0": first.motion,
        "down_blocks.1.attentions.0": second.spatial,
        "down_blocks.1.audio_modules.0": second.audio,
        "down_blocks.1.motion_modules.0": second.motion,
        "down_blocks.2": backbone.down_blocks[2],
        "down_blocks.3": backbone.down_blocks[3],
        "mid_block": backbone.mid_block,
        "up_blocks.0": backbone.up_blocks[0],
        "up_blocks.1": backbone.up_blocks[1],
    }
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            seen[name] = output[0] if isinstance(output, tuple) else output

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in places.items()]
    pose, face, lip = stored("unit_inputs")["motion_scale"].tolist()
    try:
        for branch, reference in enumerate(crossed_references(features)):
            denoise(system, branch, reference, (pose, face, lip))
            for name, found in seen.items():
                expected = stored("unit_outputs")[f"den.blocks.{name}"][branch]
                if name == "time_embedding":
                    close(found[0], expected, f"den.blocks.{name}")
                else:  # theirs still has the carried frames in front, where there are any
                    close(found, expected.transpose(0, 1)[-FRAMES:], f"den.blocks.{name}")
    finally:
        for hook in hooks:
            hook.remove()


def test_face_locator(system: HalloSystem):
    face = stored("unit_inputs")["fl.face_mask"][0].transpose(0, 1)
    with torch.no_grad():
        close(system.face_locator(face), stored("unit_outputs")["fl.out"][0].transpose(0, 1), "fl.out")


def test_identity_projector(system: HalloSystem):
    embedding = stored("unit_inputs")["ip.face_emb"]
    with torch.no_grad():
        close(system.identity_projector(embedding), stored("unit_outputs")["ip.out"], "ip.out")
        close(system.identity_projector(torch.zeros(1, 512)), stored("unit_outputs")["ip.out_zeros"], "ip.out_zeros")


def test_audio_projector(system: HalloSystem):
    with torch.no_grad():
        found = system.audio_projector(stored("unit_inputs")["ap.audio_emb"][0])
        close(found, stored("unit_outputs")["ap.out"][0], "ap.out")


# ---- the accidents are options --------------------------------------------------------------------------------------


def portrait(system: HalloSystem, height: int = 16, width: int = 16) -> HalloPortrait:
    generator = torch.Generator().manual_seed(7)
    maps = torch.rand(1, 3, height, width, generator=generator)
    return system.portrait(
        torch.rand(1, 3, 8 * height, 8 * width, generator=generator) * 2 - 1,
        torch.randn(1, 512, generator=generator),
        (torch.rand(1, 3, 8 * height, 8 * width, generator=generator) > 0.5).float(),
        SpeechRegions.of(maps, levels=4),
    )


def test_branches_are_crossed_as_the_authors_code_crosses_them(system: HalloSystem):
    one = portrait(system)
    motion = torch.randn(CARRIED, 4, 16, 16)
    known, unknown = system.references(one, motion, FRAMES, crossed=True)
    tokens = torch.cat([one.unknown_1KC, one.known_1KC])
    with torch.no_grad():
        rows = torch.cat([one.latent_1Zhw, motion]).repeat(2, 1, 1, 1)
        features = system.reference_net(rows, tokens.repeat(3, 1, 1))
    for found, expected in zip((unknown, known), crossed_references(features), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(found.sites, expected.sites, strict=True))
        assert found.motion is not None
        assert expected.motion is not None
        assert all(torch.equal(a, b) for a, b in zip(found.motion, expected.motion, strict=True))


def test_every_branch_has_its_own_identity_by_default(system: HalloSystem):
    """In double precision, where batches of other sizes do not round differently."""
    one = portrait(system)
    system = copy.deepcopy(system).double()
    fields = ("latent_1Zhw", "known_1KC", "unknown_1KC")
    one = replace(one, **{name: getattr(one, name).double() for name in fields})
    motion = torch.randn(CARRIED, 4, 16, 16, dtype=torch.float64)
    known, unknown = system.references(one, motion, FRAMES)
    pictures = torch.cat([one.latent_1Zhw, motion])
    with torch.no_grad():
        for found, tokens in ((known, one.known_1KC), (unknown, one.unknown_1KC)):
            features = system.reference_net(pictures, tokens.expand(3, -1, -1))
            assert found.motion is not None
            for site, carried, expected in zip(found.sites, found.motion, features, strict=True):
                torch.testing.assert_close(carried[0], expected[1:], rtol=0, atol=1e-9)
                if found is known:
                    torch.testing.assert_close(site, expected[:1], rtol=0, atol=1e-9)
                else:
                    assert site.shape[1] == 0


@pytest.mark.parametrize("what", ["crossed", "rounded"])
def test_an_accident_makes_a_difference(system: HalloSystem, what: str):
    one = portrait(system)
    motion = torch.randn(CARRIED, 4, 16, 16)
    plain, _ = system.references(one, motion, FRAMES)
    other = plain.rounded() if what == "rounded" else system.references(one, motion, FRAMES, crossed=True)[0]
    difference = (denoise(system, 1, plain) - denoise(system, 1, other)).abs().max()
    assert difference > (1e-2 if what == "crossed" else 1e-6)


# ---- what ours does beyond ------------------------------------------------------------------------------------------


def forward(
    system: HalloSystem, emotion: EmotionContext | None, height: int = 16, width: int = 16, dtype: Any = torch.float32
) -> Tensor:
    one = portrait(system, height, width) if dtype == torch.float32 else in_type(portrait(system.float()), dtype)
    network = system.to(dtype)
    generator = torch.Generator().manual_seed(3)
    motion = torch.randn(CARRIED, 4, height, width, generator=generator).to(dtype)
    known, _ = network.references(one, motion, FRAMES)
    with torch.no_grad():
        return network.denoiser(
            torch.randn(FRAMES, 4, height, width, generator=generator).to(dtype),
            torch.full((FRAMES,), STEP),
            frames=FRAMES,
            reference=known,
            audio_NSA=torch.randn(FRAMES, 32, 40, generator=generator).to(dtype),
            emotion=emotion,
            identity_BKC=one.known_1KC,
            regions=one.regions.frames(FRAMES),
            added_NCHW=one.located_1Dhw.expand(FRAMES, -1, -1, -1),
        )


def in_type(one: HalloPortrait, dtype: Any) -> HalloPortrait:
    names = ("picture_13HW", "latent_1Zhw", "known_1KC", "unknown_1KC", "located_1Dhw")
    return replace(one, **{name: getattr(one, name).to(dtype) for name in names})


def happy(width: int = 16) -> EmotionContext:
    prior = torch.tensor([0.7, 0, 0, 0.3, 0, 0]).repeat(FRAMES, 1)
    prior[0] = 0  # a neutral frame among them
    return EmotionContext(latents_NMD=torch.randn(FRAMES, 8, width), routing=Routing.of(prior))


def test_fresh_experts_leave_every_bit_as_it_was(system: HalloSystem):
    assert torch.equal(forward(system, None), forward(system, happy()))


def said(text: str, **more: Any) -> EmotionSource:
    return EmotionSource(timeline=parse_emotion(text), **more)


def test_emotion_in_a_base_that_knows_none_changes_not_a_bit(system: HalloSystem):
    """From labels, words and action units through Emotion-to-Latents to the experts, which are silent."""
    for source in (said("happy 0.6 + sad 0.3"), said("0 angry; 0.04 fear"), EmotionSource(text="beaming with joy")):
        rows = FrozenEncoders().rows(source, torch.zeros(640 * FRAMES), FRAMES, 25.0, emotion_config(TINY.unet), None)
        context = system.emotion_context(system.signals(rows))
        assert context.latents_NMD.isfinite().all()
        assert context.latents_NMD.std() > 0.1
        assert context.routing.prior_NE.sum() > 0
        assert torch.equal(forward(system, None), forward(system, context))


def test_emotion_reaches_the_experts_of_its_labels(system: HalloSystem):
    """A base whose expert of happiness says something shows it when happy, and not when sad."""
    other = copy.deepcopy(system)
    for _, site in other.denoiser.sites():
        loud: Any = site.emotion.experts[EXPERTS.index("happy")]
        torch.nn.init.normal_(loud.to_out[0].weight, std=0.2)
    happy_F8, sad_F8 = (one_hot(label) for label in ("happy", "sad"))
    neutral = forward(other, None)
    assert not torch.allclose(forward(other, other.emotion_context(happy_F8)), neutral, atol=1e-3)
    assert torch.equal(forward(other, other.emotion_context(sad_F8)), neutral)


def one_hot(label: str) -> Tensor:
    return torch.eye(len(LABELS))[[LABELS.index(label)] * FRAMES]


def test_a_base_cannot_hear_a_mood():
    source = said("happy", voice=1.0)
    with pytest.raises(EmotionError, match="cannot hear the mood of a voice; it has no ear for emotion"):
        FrozenEncoders().rows(source, torch.zeros(640), 1, 25.0, emotion_config(TINY.unet), None)


def test_a_part_of_a_system_has_the_weights_of_that_part():
    around = HalloSystem(TINY, Build(device="meta"), whole=False).state_dict()
    whole = HalloSystem(TINY, Build(device="meta")).state_dict()
    assert around.keys() == {key for key in whole if not key.startswith(("denoiser.", "autoencoder."))}


def test_an_expert_that_says_something_is_heard_where_it_is_open(system: HalloSystem):
    other = copy.deepcopy(system)
    for _, site in other.denoiser.sites():
        said: Any = site.emotion.experts[3]
        torch.nn.init.normal_(said.to_out[0].weight, std=0.2)
    assert torch.equal(forward(other, None), forward(system, None))
    assert not torch.allclose(forward(other, happy()), forward(system, None), atol=1e-3)


def test_experts_feel_in_the_networks_type(system: HalloSystem):
    """In bfloat16, with everything that is handed in still in float32 but the picture."""
    other = copy.deepcopy(system)
    for _, site in other.denoiser.sites():
        said: Any = site.emotion.experts[3]
        torch.nn.init.normal_(said.to_out[0].weight, std=0.2)
    other.to(torch.bfloat16)
    maps = SpeechRegions.of(torch.rand(1, 3, 8, 8), levels=4)
    picture = torch.zeros(1, 3, 64, 64, dtype=torch.bfloat16)
    one = other.portrait(picture, torch.ones(1, 512), torch.ones(1, 3, 64, 64), maps)
    motion, audio, noise = torch.randn(CARRIED, 4, 8, 8), torch.randn(FRAMES, 32, 40), torch.randn(FRAMES, 4, 8, 8)
    settings = HalloSampling(num_inference_steps=1)
    neutral, felt = (other.sample_window(one, motion, audio, noise, settings, x) for x in (None, happy()))
    assert felt.isfinite().all()
    assert not torch.allclose(felt, neutral, atol=1e-3)


def test_latents_need_not_be_square(system: HalloSystem):
    out = forward(system, happy(), height=10, width=22)
    assert out.shape == (FRAMES, 4, 10, 22)
    assert out.isfinite().all()


def test_height_and_width_are_not_confounded():
    """Speech that may act in one corner of an oblong acts in that corner."""
    module = MaskedAudioAttention(32, 32, 40, 8, 4, 32, 0, Build()).eval()
    maps = torch.zeros(1, 3, 4, 6)
    maps[..., 0, 5] = 1.0
    x, audio = torch.ones(1, 32, 4, 6), torch.randn(1, 2, 40)
    silent = SpeechRegions(levels=(torch.zeros_like(maps),))
    with torch.no_grad():
        change = (module(x, audio, SpeechRegions(levels=(maps,))) - module(x, audio, silent)).abs().sum(dim=1)[0]
    assert change[0, 5] > 1e-4
    change[0, 5] = 0
    assert change.max() < 1e-6


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_maps_keep_their_type(dtype: Any):
    maps = torch.rand(1, 3, 10, 22)
    found, expected = SpeechRegions.of(maps.to(dtype), levels=4), SpeechRegions.of(maps, levels=4)
    for one, other in zip(found.levels, expected.levels, strict=True):
        assert one.dtype == dtype
        torch.testing.assert_close(one.float(), other, rtol=0, atol=1e-2)


def test_bfloat16_runs_and_is_near(system: HalloSystem):
    expected = forward(system, None)
    found = forward(copy.deepcopy(system), None, dtype=torch.bfloat16)
    assert found.dtype == torch.bfloat16
    assert (found.float() - expected).square().mean().sqrt() < 0.05 * expected.square().mean().sqrt()


def test_the_strength_of_a_region_scales_what_it_says(system: HalloSystem, features: tuple[Tensor, ...]):
    reference = crossed_references(features)[1]
    outputs = [denoise(system, 1, reference, strengths) for strengths in (EVEN, (0.0, 1.0, 1.0), (1.0, 1.0, 0.0))]
    assert all((outputs[0] - other).abs().max() > 1e-3 for other in outputs[1:])


def test_idle_motion_modules_run_only_when_asked_for(system: HalloSystem, features: tuple[Tensor, ...]):
    idle = [name for name, module in system.denoiser.named_modules() if isinstance(module, MotionSite)]
    assert idle == [
        *(f"backbone.down_blocks.3.sites.{i}" for i in range(2)),
        *(f"backbone.up_blocks.0.sites.{i}" for i in range(3)),
    ]
    everywhere = PortraitUNet(replace(TINY.unet, motion_levels="all"), Build()).eval()
    everywhere.load_state_dict(system.denoiser.state_dict())
    other = HalloSystem(TINY, Build(device="meta"))
    other.denoiser = everywhere
    reference = crossed_references(features)[1]
    assert (denoise(other, 1, reference) - denoise(system, 1, reference)).abs().max() > 1e-2


def test_every_weight_comes_from_the_operations_handed_in():
    """So that a host can cast, stream and quantise them."""
    operations = SimpleNamespace(
        **{
            name: type(name, (getattr(torch.nn, name),), {"ours": True})
            for name in ("Linear", "Conv2d", "Conv1d", "GroupNorm", "LayerNorm", "Embedding")
        }
    )
    network = HalloSystem(TINY, Build(operations=operations, device="meta"))
    owners = [module for module in network.modules() if list(module.parameters(recurse=False))]
    assert len(owners) > 1000
    assert all(getattr(module, "ours", False) for module in owners)
    assert not list(network.buffers())


# ---- what is refused ------------------------------------------------------------------------------------------------


def test_regions_are_asked_for_and_checked(system: HalloSystem):
    one = portrait(system)
    known, _ = system.references(one, torch.randn(CARRIED, 4, 16, 16), FRAMES)

    def run(regions: SpeechRegions | None) -> None:
        system.denoiser(
            torch.randn(FRAMES, 4, 16, 16),
            torch.full((FRAMES,), STEP),
            frames=FRAMES,
            reference=known,
            audio_NSA=torch.randn(FRAMES, 32, 40),
            identity_BKC=one.known_1KC,
            regions=regions,
        )

    with pytest.raises(ValueError, match="audio attention of this network reads speech regions"):
        run(None)
    with pytest.raises(ValueError, match="given for 2 levels, level 2 reads them too"):
        run(SpeechRegions(levels=one.regions.frames(FRAMES).levels[:2]))
    with pytest.raises(ValueError, match="level 0 are for 1 frames"):
        run(one.regions)
    with pytest.raises(ValueError, match=r"must be \(frames, 3, height, width\), got \(1, 2, 4, 4\)"):
        SpeechRegions(levels=(torch.zeros(1, 2, 4, 4),))


def test_settings_that_do_not_belong_together_are_refused():
    with pytest.raises(ValueError, match="motion_levels 'all' needs motion_layout 'animatediff'"):
        PortraitUNetConfig(motion_levels="all")
    with pytest.raises(ValueError, match="audio tokens are 768 wide, the UNet's audio attention reads 40"):
        replace(TINY, audio=replace(TINY.audio, token_width=768))
    with pytest.raises(ValueError, match="locator_widths has 2 sizes, the autoencoder's latents need 4"):
        replace(TINY, locator_widths=(16, 32))


@pytest.mark.parametrize(
    ("part", "settings", "message"),
    [
        ("unet", {"motion_frames": 0}, "must carry over 1 to 4 of them, motion_frames is 0"),
        ("unet", {"motion_frames": 5}, "must carry over 1 to 4 of them, motion_frames is 5"),
        ("unet", {"beta_schedule": "cosine"}, "beta_schedule must be one of linear, scaled_linear; got 'cosine'"),
        ("unet", {"audio_layout": "plain"}, "has audio_layout 'masked' and motion_layout 'animatediff', got 'plain'"),
        ("unet", {"motion_layout": "plain"}, "got 'masked' and 'plain'"),
        ("identity", {"tokens": 0}, r"IdentityConfig\.tokens must be above 0, got 0"),
        ("autoencoder", {"block_widths": ()}, r"AutoencoderKLConfig\.block_widths must be above 0, got \(\)"),
        ("autoencoder", {"norm_groups": 0}, r"AutoencoderKLConfig\.norm_groups must be above 0, got 0"),
        ("", {"window_frames": -1}, r"HalloConfig\.window_frames must be above 0, got -1"),
        ("", {"fps": float("nan")}, r"HalloConfig\.fps must be above 0, got nan"),
    ],
)
def test_sizes_that_no_base_has_are_refused(part: str, settings: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        replace(TINY, **({part: replace(getattr(TINY, part), **settings)} if part else settings))


def test_a_time_embedding_that_is_read_has_to_be_given():
    with pytest.raises(ValueError, match="reads a time embedding, none was given"):
        ResnetBlock(32, 32, 8, 32, Build())(torch.zeros(1, 32, 4, 4))
