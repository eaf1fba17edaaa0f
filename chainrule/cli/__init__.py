"""The command `chainrule`; nobody below imports it."""
