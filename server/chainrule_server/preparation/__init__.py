"""From a spec and its data to a job that is ready to train."""
