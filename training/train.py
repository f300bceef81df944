"""`python training/train.py CONFIG`: hands over to training.cli so that this folder is not on sys.path."""

import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parents[1])
    from training.cli import main

    raise SystemExit(main())
