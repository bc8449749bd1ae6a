"""A data set with its embeddings, which stay in a file of `timm-dpa embed`: the model runs once for each set."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from timm_dpa import FeatureExtractor
from timm_dpa.embedding.embed import embed_to_file
from timm_dpa.embedding.files import load_embeddings
from timm_dpa.embedding.images import ImageItem, load_rgb
from timm_dpa.gallery.pictures import quality_of
from timm_dpa.train.data.datasets import load_data, rows_by_key

__all__ = ['Embedded', 'add_model_options', 'embed_data', 'make_extractor']


@dataclass(frozen=True)
class Embedded:
    """The test images of a data set; all images where it has no split of its own.

    Attributes:
        name: of the folder.
        paths: N files, sorted.
        pids: `(N,)` int64, the vehicles.
        camids: `(N,)` int64, the cameras; 0 where they are not known.
        vectors: `(N, D)` float32 of unit length.
        qualities: `(N,)` float64 in 0..1, see `quality_of`.
    """

    name: str
    paths: list[str]
    pids: np.ndarray
    camids: np.ndarray
    vectors: np.ndarray
    qualities: np.ndarray

    @property
    def tracks(self) -> list[np.ndarray]:
        """The rows of each vehicle, in the order of the names."""
        return rows_by_key(self.pids)


def add_model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--model', default='dpa_resnet50', help='name of a model, or its folder (default %(default)s)')
    parser.add_argument('--random', action='store_true', help='random weights, for a model that has no others')
    parser.add_argument('--image-size', type=int, help="default: the model's own")
    parser.add_argument('--precision', default='auto')
    parser.add_argument('--cache', type=Path, metavar='FOLDER', help='keep the embeddings there, and read them from it')


def make_extractor(args: argparse.Namespace) -> FeatureExtractor:
    pretrained = False if args.random else None
    return FeatureExtractor(
        args.model, pretrained, device='cpu', image_size=args.image_size, precision=args.precision, batch_size=16
    )


def embed_data(root: str, extractor: FeatureExtractor, cache: Path) -> Embedded:
    """Embed the images that `<name of the data set>.safetensors` in the folder `cache` has not yet."""
    split = load_data(root, test_fraction=1, warn=False).test
    cache.mkdir(parents=True, exist_ok=True)
    name = Path(root).resolve().name
    file = cache / f'{name}.safetensors'
    embed_to_file(extractor, split.paths, file, on_error='raise')
    content = load_embeddings(file)
    row = {path: index for index, path in enumerate(content.names)}
    vectors = content.vectors[[row[path] for path in split.paths]]
    qualities = np.array([quality_of(load_rgb(ImageItem(path, path))) for path in split.paths])
    return Embedded(name, split.paths, split.pids, split.camids, vectors, qualities)
