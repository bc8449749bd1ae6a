"""Recipes of training runs: the YAML files and what their keys mean."""
