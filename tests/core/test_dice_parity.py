"""DICE-Talk against the numbers of its authors' code, which is non-commercial: its data stay outside of this project.

``MOEE_PARITY`` names a folder with ``dice_talk``: manifests, and inputs and outputs at tiny sizes with weights made by
a rule. Tolerances: 1e-4 of the largest number for a network, 1e-3 for the loop, which starts at a noise of 700.
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from moee_core.audio.projector import TokenProjector
from moee_core.diffusion import shifting
from moee_core.diffusion.shifting import karras_sigmas
from moee_core.emotion.bank import EmotionBank, EmotionBankConfig
from moee_core.networks.conditions import FaceLocator
from moee_core.networks.config import VideoUNetConfig
from moee_core.networks.video_unet import mask_at
from moee_core.ops import Build
from moee_core.systems import dice_talk
from moee_core.systems.dice_talk import DiceConditions, DiceConfig, DiceSampling, DiceTalkSystem
from moee_core.weights.dice_talk import FILES, PUBLISHED, dice_shapes, load_dice_talk
from moee_core.weights.key_map import EMOTION_BANK, KeyMap

from ..fixtures.parity import equals

FOLDER = Path(os.environ.get("MOEE_PARITY", "")) / "dice_talk"
pytestmark = pytest.mark.skipif(
    not os.environ.get("MOEE_PARITY") or not FOLDER.is_dir(), reason="MOEE_PARITY names no folder with dice_talk"
)
TINY = DiceConfig(
    unet=VideoUNetConfig(
        block_widths=(32, 32, 64, 64), layers_per_block=(2, 1, 1, 1), heads=(2, 4, 4, 8), context_width=24, id_width=16
    ),
    bank=EmotionBankConfig(
        prior_width=12, hidden=24, tokens=4, width=24, codes=6, heads=4, features=20, head_widths=(14, 12)
    ),
    speech_width=16,
    speech_hidden=20,
    locator_widths=(4, 6, 8, 12),
    window_frames=5,
)
FRAMES = 5


@functools.cache
def stored(name: str) -> dict[str, Tensor]:
    found = load_file(FOLDER / f"{name}.safetensors")
    return {key: value.float() if value.is_floating_point() else value for key, value in found.items()}


def close(found: Tensor, name: str, key: str, bound: float = 1e-4, at: Any = slice(None)) -> None:
    expected = stored(name)[key][at]
    scale = max(1.0, float(expected.abs().max()))
    equals(found.reshape(expected.shape), expected, bound * scale, f"dice_talk {name} {key}")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> DiceTalkSystem:
    """By the loader, from the four pickles that a user has."""
    folder = tmp_path_factory.mktemp("dice")
    sources = {
        "unet": "unet_tiny/weights",
        "audio_projector": "projections_tiny/audio_linear_weights",
        "bank": "emotion_tiny/weights",
        "face_locator": "unet_tiny/pose_guider_weights",
    }
    for part, (name, _) in FILES.items():
        torch.save(load_file(FOLDER / f"{sources[part]}.safetensors"), folder / name)
    return load_dice_talk(folder, TINY)


@pytest.mark.parametrize("part", FILES)
def test_every_name_and_shape_at_full_size(part: str):
    file, names = FILES[part]
    manifest = json.loads((FOLDER / "manifests" / file.replace(".pth", ".json")).read_text(encoding="utf-8"))
    expected = {key: tuple(shape) for key, shape in manifest["tensors"].items()}
    found = {
        names.theirs(key.removeprefix(f"{part}.")): shape
        for key, shape in dice_shapes(PUBLISHED).items()
        if key.startswith(f"{part}.")
    }
    assert {key: shape for key, shape in found.items() if not key.endswith("mix_factor")} == {
        key: shape for key, shape in expected.items() if not key.endswith("mix_factor")
    }
    assert set(found) == set(expected)
    assert len(expected) == {"unet": 1556, "audio_projector": 8, "bank": 31, "face_locator": 16}[part]


@pytest.mark.parametrize(
    ("case", "scales", "mask", "located"),
    [
        ("masked_scale_1_1", (1.0, 1.0), True, True),
        ("unmasked_scale_1_1", (1.0, 1.0), False, True),
        ("masked_scale_0.7_1.4", (0.7, 1.4), True, True),
        ("masked_scale_1_0", (1.0, 0.0), True, True),
        ("no_spatial_condition", (1.0, 1.0), True, False),
    ],
)
def test_unet(system: DiceTalkSystem, case: str, scales: tuple, mask: bool, located: bool):
    close(drawn(system, scales, mask, located), "unet_tiny/outputs", f"out.{case}")


@torch.no_grad()
def drawn(system: DiceTalkSystem, scales: tuple = (1.0, 1.0), mask: bool = True, located: bool = True) -> Tensor:
    given = stored("unet_tiny/inputs")
    kept = system.unet.kept(given["clip_tokens"], [given["audio_tokens"], given["emo_tokens"]], FRAMES)
    return system.unet(
        given["sample"].flatten(0, 1),
        given["timestep"].view(1),
        frames=FRAMES,
        ids_BK=given["added_time_ids"],
        kept=kept,
        scales=scales,
        mask_RHW=given["face_mask"][0] if mask else None,
        added_NCHW=given["spatial_condition"].flatten(0, 1) if located else None,
    )


def test_blocks_of_the_unet(system: DiceTalkSystem):
    unet: Any = system.unet
    first = unet.down_blocks[0].attentions[0]
    places = {
        "conv_in": unet.conv_in,
        "down0_attn0_spatial_block": first.transformer_blocks[0],
        "mid": unet.mid_block,
        **{f"down{i}": unet.down_blocks[i] for i in range(4)},
        **{f"up{i}": unet.up_blocks[i] for i in range(4)},
    }
    seen: dict[str, Tensor] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, _inputs: Any, output: Any) -> None:
            seen[name] = (output[0] if isinstance(output, tuple) else output).clone()

        return hook

    hooks = [module.register_forward_hook(keep(name)) for name, module in places.items()]
    time = first.temporal_transformer_blocks[0]
    for name, block in (("spatial", first.transformer_blocks[0]), ("temporal", time)):
        hooks.append(block.attn2.to_out[0].register_forward_hook(keep(f"down0_attn0_{name}_attn2")))
    hooks.append(time.register_forward_hook(keep("down0_attn0_temporal_block")))
    try:
        drawn(system)
    finally:
        for hook in hooks:
            hook.remove()
    # theirs looks along time with every place as a row, ours with every branch as one
    along = seen["down0_attn0_temporal_attn2"].unflatten(1, (FRAMES, -1)).transpose(1, 2)
    seen["down0_attn0_temporal_attn2"] = along.flatten(0, 1)
    traced = {key.removeprefix("trace.") for key in stored("unet_tiny/outputs") if key.startswith("trace.")}
    assert set(seen) == traced
    for name, found in seen.items():
        close(found, "unet_tiny/outputs", f"trace.{name}")


@pytest.mark.parametrize("level", range(4))
def test_mask_at_every_level(level: int):
    size = (8 >> level, 16 >> level)
    close(mask_at(stored("unet_tiny/inputs")["face_mask"][0], size), "unet_tiny/outputs", f"mask_level{level}")


def test_face_locator(system: DiceTalkSystem):
    with torch.no_grad():
        found = system.face_locator(stored("unet_tiny/inputs")["pose_mask"][:, :, 0])
    expected = stored("unet_tiny/outputs")["pose_features"]
    close(found.expand(len(expected[0]), -1, -1, -1), "unet_tiny/outputs", "pose_features")


def test_audio_tokens(system: DiceTalkSystem):
    given = stored("projections_tiny/inputs")["audio_embeds"]
    with torch.no_grad():
        close(system.audio_projector(given.flatten(0, 1)), "projections_tiny/outputs", "context_tokens")
        silent = system.silence(given).expand(given.shape[0] * given.shape[1], -1, -1)
        close(silent, "projections_tiny/outputs", "context_tokens_zero_input")
        close(system.silence(given).expand(13, -1, -1), "projections_tiny/outputs", "uncond_audio_list")


def test_windows_of_speech(system: DiceTalkSystem):
    """From an encoder's features, as many as the recording lasts, to a token set for every frame."""
    config = json.loads((FOLDER / "projections_tiny" / "config.json").read_text(encoding="utf-8"))
    heard = 2 * config["audio_len_25fps_frames"]
    features = stored("projections_tiny/outputs")["whisper_hidden_states_first_300"][0, :heard]
    found = system.audio_tokens(features, torch.arange(config["official_frame_count"]))
    close(found, "projections_tiny/outputs", "audio_list")


