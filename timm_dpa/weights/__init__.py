"""Weights: the manifest of the released ones, finding and checking them, and starts from elsewhere."""
