"""The primitives: from, mount, run, copy, config, commit. A step of `plan.py` is the argument of one of them."""
