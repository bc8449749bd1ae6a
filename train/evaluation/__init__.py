"""Evaluation: ranking metrics, re-ranking, protocols and the tables of the paper."""
