"""ComfyUI's way in. The import stands inside the function: importing this file loads neither ComfyUI nor PyTorch,
and pytest, which imports it while it collects the tests, needs neither to find them.
"""

from __future__ import annotations


async def comfy_entrypoint() -> object:
    """Return the ``ComfyExtension`` that lists our nodes. ComfyUI calls this once, when it starts."""
    from .nodes import make_extension

    return make_extension()
