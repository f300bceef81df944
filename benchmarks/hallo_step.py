"""CPU seconds and memory of a denoising step, of our Hallo network and of its authors' code side by side.

    python benchmarks/hallo_step.py                                   # ours alone
    python benchmarks/hallo_step.py --authors PATH --packages PATH    # and theirs, in turns

``--authors`` is a clone of github.com/fudan-generative-vision/hallo (measured: 8fd7c57), ``--packages`` a folder with
what it needs and this project does not (``pip install --target PATH --no-deps diffusers==0.27.2
huggingface_hub==0.23.4 transformers==4.40.2 tokenizers==0.19.1 accelerate==0.30.1``). Nothing of it is kept here.

Both sides: random weights of half the published width (160, 320, 640, 640), 8 + 2 frames of 256 x 256 with guidance,
float32, one thread, a process of its own each, step by step in turns. The authors' denoiser runs as their inference
script runs it: in training mode, with checkpointing switched on and without gradients. "grown" is the most memory
during the steps over that just before the first, "with what is kept" over that before the reference net ran; the
parent process reads both while the child works. CPU seconds rise by a fifth when a busy machine keeps emptying the
caches, on both sides: compare them within one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SIDE, FRAMES, CARRIED, WIDTHS = 256, 8, 2, (160, 320, 640, 640)
LATENT, AUDIO_TOKENS, AUDIO_WIDTH = SIDE // 8, 32, 768
MEBI = 1 << 20
EVERY = 0.005
"""Seconds between two looks at a child's memory."""


# ---- the two sides, each in a process of its own ------------------------------------------------------------------


def ours() -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """(all that is made once for a window, a step with it)."""
    import torch

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    from benchmarks.hallo_flops import HALF
    from moee_core.networks.masked_audio import SpeechRegions
    from moee_core.systems.hallo import HalloSystem

    assert (HALF.unet.block_widths, HALF.window_frames) == (WIDTHS, FRAMES)
    system = HalloSystem(HALF).eval().requires_grad_(False)
    maps = SpeechRegions.of(torch.rand(1, 3, LATENT, LATENT), levels=4)
    with torch.no_grad():
        portrait = system.portrait(
            torch.rand(1, 3, SIDE, SIDE) * 2 - 1, torch.randn(1, 512), torch.ones(1, 3, SIDE, SIDE), maps
        )
    audio = torch.randn(FRAMES, AUDIO_TOKENS, AUDIO_WIDTH)
    motion, noise = torch.randn(CARRIED, 4, LATENT, LATENT), torch.randn(FRAMES, 4, LATENT, LATENT)
    del system.autoencoder, system.face_locator  # the other side has none in memory

    def prepare() -> Any:
        return system.branches(portrait, motion, audio)

    def step(branches: Any) -> Any:
        with torch.no_grad():
            return [
                system.denoiser(noise, torch.tensor([749]), frames=FRAMES, reference=one, added_NCHW=added)
                for one, added in zip(branches, (portrait.located_1Dhw, None), strict=True)
            ]

    return prepare, step


def authors(folder: str) -> tuple[Callable[[], Any], Callable[[Any], Any]]:
    """The same of the authors' code."""
    import torch

    sys.path.insert(0, folder)
    import diffusers  # type: ignore[import-not-found]  # looks for xformers itself, so before the next line

    assert diffusers
    for name in ("xformers", "xformers.ops"):  # imported by one file, and used on a graphics card only
        sys.modules.setdefault(name, types.ModuleType(name))
    from hallo.models.mutual_self_attention import ReferenceAttentionControl  # type: ignore[import-not-found]
    from hallo.models.unet_2d_condition import UNet2DConditionModel  # type: ignore[import-not-found]
    from hallo.models.unet_3d import UNet3DConditionModel  # type: ignore[import-not-found]

    sizes = {  # Stable Diffusion 1.5's configuration file, at other widths
        "sample_size": LATENT,
        "in_channels": 4,
        "block_out_channels": WIDTHS,
        "cross_attention_dim": 768,
        "attention_head_dim": 8,
        "layers_per_block": 2,
        "out_channels": 4,
        "act_fn": "silu",
        "center_input_sample": False,
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "mid_block_scale_factor": 1,
        "norm_eps": 1e-5,
        "norm_num_groups": 32,
    }
    flat = {
        "down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"],
        "up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3,
    }
    reference = UNet2DConditionModel.from_config(sizes | flat)
    denoiser = UNet3DConditionModel.from_config(
        sizes,
        use_inflated_groupnorm=True,
        unet_use_cross_frame_attention=False,
        unet_use_temporal_attention=False,
        use_motion_module=True,
        use_audio_module=True,
        motion_module_mid_block=True,
        motion_module_type="Vanilla",
        motion_module_kwargs={
            "num_attention_heads": 8,
            "num_transformer_block": 1,
            "attention_block_types": ["Temporal_Self", "Temporal_Self"],
            "temporal_position_encoding": True,
            "temporal_position_encoding_max_len": 32,
            "temporal_attention_dim_div": 1,
        },
        audio_attention_dim=AUDIO_WIDTH,
        stack_enable_blocks_name=["up", "down", "mid"],
        stack_enable_blocks_depth=[0, 1, 2, 3],
    )
    reference.eval().requires_grad_(False)
    denoiser.train().requires_grad_(False)
    reference.enable_gradient_checkpointing()
    denoiser.enable_gradient_checkpointing()
    settings = {"do_classifier_free_guidance": True, "batch_size": 1, "fusion_blocks": "full"}
    writer = ReferenceAttentionControl(reference, mode="write", **settings)
    reader = ReferenceAttentionControl(denoiser, mode="read", **settings)
    pictures, tokens = torch.randn(1 + CARRIED, 4, LATENT, LATENT), torch.randn(2, 4, 768)
    audio = torch.randn(1, FRAMES, AUDIO_TOKENS, AUDIO_WIDTH)
    audio = torch.cat([torch.zeros_like(audio), audio])
    located = torch.randn(1, WIDTHS[0], FRAMES, LATENT, LATENT)
    located = torch.cat([torch.zeros_like(located), located])
    noise = torch.randn(1, 4, FRAMES, LATENT, LATENT)
    masks = [torch.rand(2 * FRAMES, (LATENT >> level) ** 2) for level in range(4)]

    def prepare() -> Any:
        with torch.no_grad():
            zero = torch.tensor(0)
            reference(pictures.repeat(2, 1, 1, 1), zero, encoder_hidden_states=tokens, return_dict=False)
            reader.update(writer)

    def step(_: Any) -> Any:
        with torch.no_grad():
            return denoiser(
                torch.cat([noise] * 2),
                torch.tensor(749),
                encoder_hidden_states=tokens,
                mask_cond_fea=located,
                full_mask=masks,
                face_mask=masks,
                lip_mask=masks,
                audio_embedding=audio,
                motion_scale=[1.0, 1.0, 1.0],
                return_dict=False,
            )[0]

    return prepare, step


