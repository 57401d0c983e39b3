"""What tells a person how to call builda: help pages, manual pages and completion.

All three are made of the rows and docstrings of verbs. Rule: no option is described in two places.
"""
