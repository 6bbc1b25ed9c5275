"""Micro-expressions: motion between onset and apex, when it happens, and the samples that a classifier learns from."""
