"""The folder of a published model, exactly as on the Hub: weights, configuration, card, picture, golden tensors."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id
from safetensors import safe_open

from timm_dpa import FeatureExtractor
from timm_dpa.files import atomic_folder, write_bytes
from timm_dpa.train.data.datasets import load_data
from timm_dpa.train.data.provenance import describe_data, load_about
from timm_dpa.train.data.toy import draw_data_set
from timm_dpa.train.evaluation.thresholds import choose_thresholds
from timm_dpa.train.figures.ranked_lists import rank_list_figure
from timm_dpa.train.run.folder import RunFolder
from timm_dpa.train.run.networks import pretrained_origin
from timm_dpa.train.run.peer_files import with_dtype, write_peer_files

from .card import CARD, FACTS_FILE, CardFacts, read_facts, read_results, render_card, summarize, write_card
from .golden import GOLDEN_FILE, check_golden, write_golden
from .half import store_half
from .lineage import (
    TrainingRun,
    apply_about,
    describe_runs,
    only_synthetic,
    training_runs,
    training_sources,
    write_recipes,
)

__all__ = [
    'build_folder',
    'check_license',
    'check_repo_id',
    'is_finished',
    'read_architecture',
    'reuse_folder',
    'write_config',
]

_WEIGHTS = ('config.json', 'model.safetensors')
_PICTURE = 'ranks.png'


def check_repo_id(repo_id: str) -> None:
    """ValueError unless it is `org/name` as the Hub takes it."""
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise ValueError(f'{repo_id}: not the name of a repository ({error})') from error
    if repo_id.count('/') != 1:
        raise ValueError(f'{repo_id}: the repository needs the organization or user as well: ORG/NAME')


def is_finished(folder: Path) -> bool:
    """Whether a folder is what `build_folder` makes."""
    return all((folder / name).is_file() for name in (*_WEIGHTS, CARD, FACTS_FILE, GOLDEN_FILE))


def build_folder(
    source: str | os.PathLike[str],
    out: Path,
    repo_id: str,
    *,
    license: str | None = None,
    trained_on: str | None = None,
    results: Sequence[str | os.PathLike[str]] = (),
    pictures: str | os.PathLike[str] | None = None,
    half: bool = False,
    about: Mapping[str, str | os.PathLike[str]] | None = None,
    packaged_as: str | None = None,
) -> None:
    """Make the folder of a model. The same source gives the same bytes.

    Args:
        source: folder of a training run, or one with `config.json` and `model.safetensors`.
        out: folder to make; it appears when it is complete. May exist if it is empty.
        repo_id: `org/name` of the repository that the folder is for; the card names it.
        license: of the weights, as the Hub abbreviates it (`apache-2.0`, `cc-by-nc-4.0`, `other`, ...); None for
            Apache-2.0, which needs training data that are all known to be synthetic.
        trained_on: sentences for the card; None for what the run has recorded.
        results: folders of further evaluations, see `timm-dpa eval --out`. They and the run's own decide about the
            thresholds of the cosine, see `choose_thresholds`.
        pictures: data set whose images the ranked lists show, and so publish; None for the toy data set.
        half: store the weights as float16, see `store_half`.
        about: descriptions of data sets that have none of their own: name, or
            revision of the training part, -> file of the form of `dataset.json`.
        packaged_as: `architecture.tag` of weights that come with this package, which the card's example then loads.

    Raises:
        FileNotFoundError: `source` holds no model, or `results` no evaluation.
        FileExistsError: `out` holds something.
        ValueError: facts about the weights that are neither recorded nor given; a wrong repository; weights that
            float16 cannot hold; `about` of a data set that does not occur.
    """
    check_repo_id(repo_id)
    source, out = Path(source), Path(out)
    run, model = _find_model(source)
    runs = training_runs(run)
    evaluations = [read_results(Path(result)) for result in results]
    if run and run.evaluation.is_file():
        evaluations.insert(0, read_results(run.path))
        if evaluations[0].get('epoch') == 0:
            raise ValueError(
                f'{run.path}: its training did not help, and model/ holds the weights that it started from'
            )
    runs, evaluations = _tell_about(runs, evaluations, about or {})
    sources = training_sources(runs)
    check_license(sources, license, source)
    if trained_on is None and not runs:
        raise ValueError(f'{source}: has no record of its training data; say it in a sentence (--trained-on "...")')

    with atomic_folder(out) as making:
        (store_half if half else shutil.copyfile)(model / 'model.safetensors', making / 'model.safetensors')
        thresholds = choose_thresholds(evaluations)
        config = _read_config(model, license or 'apache-2.0')
        write_config(config, making, thresholds)
        write_peer_files(making, repo_id)
        name = repo_id.rpartition('/')[2]
        commands = write_recipes(runs, making, name)
        write_golden(making)
        caption = _draw_picture(making, name, pictures)
        facts = CardFacts(
            repo_id=repo_id,
            packaged_as=packaged_as,
            architecture=config['architecture'],
            model_args=_options(config),
            width=config['num_features'],
            image_size=config['pretrained_cfg']['input_size'][1:],
            parameters=_count_parameters(making / 'model.safetensors'),
            half=half,
            license=license or 'apache-2.0',
            trained_on=trained_on or describe_runs(runs),
            sources=sources,
            base_model=pretrained_origin(runs[0].recipe.model) if runs else None,
            commands=commands,
            results=[summarize(evaluation) for evaluation in evaluations],
            thresholds=thresholds,
            picture=_PICTURE,
            picture_caption=caption,
        )
        write_card(facts, making)


def _tell_about(
    runs: list[TrainingRun], evaluations: list[dict[str, Any]], about: Mapping[str, str | os.PathLike[str]]
) -> tuple[list[TrainingRun], list[dict[str, Any]]]:
    data = [source for each in runs for source in each.sources] + [each['data'] for each in evaluations]
    names = [each['name'] for each in data]
    for name in about:
        if name not in [*names, *(each['train']['revision'] for each in data)]:
            raise ValueError(f'about {name}: no such data set here; there are {", ".join(dict.fromkeys(names))}')
    said = {name: load_about(Path(path)) for name, path in about.items()}
    return (
        [dataclasses.replace(each, data=apply_about(each.data, said)) for each in runs],
        [{**evaluation, 'data': apply_about(evaluation['data'], said)} for evaluation in evaluations],
    )


def check_license(sources: Sequence[dict[str, Any]], license: str | None, what: str | os.PathLike[str]) -> None:
    """Raise ValueError unless a license is given, or all data sets behind `what` are known to be synthetic."""
    if license is None and not only_synthetic(sources):
        raise ValueError(
            f'{what}: say under which license the weights may be used, which depends on what they were trained on '
            '(--license apache-2.0, cc-by-nc-4.0, other, ...)'
        )


def reuse_folder(folder: Path, out: Path, repo_id: str) -> None:
    """Copy a finished folder; where its card names another repository, it is rendered again.

    Raises:
        FileExistsError: `out` holds something.
        ValueError: a wrong repository; a card that names another one and was edited since it was rendered.
        WeightsError: its weights do not give its golden embeddings.
    """
    check_repo_id(repo_id)
    facts = read_facts(folder)
    moved = facts.repo_id != repo_id
    if moved and (folder / CARD).read_text(encoding='utf-8') != render_card(facts):
        raise ValueError(
            f'{folder / CARD}: was edited by hand and names {facts.repo_id}; edit {FACTS_FILE} instead, from which the '
            'card is rendered'
        )
    check_golden(folder)
    with atomic_folder(out) as making:
        shutil.copytree(folder, making, symlinks=True, dirs_exist_ok=True)
        write_peer_files(making, repo_id)  # folders of 0.1.0 have none
        if moved:
            write_card(dataclasses.replace(facts, repo_id=repo_id), making)


def read_architecture(source: str | os.PathLike[str]) -> str:
    """The timm name of the model in a folder, of a run or of a model.

    Raises:
        FileNotFoundError: it holds no model.
    """
    return _read_json(_find_model(Path(source))[1] / 'config.json')['architecture']


def _find_model(source: Path) -> tuple[RunFolder | None, Path]:
    """The run, if there is one, and the folder of the model."""
    if not source.is_dir():
        raise FileNotFoundError(f'{source}: no such folder')
    for model in (RunFolder(source).model, source):
        if all((model / name).is_file() for name in _WEIGHTS):
            return RunFolder.find(model), model
    raise FileNotFoundError(f'{source}: no model here (looked for {" and ".join(_WEIGHTS)}, also in model/)')


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'{path}: cannot be read ({error})') from error


def _read_config(folder: Path, license: str) -> dict[str, Any]:
    config = _read_json(folder / 'config.json')
    config.get('model_args', {}).pop('num_classes', None)  # transformers passes it as well, and fails then
    config['pretrained_cfg']['license'] = license
    return config


def write_config(config: dict[str, Any], out: Path, thresholds: Sequence[dict[str, Any]]) -> None:
    """Write `config.json`, with the thresholds of the weights where there are any."""
    config = with_dtype({key: value for key, value in config.items() if key != 'thresholds'})
    if thresholds:
        config['thresholds'] = list(thresholds)
    write_bytes(out / 'config.json', (json.dumps(config, indent=2) + '\n').encode())


def _options(config: dict[str, Any]) -> dict[str, Any]:
    usual = {'in_chans': 3, 'global_pool': 'gem', 'drop_rate': 0.0, 'backbone_args': {}}
    return {key: value for key, value in config.get('model_args', {}).items() if usual.get(key, ...) != value}


def _count_parameters(weights: Path) -> int:
    with safe_open(weights, framework='pt') as file:
        shapes = [file.get_slice(name).get_shape() for name in file.keys() if not _is_buffer(name)]  # noqa: SIM118
    return sum(math.prod(shape) for shape in shapes)


def _is_buffer(name: str) -> bool:
    return name.endswith(('running_mean', 'running_var', 'num_batches_tracked'))


def _draw_picture(folder: Path, name: str, pictures: str | os.PathLike[str] | None) -> str:
    """Draw the ranked lists of the model in `folder`; returns what they show."""
    extractor = FeatureExtractor(f'local-dir:{folder}', device='cpu', precision='fp32')
    with tempfile.TemporaryDirectory() as drawn:
        if pictures is None:
            data = load_data(draw_data_set(Path(drawn) / 'drawn', identities=24, images=8, seed=1))
            what = 'Toy vehicles (synthetic drawings): they show what results look like, not how good they are.'
        else:
            data = load_data(pictures, test_fraction=1)
            about = describe_data(data)
            what = f'{"Synthetic images" if about.get("synthetic") else "Images"} of "{about["name"]}"'
            what += f': {about["description"]}' if about.get('description') else '.'
        rank_list_figure([(name, extractor)], data, folder / _PICTURE, queries=4, top=8)
    return f"{what} A green frame with a tick marks the query's vehicle; the number is the cosine similarity."
