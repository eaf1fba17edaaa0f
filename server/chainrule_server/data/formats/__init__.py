"""The forms of files that hold tables, each read by columns."""
