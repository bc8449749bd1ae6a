"""Rendered vehicles as drones see them: data sets with known identities, made from a seed."""
