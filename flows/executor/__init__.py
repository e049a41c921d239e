"""The executor: works off the `batches` queue of a Sourcegraph instance, as upstream's own executors do.

``loop`` takes jobs and keeps them alive, ``job_run`` is one job's life, ``input_run`` runs its steps, ``cli_mode`` and
``native_mode`` tell the instance about it, ``job_log`` brings that there. ``job_flow`` shows each job in Prefect.
"""
