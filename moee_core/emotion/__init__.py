"""Emotions: names, action units, conditions, timelines, and what the networks read of them."""
