"""The picture of a computation graph, as in a lecture: boxes with f and g, edges with ∂f/∂operand.

`picture` says what there is to see, `values` takes it from the engine, `layout` finds the places, and `svg`, `png`,
`html`, `dot` and `mermaid` write it down. Everything but `values` is text and geometry, and knows no engine.
"""
