"""What is stated about images, and how that is kept beside them: in-toto statements, as BuildKit attaches them.

These are values only; `builder.image.attest` puts them into the store.
"""
