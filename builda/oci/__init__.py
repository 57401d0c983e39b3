"""The OCI specifications as frozen values. No I/O at all."""
