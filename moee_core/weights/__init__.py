"""Strict checkpoints: one safetensors file with its architecture in the metadata."""
