"""Rendered vehicles as a drone sees them: a data set with known identities, made from a seed."""

from __future__ import annotations
