"""Everything that persists: blobs, images, snapshots, working containers, remembered steps.

`Store` opens a store and has its parts (`blobs`, `images`, `containers`, `steps`, the drivers of snapshots); what
concerns several parts at once is a method of it. `gc` removes what nothing refers to, `fsck` checks. `builder`,
`transfer` and `cli` call this package; docs/store-format.md describes the files.

The one rule: what persists appears by rename, children before parents (`layout.publish`), so that a kill at any moment
leaves a store that works; and nothing here mounts.
"""
