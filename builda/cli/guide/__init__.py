"""Help pages, manual pages and completion of the shells.

All three are made from the rows and docstrings of verbs. Rule: no option is described in two places.
"""
