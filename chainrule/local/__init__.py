"""A cluster on this machine, and questions to short-lived processes."""
