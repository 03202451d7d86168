"""Serve models over HTTP, without torch."""
