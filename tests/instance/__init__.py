"""A fake Sourcegraph instance, written from its public interfaces. It knows nothing of flows and blocks."""
