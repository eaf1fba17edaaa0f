"""One job's steps."""
