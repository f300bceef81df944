"""Faces drawn from motion coefficients: points on a portrait, and renderers that move the portrait by them."""
