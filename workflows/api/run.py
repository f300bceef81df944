"""Make a talking portrait over ComfyUI's API; Python's standard library is enough.

    python workflows/api/run.py --portrait me.png --audio speech.wav --emotion "happy 0.8" --output me.mp4

Three inputs of ``first_portrait.json`` are changed: the picture, the recording and the emotion. Without --portrait or
--audio the samples of the pack are used. ComfyUI must be running at --server.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from pathlib import Path

HERE = Path(__file__).parent


def upload(server: str, path: Path) -> str:
    """Put a file into ComfyUI's input folder; return the name it got there."""
    boundary = uuid.uuid4().hex
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="image"; filename="{path.name}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    body = head.encode() + path.read_bytes() + f"\r\n--{boundary}--\r\n".encode()
    kind = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    with urllib.request.urlopen(urllib.request.Request(f"{server}/upload/image", body, kind)) as answer:
        return json.load(answer)["name"]


def request(server: str, path: str, data: dict | None = None) -> dict:
    body = None if data is None else json.dumps(data).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(f"{server}/{path}", body)) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:  # a refused graph comes with the reason of every node
        refused = json.load(error)
        details = [one["details"] for node in refused.get("node_errors", {}).values() for one in node["errors"]]
        reasons = {text.split(" - ", 1)[-1]: text for text in reversed(details)}  # the host repeats a reason per input
        raise SystemExit("ComfyUI refused: " + "; ".join(reasons.values() or [str(refused)])) from None


def main() -> int:
    parser = argparse.ArgumentParser(description="Make a talking portrait over ComfyUI's API.")
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--portrait", type=Path)
    parser.add_argument("--audio", type=Path)
    parser.add_argument("--emotion", default="happy")
    parser.add_argument("--output", type=Path, default=Path("talking.mp4"))
    options = parser.parse_args()
    graph = json.loads((HERE / "first_portrait.json").read_text(encoding="utf-8"))
    sampler = next(node["inputs"] for node in graph.values() if node["class_type"] == "MoEESampler")
    if options.portrait:
        name = upload(options.server, options.portrait)
        graph["portrait"] = {"class_type": "LoadImage", "inputs": {"image": name}}
        sampler["portrait"] = ["portrait", 0]
    if options.audio:
        name = upload(options.server, options.audio)
        graph["speech"] = {"class_type": "LoadAudio", "inputs": {"audio": name}}
        sampler["speech"] = ["speech", 0]
    sampler["emotion"] = options.emotion
    job = request(options.server, "prompt", {"prompt": graph})["prompt_id"]
    while not (history := request(options.server, f"history/{job}")):
        time.sleep(0.5)
    done = history[job]
    if done["status"]["status_str"] != "success":
        messages = [data.get("exception_message", "") for event, data in done["status"]["messages"] if "error" in event]
        raise SystemExit("ComfyUI failed: " + "; ".join(messages))
    video = next(output["images"][0] for output in done["outputs"].values() if output.get("animated"))
    with urllib.request.urlopen(f"{options.server}/view?{urllib.parse.urlencode(video)}") as answer:
        options.output.write_bytes(answer.read())
    sys.stdout.write(f"{options.output}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
