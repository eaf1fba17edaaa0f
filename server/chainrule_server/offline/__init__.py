"""Answers of a short-lived process, without a server."""
