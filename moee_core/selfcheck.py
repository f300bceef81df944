"""Whether this machine computes what a CPU computed: ``python -m moee_core selfcheck --device cuda``.

Two models are run on one short window and compared with stored results: the embedded one, with its own weights, and a
Hallo base at a small width with weights made up by rule, in three types. Every part is compared by itself, so that what
is wrong has a name.

Shapes (legend for this file): F frames of a window
    results     {name of a part: tensor}, float32 on the CPU, whatever they were computed in
    difference  |found - stored| / |stored|, over all numbers of a part

The allowances are far above rounding and far below a fault: graphics cards round convolutions to 10 bits even in
float32 (TF32), and a wrong kernel or a layer in the wrong place makes differences as large as the numbers themselves.
"""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .networks.config import AudioConfig, AutoencoderKLConfig, HalloConfig, PortraitUNetConfig
from .networks.masked_audio import SpeechRegions
from .systems.hallo import HalloSampling, HalloSystem
from .weights.detect import RESULTS

ASSETS = Path(__file__).parent / "assets"
STORED = ASSETS / "selfcheck.safetensors"
SMALL = HalloConfig(
    unet=PortraitUNetConfig(
        block_widths=(32, 32, 64, 64),
        identity_width=48,
        audio_width=40,
        emotion_width=16,
        audio_layout="masked",
        motion_layout="animatediff",
    ),
    audio=AudioConfig(width=32, hidden=32, token_width=40),
    autoencoder=AutoencoderKLConfig(block_widths=(32, 32, 32, 32), layers_per_block=1),
    image_size=64,
    window_frames=4,
)
ALLOWED = {torch.float32: 0.01, torch.float16: 0.1, torch.bfloat16: 0.3}
"""Largest difference by type. Between types the bits of a number's fraction fall from 23 (10 in TF32) to 10 and 7."""
SAID = "happy 0.7 + surprised 0.3"
VOICE_HZ = (110.0, 180.0)
RATE = 16_000


def ruled(name: str, shape: tuple[int, ...]) -> Tensor:
    """Numbers that depend on their name alone, on any machine and release: of variance 1 / inputs, biases small, the
    weights of norms near 1."""
    numbers = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape).astype(np.float32)
    if len(shape) > 1:
        return torch.from_numpy(numbers / np.float32(np.sqrt(np.prod(shape[1:]))))
    return torch.from_numpy(0.05 * numbers if name.endswith(".bias") else 1 + 0.1 * numbers)


def given(name: str, *shape: int) -> Tensor:
    """An input by the same rule, of variance 1."""
    return ruled(name, (int(np.prod(shape)),)).sub(1).mul(10).view(shape)


