"""The mathematics of chainrule: formulas, computation graphs, backpropagation, update rules.

It knows no gRPC, no files and no clock: everything is a function of its arguments.
"""
