"""The protocols of an evaluation by name. This module imports nothing heavy, so that a command's help can list them."""

from __future__ import annotations

__all__ = ['DRAWN_PROTOCOLS', 'PROTOCOLS', 'default_draws']

#: name -> how query and gallery come about, and whether the same-camera rule holds
PROTOCOLS = {
    'fixed': 'the query and gallery parts of the data; same-camera rule where these have several cameras',
    'vru': 'one random image of each vehicle is the gallery, all other images are queries; no camera rule',
    'first-last': 'the first image of each vehicle is a query, the last third of its images is gallery; no camera rule',
    'one-query': 'one random image of each vehicle is a query, all its others are gallery; no camera rule',
    'gap': 'images of every 60th frame of a sequence are queries, those 30 frames later are the candidates of each',
    'cross-camera': 'one random image of each vehicle and camera is a query, all others are gallery; same-camera rule',
}
#: protocols that pick images at random, so that several draws can be averaged
DRAWN_PROTOCOLS = ('vru', 'one-query', 'cross-camera')


def default_draws(protocol: str) -> int:
    """How many random draws an evaluation averages unless it is told: 10 for `vru`, as its authors do, else 1."""
    return 10 if protocol == 'vru' else 1
