"""The drivers of snapshots: how layers are unpacked and working trees are made on them."""
