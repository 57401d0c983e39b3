"""`--format` templates as Go prints them, `--filter` of images, and columns of text.

Verbs call this package. Rule: values go in and text comes out; nothing is read or printed here.
"""
