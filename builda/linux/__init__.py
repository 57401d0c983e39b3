"""The kernel, one thin function per call. Mechanism, no policy."""
