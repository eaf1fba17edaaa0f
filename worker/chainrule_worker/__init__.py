"""The worker: one process that holds shards of the data, runs the engine on them and pushes partial sums.

What it computes of a step is `chainrule_engine.microbatch`; here is only how orders come and sums go.
"""
