"""Latents that tell action units: what the stage of sources teaches besides emotions."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from moee_core.motion.expression import MAX_UNIT, detector_units, expression
from training.loop import run_stage
from training.stages import sources

from ..fixtures.killed import made
from .test_sources_stage import config_with, fresh, label_latents


def test_latents_of_units_learn_to_tell_which_they_are(tmp_path: Path):
    """Emotions alone leave most units untold. With ``readable`` a fitted reading finds them in units and in text, which
    say the same of a face, and emotions are still said as before."""
    rng, figures = np.random.default_rng(1), {}
    vectors, beside = sources.random_faces(rng, 512)
    shown = torch.from_numpy(np.clip(beside + expression(vectors), 0, MAX_UNIT))
    for weight in (0.0, 0.3):
        system = fresh()
        labels = label_latents(system)
        stage = sources.make_stage(config_with(system, iterations=150, learning_rate=1e-2, readable=weight), system)
        run_stage(stage, made(tmp_path / str(weight)))
        assert torch.equal(label_latents(system), labels)
        with torch.no_grad():
            units = system.emotion_to_latents({"action_units": torch.from_numpy(detector_units(shown.numpy()))})
            assert system.text_encoder is not None
            features = torch.from_numpy(np.concatenate([vectors, detector_units(beside)], axis=1))
            text = system.emotion_to_latents({"text": system.text_encoder(features)})
            figures[weight] = (
                float(sources.unread(units, shown)),
                float(sources.unread(text, shown)),
                float((units - text).square().mean() / units.var(dim=0).mean()),
            )
    assert min(figures[0.0][:2]) > 0.9
    assert max(figures[0.3][:2]) < 0.6
    assert figures[0.3][2] < 0.5, "text and units say the same of a face"


def test_what_is_unread_is_the_share_of_variance_that_a_ridge_reading_misses():
    """Against the primal form, fitted on the first half; noise tells nothing and the units themselves everything."""
    rng = np.random.default_rng(2)
    units = rng.random((200, 5)).astype(np.float32)
    latents = np.concatenate([10 * units[:, :3], rng.normal(size=(200, 5))], axis=1).astype(np.float32)
    x, y = latents - latents[:100].mean(0), units - units[:100].mean(0)
    weights = np.linalg.solve(x[:100].T @ x[:100] + sources.RIDGE * np.eye(8), x[:100].T @ y[:100])
    expected = np.square(y[100:] - x[100:] @ weights).mean() / units[100:].var(0).mean()
    found = sources.unread(torch.from_numpy(latents).view(200, 2, 4), torch.from_numpy(units))
    assert float(found) == pytest.approx(float(expected), rel=1e-3)
    told = torch.from_numpy(20 * units)[:, None]
    assert float(sources.unread(told, torch.from_numpy(units))) < 1e-3
    assert float(sources.unread(torch.randn(200, 1, 5), torch.from_numpy(units))) > 0.9
