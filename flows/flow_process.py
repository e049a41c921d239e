"""A flow run's process: Prefect's engine, with our flows imported before, and kept from the collector.

What importing makes stays to the end, a million objects that every full collection would go through again.
"""

from __future__ import annotations

import gc
import os
import runpy
import sys


def main() -> None:
    """Run the flow run that the environment names, as ``python -m prefect.engine`` does."""
    from . import batch_change  # noqa: F401  for its imports: they are those of every flow run

    gc.freeze()
    sys.path.insert(0, os.getcwd())  # as -m has it, for the flows of others; ours are imported, whatever lies there
    runpy.run_module("prefect.engine", run_name="__main__")


if __name__ == "__main__":
    main()
