"""What software an image has: package databases read from its layers, and documents about it (SPDX, CycloneDX).

Nothing of an image is run or unpacked. A reader is a function from the content of one file to facts; `ecosystems` is
the table of them.
"""
