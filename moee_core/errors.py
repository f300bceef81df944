"""The exceptions a caller may want to catch.

Every message is one line: what is wrong, where, what was found, and what to do.
All of them are also ``ValueError``, so ``except ValueError`` catches whatever a user can put right.
"""

from __future__ import annotations


class MoEEError(Exception):
    """Base of every error this library raises on purpose."""


class CheckpointError(MoEEError, ValueError):
    """A weight file is missing, damaged, or not what the loader expected."""


class MediaError(MoEEError, ValueError):
    """A picture, recording or video cannot be read or written."""


class EmotionError(MoEEError, ValueError):
    """An emotion, blend or timeline cannot be understood."""
