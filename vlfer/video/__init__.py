"""Images and videos as RGB frames. Import the modules; this package imports nothing."""
