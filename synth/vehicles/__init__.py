"""Vehicles: models, bodies, paint and details."""
