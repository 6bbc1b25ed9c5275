"""Showing results: pictures here, the app and the service on top of them."""
