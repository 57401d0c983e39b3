"""Builds as Jobs of a cluster: one, one for each platform, or one for each target of a bake file.

The verb of builds calls `clusterbuild`, that of bake files `bakecluster`, and that of sessions `clustersession`. They
give the package of clusters what it sends, and print what comes back as a build on this machine prints it.
Rule: the client of Kubernetes is used through that package only.
"""
