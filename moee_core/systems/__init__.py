"""Each system wires the shared parts."""