@pytest.mark.parametrize("retrieval", [False, True])
@pytest.mark.parametrize("who", ["mu", "multi", "zeros"])
def test_emotion_tokens(system: DiceTalkSystem, who: str, retrieval: bool):
    given = stored("emotion_tiny/inputs")
    prior = torch.zeros(1, 12) if who == "zeros" else given[who].view(-1, 12)
    with torch.no_grad():
        close(system.bank(prior, retrieval=retrieval), "emotion_tiny/outputs", f"{who}.retrieval_{retrieval}.tokens")
        found = system.bank.retrieved(prior)
        if who != "multi" and retrieval:  # their code works the loss out in both cases and returns it in one
            loss = found.codebook + 0.25 * found.commitment
            close(loss, "emotion_tiny/outputs", f"{who}.retrieval_{retrieval}.vq_loss")


def test_the_nearest_code_and_the_discrimination_head(system: DiceTalkSystem):
    given = stored("emotion_tiny/inputs")
    with torch.no_grad():
        found = system.bank.retrieved(given["mu"].view(1, 12))
        close(found.values, "emotion_tiny/outputs", "bank.quantised")
        close(found.indices, "emotion_tiny/outputs", "bank.index")
        close(found.codebook + 0.25 * found.commitment, "emotion_tiny/outputs", "bank.loss")
        close(system.bank.classifier(given["classifier_features"]), "emotion_tiny/outputs", "classifier.logits")


