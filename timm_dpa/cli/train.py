"""The verbs of training and evaluation; that room is imported inside a verb only."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path
from typing import Any

from timm_dpa.cli.common import (
    VerbMaker,
    add_model_options,
    check_output,
    image_size,
    make_extractor,
    model_source,
    read_recipe,
    replacing,
    verbs_below,
)

__all__ = ['add_train_verbs']

_LAYOUTS = ('auto', 'veri_uav', 'vru', 'veri776', 'csv', 'folders', 'flat')
_PROTOCOLS = ('fixed', 'vru', 'first-last', 'cross-camera')
_TABLES = ('table3', 'table4', 'table5', 'table6')


def add_train_verbs(verb: VerbMaker) -> None:
    """Add the verbs of this room."""
    data = verb(
        'data',
        None,
        'check a data set before training, or draw one to try things out',
        'timm-dpa data check crops/\n  timm-dpa data draw drawn --identities 64 --images 12',
    )
    actions = verbs_below(data, 'action')
    check = actions(
        'check',
        _data_check,
        'say what a data set holds, and whether it is ready for use',
        'timm-dpa data check crops/',
    )
    check.add_argument('root', metavar='ROOT', help='folder of the data set, or a CSV file')
    check.add_argument('--quick', action='store_true', help='count only, open no image')
    check.add_argument('--json', metavar='FILE', help='write the report here, too')
    _add_data_options(check)
    draw = actions(
        'draw',
        _data_draw,
        'draw a synthetic data set to try things out',
        'timm-dpa data draw drawn --identities 64 --images 12',
    )
    draw.add_argument('root', metavar='ROOT', help='folder to make')
    draw.add_argument('--identities', type=int, default=64, metavar='N', help='vehicles (default 64)')
    draw.add_argument('--images', type=int, default=12, metavar='N', help='images of each (default 12)')

    synth = verb(
        'synth',
        _synth,
        'render a data set of vehicles as a drone sees them; the same command goes on after an interruption',
        'timm-dpa synth --out rendered --ids 1000 --images-per-id 24 --seed 0 --preview sheet.png',
    )
    synth.add_argument('--out', required=True, metavar='ROOT', help='folder to make; continued if it holds a part')
    synth.add_argument('--ids', type=int, default=1000, metavar='N', help='vehicles (default 1000)')
    synth.add_argument('--images-per-id', type=int, default=24, metavar='N', help='images of each (default 24)')
    synth.add_argument('--seed', type=int, default=0, metavar='N', help='of everything (default 0)')
    synth.add_argument(
        '--size', type=int, nargs='+', default=[30, 300], metavar='PX', help='long sides of the crops (default 30 300)'
    )
    synth.add_argument('--siblings', type=int, default=5, metavar='N', help='vehicles of one model (default 5)')
    synth.add_argument(
        '--alike', type=float, default=0.8, metavar='P', help='share of models of one colour each (default 0.8)'
    )
    synth.add_argument(
        '--cameras', type=int, metavar='N', help='flights that see a vehicle (default 6; always 1 with --tracks)'
    )
    synth.add_argument(
        '--flights',
        type=int,
        default=60,
        metavar='N',
        help='flights in all, each a camera of its own: place, light, height; two fifths see the test vehicles only '
        '(default 60)',
    )
    synth.add_argument(
        '--degradation',
        type=float,
        default=1.0,
        metavar='D',
        help='haze, blur, noise, colour and JPEG: 0 none, 1 as drones bring it home, at most 4 (default 1)',
    )
    synth.add_argument(
        '--test-share', type=float, default=0.25, metavar='F', help='models held out for the test (default 0.25)'
    )
    synth.add_argument(
        '--tracks',
        action='store_true',
        help='the images of a vehicle are 10 to 30 frames of one flight that watches it turn while the drone climbs: '
        'heading, size, light and air change from frame to frame; evaluated first-last (--images-per-id 20)',
    )
    synth.add_argument('--preview', metavar='FILE', help='contact sheet to draw: vehicles by rows')
    synth.add_argument('--workers', type=int, metavar='N', help='processes (default: one a core)')

    train = verb(
        'train',
        _train,
        'train or fine-tune a model; the same command goes on after an interruption',
        'timm-dpa train --recipe strong --data crops/ --out runs/first schedule.epochs=30\n'
        '  torchrun --nproc-per-node 4 -m timm_dpa.cli train --recipe paper/vru --data VRU --out runs/vru',
    )
    train.add_argument('--data', required=True, metavar='ROOT', help='folder of the data set, or a CSV file')
    train.add_argument('--out', required=True, metavar='FOLDER', help='folder of the run; continued if it holds one')
    train.add_argument('--recipe', default='strong', metavar='NAME', help='see timm-dpa recipes (default strong)')
    train.add_argument('--model', metavar='NAME', help='one of our models, or any timm backbone')
    train.add_argument(
        '--init',
        metavar='SOURCE',
        help='weights of the backbone: imagenet, a file, ARCHITECTURE.TAG, org/name on the Hub, or none',
    )
    train.add_argument('--checkpoint', metavar='PATH', help='fine-tune this: weights of the model, or folder of a run')
    train.add_argument('settings', nargs='*', metavar='KEY=VALUE', help='changes of the recipe, such as optim.lr=1e-4')

    recipes = verb('recipes', _recipes, 'list the recipes, or print one', 'timm-dpa recipes paper/veri_uav')
    recipes.add_argument('name', nargs='?', metavar='NAME', help='recipe to print, with all its defaults')

    evaluate = verb(
        'eval',
        _eval,
        "evaluate a model: the row of the paper's tables",
        'timm-dpa eval --model runs/first --data crops/ --rerank',
    )
    evaluate.add_argument('--data', required=True, metavar='ROOT', help='folder of the data set, or a CSV file')
    evaluate.add_argument('--out', metavar='FOLDER', help='where to write the results (default: <model>/eval, or eval)')
    evaluate.add_argument('--protocol', choices=_PROTOCOLS, help="query and gallery (default: the data's own)")
    evaluate.add_argument('--draws', type=int, metavar='N', help='random galleries to average (default 10 for vru)')
    evaluate.add_argument('--seed', type=int, default=0, metavar='N', help='of the draws (default 0)')
    evaluate.add_argument('--queries', nargs='+', metavar='NAME', help='only queries of these identities')
    evaluate.add_argument(
        '--same-camera',
        choices=('exclude', 'keep'),
        help="matches by the query's own camera: leave them out or count them (default: as the protocol has it)",
    )
    evaluate.add_argument(
        '--expand', type=int, default=0, metavar='N', help='expand each query by its N nearest gallery images first'
    )
    evaluate.add_argument('--rerank', action='store_true', help='re-rank by k-reciprocal neighbours')
    evaluate.add_argument('--flip', action='store_true', help='embed each image and its mirror image')
    _add_data_options(evaluate)
    add_model_options(evaluate)

    ablate = verb(
        'ablate',
        _ablate,
        "run a table of the paper, and write its rows beside the paper's",
        'timm-dpa ablate table4 --data VeRi-UAV --out runs/tables --seeds 3',
    )
    ablate.add_argument('table', choices=(*_TABLES, 'all'), help='modules, attentions, places, metric losses, or all')
    ablate.add_argument('--data', required=True, metavar='ROOT', help='folder of the data set, or a CSV file')
    ablate.add_argument('--out', required=True, metavar='FOLDER', help='folder of all runs; continued if it holds some')
    ablate.add_argument('--recipe', default='paper/veri_uav', metavar='NAME', help='default paper/veri_uav')
    ablate.add_argument('--epochs', type=int, metavar='N', help="of each run (default: the recipe's)")
    ablate.add_argument('--seeds', type=int, default=1, metavar='N', help='runs of each row (default 1)')
    ablate.add_argument('--depth', type=int, choices=(18, 50), help="of the ResNet (default: the recipe's)")
    ablate.add_argument('--init', metavar='SOURCE', help='weights of the backbone: imagenet, a file, or none')
    ablate.add_argument('settings', nargs='*', metavar='KEY=VALUE', help='changes of the recipe')

    examples = (
        'timm-dpa plot cmc runs/a runs/b --out cmc.png',
        'timm-dpa plot ranks runs/a runs/b --data crops/ --out ranks.png',
        'timm-dpa plot cam runs/a dpa_resnet50 --images a.jpg b.jpg --out cam.png',
    )
    plot = verb('plot', None, 'draw CMC curves, ranked lists or heat maps', '\n  '.join(examples))
    kinds = verbs_below(plot, 'kind')
    cmc = kinds('cmc', _plot_cmc, 'draw the CMC curves of runs that were evaluated alike', examples[0])
    ranks = kinds(
        'ranks', _plot_ranks, 'draw the first matches of some queries, right and wrong ones framed', examples[1]
    )
    cam = kinds('cam', _plot_cam, 'draw Grad-CAM++ heat maps of models side by side', examples[2])
    for parser in (cmc, ranks, cam):
        models = '' if parser is cmc else ', and names of models'
        parser.add_argument('runs', nargs='+', metavar='RUN', help=f'folders of runs{models}')
        parser.add_argument('--out', required=True, metavar='FILE', help='picture to write (.png, .svg or .pdf)')
        parser.add_argument('--names', nargs='+', metavar='NAME', help='what the figure calls the runs')
    cmc.add_argument('--max-rank', type=int, default=20, metavar='N', help='last rank (default 20)')
    ranks.add_argument('--data', required=True, metavar='ROOT', help='folder of the data set, or a CSV file')
    ranks.add_argument('--queries', type=int, default=4, metavar='N', help='queries to draw (default 4)')
    ranks.add_argument('--top', type=int, default=10, metavar='N', help='matches of each (default 10)')
    ranks.add_argument('--protocol', choices=_PROTOCOLS, help="query and gallery (default: the data's own)")
    ranks.add_argument('--query', nargs='+', metavar='IMAGE', help='these queries instead: paths or file names')
    ranks.add_argument('--seed', type=int, default=0, metavar='N', help='which queries (default 0)')
    _add_data_options(ranks)
    cam.add_argument('--images', nargs='+', required=True, metavar='IMAGE', help='images, and folders of them')
    cam.add_argument('--layer', metavar='NAME', help='module to look at (default: the map after the attention)')
    for parser in (ranks, cam):
        parser.add_argument('--image-size', type=int, nargs='+', metavar='PX', help='side, or height and width')
        parser.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1, mps')


def _add_data_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group('data')
    group.add_argument('--layout', default='auto', choices=_LAYOUTS, help='of the folder (default auto)')
    group.add_argument('--subset', default='small', choices=('small', 'medium', 'large'), help='test list of VRU')
    group.add_argument(
        '--test-fraction',
        type=float,
        default=0.3,
        metavar='F',
        help='identities held out where the data have no split of their own; 1 tests on all (default 0.3)',
    )


def _load_data(args: argparse.Namespace, root: str):
    from timm_dpa.train.data.datasets import load_data

    return load_data(root, args.layout, test_fraction=args.test_fraction, subset=args.subset)


def _data_draw(args: argparse.Namespace) -> None:
    from timm_dpa.train.data.toy import draw_data_set

    folder = draw_data_set(args.root, args.identities, args.images)
    print(f'{args.identities} drawn vehicles (synthetic images), {args.images} images of each')
    print(f'data: {folder}')


def _data_check(args: argparse.Namespace) -> None:
    from timm_dpa.train.data.check import check_data

    report = check_data(_load_data(args, args.root), quick=args.quick)
    print(report)
    if args.json:
        with replacing(args.json) as temporary:
            temporary.write_text(json.dumps(report.as_dict(), indent=2), encoding='utf-8', errors='backslashreplace')
        print(f'report: {args.json}')
    if not report.ready:
        raise ValueError(f'{args.root} is not ready, see above')


def _synth(args: argparse.Namespace) -> None:
    from timm_dpa.synth.dataset import Plan, render_data_set

    if len(args.size) > 2:
        raise ValueError('--size takes one length, or the shortest and the longest')
    plan = Plan(
        args.ids,
        args.images_per_id,
        seed=args.seed,
        sizes=(args.size[0], args.size[-1]),
        siblings=args.siblings,
        alike=args.alike,
        cameras=args.cameras,
        flights=args.flights,
        test_share=args.test_share,
        degradation=args.degradation,
        tracks=args.tracks,
    )
    if args.preview and not args.preview.lower().endswith(('.png', '.jpg', '.jpeg')):
        raise ValueError(f'--preview {args.preview}: the name must end in .png or .jpg')
    check_output(args.preview, inputs=[])
    folder = render_data_set(args.out, plan, workers=args.workers)
    print(
        f'{plan.ids} rendered vehicles (synthetic images), {plan.held_out} of them for the test, '
        f'{plan.images_per_id} images of each'
    )
    if args.preview:
        from timm_dpa.synth.preview import contact_sheet

        with replacing(args.preview) as temporary:
            contact_sheet(folder, plan, temporary)
        print(f'preview: {args.preview}')
    print(f'data: {folder}')


def _train(args: argparse.Namespace) -> None:
    from timm_dpa.train.run.fine_tuning import comparison_table
    from timm_dpa.train.run.trainer import train

    result = train(read_recipe(args, args.settings), args.data, args.out)
    if int(os.environ.get('RANK', '0')):
        return
    if result.finished_before:
        print(f'was finished before: {result.epochs} epochs, {result.steps} steps')
        if result.comparison is not None:  # else the log has just said it
            print(comparison_table(*result.comparison))
    print(f'model: {result.folder / "model"}')
    print(f'run: {result.folder}')


def _recipes(args: argparse.Namespace) -> None:
    from timm_dpa.train.recipes.recipe import list_recipes, load_recipe

    print(load_recipe(args.name).as_yaml() if args.name else '\n'.join(list_recipes()))


def _eval(args: argparse.Namespace) -> None:
    from timm_dpa.train.data.datasets import default_draws
    from timm_dpa.train.data.provenance import describe_data
    from timm_dpa.train.evaluation.evaluate import evaluate_model, markdown_table, write_evaluation

    data = _load_data(args, args.data)
    protocol = args.protocol or data.protocol
    draws = default_draws(protocol) if args.draws is None else args.draws
    extractor = make_extractor(args, flip=args.flip)
    result = evaluate_model(
        extractor,
        data,
        protocol,
        draws=draws,
        seed=args.seed,
        use_rerank=args.rerank,
        expand=args.expand,
        exclude_same_camera=None if args.same_camera is None else args.same_camera == 'exclude',
        query_identities=args.queries,
    )
    name = args.model or 'dpa_resnet50'
    out = Path(args.out or (Path(name) / 'eval' if os.path.isdir(name) else 'eval'))
    label = Path(name).resolve().name if os.path.isdir(name) else name
    table, numbers = write_evaluation(
        result, label, out, data=describe_data(data), root=str(data.root), model=extractor.describe()
    )
    metrics = result.metrics
    print(
        f'{metrics["valid_queries"]:.0f} queries, gallery of {result.settings["gallery"]}, protocol {protocol}'
        + (f', mean of {draws} draws' if draws > 1 else '')
        + (', same camera excluded' if result.settings['same_camera_excluded'] else '')
        + (f', queries expanded by {args.expand}' if args.expand else '')
        + (', re-ranked' if args.rerank else '')
    )
    if result.skipped:
        print(f'{len(result.skipped)} images could not be read and are left out')
    print('\n' + markdown_table([(label, result)]) + '\n')
    print(f'table: {table}')
    print(f'numbers: {numbers}')


def _ablate(args: argparse.Namespace) -> None:
    from timm_dpa.train.evaluation.ablation import ablate

    settings = list(args.settings)
    if args.epochs is not None:
        settings.append(f'schedule.epochs={args.epochs}')
    recipe = read_recipe(args, settings)
    for path in ablate(args.table, recipe, args.data, args.out, seeds=args.seeds, depth=args.depth):
        print(f'{path.suffix[1:]}: {path}')


def _labels(args: argparse.Namespace) -> list[str]:
    """What a figure calls the runs."""
    if args.names is None:
        return [Path(run).resolve().name if os.path.isdir(run) else run for run in args.runs]
    if len(args.names) != len(args.runs):
        raise ValueError(f'--names gives {len(args.names)} names for {len(args.runs)} runs')
    return args.names


def _plot_cmc(args: argparse.Namespace) -> None:
    from timm_dpa.train.figures.curves import cmc_figure

    names = _labels(args) if args.names else [''] * len(args.runs)
    cmc_figure([(name, Path(run)) for name, run in zip(names, args.runs, strict=True)], Path(args.out), args.max_rank)
    print(f'figure: {args.out}')


def _plot_ranks(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.extractor import FeatureExtractor
    from timm_dpa.train.figures.ranked_lists import rank_list_figure

    data = _load_data(args, args.data)
    size = image_size(args.image_size)
    models: list[tuple[str, Any]] = [
        (label, FeatureExtractor(model_source(run), device=args.device, image_size=size))
        for label, run in zip(_labels(args), args.runs, strict=True)
    ]
    rank_list_figure(
        models,
        data,
        Path(args.out),
        protocol=args.protocol,
        queries=args.queries,
        top=args.top,
        seed=args.seed,
        query_names=args.query,
    )
    print(f'figure: {args.out}')


def _plot_cam(args: argparse.Namespace) -> None:
    from timm_dpa.embedding.extractor import create_embedding_model, resolve_device
    from timm_dpa.embedding.images import iter_images
    from timm_dpa.train.figures.heat_maps import heat_map_figure

    images = [Path(item.name) for item in iter_images(args.images)]
    device = resolve_device(args.device)
    models = [
        (label, create_embedding_model(model_source(run)).to(device).eval())
        for label, run in zip(_labels(args), args.runs, strict=True)
    ]
    heat_map_figure(models, images, Path(args.out), layer=args.layer, image_size=image_size(args.image_size))
    print(f'figure: {args.out}')
