"""Measurements of talking portraits; every figure names its instrument."""
