"""What this machine lets builda do: the modes, what is tried to choose one, and the advice of `builda doctor`.

`api` and `cli` call it before anything else is opened, since a mode that needs a user namespace is entered by a process
of one thread. The one rule: what is possible is tried in a forked child, never guessed from the environment.
"""
