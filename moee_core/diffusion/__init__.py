"""Schedules, prediction types, guidance, windows, the sampling loop."""