def child(folder: str | None) -> None:
    """Build, then do what the parent says."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)

    def timed(work: Callable[[], Any]) -> Any:
        begin, wall = time.process_time(), time.perf_counter()
        result = work()
        taken = {"seconds": time.process_time() - begin, "wall": time.perf_counter() - wall}
        print("@" + json.dumps(taken), flush=True)
        return result

    prepare, step = timed(lambda: authors(folder) if folder else ours())
    conditions: Any = None
    for told in sys.stdin:
        if told == "prepare\n":
            conditions = timed(prepare)
        else:
            timed(partial(step, conditions))


# ---- the parent -----------------------------------------------------------------------------------------------------


def resident(process: int) -> float:
    """MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEBI


class Side:
    """One side in a process of its own, which does something when it is told to; MiB and CPU seconds of it."""

    def __init__(self, folder: str | None, packages: str | None):
        command = [sys.executable, __file__, "--child"] + (["--authors", folder] if folder else [])
        paths = packages if folder and packages else ""
        self.process = subprocess.Popen(
            command,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": paths},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        self.answers = selectors.DefaultSelector()
        assert self.process.stdout is not None
        self.answers.register(self.process.stdout, selectors.EVENT_READ)
        self.answer()
        self.built = resident(self.process.pid)
        self.preparing, _, self.peak_preparing = self.tell("prepare")
        self.prepared = resident(self.process.pid)
        self.steps: list[float] = []
        self.wall: list[float] = []
        self.peak = self.prepared

    def step(self) -> None:
        seconds, wall, peak = self.tell("step")
        self.steps.append(seconds)
        self.wall.append(wall)
        self.peak = max(self.peak, peak)

    def tell(self, what: str) -> tuple[float, float, float]:
        """(CPU seconds, seconds, most memory while it was done)."""
        assert self.process.stdin is not None
        self.process.stdin.write(what + "\n")
        return self.answer()

    def answer(self) -> tuple[float, float, float]:
        assert self.process.stdout is not None
        peak = resident(self.process.pid)
        while True:
            if not self.answers.select(EVERY):
                peak = max(peak, resident(self.process.pid))
                continue
            line = self.process.stdout.readline()
            if not line:
                raise SystemExit(f"a measured process ended with {self.process.wait()}; its message stands above")
            if line.startswith("@"):  # the authors' packages talk too
                said = json.loads(line[1:])
                return said["seconds"], said["wall"], max(peak, resident(self.process.pid))

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU seconds and memory of a denoising step of Hallo's network.")
    parser.add_argument("--authors", metavar="PATH", help="a clone of the authors' code, to be measured too")
    parser.add_argument("--packages", metavar="PATH", help="a folder with the packages that it needs")
    parser.add_argument("--steps", type=int, default=4, help="steps of each side, in turns (default 4)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.authors)
        return
    names = ["ours"] + (["authors"] if given.authors else [])
    sides = {name: Side(given.authors if name == "authors" else None, given.packages) for name in names}
    for turn in range(given.steps):
        for side in sides.values():
            side.step()
        taken = "  ".join(f"{name} {side.steps[-1]:.2f} (wall {side.wall[-1]:.2f})" for name, side in sides.items())
        print(f"step {turn + 1}  CPU s: {taken}", flush=True)
    rows = {}
    for name, side in sides.items():
        side.close()
        grown, kept = side.peak - side.prepared, max(side.peak, side.peak_preparing) - side.built
        rows[name] = (statistics.median(side.steps), min(side.steps), grown, kept)
        print(
            f"{name:8} CPU s a step: median {rows[name][0]:.2f}, least {rows[name][1]:.2f}; once a window"
            f" {side.preparing:.2f}\n         MiB: built {side.built:.0f}, before the first step {side.prepared:.0f},"
            f" grown {grown:.0f}, with what is kept {kept:.0f}"
        )
    if len(rows) == 2:
        ratios = [mine / theirs for mine, theirs in zip(rows["ours"], rows["authors"], strict=True)]
        labels = ("median", "least", "grown", "with what is kept")
        print("ours / authors: " + ", ".join(f"{label} {x:.3f}" for label, x in zip(labels, ratios, strict=True)))


if __name__ == "__main__":
    main()
