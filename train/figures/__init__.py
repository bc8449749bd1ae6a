"""Figures: curves, ranked lists and heat maps."""
