"""Progress on a terminal while a verb works: bars, lines, or the live view of a build.

`cli.core.verbsession` makes one observer for a command line, and every event goes through it. Rule: what is shown
follows from events and the time alone.
"""
