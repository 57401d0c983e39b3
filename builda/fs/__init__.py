"""Files: paths inside a root, tar, compression, owners, attributes, ignore rules, the pipeline that makes layers.

`trees` copies, unpacks and compares files on disk, `lists` does the same for layers that are only rows. `builder` and
`store` call this package. Rule: a path from an image, archive or Containerfile is opened through `paths`.
"""
