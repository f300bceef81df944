"""Emotional talking portraits: portrait + recording + emotion -> video.

The library behind the ComfyUI nodes and the training script. It imports neither; it runs without a GPU.
Start reading at ``pipeline.py``.
"""

__version__ = "0.1.0"
