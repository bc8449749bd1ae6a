"""The embedder of a search service in plain ONNX Runtime: neither torch nor timm nor timm_dpa is imported.

Needs `pip install onnxruntime pillow` and a file of `timm-dpa export dpa_resnet50 --format onnx --out model.onnx`,
which says itself how its images are prepared, whatever `--input` was:

    python examples/onnx_service.py embed model.onnx crops/ --out crops.npz
    python examples/onnx_service.py search model.onnx --query car.jpg --gallery crops.npz --top 10

A service makes one `Embedder` and calls it from all its threads. `crops.npz` holds `vectors`, `names` and `model`, the
SHA-256 of the file that made them, as vectors of different models cannot be compared.
"""

import argparse
import hashlib
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')
BATCH = 32
KIND = {'input_type': '"float32"', 'layout': '"NCHW"'}
SETTINGS = ('input_size', 'interpolation', 'crop_mode', 'crop_pct', 'mean', 'std')


class Embedder:
    """Images in, `(N, D)` float32 of unit length out.

    Raises:
        ValueError: no ONNX file of timm-dpa, or one that wants its images in a way that is not known here.
    """

    def __init__(self, path: str, providers: Sequence[str] = ('CPUExecutionProvider',)) -> None:
        content = Path(path).read_bytes()
        self.sha256 = hashlib.sha256(content).hexdigest()
        try:
            self.session = onnxruntime.InferenceSession(content, providers=list(providers))
        except Exception as error:  # of types that onnxruntime keeps to itself
            raise ValueError(f'{path}: no model that onnxruntime can load ({error})') from error
        entries = self.session.get_modelmeta().custom_metadata_map
        if not entries.keys() >= {*SETTINGS, 'timm_dpa_version'}:
            raise ValueError(f'{path}: no metadata of timm-dpa; write it with `timm-dpa export`')
        (channels, *size), interpolation, mode, part, mean, std = (json.loads(entries[key]) for key in SETTINGS)
        if (channels, mode, part) != (3, 'squash', 1) or interpolation.upper() not in Image.Resampling.__members__:
            raise ValueError(f'{path}: wants other images than RGB squashed to a size: {channels}, {mode}, {part}')
        # files of timm-dpa 0.1 say neither; they take normalized floats
        kind, layout = (json.loads(entries.get(key, default)) for key, default in KIND.items())
        self.takes_bytes = (kind, layout) == ('uint8', 'NHWC')  # and blue comes first
        if not self.takes_bytes and (kind, layout) != ('float32', 'NCHW'):
            raise ValueError(f'{path}: takes images as {kind} {layout}, which is not known here')
        self.size = (size[1], size[0])  # Pillow's order
        self.resample = Image.Resampling[interpolation.upper()]
        self.mean, self.std = np.array(mean, np.float32), np.array(std, np.float32)

    def prepare(self, image: Image.Image) -> np.ndarray:
        """Upright, on white, as in training: `(3, H, W)` float32, or `(H, W, 3)` bytes for files that take them."""
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(('I', 'F')):
            raise ValueError('more than 8 bits are not supported here')
        if image.has_transparency_data:
            image = image.convert('RGBA')
            image = Image.alpha_composite(Image.new('RGBA', image.size, 'white'), image)
        pixels = np.asarray(image.convert('RGB').resize(self.size, self.resample))
        if self.takes_bytes:
            return pixels[:, :, ::-1]
        return ((pixels.astype(np.float32) / 255 - self.mean) / self.std).transpose(2, 0, 1)

    def __call__(self, images: Sequence[Image.Image]) -> np.ndarray:
        """All in one batch, such as the crops of a request; at least one."""
        return self.run([self.prepare(image) for image in images])

    def run(self, pixels: Sequence[np.ndarray]) -> np.ndarray:
        """The same from prepared images."""
        return self.session.run(['embeddings'], {'images': np.stack(pixels)})[0]


def embed_files(embedder: Embedder, paths: Sequence[str]) -> tuple[np.ndarray, list[str]]:
    """Vectors and names of image files, and of all below folders."""
    names, vectors = [], []
    for path in paths:
        below = sorted(str(p) for p in Path(path).rglob('*') if p.suffix.lower() in SUFFIXES)
        names += below if Path(path).is_dir() else [path]
    if not names:
        raise ValueError(f'{" ".join(paths)}: no images (looked for {" ".join(SUFFIXES)})')
    for start in range(0, len(names), BATCH):
        pixels = []
        for name in names[start : start + BATCH]:
            try:
                with Image.open(name) as image:
                    pixels.append(embedder.prepare(image))
            except (OSError, ValueError) as error:
                raise ValueError(f'{name}: {error}') from error
        vectors.append(embedder.run(pixels))
    return np.concatenate(vectors), names


def load_gallery(embedder: Embedder, path: str) -> tuple[np.ndarray, list[str]]:
    """Vectors and names of a folder, or of a file of `embed`."""
    if Path(path).is_dir():
        return embed_files(embedder, [path])
    file = np.load(path) if zipfile.is_zipfile(path) else {}
    if not {'vectors', 'names', 'model'} <= set(file):
        raise ValueError(f'{path}: neither a folder nor a file written by `onnx_service.py embed`')
    if str(file['model']) != embedder.sha256:
        raise ValueError(f'{path}: made by another model; embed the gallery again')
    return file['vectors'], file['names'].tolist()


def run(args: argparse.Namespace) -> None:
    if args.command == 'search' and args.top < 1:
        raise ValueError(f'--top must be at least 1, not {args.top}')
    embedder = Embedder(args.model)
    if args.command == 'embed':
        if not args.out.endswith('.npz') or not Path(args.out).absolute().parent.is_dir():
            raise ValueError(f'{args.out}: the name must end in .npz, in a folder that exists')
        vectors, names = embed_files(embedder, args.images)
        np.savez(args.out, vectors=vectors, names=np.array(names), model=np.array(embedder.sha256))
        print(f'{len(names)} images, embeddings of {vectors.shape[1]} numbers: {args.out}')
        return
    queries, asked = embed_files(embedder, [args.query])
    vectors, names = load_gallery(embedder, args.gallery)
    for query, similarity in zip(asked, queries @ vectors.T, strict=True):
        print(query)
        for rank, row in enumerate(np.argsort(-similarity, kind='stable')[: args.top], start=1):
            print(f'  {rank:4d}  {similarity[row]:7.4f}  {names[row]}')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest='command', required=True)
    embed = commands.add_parser('embed', help='write the embeddings of images')
    embed.add_argument('model', help='file of timm-dpa export')
    embed.add_argument('images', nargs='+', metavar='IMAGE', help='image files, and folders of them')
    embed.add_argument('--out', required=True, metavar='FILE', help='.npz file to write')
    search = commands.add_parser('search', help='rank a gallery by its similarity to a query')
    search.add_argument('model', help='file of timm-dpa export')
    search.add_argument('--query', required=True, metavar='IMAGE', help='an image, or a folder of them')
    search.add_argument('--gallery', required=True, metavar='PATH', help='folder of images, or a file of embed')
    search.add_argument('--top', type=int, default=10, metavar='N', help='how many to show (default %(default)s)')
    args = parser.parse_args()
    try:
        run(args)
    except (ValueError, OSError) as error:
        print(f'onnx_service.py: {" ".join(str(error).split())}', file=sys.stderr)
        return 2
    return 0


if __name__ == '__main__':
    sys.exit(main())
