"""A holder of parameters and those who compute for it: places, parts, a step as it comes together, who owes what.

At a server it serves workers, at a machine's agent its processes; it knows neither.
"""
