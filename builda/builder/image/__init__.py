"""Working containers to images and images to other places: commit, layers, pull and push.

The Builder and `builder.execution` call these. A layer's bytes are made once; what is pushed later is what was stored.

Rule: an image or a name appears only when all that it lists is there.
"""
