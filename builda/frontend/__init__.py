"""A Containerfile becomes a Plan: `preprocess`, `parse`, `instructions` (typed), `compile`.

`containerfile` calls this package. Rule: it is pure. What it asks of the world (base images, files to include, names
in a lock file) are functions that the caller gives.
"""
