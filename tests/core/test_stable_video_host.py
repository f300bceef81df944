"""Stability's single file by an oracle: ComfyUI's own Stable Video Diffusion, its names, shapes and numbers.

Needs ``COMFYUI_PATH`` (a checkout) and, where pytest runs in another environment, ``COMFYUI_PYTHON``. The network is
built there from the names and shapes of a file, as ComfyUI does for any file; here our table read the same file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from moee_core.networks.config import VideoUNetConfig
from moee_core.networks.video_unet import VideoUNet
from moee_core.ops import Build
from moee_core.selfcheck import given, ruled
from moee_core.weights.stable_video import (
    IN_A_SINGLE_FILE,
    PLAIN,
    read_stable_video,
    single_file_names,
    stable_video_shapes,
)

HOST = os.environ.get("COMFYUI_PATH")
PYTHON = os.environ.get("COMFYUI_PYTHON", sys.executable)
pytestmark = [pytest.mark.comfy, pytest.mark.skipif(not HOST, reason="COMFYUI_PATH names no checkout")]

SMALL = VideoUNetConfig(
    block_widths=(64, 128, 256, 256), heads=(1, 2, 4, 4), layers_per_block=(2, 2, 2, 2), context_width=24, adapters=0
)
FRAMES = 3

THERE = """
import json, sys
host, shapes, weights, inputs, output, prefix = sys.argv[1:7]
sys.path.insert(0, host)
sys.argv = sys.argv[:1]
import comfy.cli_args
comfy.cli_args.args.cpu = True
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel, timestep_embedding
from comfy.model_detection import detect_unet_config
from safetensors.torch import load_file, save_file

def built(state, **more):
    config = detect_unet_config(state, prefix)
    for name in ("disable_unet_model_creation", "audio_model", "image_model"):
        config.pop(name, None)
    return UNetModel(**config, num_heads=-1, num_head_channels=64, dtype=torch.float32, **more)

table = json.load(open(shapes, encoding="utf-8"))
full = built({key: torch.empty(shape, device="meta") for key, shape in table.items()}, device="meta")
found = {prefix + key: list(value.shape) for key, value in full.state_dict().items()}
missing, unknown = sorted(found.keys() - table.keys()), sorted(table.keys() - found.keys())
other = [key for key, shape in table.items() if key in found and found[key] != shape]

state = load_file(weights)
network = built(state, device="cpu").eval()
network.load_state_dict({key.removeprefix(prefix): value for key, value in state.items()}, strict=True)
given = load_file(inputs)
ids = torch.stack([timestep_embedding(row, 256).flatten() for row in given["ids"]])
rows, frames = len(given["x"]), len(given["x"]) // len(ids)
with torch.no_grad():
    drawn = network(given["x"], given["t"].expand(rows), context=given["image"],
                    y=ids.repeat_interleave(frames, dim=0), num_video_frames=frames)
save_file({"drawn": drawn.contiguous()}, output)
print("RESULT " + json.dumps({"count": len(found), "missing": missing, "unknown": unknown, "other": other}))
"""


@torch.no_grad()
def test_comfyuis_network_draws_the_same_from_the_same_file(tmp_path: Path):
    names = single_file_names(SMALL)
    shapes = stable_video_shapes(SMALL)
    state = {}
    for key, shape in shapes.items():
        theirs = names.theirs(key)
        state[theirs] = ruled(theirs, (1,) if theirs.endswith("mix_factor") else shape)
    # mixes of all strengths, and not all near 0.73
    state = {key: 3 * (value - 1) if key.endswith("mix_factor") else value for key, value in state.items()}
    save_file(state, tmp_path / "svd.safetensors")
    branches = 2
    image = given("image", branches, 1, 24).repeat_interleave(FRAMES, dim=0)
    inputs = {
        "x": given("x", branches * FRAMES, 8, 8, 16),
        "t": torch.tensor([0.7]),
        "ids": torch.tensor([[12.5, 8.0, 16.0], [25.0, 127.0, 0.02]]),
        "image": image.contiguous(),
    }
    save_file(inputs, tmp_path / "inputs.safetensors")
    full = {single_file_names(PLAIN).theirs(key): shape for key, shape in stable_video_shapes().items()}
    full = {key: (1,) if key.endswith("mix_factor") else shape for key, shape in full.items()}
    (tmp_path / "full.json").write_text(json.dumps(full), encoding="utf-8")
    files = [
        str(tmp_path / name) for name in ("full.json", "svd.safetensors", "inputs.safetensors", "drawn.safetensors")
    ]
    command = [PYTHON, "-c", THERE, str(HOST), *files, IN_A_SINGLE_FILE]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    result = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("RESULT "))[7:])
    assert result == {"count": 1428, "missing": [], "unknown": [], "other": []}

    ours = VideoUNet(SMALL, Build()).eval()
    ours.load_state_dict(read_stable_video(tmp_path / "svd.safetensors", SMALL), strict=True)
    kept = ours.kept(inputs["image"], [], FRAMES)
    found = ours(inputs["x"], inputs["t"], frames=FRAMES, ids_BK=inputs["ids"], kept=kept)
    expected = load_file(tmp_path / "drawn.safetensors")["drawn"]
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))
    sys.stdout.write(
        f"\nlargest {float(expected.abs().max()):.3g}, error {float((found - expected).abs().max()):.2g}\n"
    )
