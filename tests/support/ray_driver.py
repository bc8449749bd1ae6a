"""Embeds images to a gallery by a Ray cluster, and prints what it did as JSON.

python -m tests.support.ray_driver ADDRESS IMAGES URI WEIGHTS
"""

import dataclasses
import json
import sys

from timm_dpa.gallery.facts import Facts, FactsTable
from timm_dpa.gallery.ray_embed import embed_with_ray


def settings(weights: str) -> dict:
    return {'model': 'dpa_resnet18', 'pretrained': weights, 'image_size': 64, 'precision': 'fp32', 'batch_size': 8}


def main() -> None:
    address, images, uri, weights = sys.argv[1:]
    report = embed_with_ray(
        settings(weights),
        images,
        uri,
        address=address,
        actors=2,
        threads=1,
        facts=FactsTable(default=Facts('north', 5, 't', 7, (1, 2, 3, 4))),
        save_every=10,
    )
    print(json.dumps(dataclasses.asdict(report)))


if __name__ == '__main__':
    main()
