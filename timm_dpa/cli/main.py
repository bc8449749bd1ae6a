"""`timm-dpa <verb>`: the command line. Other rooms are imported inside a verb only, so that --help is quick."""

from __future__ import annotations

import argparse
import csv
import io
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from timm_dpa import __version__
from timm_dpa.cli.common import (
    add_model_options,
    check_output,
    image_size,
    make_extractor,
    replacing,
    verbs_below,
)
from timm_dpa.cli.demo import add_demo_verb
from timm_dpa.cli.hub import add_hub_verbs
from timm_dpa.cli.train import add_train_verbs

__all__ = ['main']

_FIGURE_SUFFIXES = ('.png', '.jpg', '.jpeg')
_FIGURE_LIMIT = 50  # rows and columns; more would be no picture to look at


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; returns the exit status: 0, 1 when it failed, 2 for wrong use, 130 when it was interrupted."""
    parser = _parser()
    args, rest = parser.parse_known_args(argv)
    if rest and (any(word.startswith('-') for word in rest) or not hasattr(args, 'settings')):
        parser.error(f'unrecognized arguments: {" ".join(rest)}')
    if rest:  # argparse leaves the settings that follow an option, where a positional argument comes first
        args.settings += rest
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # file names are any bytes
            stream.reconfigure(errors='surrogateescape' if stream.encoding == 'utf-8' else 'backslashreplace')
    logging.basicConfig(level=logging.WARNING, format='timm-dpa: %(message)s', stream=sys.stderr)
    hub_logger = logging.getLogger('huggingface_hub')
    hub_logger.propagate = False  # it prints by itself
    if 'HF_HUB_VERBOSITY' not in os.environ:
        hub_logger.setLevel(logging.ERROR)  # each attempt would be two lines; what matters ends as one, in an error
    try:
        args.run(args)
        print(end='', flush=True)  # a closed pipe or a full disk shows here
    except KeyboardInterrupt:
        advice = (
            '; the same command goes on from here'
            if args.verb in ('embed', 'train', 'ablate', 'publish', 'zoo', 'synth', 'demo')
            else ''
        )
        print(f'timm-dpa {args.verb}: interrupted{advice}', file=sys.stderr)
        return 130
    except BrokenPipeError:  # ... | head
        _discard_output()
        return 0
    except (ValueError, TypeError, FileNotFoundError, FileExistsError, NotADirectoryError) as error:
        print(f'timm-dpa {args.verb}: {_one_line(error)}', file=sys.stderr)
        return 2
    except (RuntimeError, OSError, MemoryError, ArithmeticError, ImportError) as error:
        print(f'timm-dpa {args.verb}: {_one_line(error)}', file=sys.stderr)
        try:
            print(end='', flush=True)
        except OSError:
            _discard_output()
        return 1
    return 0


def _discard_output() -> None:
    """What cannot be written would make Python complain when it ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(error: BaseException) -> str:
    return ' '.join(str(error).split()) or type(error).__name__


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='timm-dpa', description='Vehicle re-identification from drones.')
    parser.add_argument('--version', action='version', version=f'timm-dpa {__version__}')
    verb = verbs_below(parser, 'verb')
    embed = verb(
        'embed', _embed, 'write the embeddings of images to a file', 'timm-dpa embed crops/ --out crops.safetensors'
    )
    embed.add_argument('images', nargs='+', metavar='IMAGE', help='image files, and folders of them')
    embed.add_argument('--out', required=True, metavar='FILE', help='safetensors file to write; continued if it exists')
    embed.add_argument('--overwrite', action='store_true', help='replace FILE where it holds other vectors')
    add_model_options(embed)

    search = verb(
        'search',
        _search,
        'rank a gallery by similarity to query images',
        'timm-dpa search --query car.jpg --gallery crops.safetensors --top 10 --figure ranks.png',
    )
    search.add_argument('--query', required=True, nargs='+', metavar='IMAGE', help='query images, or folders of them')
    search.add_argument('--gallery', required=True, metavar='PATH', help='a folder, or a file made by timm-dpa embed')
    search.add_argument('--top', type=int, default=10, metavar='N', help='matches of each query (default 10)')
    search.add_argument('--figure', metavar='FILE', help='picture of the ranks to write (.png or .jpg)')
    search.add_argument('--out', metavar='FILE', help='CSV table to write')
    add_model_options(search)

    models = verb('models', _models, 'list the models', "timm-dpa models 'dpa_*'")
    models.add_argument('pattern', nargs='?', default='*', help='names to list, with * and ? (default all)')
    models.add_argument('--markdown', action='store_true', help='as a Markdown table')

    export = verb(
        'export',
        _export,
        'write a model as an ONNX or torch.export file, checked against PyTorch',
        'timm-dpa export dpa_resnet50 --format onnx --out dpa_resnet50.onnx',
    )
    export.add_argument('model', metavar='MODEL', help='name of a model, or hf-hub:org/name, or local-dir:folder')
    export.add_argument('--out', required=True, metavar='FILE', help='file to write')
    export.add_argument('--format', choices=('onnx', 'torch-export'), default='onnx')
    export.add_argument('--image-size', type=int, nargs='+', metavar='PX', help='side, or height and width')
    export.add_argument('--dynamic-size', action='store_true', help='accept images of any size')
    export.add_argument('--checkpoint', metavar='FILE', help='weights to load')

    add_train_verbs(verb)
    add_hub_verbs(verb)
    add_demo_verb(verb)
    return parser


