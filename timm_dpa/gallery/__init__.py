"""Galleries of many vehicles: stored, added to day by day, filtered and searched."""
