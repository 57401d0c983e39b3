"""The OCI specifications as frozen values: names, digests, descriptors, manifests, configurations and their edits.

Most packages import it. Rule: no I/O, and what was parsed keeps the bytes that it was parsed from.
"""
