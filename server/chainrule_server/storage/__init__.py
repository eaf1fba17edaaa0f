"""What survives: SQLite, checkpoints, whole files, the home folder."""
