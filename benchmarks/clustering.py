"""Provisional vehicles: how right the groups of `timm-dpa cluster` are, and their time beside scipy and scikit-learn.

    python benchmarks/clustering.py [--vehicles 2000] [--tracks 4] [--thresholds 0.5 0.6 0.7 0.8]
    python benchmarks/clustering.py --data TRACKS [--model dpa_resnet50] [--cache build/bench/embeddings] [--pieces 4]

Without --data, the tracks are synthetic vectors: two vehicles of each model, a direction for the model, one as long for
the vehicle, and noise for each track and image. Each camera sees eight vehicles at one time. With a data set (rendered
tracks), the images of each vehicle are cut into pieces, as by a tracker that loses it; the frame in the names of images
counts as their time, so that one drone sees all vehicles of its flight at once.

A gallery of the images is read as `timm-dpa cluster` reads it. Printed are pairwise precision, recall and F1 over
tracks, and the number of vehicles, at each threshold: with tracks that cannot be one vehicle, without them, and those
of scipy, which knows none. Then the time of the grouping at the middle threshold, in turns with the two peers. scipy is
given the distances of a matrix product, which takes it less time than its own.
"""

from __future__ import annotations

import argparse
import importlib
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from embedded import Embedded, add_model_options, embed_data, make_extractor
from timing import paired_ratio, seconds, show

from timm_dpa.embedding.images import ImageItem, load_rgb
from timm_dpa.gallery.clustering import cluster_tracks, pair_scores
from timm_dpa.gallery.gallery import Gallery
from timm_dpa.gallery.pictures import thumbnail_of
from timm_dpa.gallery.provisional import Tracks, read_tracks
from timm_dpa.gallery.rows import GalleryRow

_TOGETHER = 8  # synthetic vehicles that a camera sees at one time
_LATENT = 32  # numbers in which synthetic vehicles differ


