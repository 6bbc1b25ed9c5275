"""Moments of many videos, found again by words: vectors in FAISS, everything else in SQLite."""

from vlfer.search.index import Hit, Moment, SearchIndex
from vlfer.search.moments import find_moments, moments_of_image, moments_of_video, query_vector

__all__ = ["Hit", "Moment", "SearchIndex", "find_moments", "moments_of_image", "moments_of_video", "query_vector"]
