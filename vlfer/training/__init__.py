"""Training: the bundled backbone, and what adapts backbones to a user's data."""
