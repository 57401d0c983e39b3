"""One command in a working container: what it is told, what it sees, and what has to be taken away after it.

The Builder calls `run.run` for the verb, `builder.execution.perform` for RUN. `runcheck` reads options before anything
is made.

Rule: nothing here starts a process but `ssh_agent`; `isolation` does, from the Process and the Sandbox made here.
"""
