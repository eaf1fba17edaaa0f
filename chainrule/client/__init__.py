"""Calls of a server, and the objects that people get for them."""
