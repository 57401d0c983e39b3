"""Statements about images (in-toto) and where they are kept: in an index beside the image, as BuildKit attaches them.

These are values only; `builder.image.attest` puts them into the store.
"""
