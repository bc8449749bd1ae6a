"""Data sets: layouts, protocols, checks, transforms and toy data."""
