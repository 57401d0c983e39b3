"""Failed steps that are kept, and the shells that look at them.

`keeping` keeps the working container that a step failed in, with a note of what the step had; `looking` runs a shell or
a command there; `statefile` takes it to another store. Builds and verbs call these.

Rule: a note grants nothing. Secrets, agents and what `--allow` allows come from the command line that looks.
"""
