"""Benchmarks: they measure on this machine, print a table and write JSON."""
