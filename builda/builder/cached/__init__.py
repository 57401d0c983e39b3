"""Steps of scripts: found under the keys of a Containerfile's steps, or performed and remembered.

A working container with a `StepCache` keeps each step's changes as a layer of its own, marked as partial: an image gets
one layer of them all, as if nothing had been cached. Other changes (by a mount, or a command that was not looked up)
are a step whose key is their content. `Builder` calls `scriptsteps` for such containers.
"""
