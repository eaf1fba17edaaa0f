"""What a cell of a table is, a number, a text or nothing: the same for training and for predictions."""
