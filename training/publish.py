"""Make the file that ships from a finished run.

    python training/publish.py RUN OUT.safetensors

``RUN/model.safetensors`` in half precision, with what a loader needs to know about its domain: the reconstruction
error above which a portrait is unlike anything the model has seen. It is measured on tuning people with every kind of
expression, never on test people. Emotion encoders that no stage has trained are left out. A run whose file would
exceed 12.5 MB is refused.

After a new file that ships: ``moee_core.selfcheck.write`` renews the results that a machine is compared with, and
``training/configs/own_expert.toml`` trains the expert that ships beside it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np

from moee_core.errors import CheckpointError, MoEEError
from moee_core.pipeline import reconstruction_error
from moee_core.systems.moee import MoEESystem
from moee_core.weights.checkpoint import load_system, save_system

LIMIT_BYTES = 12_500_000
PEOPLE = 200
PERCENTILE = 99.5
MARGIN = 1.25
"""A portrait may be somewhat harder than the hardest of the tuning people before the user is warned."""


def usual_error(system) -> float:
    """The reconstruction error (0..255) that a portrait of the domain stays below."""
    from training.face_world.performance import portrait_state, random_emotion, reference_pose
    from training.face_world.render import render
    from training.face_world.splits import person, split_rng

    errors = []
    for number in range(PEOPLE):
        rng = split_rng("tune", number, purpose=9)
        state = portrait_state(reference_pose(rng), random_emotion(rng, "single"), 1.0, float(rng.uniform(0, 0.5)))
        portrait = render(person("tune", number), state, system.config.image_size)
        errors.append(reconstruction_error(system, portrait))
    return float(np.percentile(errors, PERCENTILE)) * MARGIN


def sources_trained(trained: dict[str, Any]) -> bool:
    """Whether a checkpoint's ``trained`` tells of a stage that taught other sources what labels say, in its run or in
    one that it went on from, after the last stage that changed what labels say."""
    while trained:
        iterations = trained.get("iterations", {})
        if iterations.get("sources"):
            return True
        if iterations.get("reference"):
            return False
        trained = trained.get("after", {})
    return False


def without_untrained(system: MoEESystem, trained: dict[str, Any]) -> MoEESystem:
    """The same model without the emotion encoders that no stage has trained: what ships can be relied on."""
    emotion = system.config.emotion
    taught = sources_trained(trained)
    emotion = dataclasses.replace(
        emotion,
        action_units=emotion.action_units if taught else 0,
        text_width=emotion.text_width if taught else 0,  # the stage refuses to leave out a text that it could teach
        audio_width=emotion.audio_width if taught and system.ear is not None else 0,
    )
    smaller = MoEESystem(dataclasses.replace(system.config, emotion=emotion))
    state = system.state_dict()
    smaller.load_state_dict({key: state[key] for key in smaller.state_dict()}, strict=True)
    return smaller.eval().requires_grad_(False)


def main() -> int:
    parser = argparse.ArgumentParser(description="Make the file that ships from a finished run.")
    parser.add_argument("run", type=Path, help="the run's folder")
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=4, help="the recommended sampling, chosen on tuning people")
    parser.add_argument("--emotion-guidance", type=float, default=1.0)
    parser.add_argument("--audio-guidance", type=float, default=1.0)
    parser.add_argument("--noise-sharing", type=float, default=0.2)
    options = parser.parse_args()
    try:
        system, info = load_system(options.run / "model.safetensors")
        system = without_untrained(system, json.loads(info.metadata.get("trained", "{}")))
        kept = ("stage", "trained", "data_licence")
        metadata = {name: info.metadata[name] for name in kept if name in info.metadata}
        metadata["domain"] = json.dumps({"reconstruction_error": round(usual_error(system), 2)})
        metadata["sampling"] = json.dumps(
            {
                "num_inference_steps": options.steps,
                "emotion_guidance": options.emotion_guidance,
                "audio_guidance": options.audio_guidance,
                "noise_sharing": options.noise_sharing,
            }
        )
        save_system(options.out, system, metadata=metadata)
        size = options.out.stat().st_size
        if size > LIMIT_BYTES:
            options.out.unlink()
            raise CheckpointError(f"the file would have {size} bytes, more than {LIMIT_BYTES}; choose smaller widths")
    except MoEEError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    sys.stdout.write(f"{options.out}: {size / 1e6:.2f} MB, {metadata['domain']}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
