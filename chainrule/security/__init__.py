"""Who calls, and TLS."""
