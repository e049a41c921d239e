"""A flow run's process: Prefect's engine, with our flows imported before, and kept from the collector.

What importing makes stays to the end, a million objects that every full collection would go through again.
"""

from __future__ import annotations

import gc
import os
import runpy
import sys
from uuid import UUID


def main() -> None:
    """Run the flow run that the environment names, as ``python -m prefect.engine`` does."""
    from . import batch_change  # noqa: F401  for its imports: they are those of every flow run
    from .cancellation import ended_if_cancelled

    gc.freeze()
    sys.path.insert(0, os.getcwd())  # as -m has it, for the flows of others; ours are imported, whatever lies there
    flow_run = UUID(os.environ["PREFECT__FLOW_RUN_ID"])
    if ended_if_cancelled(flow_run):
        return
    try:
        runpy.run_module("prefect.engine", run_name="__main__")
    finally:
        ended_if_cancelled(flow_run)


if __name__ == "__main__":
    main()
