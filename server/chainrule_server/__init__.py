"""The parameter server: one process that holds the parameters, runs the jobs and applies synchronous SGD.

One event loop owns all state, so there are no locks; only the loading of data runs in a thread.
"""
