"""Batch changes as Prefect flows: the batch change as data and rules, and the flows that run it.

What importing Prefect makes stays to the end, a million objects. Python would go through them again and again while it
imports, for a sixth of the CPU time that a command, a worker or a server takes to start: it looks for garbage less
often in our processes.
"""

import gc

gc.set_threshold(50_000, 20, 100)
