"""The workers: who is there, what each is given, who is late or lost."""
