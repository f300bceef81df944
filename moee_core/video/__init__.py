"""Streaming encode and decode."""
