"""A job from its creation to its end, and which jobs run with which workers."""
