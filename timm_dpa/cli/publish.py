"""`timm-dpa publish`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .common import Command

__all__ = ['COMMAND']


def _add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument('source', nargs='?', metavar='FOLDER', help='run folder, model folder, or one of --dry-run')
    parser.add_argument('--repo-id', metavar='ORG/NAME', help='repository on the Hub; created if it does not exist')
    parser.add_argument('--all', action='store_true', help='all models of the manifest, below --org')
    parser.add_argument('--org', metavar='ORG', help='organization or user on the Hub, for --all')
    parser.add_argument('--zoo', metavar='FOLDER', help='with --all: publish the models that timm-dpa zoo wrote')
    parser.add_argument('--space', metavar='ORG/NAME', help='upload the page of timm-dpa app as this Space instead')
    parser.add_argument('--private', action='store_true', help='make a new repository private')
    parser.add_argument('--create-pr', action='store_true', help='open a pull request instead')
    parser.add_argument('--dry-run', metavar='OUT', help='write the folder to OUT, and upload nothing')
    parser.add_argument(
        '--package',
        action='store_true',
        help='add the model to this package as ARCHITECTURE.TAG (folder and manifest); upload nothing',
    )
    parser.add_argument(
        '--refresh',
        action='store_true',
        help='write card, configuration and manifest entry of the released model in FOLDER again; '
        '--results give new thresholds; upload nothing',
    )
    parser.add_argument('--half', action='store_true', help='store the weights as float16')
    card = parser.add_argument_group('card')
    card.add_argument('--license', metavar='ID', help='license of the weights: apache-2.0, cc-by-nc-4.0, other, ...')
    card.add_argument(
        '--trained-on', metavar='TEXT', help='training data in words (default: what the run has recorded)'
    )
    card.add_argument(
        '--results', nargs='+', default=(), metavar='FOLDER', help='further evaluations, made by timm-dpa eval --out'
    )
    card.add_argument(
        '--pictures',
        metavar='DATA',
        help='data set of the ranked lists, whose images this publishes (default: a toy data set)',
    )
    card.add_argument(
        '--about',
        nargs='+',
        default=(),
        metavar='NAME=FILE',
        help='description of the data set NAME, where its folder has no dataset.json: a file of that form; '
        'NAME may be the revision of its training images',
    )
    parser.add_argument('--tag', metavar='TAG', help='record the model in the manifest as ARCHITECTURE.TAG')
    parser.add_argument(
        '--default', action='store_true', help='with --tag: make it the default weights of the architecture'
    )


def _run(args: argparse.Namespace) -> None:
    facts = {
        'license': args.license,
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
    if args.space:
        _publish_space(args, facts)
    elif args.all:
        _publish_all(args, facts)
    elif args.refresh:
        _refresh(args, facts)
    elif args.package:
        _package(args, facts)
    else:
        _publish_one(args, facts)


def _publish_all(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    from timm_dpa.hub.publish import publish_all

    if args.source or args.repo_id or args.package or args.refresh or not args.org:
        raise ValueError('--all takes --org ORG, and neither a folder nor --repo-id, --package or --refresh')
    if args.tag or any(facts.values()):
        raise ValueError('--all publishes finished folders; their cards take no options')
    place = {'manifest': Path(args.zoo, 'weights.json'), 'models': Path(args.zoo, 'models')} if args.zoo else {}
    dry_run = Path(args.dry_run) if args.dry_run else None
    _report(args, publish_all(args.org, private=args.private, create_pr=args.create_pr, dry_run=dry_run, **place))


def _publish_space(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    from timm_dpa.hub.publish import publish_space

    other = (args.source, args.repo_id, args.all, args.org, args.package, args.refresh, args.tag, *facts.values())
    if any(other):
        raise ValueError('--space takes --private, --create-pr or --dry-run, and no model')
    dry_run = Path(args.dry_run) if args.dry_run else None
    done = publish_space(args.space, private=args.private, create_pr=args.create_pr, dry_run=dry_run)
    if done is None:
        print(f'nothing was uploaded; folder: {args.dry_run}')
    else:
        print(done.url if done.changed else f'{done.url} (nothing has changed)')


def _publish_one(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    from timm_dpa.hub.publish import prepare, publish

    if not args.source or not args.repo_id or args.org:
        raise ValueError('needs a folder and --repo-id ORG/NAME, or --all with --org ORG')
    if args.dry_run:
        if args.tag:
            raise ValueError('--tag: there is no revision to record in a dry run')
        prepare(args.source, Path(args.dry_run), args.repo_id, **facts)
        _report(args, [])
        return
    options = {'private': args.private, 'create_pr': args.create_pr, 'tag': args.tag, 'default': args.default}
    _report(args, [publish(args.source, args.repo_id, **options, **facts)])


def _report(args: argparse.Namespace, done: Sequence[Any]) -> None:
    if args.dry_run:
        print(f'nothing was uploaded; folder: {args.dry_run}')
    for published in done:
        print(f'{published.url}' if published.changed else f'{published.url} (nothing has changed)')
        if not args.create_pr:
            print(f"use: timm.create_model('hf-hub:{published.repo_id}@{published.revision}', pretrained=True)")


def _read_about(words: Sequence[str]) -> dict[str, str]:
    about = {name: file for name, _, file in (word.rpartition('=') for word in words)}
    if '' in about:
        raise ValueError(f'--about {about[""]}: must be NAME=FILE')
    return about


def _package(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    from timm_dpa.hub.release import release_model
    from timm_dpa.weights.fetch import MODELS
    from timm_dpa.weights.manifest import MANIFEST

    if not args.source or not args.tag:
        raise ValueError('--package takes a folder and --tag TAG')
    if args.repo_id or args.org or args.private or args.create_pr or args.dry_run:
        raise ValueError('--package uploads nothing; it takes no --repo-id, --org, --private, --create-pr or --dry-run')
    release = release_model(args.source, args.tag, default=args.default, **facts)
    print(f"{release.size / 1e6:.1f} MB; use: timm.create_model('{release.name}', pretrained=True)")
    print(f'manifest: {MANIFEST}')
    print(f'folder: {MODELS / release.name}')


def _refresh(args: argparse.Namespace, facts: dict[str, Any]) -> None:
    from timm_dpa.hub.release import refresh_release
    from timm_dpa.weights.manifest import MANIFEST

    other = (args.repo_id, args.org, args.private, args.create_pr, args.dry_run, args.package, args.tag, args.default)
    if not args.source or any(other) or any(value for name, value in facts.items() if name != 'results'):
        raise ValueError('--refresh takes the folder of a released model and --results, and no other options')
    release = refresh_release(args.source, args.results)
    thresholds = [f'{row["cosine"]:.4f} ({100 * row["false_match_rate"]:g} %)' for row in release.thresholds]
    print(f'{release.name}: thresholds {", ".join(thresholds) or "unknown"}')
    print(f'manifest: {MANIFEST}')
    print(f'folder: {args.source}')


COMMAND = Command(
    'publish',
    'put a trained model on the Hugging Face Hub, with its card; rerun the command to resume',
    'timm-dpa publish runs/first --repo-id ORG/NAME --license cc-by-nc-4.0\n'
    '  timm-dpa publish runs/first --repo-id ORG/NAME --dry-run look/\n'
    '  timm-dpa publish runs/first --package --tag TAG --half\n'
    '  timm-dpa publish hub/models/ARCHITECTURE.TAG --refresh --results eval/street eval/crossroad\n'
    '  timm-dpa publish --all --org ORG\n'
    '  timm-dpa publish --space ORG/NAME',
    _add_arguments,
    _run,
    resumable=True,
)
