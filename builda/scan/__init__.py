"""Secrets in images: what they look like (`rules`), and where in an image they are (`layers`, `documents`)."""