def _embed(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.files import embed_to_file

    report = embed_to_file(make_extractor(args), args.images, args.out, overwrite=args.overwrite)
    known = report.total - report.embedded
    print(f'{report.embedded} images embedded' + (f', {known} known from an earlier run' if known else ''))
    if report.failures:
        print(f'{len(report.failures)} could not be read: {report.failures_file}')
    print(f'{report.total} vectors in {args.out}')


def _search(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.files import check_same_origin, load_vectors
    from timm_dpa.embedding.images import find_images, iter_images
    from timm_dpa.embedding.search import nearest, rank_figure, same_files

    # what is wrong shows before the work
    if args.top < 1:
        raise ValueError(f'--top must be at least 1, not {args.top}')
    if args.figure and not args.figure.lower().endswith(_FIGURE_SUFFIXES):
        raise ValueError(f'--figure {args.figure}: the name must end in {" or ".join(_FIGURE_SUFFIXES)}')
    for path in (args.figure, args.out):
        check_output(path, inputs=[args.gallery, *args.query])
    query_items = list(iter_images(args.query))
    gallery = Path(args.gallery)
    if not gallery.exists():
        raise FileNotFoundError(f'{gallery}: no such gallery; give a folder or a file made by timm-dpa embed')
    stored = None if gallery.is_dir() else load_vectors(gallery)
    if stored is None:
        find_images(gallery)
    extractor = make_extractor(args, stored and stored.metadata)
    if stored is not None:
        check_same_origin(stored, extractor.describe(), gallery, extractor.embedding_size)
    queries = extractor.run(query_items)
    embedded = stored or extractor.run(gallery)
    vectors, names = embedded.vectors, embedded.names
    for reason in [*queries.failures.values(), *getattr(embedded, 'failures', {}).values()]:
        print(f'timm-dpa search: left out: {reason}', file=sys.stderr)
    if not names or not queries.names:
        raise ValueError(f'no image of the {"queries" if names else "gallery"} can be read')

    folders = [gallery.parent]
    excluded = same_files(queries.names, names, folders)
    rankings = nearest(queries.vectors, vectors, names, args.top, excluded)
    # files first: the table may go to a pipe that closes
    if args.out:
        with (
            replacing(args.out) as temporary,
            open(temporary, 'w', newline='', encoding='utf-8', errors='surrogateescape') as file,
        ):
            writer = csv.writer(file)
            writer.writerow(['query', 'rank', 'similarity', 'image'])
            for query, ranking in zip(queries.names, rankings, strict=True):
                writer.writerows([query, match.rank, f'{match.similarity:.6f}', match.name] for match in ranking)
    drawn = [ranking[:_FIGURE_LIMIT] for ranking in rankings[:_FIGURE_LIMIT]]
    if args.figure:
        with replacing(args.figure) as temporary:
            rank_figure(queries.names[: len(drawn)], drawn, folders).save(temporary)
    for query, ranking, left_out in zip(queries.names, rankings, excluded, strict=True):
        note = ', itself left out' if left_out else ''
        print(f'{query}  (gallery of {len(names)}{note})')
        print('  rank  similarity  image')
        for match in ranking:
            print(f'  {match.rank:4d}  {match.similarity:10.4f}  {match.name}')
    if args.out:
        print(f'table: {args.out}')
    if args.figure:
        cut = drawn != rankings
        print(f'figure{f" of the first {_FIGURE_LIMIT} queries and ranks" if cut else ""}: {args.figure}')


def _models(args: argparse.Namespace) -> None:
    from timm_dpa.catalog import zoo_table

    print(zoo_table(args.pattern, markdown=args.markdown))


def _export(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.export import export_model
    from timm_dpa.embedding.extractor import create_embedding_model

    model = create_embedding_model(args.model, args.checkpoint)
    size = image_size(args.image_size)
    report = export_model(model, args.out, format=args.format, image_size=size, dynamic_size=args.dynamic_size)
    sizes = ', '.join(f'{height} x {width}' for height, width in report.image_sizes)
    print(f'{report.format}, {report.file_size / 1e6:.1f} MB, checked with images of {sizes}')
    print(f'largest difference from PyTorch: {report.max_difference:.2g} (allowed {report.tolerance:.2g})')
    print(f'model: {report.path}')


if __name__ == '__main__':
    sys.exit(main())
