"""A flow run's process: Prefect's engine, with our flows imported while no garbage is looked for.

What importing makes stays to the end, and the collector would go through all of it a hundred times: a fifth of the CPU
time of a start, which a large batch change pays for every shard.
"""

from __future__ import annotations

import gc
import os
import runpy
import sys


def main() -> None:
    """Run the flow run that the environment names, as ``python -m prefect.engine`` does."""
    gc.disable()
    from . import batch_change  # noqa: F401  for its imports: they are those of every flow run

    gc.freeze()
    gc.enable()
    sys.path.insert(0, os.getcwd())  # as -m has it, for the flows of others; ours are imported, whatever lies there
    runpy.run_module("prefect.engine", run_name="__main__")


if __name__ == "__main__":
    main()