def test_emotion_of_a_clip(system: DiceTalkSystem):
    prior = stored("projections_tiny/inputs")["emo_prior"].view(1, 12)
    with torch.no_grad():
        close(system.bank(prior).expand(13, -1, -1), "projections_tiny/outputs", "emo_list")
        nothing = system.bank(torch.zeros_like(prior)).expand(13, -1, -1)
        close(nothing, "projections_tiny/outputs", "uncond_emo_list")


def case_names() -> list[str]:
    path = FOLDER / "pipeline_tiny" / "config.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["cases"]) if path.is_file() else ["none"]


def case(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / "pipeline_tiny" / "config.json").read_text(encoding="utf-8"))["cases"][name]


@torch.no_grad()
def sampled(system: DiceTalkSystem, name: str, tail: int = 0) -> Tensor:
    """The latents of a case of the pipeline, with some frames of the padding."""
    told = case(name)
    given, expected = stored("pipeline_tiny/inputs"), stored("pipeline_tiny/outputs")
    frames, padding = told["num_frames"], told["frames_per_batch"]
    (low, high), (from_low, from_high) = told["g1"], told["g2"]
    sampling = DiceSampling(
        steps=told["steps"],
        reference_guidance=high,
        audio_guidance=from_high,
        ramp_from=(low, from_low, from_low),
        overlap=told["overlap"],
        shift=told["shift_offset"],
        padding=padding,
        strength=told["i2i"],
    )
    conditions = DiceConditions(
        image_1D=expected["clip_embeds"],
        latent_1Zhw=expected["vae_mode"],
        located_1Chw=system.face_locator(given["face_mask"]),
        mask_1HW=given["face_mask"][0, :1],
        audio_TSD=given["audio_list"][:frames],
        emotion_USD=given["emo_list"][:frames],
        which_T=torch.arange(frames),
        silence_1SD=given["uncond_audio_list"][:1],
        nothing_1SD=given["uncond_emo_list"][:1],
    )
    return system.sample(conditions, given["noise"][0, : frames + padding], sampling, tail=tail)


