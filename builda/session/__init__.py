"""Sessions: a script of builda commands under one lease, served by one warm process.

`lease` is the session on disk and in the environment, `supervisor` the process that runs the script and waits for all
that it starts, `client` and `served` the two ends of a command inside.
"""
