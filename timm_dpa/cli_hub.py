"""The verbs of the Hugging Face Hub; that room is imported inside a verb only."""

from __future__ import annotations

import argparse
from pathlib import Path

from timm_dpa.cli_options import VerbMaker, image_size

__all__ = ['add_hub_verbs']


def add_hub_verbs(verb: VerbMaker) -> None:
    """Add the verbs of this room."""
    publish = verb(
        'publish',
        _publish,
        'put a trained model on the Hugging Face Hub, with its card; the same command goes on after an interruption',
        'timm-dpa publish runs/first --repo-id ORG/NAME --license cc-by-nc-4.0\n'
        '  timm-dpa publish runs/first --repo-id ORG/NAME --dry-run look/\n'
        '  timm-dpa publish --all --org ORG',
    )
    publish.add_argument('source', nargs='?', metavar='FOLDER', help='of a run, of a model, or one made by --dry-run')
    publish.add_argument('--repo-id', metavar='ORG/NAME', help='repository on the Hub; made if it is not there')
    publish.add_argument('--all', action='store_true', help='all models of the manifest; --org says where')
    publish.add_argument('--org', metavar='ORG', help='organisation or user on the Hub, for --all')
    publish.add_argument('--private', action='store_true', help='make a new repository a private one')
    publish.add_argument('--create-pr', action='store_true', help='open a pull request instead')
    publish.add_argument('--dry-run', metavar='OUT', help='write the folder here, and upload nothing')
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
    publish.add_argument('--tag', metavar='TAG', help='note it in the manifest of this package as ARCHITECTURE.TAG')

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

    if args.all:
        if args.source or args.repo_id or not args.org:
            raise ValueError('--all takes --org ORG, and neither a folder nor --repo-id')
        if args.license or args.trained_on or args.results or args.pictures or args.tag:
            raise ValueError('--all publishes finished folders; their cards take no options')
        dry_run = Path(args.dry_run) if args.dry_run else None
        done = publish_all(args.org, private=args.private, create_pr=args.create_pr, dry_run=dry_run)
    else:
        if not args.source or not args.repo_id or args.org:
            raise ValueError('needs a folder and --repo-id ORG/NAME, or --all with --org ORG')
        facts = {
            'licence': args.license,
            'trained_on': args.trained_on,
            'results': args.results,
            'pictures': args.pictures,
        }
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
                    **facts,
                )
            ]
    if args.dry_run:
        print(f'nothing was uploaded; folder: {args.dry_run}')
    for published in done:
        print(f'{published.url}' if published.changed else f'{published.url} (nothing has changed)')
        if not args.create_pr:
            print(f"use: timm.create_model('hf-hub:{published.repo_id}@{published.revision}', pretrained=True)")


def _convert(args: argparse.Namespace) -> None:
    from timm_dpa.hub.convert import convert_checkpoint

    options = {} if args.last_stride is None else {'last_stride': args.last_stride}
    print(convert_checkpoint(args.checkpoint, args.origin, args.out, image_size=image_size(args.image_size), **options))
    print(f'model: {args.out}')