@pytest.mark.parametrize("name", case_names())
def test_the_whole_loop(system: DiceTalkSystem, name: str):
    told = case(name)
    found = sampled(system, name, tail=told["frames_per_batch"])
    close(found, "pipeline_tiny/outputs", f"{name}.latents_final_with_padding", 1e-3, at=0)
    close(karras_sigmas(told["steps"]), "pipeline_tiny/outputs", f"{name}.sigmas")
    times = karras_sigmas(told["steps"])[:-1].log() / 4
    close(times, "pipeline_tiny/outputs", f"{name}.timesteps")


@pytest.mark.parametrize("name", case_names())
def test_every_window_of_the_loop(system: DiceTalkSystem, name: str, monkeypatch: pytest.MonkeyPatch):
    """What the network is asked and answers, window by window: v of all branches together, and where Euler goes."""
    answers: list[Tensor] = []
    steps: list[Tensor] = []
    told = case(name)
    whole = shifting.sample_shifting
    sigmas = stored("pipeline_tiny/outputs")[f"{name}.sigmas"]

    def listening(predict: Any, *given: Any, **named: Any) -> Tensor:
        def noting(frames: Tensor, scaled: Tensor, time: Tensor, part: float) -> Tensor:
            answers.append(predict(frames, scaled, time, part))
            at = torch.exp(4 * time)
            seen, following = scaled * (at**2 + 1).sqrt(), sigmas[(sigmas - at).abs().argmin() + 1]
            clean = seen / (at**2 + 1) - answers[-1] * at / (at**2 + 1).sqrt()
            steps.append(seen + (following - at) / at * (seen - clean))
            return answers[-1]

        return whole(noting, *given, **named)

    monkeypatch.setattr(dice_talk, "sample_shifting", listening)
    sampled(system, name)
    assert len(answers) == told["window_calls"]
    close(torch.stack(answers)[:, None], "pipeline_tiny/outputs", f"{name}.trace_noise_pred", 1e-3)
    close(torch.stack(steps)[:, None], "pipeline_tiny/outputs", f"{name}.trace_window_latents", 1e-3)


@pytest.mark.parametrize("name", case_names())
def test_the_video(system: DiceTalkSystem, name: str):
    """Latents to pixels, by diffusers' decoder, in pieces as long as the authors'. They decode the padding too, and a
    piece's last frames see it."""
    diffusers = pytest.importorskip("diffusers")
    config = json.loads((FOLDER / "pipeline_tiny" / "config.json").read_text(encoding="utf-8"))
    told, settings = case(name), config["vae"]
    vae = diffusers.AutoencoderKLTemporalDecoder(
        **{key: tuple(value) if isinstance(value, list) else value for key, value in settings.items()}
    ).eval()
    vae.load_state_dict(stored("pipeline_tiny/vae_weights"))
    frames, piece = told["num_frames"], told["chunk"]
    latents = sampled(system, name, tail=min(-frames % piece, told["frames_per_batch"]))
    with torch.no_grad():
        encoded = vae.encode(stored("pipeline_tiny/inputs")["ref_img"]).latent_dist.mode()
        close(encoded, "pipeline_tiny/outputs", "vae_mode")
        parts = (latents / settings["scaling_factor"]).split(piece)
        found = torch.cat([vae.decode(part, num_frames=len(part)).sample for part in parts])[:frames]
    close(found.transpose(0, 1), "pipeline_tiny/outputs", f"{name}.video", 1e-3, at=0)


def test_the_embedding_of_a_picture():
    """By transformers' CLIP vision, which a host has as its own."""
    transformers = pytest.importorskip("transformers")
    settings = json.loads((FOLDER / "pipeline_tiny" / "config.json").read_text(encoding="utf-8"))["clip_vision"]
    clip = transformers.CLIPVisionModelWithProjection(transformers.CLIPVisionConfig(**settings)).eval()
    clip.load_state_dict(stored("pipeline_tiny/clip_weights"), strict=False)
    with torch.no_grad():
        found = clip(stored("pipeline_tiny/inputs")["clip_img"]).image_embeds
    close(found, "pipeline_tiny/outputs", "clip_embeds")


