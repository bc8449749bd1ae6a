"""Adapters for trackers and other packages, a file each. None imports its package before it is used."""
