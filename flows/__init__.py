"""Batch changes as Prefect flows: the batch change as data and rules, and the flows that run it."""
