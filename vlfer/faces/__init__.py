"""Faces: finding, aligning and following them. Import the modules; this package imports nothing."""
