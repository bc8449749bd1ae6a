"""Vehicles that drive through a turn below a drone, frame by frame."""
