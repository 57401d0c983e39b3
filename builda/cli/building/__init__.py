"""What `build` and `bake` are made of: inputs, what they may read, outputs and logs.

`buildinput`, `buildcache`, `buildmounts`, `contexts` and `secrets` are for one build, `bakewords` and `bakerun`
for many, `clusteroptions` and `clusterrequest` for one elsewhere. The verbs and `jobs` call them.
Rule: nothing here reads a command line; it takes the values that `core` made of it.
"""
