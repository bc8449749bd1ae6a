"""What surrounds a vehicle: flights, tracks, ground, light and what hides or shades it."""