def test_noise_levels_of_every_number_of_steps():
    tables = json.loads((FOLDER / "pipeline_tiny" / "scheduler_tables.json").read_text(encoding="utf-8"))["schedules"]
    for steps, table in tables.items():
        expected = torch.tensor(table["sigmas"])
        found = karras_sigmas(int(steps))
        equals(found / 700, expected / 700, 1e-6, f"dice_talk scheduler_tables sigmas {steps}")
        times = found[:-1].log() / 4
        equals(times, torch.tensor(table["timesteps"]).float(), 1e-5, f"dice_talk scheduler_tables timesteps {steps}")


# ---- full size, with weights by formula -----------------------------------------------------------------------------


def procedural(key: str, shape: tuple[int, ...]) -> Tensor:
    """As ``fullsize_procedural/config.json`` says."""
    count = int(np.prod(shape))
    h = (np.arange(count, dtype=np.uint64) * 2654435761 + zlib.crc32(key.encode())) % 2**32
    h ^= h >> np.uint64(16)
    h = (h * np.uint64(0x45D9F3B)) % 2**32
    h ^= h >> np.uint64(16)
    x = (h.astype(np.float64) / 2**32 - 0.5) * np.sqrt(12.0)
    if len(shape) >= 2:
        x *= 1.4 / np.sqrt(np.prod(shape[1:]))
    elif key.endswith("norm.weight"):
        x = 1 + 0.2 * x
    else:
        x = 0.1 * x
    return torch.from_numpy(x.astype(np.float32).reshape(shape))


def made(tag: str, *shape: int) -> Tensor:
    return procedural(f"input:{tag}", (int(np.prod(shape)),)).reshape(shape) * 10


def test_projector_and_locator_at_full_size():
    name = "fullsize_procedural/outputs"
    projector = TokenProjector(19200, 1024, 32, 1024, Build())
    projector.load_state_dict({key: procedural(key, tuple(x.shape)) for key, x in projector.state_dict().items()})
    locator = FaceLocator((16, 32, 96, 256), 320, Build())
    locator.load_state_dict({key: procedural(key, tuple(x.shape)) for key, x in locator.state_dict().items()})
    mask = torch.zeros(1, 3, 64, 64)
    mask[..., 10:40, 20:50] = 1
    with torch.no_grad():
        found = projector(made("audio", 1, 2, 10, 5, 384)[0])
        close(found[0], name, "audio_linear.out_f0")
        close(found[1, :4], name, "audio_linear.out_f1_tok0_4")
        close(projector(torch.zeros(1, 19200))[0, :4], name, "audio_linear.zero_tok0_4")
        close(locator(mask)[0, :40], name, "pose_guider.out_ch0_40")


def test_bank_at_full_size():
    bank = EmotionBank(EmotionBankConfig(), Build()).eval()
    names = KeyMap(rows=EMOTION_BANK)
    state = {}
    for key, value in bank.state_dict().items():
        known = key in ("dictionary.counts", "dictionary.started")
        state[key] = torch.ones_like(value) if known else procedural(names.theirs(key), tuple(value.shape))
    state["dictionary.codes.weight"] *= 20
    bank.load_state_dict(state)
    name = "fullsize_procedural/outputs"
    prior = made("emo", 1, 256)
    with torch.no_grad():
        close(bank(prior)[0], name, "emo.mu.retrieval_False")
        close(bank(prior, retrieval=True)[0, :4], name, "emo.mu.retrieval_True")
        close(bank(torch.zeros(1, 256))[0, :4], name, "emo.zeros.retrieval_False")
        close(bank(torch.zeros(1, 256), retrieval=True)[0, :4], name, "emo.zeros.retrieval_True")
        close(bank.retrieved(prior).indices, name, "emo.bank_index")
