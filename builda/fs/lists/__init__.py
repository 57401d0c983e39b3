"""Layers as lists of rows, one for each entry of their archives, without files on disk.

The driver of lists keeps them, builds without commands write them, `image diff` compares them.

Rule: a list makes the same layer, byte by byte, as a tree that is written in the same way.
"""
