"""Write what a ComfyUI checkout offers to packs, for the contract tests that run without one.

    COMFYUI_PATH=/path/to/ComfyUI PYTHON_OF_COMFYUI tests/comfy/record_host.py OUT.json

Records the parameters of every schema class our nodes use, the schema's own fields, and our nodes as that host
describes them to its frontend (``/object_info``). Run it for the oldest and the newest supported host.
"""

from __future__ import annotations

import asyncio
import dataclasses
import importlib
import inspect
import json
import os
import sys
from pathlib import Path
from typing import Any

PACK = Path(__file__).resolve().parents[2]
TYPES = ("Int", "Float", "String", "Boolean", "Combo", "Image", "Audio", "Video", "Latent", "Model", "Vae")
MORE = ("Conditioning", "MultiType", "DynamicCombo")


def parameters(call: object) -> list[str]:
    return [name for name in inspect.signature(call).parameters if name != "self"]  # type: ignore[arg-type]


def main() -> int:
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    out, sys.argv = Path(sys.argv[1]), sys.argv[:1]
    from comfy.cli_args import args

    args.cpu = True
    import comfyui_version
    from comfy_api.latest import InputImpl, io, ui

    host_nodes: Any = importlib.import_module("nodes")  # the host's, not the folder beside us

    assert asyncio.run(host_nodes.load_custom_node(str(PACK))), "the pack did not load"
    types = {}
    for name in (*TYPES, *MORE):
        kind = getattr(io, name)
        types[name] = {"io_type": getattr(kind, "io_type", name), "input": parameters(kind.Input.__init__)}
        if hasattr(kind, "Output"):
            types[name]["output"] = parameters(kind.Output.__init__)
    custom = io.Custom("RECORDED")
    record = {
        "version": comfyui_version.__version__,
        "schema": [field.name for field in dataclasses.fields(io.Schema)],
        "types": types,
        "custom": {"input": parameters(custom.Input.__init__), "output": parameters(custom.Output.__init__)},
        "option": parameters(io.DynamicCombo.Option.__init__),
        "hidden": [one.name for one in io.Hidden],
        "preview_video": parameters(ui.PreviewVideo.__init__),
        "preview_image": parameters(ui.PreviewImage.__init__),
        "preview_text": parameters(ui.PreviewText.__init__),
        "video_from_file": parameters(InputImpl.VideoFromFile.__init__),
        "nodes": {
            name: json.loads(json.dumps(dataclasses.asdict(kind.GET_SCHEMA().get_v1_info(kind)), default=str))
            for name, kind in host_nodes.NODE_CLASS_MAPPINGS.items()
            if name.startswith("MoEE")
        },
    }
    for info in record["nodes"].values():  # long lists that belong to the host, and differ between its versions
        info.pop("python_module", None)
    out.write_text(json.dumps(record, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    sys.stdout.write(f"{out}: ComfyUI {record['version']}, {len(record['nodes'])} nodes\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
