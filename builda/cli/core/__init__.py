"""How a command line reaches its verb's function, and how results and errors leave it.

`main` calls `invoke`, which reads the line by the rows of the verb (`options`, `line`) and calls it with a Session.
Rule: of the verbs' modules only the one that was asked for is imported.
"""
