"""Backbones: the table of known ones, their preprocessing, and the encoders that turn faces and words into vectors."""