def synthetic_rows(args: argparse.Namespace) -> Iterator[GalleryRow]:
    """Images of `args.vehicles` vehicles, each on `args.tracks` tracks of different cameras."""
    rng = np.random.default_rng(args.seed)
    vehicles, tracks, width = args.vehicles, args.tracks, args.width
    basis = np.linalg.qr(rng.normal(size=(width, _LATENT)))[0].T
    models = np.repeat(rng.normal(size=(-(-vehicles // 2), _LATENT)), 2, axis=0)[:vehicles]
    centers = models + rng.normal(size=(vehicles, _LATENT))
    for track in range(tracks):
        # whoever stands beside one another in a random order is seen together
        for place, vehicle in enumerate(rng.permutation(vehicles).tolist()):
            view = centers[vehicle] + args.noise * rng.normal(size=_LATENT)
            images = view @ basis + 0.2 * rng.normal(size=(args.images, width))
            images /= np.linalg.norm(images, axis=1, keepdims=True)
            for index, vector in enumerate(images.astype(np.float32)):
                yield GalleryRow(
                    f'{vehicle}_{track}_{index}',
                    vector,
                    camera=f'camera {track}',
                    time=place // _TOGETHER * 1000 + index,
                    track=f'{vehicle} {track}',
                    vehicle=vehicle,
                )


def data_rows(data: Embedded, pieces: int) -> Iterator[GalleryRow]:
    """The images of a data set, those of each vehicle and camera in so many tracks."""
    for rows in data.tracks:
        for camera in np.unique(data.camids[rows]):
            of_camera = rows[data.camids[rows] == camera]
            for piece, some in enumerate(np.array_split(of_camera, pieces)):
                for row in some.tolist():
                    frame = re.search(r'([0-9]+)\.\w+$', data.paths[row])
                    yield GalleryRow(
                        data.paths[row],
                        data.vectors[row],
                        camera=f'camera {camera}',
                        time=int(frame[1]) if frame else None,
                        track=f'{data.pids[row]} {camera} {piece}',
                        vehicle=int(data.pids[row]),
                        quality=float(data.qualities[row]),
                        thumbnail=thumbnail_of(load_rgb(ImageItem(data.paths[row], data.paths[row]))),
                    )


def scipy_groups(vectors: np.ndarray, threshold: float) -> Any:
    hierarchy, distance = (
        importlib.import_module(f'scipy.{name}') for name in ('cluster.hierarchy', 'spatial.distance')
    )
    distances = 1 - vectors @ vectors.T
    np.fill_diagonal(distances, 0)
    tree = hierarchy.linkage(distance.squareform(distances, checks=False), method='average')
    return hierarchy.fcluster(tree, 1 - threshold, 'distance')


def sklearn_groups(vectors: np.ndarray, threshold: float) -> Any:
    cluster = importlib.import_module('sklearn.cluster')
    return cluster.AgglomerativeClustering(
        n_clusters=None, metric='cosine', linkage='average', distance_threshold=1 - threshold
    ).fit_predict(vectors)


def measure(tracks: Tracks, thresholds: list[float], repeats: int) -> None:
    vectors = tracks.vectors
    for threshold in thresholds:
        for name, groups in (
            ('cannot-link', cluster_tracks(vectors, threshold, tracks.forbidden)),
            ('without', cluster_tracks(vectors, threshold)),
            ('scipy', scipy_groups(vectors, threshold)),
        ):
            scores = pair_scores([vehicle or 0 for vehicle in tracks.vehicles], groups)
            print(
                f'threshold {threshold:.3f}, {name:12s} precision {scores.precision:.4f}   '
                f'recall {scores.recall:.4f}   F1 {scores.f1:.4f}   {len(np.unique(groups))} vehicles',
                flush=True,
            )
    threshold = thresholds[len(thresholds) // 2]
    for name, peer in (('scipy', scipy_groups), ('scikit-learn', sklearn_groups)):
        ratio = paired_ratio(
            lambda: cluster_tracks(vectors, threshold, tracks.forbidden),
            lambda peer=peer: peer(vectors, threshold),  # type: ignore[misc]
            repeats,
        )
        show(
            f'{len(vectors)} tracks x {vectors.shape[1]}, cannot-link / {name} without',
            ratio,
            'at most 1 from 8,000 tracks on',
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--vehicles', type=int, default=2000)
    parser.add_argument('--tracks', type=int, default=4, help='of each vehicle (default %(default)s)')
    parser.add_argument('--images', type=int, default=5, help='of each track (default %(default)s)')
    parser.add_argument('--width', type=int, default=512)
    parser.add_argument('--noise', type=float, default=0.6, help='of a track (default %(default)s)')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--thresholds', type=float, nargs='+', default=[0.5, 0.6, 0.7, 0.8], metavar='T')
    parser.add_argument('--repeats', type=int, default=5)
    parser.add_argument('--data', help='data set whose images are taken instead of synthetic vectors')
    parser.add_argument('--pieces', type=int, default=4, help='tracks to cut each vehicle into (default %(default)s)')
    add_model_options(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if args.data:
            rows = data_rows(embed_data(args.data, make_extractor(args), args.cache or Path(folder)), args.pieces)
        else:
            rows = synthetic_rows(args)
        gallery = Gallery(Path(folder) / 'garage', origin={'model': args.model}, create=True)
        gallery.add(rows)
        found: list[Tracks] = []
        took = seconds(lambda: found.append(read_tracks(gallery)))
        (tracks,) = found
        print(
            f'{len(tracks.names)} tracks of {len(set(tracks.vehicles))} vehicles, {len(gallery)} images, read in '
            f'{took:.2f} s; {len(tracks.forbidden)} pairs seen by one camera at one time; '
            f'{gallery.info()["bytes"] / len(gallery):.0f} bytes an image on the disk'
        )
        measure(tracks, args.thresholds, args.repeats)


if __name__ == '__main__':
    main()
