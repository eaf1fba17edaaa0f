"""A trained model in the forms of other programs: a file for each of them. `numpy`, `onnx` and `engine` load lazily."""
