"""Everything that persists. The on-disk format is described in docs/store-format.md."""
