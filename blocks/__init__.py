"""The outside world, stored and edited as Prefect blocks. Knows no batches."""
