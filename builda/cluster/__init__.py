"""Builds as Jobs of a Kubernetes cluster: what is asked of it, and what comes back. docs/cluster.md has the whole.

`objects`, `podkinds`, `frames`, `state` and `chunks` decide and know no network; `connection` alone imports the client.
"""