@torch.no_grad()
def base_results(device: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """One window of a Hallo base, every part of it taking part."""
    system = HalloSystem(SMALL)
    state = {key: ruled(key, tuple(value.shape)) for key, value in system.state_dict().items()}
    system.load_state_dict(state, strict=True)
    system.eval().to(device, dtype)
    frames, side = SMALL.window_frames, SMALL.image_size
    picture = given("picture", 1, 3, side, side).tanh().to(device, dtype)
    maps = given("maps", 1, 3, side // 8, side // 8).sigmoid()
    box = torch.zeros(1, 3, side, side)
    box[..., side // 4 : 3 * side // 4, side // 4 : 3 * side // 4] = 1
    portrait = system.portrait(picture, given("identity", 1, 512), box, SpeechRegions.of(maps, levels=4))
    tokens = system.audio_tokens(given("features", 6, 12, 32).to(device, dtype), torch.arange(frames))
    carried = system.autoencoder.encode(given("carried", 2, 3, side, side).tanh().to(device, dtype))
    vectors = torch.zeros(frames, 8)
    vectors[:, 1], vectors[-1, 6] = 0.7, 0.3
    emotion = system.emotion_context(vectors.to(device))
    noise = given("noise", frames, 4, side // 8, side // 8)
    sampling = HalloSampling(num_inference_steps=1)  # each further step of a made-up network multiplies the rounding
    window = system.sample_window(portrait, carried, tokens, noise, sampling, emotion)
    picture = system.autoencoder.decode(window[:1].to(device, dtype))
    found = {
        "encoder": portrait.latent_1Zhw,
        "face locator": portrait.located_1Dhw[:, ::8],
        "speech": tokens[:1],
        "emotion": emotion.latents_NMD[:1],
        "window": window,
        "decoder": picture,
    }
    return {name: value.float().cpu() for name, value in found.items()}


@torch.no_grad()
def embedded_results(device: str) -> dict[str, Tensor]:
    """The first window of a sample portrait that hums, by the model that ships."""
    from .audio.encoder import encode_speech
    from .audio.read import Waveform, resample_mono
    from .emotion.timeline import parse_emotion
    from .pipeline import SamplingSettings, animate
    from .portrait.image import read_portrait
    from .weights.checkpoint import load_system

    system, _ = load_system(ASSETS / "embedded.safetensors")
    system.to(device)
    count = round(system.config.window_frames / system.config.fps * RATE)
    pitch = np.linspace(*VOICE_HZ, count)
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    hum = sum(np.sin(k * phase) / k for k in range(1, 9)) * 0.2 * np.hanning(count)
    waveform = Waveform(samples=np.asarray(hum, np.float32)[None], sample_rate=RATE)
    mono = torch.from_numpy(resample_mono(waveform))
    speech = encode_speech(system.speech_encoder, mono, system.config.window_frames, system.config.fps)
    portrait = read_portrait(ASSETS / "portraits" / "mira.png")
    settings = SamplingSettings(num_inference_steps=2, audio_guidance=1.4)
    frames = list(animate(system, portrait, waveform, parse_emotion(SAID), settings))
    shown = torch.from_numpy(np.stack([frames[0], frames[-1]])[:, ::2, ::2]).float() / 255
    return {"speech": speech.features_TLD[::4].float().cpu(), "frames": shown}


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A part of a model: how far it is from what is stored, and how far it may be."""

    name: str
    difference: float
    allowed: float

    @property
    def passed(self) -> bool:
        return self.difference <= self.allowed  # so that no number at all does not pass


def runs(device: str) -> Iterator[tuple[str, str, float, Callable[[], dict[str, Tensor]]]]:
    """(what is run, the name its results are stored under, allowance, the run) for all that is checked."""
    yield "embedded model", "embedded", ALLOWED[torch.float32], lambda: embedded_results(device)
    for dtype, allowed in ALLOWED.items():
        name = str(dtype).removeprefix("torch.")
        yield f"Hallo base, {name}", "base", allowed, lambda dtype=dtype: base_results(device, dtype)


def check(device: str) -> Iterator[Checked]:
    """Every part on a device, one after another."""
    from .weights.checkpoint import read_tensors

    stored = read_tensors(STORED)
    for title, place, allowed, run in runs(device):
        for part, value in run().items():
            expected = stored[f"{place}.{part}"].float()
            difference = float((value - expected).norm() / expected.norm())
            yield Checked(name=f"{title}: {part}", difference=difference, allowed=allowed)


def write(path: Path) -> None:
    """Store what this machine's CPU computes in float32, for others to be compared with."""
    from safetensors.torch import save_file

    results = {"embedded": embedded_results("cpu"), "base": base_results("cpu", torch.float32)}
    table = {f"{place}.{part}": value for place, parts in results.items() for part, value in parts.items()}
    halved = {name: value.half().contiguous() for name, value in table.items()}
    save_file(halved, str(path), metadata={"architecture": RESULTS})


def report(device: str) -> int:
    """Print a line for every part as it is done. 0 when all pass, else 1."""
    began = time.monotonic()
    name = torch.cuda.get_device_name(device) if torch.device(device).type == "cuda" else device
    sys.stdout.write(f"{name}, PyTorch {torch.__version__}\n{'part':36}{'difference':>12}{'allowed':>10}\n")
    failed = []
    for one in check(device):
        sys.stdout.write(f"{one.name:36}{one.difference:12.2g}{one.allowed:10g}{'' if one.passed else '  DIFFERS'}\n")
        sys.stdout.flush()
        if not one.passed:
            failed.append(one.name)
    seconds = f"{time.monotonic() - began:.1f} s"
    if not failed:
        sys.stdout.write(f"all parts agree with the stored results ({seconds})\n")
        return 0
    sys.stdout.write(
        f"{len(failed)} parts differ ({seconds}), the first is {failed[0]}. Compare with --device cpu: where that "
        "agrees, the device's driver or its PyTorch computes something else; update them, and report it with this "
        "table\n"
    )
    return 1
