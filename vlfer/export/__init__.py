"""Results of a video in the forms that other programs read."""
