"""The training command line: ``python training/train.py CONFIG [--stop-after STAGE]``."""

from __future__ import annotations

import argparse
import sys

from moee_core.errors import MoEEError
from training import base_experts, dice_talk, emotalker, expression_reader, own_expert
from training.config import from_table, load_config, read_table
from training.dice_config import KIND as DICE_TALK
from training.dice_config import STAGES as DICE_STAGES
from training.dice_config import DiceTrain
from training.emotalker_config import STAGES as EMOTALKER_STAGES
from training.emotalker_config import EmoTalkerTrain
from training.run import STAGES, run, set_up_logging


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="train.py", description="Train a talking-portrait model, stage by stage.")
    parser.add_argument("config", help="a file of training/configs")
    parser.add_argument(
        "--stop-after",
        choices=(*STAGES, *EMOTALKER_STAGES, *DICE_STAGES),
        help="end after this stage; a later call continues",
    )
    options = parser.parse_args(arguments)
    set_up_logging()
    try:
        table = read_table(options.config)
        if table.get("system_kind") == expression_reader.KIND:
            path = expression_reader.run(from_table(expression_reader.ReaderTrain, table, ""))
        elif table.get("system_kind") == own_expert.KIND:
            path = own_expert.run(from_table(own_expert.OwnTrain, table, ""))
        elif table.get("system_kind") == base_experts.KIND:
            path = base_experts.run(from_table(base_experts.BaseTrain, table, ""))
        elif table.get("system_kind") == DICE_TALK:
            path = dice_talk.run(from_table(DiceTrain, table, ""), options.stop_after)
        elif "system_kind" in table:
            path = emotalker.run(from_table(EmoTalkerTrain, table, ""), options.stop_after)
        else:
            path = run(load_config(options.config), options.stop_after)
    except (MoEEError, ValueError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command continues from the last checkpoint\n")
        return 130
    sys.stdout.write(f"{path}\n")
    return 0
