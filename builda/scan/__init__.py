"""Secrets in images: `secretkinds` is the table of kinds, `filescan` reads one file, `imagescan` an image.

`builder.image.secretscan` calls this for `image scan` and `--scan`. Rule: a finding has the kind and
the place of a secret, never the secret itself.
"""
