"""Segments in time: found in scores along a video, compared with labelled ones, and written."""
