"""The kernel, one thin function per call; mechanism, no policy."""
