"""The batch change as data and rules. Pure: no Prefect, Docker, git or network."""
