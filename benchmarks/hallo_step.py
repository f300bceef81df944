"""CPU seconds and memory of a denoising step, of our Hallo network and of its authors' code side by side.

    python benchmarks/hallo_step.py                                            # ours alone
    python benchmarks/hallo_step.py --authors PATH --packages PATH --rounds 3  # and theirs, in turns

``--authors`` is a clone of github.com/fudan-generative-vision/hallo (measured: 8fd7c57), ``--packages`` a folder with
what it needs and this project does not (``pip install --target PATH --no-deps diffusers==0.27.2
huggingface_hub==0.23.4 transformers==4.40.2 tokenizers==0.19.1 accelerate==0.30.1``). Nothing of it is kept here.

Both sides: random weights of half the published width (160, 320, 640, 640), 8 + 2 frames of 256 x 256 with guidance,
float32, one thread, a process of its own for every round. The authors' denoiser runs as their inference script runs
it: in training mode, with checkpointing switched on and without gradients. "grown" is the most memory during the steps
over that just before the first, "with what is kept" over that before the reference net ran; the parent process reads
both while the child works. CPU seconds depend little on what else the machine does; compare them within one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable
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


def child(folder: str | None, steps: int) -> None:
    """Say what is done, and go on when the parent has looked."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)

    def say(**what: Any) -> None:
        print("@" + json.dumps(what), flush=True)
        sys.stdin.readline()

    prepare, step = authors(folder) if folder else ours()
    say(done="built")
    begin = time.process_time()
    conditions = prepare()
    say(done="prepared", seconds=time.process_time() - begin)
    for _ in range(steps):
        begin, wall = time.process_time(), time.perf_counter()
        step(conditions)
        say(done="step", seconds=time.process_time() - begin, wall=time.perf_counter() - wall)


# ---- the parent -----------------------------------------------------------------------------------------------------


def resident(process: int) -> float:
    """MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / MEBI


def measured(folder: str | None, packages: str | None, steps: int) -> dict[str, Any]:
    """One side once: CPU seconds of every step, and memory in MiB."""
    import selectors

    command = [sys.executable, __file__, "--child", "--steps", str(steps)]
    command += ["--authors", folder] if folder else []
    paths = [packages] if folder and packages else []
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)}
    found: dict[str, Any] = {"steps": [], "wall": []}
    peak = 0.0
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        waiting = selectors.DefaultSelector()
        waiting.register(process.stdout, selectors.EVENT_READ)
        while True:
            if not waiting.select(EVERY):
                peak = max(peak, resident(process.pid))
                continue
            line = process.stdout.readline()
            if not line:
                break
            if not line.startswith("@"):
                continue  # the authors' packages talk
            said = json.loads(line[1:])
            peak = max(peak, resident(process.pid))
            if said["done"] == "built":
                found["built"] = peak = resident(process.pid)
            elif said["done"] == "prepared":
                found["preparing"], found["peak preparing"] = said["seconds"], peak
                found["prepared"] = peak = resident(process.pid)
            else:
                found["steps"].append(said["seconds"])
                found["wall"].append(said["wall"])
                found["peak"] = peak
            process.stdin.write("\n")
            process.stdin.flush()
    if process.returncode:
        raise SystemExit(f"the measured process ended with {process.returncode}; its message stands above")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="CPU seconds and memory of a denoising step of Hallo's network.")
    parser.add_argument("--authors", metavar="PATH", help="a clone of the authors' code, to be measured too")
    parser.add_argument("--packages", metavar="PATH", help="a folder with the packages that it needs")
    parser.add_argument("--rounds", type=int, default=1, help="processes of each side, in turns (default 1)")
    parser.add_argument("--steps", type=int, default=3, help="steps in every process (default 3)")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.authors, given.steps)
        return
    sides: dict[str, str | None] = {"ours": None} | ({"authors": given.authors} if given.authors else {})
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for turn in range(given.rounds):
        for name, folder in sides.items():
            one = measured(folder, given.packages, given.steps)
            found[name].append(one)
            print(
                f"round {turn + 1}  {name:8}"
                f"  CPU s a step {' '.join(f'{seconds:.2f}' for seconds in one['steps'])}"
                f"  (wall {' '.join(f'{seconds:.2f}' for seconds in one['wall'])}),"
                f" once a window {one['preparing']:.2f}"
                f"  MiB: built {one['built']:.0f}, before the first step {one['prepared']:.0f},"
                f" grown {one['peak'] - one['prepared']:.0f},"
                f" with what is kept {max(one['peak'], one['peak preparing']) - one['built']:.0f}",
                flush=True,
            )
    medians = {
        name: (
            statistics.median(seconds for one in rounds for seconds in one["steps"]),
            statistics.median(one["peak"] - one["prepared"] for one in rounds),
            statistics.median(max(one["peak"], one["peak preparing"]) - one["built"] for one in rounds),
        )
        for name, rounds in found.items()
    }
    for name, (seconds, grown, kept) in medians.items():
        print(f"median   {name:8}  {seconds:.2f} CPU s a step, grown {grown:.0f} MiB, with what is kept {kept:.0f} MiB")
    if len(medians) == 2:
        ratios = [mine / theirs for mine, theirs in zip(medians["ours"], medians["authors"], strict=True)]
        print("ours / authors    " + "  ".join(f"{ratio:.3f}" for ratio in ratios))


if __name__ == "__main__":
    main()
