"""`timm-dpa app`."""

from __future__ import annotations

import argparse
import csv
import os
import signal
import threading
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .common import Command, add_model_options, make_extractor

if TYPE_CHECKING:
    from PIL import Image

    from timm_dpa import FeatureExtractor
    from timm_dpa.gallery.gallery import Gallery
    from timm_dpa.gallery.page.handlers import Page

__all__ = ['COMMAND', 'heat_maps', 'make_page', 'rendered_gallery']

_MEGABYTE = 1_000_000


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('--gallery', metavar='URI', help='gallery to show; without it, a few rendered vehicles')
    parser.add_argument(
        '--feedback', metavar='FOLDER', help='keep the marks of all users here (default: with the session of each)'
    )
    parser.add_argument(
        '--cache', metavar='FOLDER', help='where rendered vehicles are kept (default ~/.cache/timm_dpa)'
    )
    access = parser.add_argument_group('access')
    access.add_argument('--host', default='127.0.0.1', help='address to listen at (default %(default)s)')
    access.add_argument('--port', type=int, default=7860, metavar='N', help='port (default %(default)s)')
    access.add_argument('--user', default='timm-dpa', metavar='NAME', help='name to log in with (default %(default)s)')
    access.add_argument(
        '--password-file',
        metavar='FILE',
        help='file with the password in its first line, needed for any other host; or set TIMM_DPA_PASSWORD',
    )
    access.add_argument(
        '--max-upload', type=int, default=50, metavar='MB', help='largest file to upload (default %(default)s)'
    )
    add_model_options(parser)


def _run(args: argparse.Namespace) -> None:
    from timm_dpa.files import locked
    from timm_dpa.gallery.page.access import check_access, read_password

    password = read_password(args.password_file)
    check_access(args.host, password)
    if not 1 <= args.port <= 65535:
        raise ValueError(f'--port must be in 1..65535, not {args.port}')
    from timm_dpa.gallery.page.layout import launch  # what is missing shows before the work

    with ExitStack() as stack:
        if args.feedback:
            stack.enter_context(locked(Path(args.feedback, '.lock')))
        page = make_page(args)
        blocks, address = launch(page, host=args.host, port=args.port, user=args.user, password=password)
        stack.callback(blocks.close, verbose=False)
        if args.feedback:
            print(f'feedback: {args.feedback}')
        print(f'page: {address} (Ctrl-C ends it)', flush=True)
        with suppress(KeyboardInterrupt):
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            threading.Event().wait()


def make_page(args: argparse.Namespace) -> Page:
    """The page that the options describe."""
    from timm_dpa.gallery.gallery import Gallery
    from timm_dpa.gallery.page.access import Limits
    from timm_dpa.gallery.page.feedback import Feedback
    from timm_dpa.gallery.page.handlers import Page

    standard = Limits()
    limits = Limits(args.max_upload * _MEGABYTE, args.max_pixels or standard.pixels)
    if args.gallery:
        extractor = make_extractor(args, Gallery(args.gallery).origin)
        gallery, about = Gallery(args.gallery, origin=extractor.describe()), ''
    else:
        extractor = make_extractor(args)
        cache = Path(args.cache) if args.cache else Path.home() / '.cache' / 'timm_dpa'
        gallery = rendered_gallery(cache / 'rendered', extractor)
        about = 'These vehicles are rendered, and their times are made up; --gallery shows yours.'
    feedback = Feedback(Path(args.feedback)) if args.feedback else None
    return Page(gallery, extractor, explain=heat_maps(extractor), feedback=feedback, limits=limits, about=about)


def heat_maps(extractor: FeatureExtractor) -> Any:
    """Paints the heat map of a picture; None where the packages of the extra `train` are missing."""
    try:
        from matplotlib import colormaps
        from pytorch_grad_cam import GradCAMPlusPlus  # noqa: F401
    except ImportError:
        return None
    import numpy as np
    from PIL import Image

    from timm_dpa.train.figures.heat_maps import heat_map

    size = tuple(extractor.data_config['input_size'][1:])

    def explain(picture: Image.Image) -> Image.Image:
        small = picture.copy()
        small.thumbnail((640, 640))
        heat = Image.fromarray(heat_map(extractor.model, picture, image_size=size))
        shares = np.asarray(heat.resize(small.size, Image.Resampling.BILINEAR))
        painted = colormaps['RdYlBu_r'](shares)[..., :3] * 255
        return Image.fromarray(np.uint8(np.rint((np.asarray(small) + painted) / 2)))

    return explain


def rendered_gallery(folder: Path, extractor: FeatureExtractor) -> Gallery:
    """A gallery of a few rendered vehicles, which is made once for each model.

    Args:
        folder: where vehicles and galleries are kept.
        extractor: embeds them.

    Raises:
        ImportError: `timm-dpa[synth]` is not installed.
        FileExistsError: the folder holds something else.
        BlockingIOError: another process is making it.
    """
    from timm_dpa.embedding.images import ImageItem, load_rgb
    from timm_dpa.files import locked
    from timm_dpa.gallery.filters import parse_time
    from timm_dpa.gallery.gallery import Gallery
    from timm_dpa.gallery.pictures import quality_of, thumbnail_of
    from timm_dpa.gallery.rows import GalleryRow
    from timm_dpa.synth.dataset import Plan, render_data_set

    plan = Plan(ids=12, images_per_id=9, cameras=3, flights=8, sizes=(160, 240), siblings=3, test_share=0, seed=7)
    origin = {**extractor.origin, **extractor.describe()}
    name = f'{origin["network_sha256"][:16]}_{"x".join(map(str, extractor.data_config["input_size"][1:]))}'
    start = parse_time('2026-05-01T08:00Z')
    with locked(folder / '.lock'):
        render_data_set(folder / 'vehicles', plan)
        with open(folder / 'vehicles' / 'images.csv', encoding='utf-8', newline='') as file:
            table = list(csv.DictReader(file))
        gallery = Gallery(folder / name, origin=origin, create=True)
        if len(gallery) == len(table):
            return gallery
        paths = [folder / 'vehicles' / entry['image'] for entry in table]
        vectors = extractor(paths)
        seen: dict[str, int] = {}
        rows = []
        for entry, path, vector in zip(table, paths, vectors, strict=True):
            vehicle, camera = int(entry['vehicle']), int(entry['camera'])
            track = f'vehicle {vehicle} by camera {camera}'
            number = seen[track] = seen.get(track, -1) + 1
            image = load_rgb(ImageItem(path, str(path)))
            rows.append(
                GalleryRow(
                    entry['image'],
                    vector,
                    image=os.fspath(path.absolute()),
                    camera=f'{camera:02d}',
                    time=start + 1000 * (420 * camera + 35 * vehicle + 4 * number),
                    track=track,
                    vehicle=vehicle,
                    quality=quality_of(image),
                    thumbnail=thumbnail_of(image),
                )
            )
        gallery.add(rows)
    return gallery


COMMAND = Command(
    'app',
    'show a gallery in the browser: search by picture, mark matches, export them as training data',
    'timm-dpa app\n'
    '  timm-dpa app --gallery vehicles --feedback feedback\n'
    '  timm-dpa app --gallery vehicles --host 0.0.0.0 --password-file password.txt',
    _add_arguments,
    _run,
)
