"""Proposing the changes: changeset specs become branches and review requests on code hosts, and stay right there."""
