"""The command line: `main` is the program, `core` reads the line, and `verbs` has one function for each verb.

`format`, `progress` and `report` turn results and events into text, `guide` has help, manual and completion.
Rule: a verb makes a value, calls one primitive and prints; a Python script can do the same by `api`.
"""
