"""Between messages and the engine: the model of a spec, the message of a graph."""
