"""Containerfile to Plan: preprocess, parse, type, compile. Pure: the world comes in as functions."""
