"""The verbs of the Hugging Face Hub; that room is imported inside a verb only."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timm_dpa.cli.common import VerbMaker, image_size, read_recipe

__all__ = ['add_hub_verbs']

_SETTING = re.compile(r'\w+\.[\w.]+=')


def add_hub_verbs(verb: VerbMaker) -> None:
    """Add the verbs of this room."""
    publish = verb(
        'publish',
        _publish,
        'put a trained model on the Hugging Face Hub, with its card; the same command goes on after an interruption',
        'timm-dpa publish runs/first --repo-id ORG/NAME --license cc-by-nc-4.0\n'
        '  timm-dpa publish runs/first --repo-id ORG/NAME --dry-run look/\n'
        '  timm-dpa publish runs/first --package --tag TAG --half\n'
        '  timm-dpa publish --all --org ORG',
    )
    publish.add_argument('source', nargs='?', metavar='FOLDER', help='of a run, of a model, or one made by --dry-run')
    publish.add_argument('--repo-id', metavar='ORG/NAME', help='repository on the Hub; made if it is not there')
    publish.add_argument('--all', action='store_true', help='all models of the manifest; --org says where')
    publish.add_argument('--org', metavar='ORG', help='organisation or user on the Hub, for --all')
    publish.add_argument('--zoo', metavar='FOLDER', help='for --all: the models of timm-dpa zoo instead')
    publish.add_argument('--private', action='store_true', help='make a new repository a private one')
    publish.add_argument('--create-pr', action='store_true', help='open a pull request instead')
    publish.add_argument('--dry-run', metavar='OUT', help='write the folder here, and upload nothing')
    publish.add_argument(
        '--package',
        action='store_true',
        help='make it a release of this package as ARCHITECTURE.TAG: folder and manifest; upload nothing',
    )
    publish.add_argument('--half', action='store_true', help='store the weights as float16')
    card = publish.add_argument_group('card')
    card.add_argument('--license', metavar='ID', help='of the weights: apache-2.0, cc-by-nc-4.0, other, ...')
    card.add_argument('--trained-on', metavar='TEXT', help='in plain words (default: what the run has recorded)')
    card.add_argument(
        '--results', nargs='+', default=(), metavar='FOLDER', help='further evaluations, made by timm-dpa eval --out'
    )
    card.add_argument(
        '--pictures',
        metavar='DATA',
        help='data set of the ranked lists, whose images this publishes (default: drawn vehicles)',
    )
    card.add_argument(
        '--about',
        nargs='+',
        default=(),
        metavar='NAME=FILE',
        help='what the data set NAME is, where its folder has no dataset.json: a file of that form; '
        'NAME may be the revision of its training images',
    )
    publish.add_argument('--tag', metavar='TAG', help='note it in the manifest of this package as ARCHITECTURE.TAG')
    publish.add_argument(
        '--default', action='store_true', help='for --tag: the name of the architecture alone stands for it from now on'
    )

    zoo = verb(
        'zoo',
        _zoo,
        'train a family of models alike, and write their folders and a manifest; the same command goes on',
        'timm-dpa zoo --data rendered --test street --out zoo                          # on a GPU\n'
        '  timm-dpa zoo --data rendered --out zoo --init dpa_resnet50.rendered          # all from one trunk\n'
        '  timm-dpa zoo --data rendered --out zoo --recipe rendered/cpu --depth 18\n'
        '  timm-dpa publish --all --zoo zoo --org ORG',
    )
    zoo.add_argument('--data', required=True, metavar='ROOT', help='folder of the data set, or a CSV file')
    zoo.add_argument('--out', required=True, metavar='FOLDER', help='folder of runs and models; continued if it is one')
    zoo.add_argument(
        '--test',
        nargs='+',
        default=(),
        metavar='DATA',
        help='further data sets to evaluate each model on',
    )
    zoo.add_argument('--models', nargs='+', metavar='PATTERN', help="such as 'dpa_*' (default: all of one depth)")
    zoo.add_argument('--depth', type=int, default=50, choices=(18, 50), help='of the default models (default 50)')
    zoo.add_argument(
        '--recipe',
        default='rendered/flagship',
        metavar='NAME',
        help='see timm-dpa recipes (default rendered/flagship, from random weights, for a GPU)',
    )
    zoo.add_argument(
        '--init', metavar='SOURCE', help='weights of the backbone: imagenet, a file, ARCHITECTURE.TAG, or none'
    )
    zoo.add_argument('--tag', metavar='TAG', help='of the models (default: names of recipe and data)')
    zoo.add_argument('--license', metavar='ID', help='of the weights; needed unless all data are synthetic')
    zoo.add_argument(
        'settings',
        nargs='*',
        metavar='KEY=VALUE',
        help='changes of the recipe; only the last epoch is evaluated unless run.evaluate_every says otherwise',
    )

    convert = verb(
        'convert',
        _convert,
        'turn a checkpoint of FastReID, of the authors of DpA or of torchreid into a model of this package',
        'timm-dpa convert model_best.pth --from fastreid --out converted/\n'
        '  timm-dpa embed crops/ --model converted/ --out crops.safetensors',
    )
    convert.add_argument('checkpoint', metavar='CHECKPOINT', help='file of torch.save or safetensors')
    convert.add_argument('--from', dest='origin', required=True, choices=('fastreid', 'g-re-id', 'torchreid'))
    convert.add_argument('--out', required=True, metavar='DIR', help='folder to make')
    convert.add_argument(
        '--image-size', type=int, nargs='+', metavar='PX', help='side, or height and width (default 256)'
    )
    convert.add_argument('--last-stride', type=int, choices=(1, 2), help='of stage 4, if it was changed')


def _publish(args: argparse.Namespace) -> None:
    from timm_dpa.hub.publish import prepare, publish, publish_all

    facts = {
        'licence': args.license,
        'trained_on': args.trained_on,
        'results': args.results,
        'pictures': args.pictures,
        'half': args.half,
        'about': _read_about(args.about),
    }
    if args.default and not args.tag:
        raise ValueError('--default goes with --tag')
    if args.zoo and not args.all:
        raise ValueError('--zoo goes with --all')
    if args.all:
        if args.source or args.repo_id or args.package or not args.org:
            raise ValueError('--all takes --org ORG, and neither a folder nor --repo-id or --package')
        if args.tag or any(facts.values()):
            raise ValueError('--all publishes finished folders; their cards take no options')
        dry_run = Path(args.dry_run) if args.dry_run else None
        place = {'manifest': Path(args.zoo, 'weights.json'), 'models': Path(args.zoo, 'models')} if args.zoo else {}
        done = publish_all(args.org, private=args.private, create_pr=args.create_pr, dry_run=dry_run, **place)
    elif args.package:
        _package(args, facts)
        return
    else:
        if not args.source or not args.repo_id or args.org:
            raise ValueError('needs a folder and --repo-id ORG/NAME, or --all with --org ORG')
        if args.dry_run:
            if args.tag:
                raise ValueError('--tag: there is no revision to note in a dry run')
            prepare(args.source, Path(args.dry_run), args.repo_id, **facts)
            done = []
        else:
            done = [
                publish(
                    args.source,
                    args.repo_id,
                    private=args.private,
                    create_pr=args.create_pr,
                    tag=args.tag,
                    default=args.default,
                    **facts,
                )
            ]
    if args.dry_run:
        print(f'nothing was uploaded; folder: {args.dry_run}')
    for published in done:
        print(f'{published.url}' if published.changed else f'{published.url} (nothing has changed)')
        if not args.create_pr:
            print(f"use: timm.create_model('hf-hub:{published.repo_id}@{published.revision}', pretrained=True)")


def _read_about(words: Sequence[str]) -> dict[str, str]:
    about = dict(word.rpartition('=')[::2] for word in words)
    if '' in about:
        raise ValueError(f'--about {about[""]}: wants NAME=FILE')
    return about


def _package(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    from timm_dpa.hub.release import release_model
    from timm_dpa.hub.weights import MANIFEST, MODELS

    if not args.source or not args.tag:
        raise ValueError('--package takes a folder and --tag TAG')
    if args.repo_id or args.org or args.private or args.create_pr or args.dry_run:
        raise ValueError('--package uploads nothing; it takes no --repo-id, --org, --private, --create-pr or --dry-run')
    release = release_model(args.source, args.tag, default=args.default, **facts)
    print(f"{release.size / 1e6:.1f} MB; use: timm.create_model('{release.name}', pretrained=True)")
    print(f'manifest: {MANIFEST}')
    print(f'folder: {MODELS / release.name}')


def _zoo(args: argparse.Namespace) -> None:
    from timm_dpa.hub.family import choose_architectures, train_family

    models, tests = ([word for word in words or () if not _SETTING.match(word)] for words in (args.models, args.test))
    # argparse gives the settings that follow an option with several values to it
    settings = [word for word in (*(args.models or ()), *args.test) if _SETTING.match(word)]
    recipe = read_recipe(args, ['run.evaluate_every=0', *settings, *args.settings])
    tag = args.tag or re.sub('[^a-z0-9]+', '_', f'{Path(args.recipe).stem}_{Path(args.data).stem}'.lower()).strip('_')
    chosen = choose_architectures(models or [f'*_resnet{args.depth}'])
    releases = train_family(chosen, recipe, args.data, args.out, tag, tests=tests, licence=args.license)
    for release in releases:
        scores = [f', {key} {release.metrics[0][key]:.2f} %' for key in ('mAP', 'Rank-1') if release.metrics]
        print(f'{release.name}: {release.size / 1e6:.1f} MB{"".join(scores)}')
    if releases:
        print(f'manifest: {Path(args.out) / "weights.json"}')
        print(f'models: {Path(args.out) / "models"}')


def _convert(args: argparse.Namespace) -> None:
    from timm_dpa.hub.convert import convert_checkpoint

    options = {} if args.last_stride is None else {'last_stride': args.last_stride}
    print(convert_checkpoint(args.checkpoint, args.origin, args.out, image_size=image_size(args.image_size), **options))
    print(f'model: {args.out}')
