"""Images between places: one source and one sink for each place, and one `copy_image` for every pair.

`copyimage` has the Protocols and the copying, `locate` the table of transports for images in files, `stored` the
store's side; registries have theirs in `registry`. `builder`, `api` and `cli` call this package.

The one rule: what a manifest lists is verified while it moves, and the name is published last.
"""
