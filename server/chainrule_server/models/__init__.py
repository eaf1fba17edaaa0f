"""A trained model computes: predictions and explanations."""
