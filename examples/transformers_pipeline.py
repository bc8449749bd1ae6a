"""Embeddings through transformers instead of timm: the pipeline 'image-feature-extraction' on a model of timm-dpa.

Needs `pip install timm-dpa 'transformers>=5.2'` (4.53 to 4.57 do as well; 5.0 and 5.1 cannot load an attention that
lies inside a stage) and a model folder, as `timm-dpa train` writes it, or a repository on the Hub:

    python examples/transformers_pipeline.py crops/ --model runs/dpa --out crops.npy
    python examples/transformers_pipeline.py crops/ --model org/name --compare

`import timm_dpa` must come before the model: it tells timm, which transformers asks, of the architectures. Images are
given to the pipeline as files, as it makes them upright RGB; the image processor alone does neither. What differs from
FeatureExtractor: transparent images are not laid on white, and 16-bit ones not scaled.
"""

import argparse
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoImageProcessor, AutoModel, pipeline
from transformers.utils import logging

import timm_dpa  # registers the models
from timm_dpa.embedding.images import find_images


class Embedder:
    """Image files in, unit embeddings out, `(N, D)` float32.

    Args:
        model: folder of a model (with `config.json` and `model.safetensors`), or `org/name` on the Hub.
        device: 'cpu', 'cuda', ...; None takes the accelerator if there is one.
    """

    def __init__(self, model: str, device: str | None = None) -> None:
        # loaded here rather than by the pipeline, which would bury an error in a list of attempts
        self.pipeline = pipeline(
            'image-feature-extraction',
            model=AutoModel.from_pretrained(model).float(),  # stored as float16, some would compute with it, too
            image_processor=AutoImageProcessor.from_pretrained(model),
            device=device,
        )

    def __call__(self, files: Sequence[str | os.PathLike[str]], batch_size: int = 32) -> np.ndarray:
        # without `pool` the result would be the last map
        vectors = self.pipeline([os.fspath(f) for f in files], pool=True, return_tensors=True, batch_size=batch_size)
        return F.normalize(torch.cat(vectors).float(), dim=1).cpu().numpy()  # the model itself does not normalize


def nearest(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row of the most similar other image of each, and their cosine."""
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    return similarity.argmax(1), similarity.max(1)


def model_folder(model: str) -> str:
    """The folder of a run's model, for the folder of a run; any other name as it is."""
    if not os.path.isdir(model):
        return model
    for folder in (os.path.join(model, 'model'), model):
        if os.path.isfile(os.path.join(folder, 'config.json')):
            return folder
    raise ValueError(f'{model}: no model in this folder')


def run(args: argparse.Namespace) -> None:
    if args.out and not args.out.endswith('.npy'):
        raise ValueError(f'{args.out}: the name must end in .npy')
    if args.out and not Path(args.out).absolute().parent.is_dir():
        raise ValueError(f'{Path(args.out).parent}: no such folder for {Path(args.out).name}')
    missing = [image for image in args.images if not Path(image).exists()]
    if missing:
        raise ValueError(f'{missing[0]}: no such file or folder')
    source = model_folder(args.model)
    if not os.path.isdir(source) and not re.fullmatch(r'\w[\w.-]*/[\w.-]+', source):
        raise ValueError(f'{source}: no such folder, and no org/name of the Hub')
    files = [file for i in args.images for file in (find_images(i) if os.path.isdir(i) else [Path(i)])]
    vectors = Embedder(source, args.device)(files)
    if len(files) > 1:
        for file, row, cosine in zip(files, *nearest(vectors), strict=True):
            print(f'{file}: most similar is {files[row]}, {cosine:.4f}')
    print(f'{len(files)} images, embeddings of {vectors.shape[1]} numbers' + (f': {args.out}' if args.out else ''))
    if args.out:
        np.save(args.out, vectors)
    if args.compare:
        source = source if os.path.isdir(source) else f'hf-hub:{source}'
        expected = timm_dpa.FeatureExtractor(source, device=args.device or 'auto', precision='fp32')(files)
        print(f'largest difference from timm_dpa.FeatureExtractor: {np.abs(vectors - expected).max():.1e}')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('images', nargs='+', metavar='IMAGE', help='image files, and folders of them')
    parser.add_argument('--model', required=True, help='folder of a model or of a run, or org/name on the Hub')
    parser.add_argument('--out', metavar='FILE', help='.npy file to write, a row for each image')
    parser.add_argument('--device', help='cpu, cuda, ...')
    parser.add_argument('--compare', action='store_true', help='with the embeddings of timm_dpa.FeatureExtractor')
    args = parser.parse_args()
    logging.set_verbosity_error()  # it tells of a backend that TimmWrapper does not have
    logging.disable_progress_bar()
    try:
        run(args)
    except (ValueError, TypeError, OSError, RuntimeError, ImportError) as error:
        print(f'transformers_pipeline.py: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
