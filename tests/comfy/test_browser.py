"""The acceptance test in a real browser, where Chromium, Node with playwright-core, and a ComfyUI are at hand.

``COMFYUI_PATH``, ``COMFYUI_PYTHON`` as in test_in_host.py; ``PLAYWRIGHT_FROM`` a file in the folder whose node_modules
hold playwright-core; ``COMFYUI_FRONTEND`` another frontend's folder, if not the one that is installed.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from .test_in_host import HOST, PYTHON, ROOT

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
READY = HOST and CHROMIUM and shutil.which("node") and os.environ.get("PLAYWRIGHT_FROM")
PACK = "moee-talking-portrait"

pytestmark = [
    pytest.mark.comfy,
    pytest.mark.slow,
    pytest.mark.skipif(not READY, reason="needs COMFYUI_PATH, PLAYWRIGHT_FROM, Chromium and Node"),
]


@pytest.mark.parametrize("script", ["accept", "points"])
def test_in_the_browser(tmp_path: Path, script: str):
    """Every workflow from Templates to its video; the editor of Face Points in both node renderers."""
    base = tmp_path / "base"
    for name in ("custom_nodes", "models/moee", "input", "output", "temp", "user"):
        (base / name).mkdir(parents=True)
    (base / "custom_nodes" / PACK).symlink_to(ROOT, target_is_directory=True)
    (base / "models" / "moee" / "broken.safetensors").write_text("not a model")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    command = [PYTHON, "main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(base)]
    command += ["--database-url", "sqlite:///:memory:", "--disable-api-nodes"]
    if os.environ.get("COMFYUI_FRONTEND"):
        command += ["--front-end-root", os.environ["COMFYUI_FRONTEND"]]
    with (tmp_path / "server.log").open("w") as log:
        server = subprocess.Popen(command, cwd=str(HOST), stdout=log, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}"
            wait_for(url)
            more = [PACK, str(ROOT / "workflows")] if script == "accept" else []
            run = subprocess.run(
                ["node", str(ROOT / "tests" / "browser" / f"{script}.mjs"), url, *more, str(tmp_path / "pictures")],
                capture_output=True,
                text=True,
                timeout=900,
                check=False,
                env={**os.environ, "CHROMIUM": str(CHROMIUM)},
            )
            assert run.returncode == 0, run.stdout + run.stderr
            assert "page errors: none" in run.stdout
        finally:
            server.terminate()
            server.wait(30)


def wait_for(url: str, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            urllib.request.urlopen(f"{url}/system_stats", timeout=5).close()
            return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    raise AssertionError(f"ComfyUI did not answer within {seconds:.0f} s")
