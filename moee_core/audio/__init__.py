"""Recordings in, features per video frame out."""
