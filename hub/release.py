"""Release of a model, or of the members of a family: a folder among those of a manifest, and the entry there."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from timm.models import PretrainedCfg

from timm_dpa import FeatureExtractor
from timm_dpa.dpa_resnet import _cfg
from timm_dpa.files import atomic_folder, write_bytes
from timm_dpa.layers.optional import OPTIONAL_PARTS
from timm_dpa.train.data.mixing import load_sources
from timm_dpa.train.evaluation.thresholds import choose_thresholds
from timm_dpa.train.recipes.recipe import Recipe
from timm_dpa.train.run.folder import RunFolder
from timm_dpa.train.run.peer_files import write_peer_files
from timm_dpa.train.zoo import is_newer
from timm_dpa.weights.fetch import MODELS
from timm_dpa.weights.manifest import MANIFEST, Release, file_sha256, read_manifest, record_release

from .card import read_facts, read_results, write_card
from .folder import build_folder, check_license, is_finished, read_architecture, write_config
from .lineage import TrainingRun, training_sources

__all__ = ['check_family', 'describe_release', 'refresh_release', 'release_member', 'release_model']

#: what a tag makes of its own; the optional parts come with the weights
_DEFAULTS = (('in_chans', 3), ('global_pool', 'gem'), *((part, True) for part in OPTIONAL_PARTS))
#: of `config.json`: what timm's configuration of a tag can say
_CFG_KEYS = ('input_size', 'pool_size', 'interpolation', 'crop_pct', 'crop_mode', 'mean', 'std', 'license')
#: of a result: what the manifest leaves to the card
_CARD_ONLY = ('description', 'queries', 'gallery', 'options', 'chosen')


def release_model(
    source: str | os.PathLike[str],
    tag: str,
    *,
    manifest: Path = MANIFEST,
    models: Path = MODELS,
    packaged: bool = True,
    default: bool = False,
    **facts: Any,
) -> Release:
    """Write `models/<architecture>.<tag>/` and note it in the manifest; nothing is uploaded.

    Without other arguments this is a release of the package: `timm.create_model('<architecture>.<tag>',
    pretrained=True)` loads it from there, after an installation as well. `publish_all` uploads it, to the repository
    `<architecture>.<tag>`.

    Args:
        source: folder of a run, or of a model.
        tag: small letters, digits and _.
        manifest, models: where the entry and the folder go.
        packaged: whether they are the package's own, which the card says.
        default: whether the name of the architecture alone stands for these weights from now on.
        facts: see `build_folder`.

    Returns:
        The entry.

    Raises:
        FileExistsError: a folder of this name is there.
        FileNotFoundError, ValueError: see `build_folder` and `describe_release`; nothing was written.
    """
    name = f'{read_architecture(source)}.{tag}'
    folder = models / name
    if folder.exists():
        raise FileExistsError(f'{folder} is there already; remove it first, or give another tag')
    read_manifest(manifest)  # fail fast
    with atomic_folder(folder) as making:
        build_folder(source, making, f'ORG/{name}', packaged_as=name if packaged else None, **facts)
        release = describe_release(making, tag, name)
    record_release(release, manifest, default)
    return release


def refresh_release(
    folder: str | os.PathLike[str], results: Sequence[str | os.PathLike[str]] = (), *, manifest: Path = MANIFEST
) -> Release:
    """Write the files around the weights of a released model again: configuration, card, and its entry in the manifest.

    Weights, golden tensors, picture and recipes stay as they are, and so do the results on the card.

    Args:
        folder: a folder of `release_model`, whose name is that of the entry.
        results: folders of evaluations of these very weights, see `timm-dpa eval --out`: they decide about the
            thresholds of the cosine, see `choose_thresholds`. Without any the thresholds stay as well.
        manifest: that has the entry.

    Returns:
        The new entry.

    Raises:
        FileNotFoundError: no finished folder, or no evaluation.
        ValueError: no such entry; results of other weights, or without pairs enough for any threshold. Nothing was
            written.
    """
    folder = Path(folder)
    if not is_finished(folder):
        raise FileNotFoundError(f'{folder}: no finished model here; timm-dpa publish --package writes one')
    known = read_manifest(manifest).get(folder.name)
    if known is None or known.sha256 != file_sha256(folder / 'model.safetensors'):
        raise ValueError(f'{folder}: {manifest} has no entry of this name and these weights')
    facts = read_facts(folder)
    if results:
        thresholds = choose_thresholds(_results_of(folder, results))
        if not thresholds:
            raise ValueError(f'{results[0]}: no threshold in these results; make them again with timm-dpa eval')
        facts = dataclasses.replace(facts, thresholds=thresholds)
    config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    write_config(config, folder, facts.thresholds)
    write_peer_files(folder, facts.repo_id)
    write_card(facts, folder)
    release = dataclasses.replace(describe_release(folder, known.tag, known.repo), revision=known.revision)
    record_release(release, manifest)
    return release


def _results_of(folder: Path, results: Sequence[str | os.PathLike[str]]) -> list[dict[str, Any]]:
    """Evaluations of the model in a folder."""
    ours = FeatureExtractor(f'local-dir:{folder}', device='cpu').describe()['network_sha256']
    evaluations = []
    for path in results:
        evaluations.append(read_results(Path(path)))
        theirs = evaluations[-1].get('model', {}).get('network_sha256')
        if theirs != ours:
            raise ValueError(f'{path}: an evaluation of other weights than those in {folder}')
    return evaluations


def check_family(
    architectures: Sequence[str], recipe: Recipe, root: str | os.PathLike[str], tag: str, license: str | None
) -> None:
    """Find out before a family is trained whether `release_member` can release its runs.

    Raises:
        FileNotFoundError: no such data.
        ValueError: options of the model, which a tag cannot say; a wrong tag; no license where one is needed.
    """
    if recipe.model.args:
        raise ValueError(f'model.args={recipe.model.args}: a tag cannot say options of the model')
    about = load_sources(Path(root), recipe.data).describe()
    for name in architectures:
        Release(name, tag, f'{name}.{tag}', sha256='0' * 64, size=1)
        own = recipe.override([f'model.name={name}'])
        check_license(training_sources([TrainingRun(own, about)]), license, root)


def release_member(run: Path, tag: str, out: Path, results: Sequence[Path], license: str | None) -> Release:
    """Build the folder of a finished run in `out/models`, with weights in float16, and note it in `out/weights.json`.

    A folder that is newer than the run and its results is kept.

    Args:
        run: folder of a finished run of `train_family`.
        tag: of the weights.
        out: folder of the zoo; the manifest is made if there is none.
        results: folders of further evaluations.
        license: of the weights, see `build_folder`.

    Returns:
        The entry of the manifest.
    """
    manifest, models = out / 'weights.json', out / 'models'
    if not manifest.is_file():
        write_bytes(manifest, b'{"weights": []}\n')
    folder = models / f'{read_architecture(run)}.{tag}'
    if is_finished(folder):
        weights = folder / 'model.safetensors'
        numbers = [RunFolder(path).evaluation for path in (run, *results)]
        measured = [path for path in numbers if path.is_file()]
        newest = max((path.stat().st_mtime for path in measured), default=0)
        known = read_manifest(manifest).get(folder.name)
        if (
            known is not None
            and is_newer(weights, run)
            and weights.stat().st_mtime >= newest
            and len(known.metrics) == len(measured)
            and known.sha256 == file_sha256(weights)
        ):
            return known
    shutil.rmtree(folder, ignore_errors=True)
    facts: dict[str, Any] = {'results': results, 'license': license, 'half': True}
    return release_model(run, tag, manifest=manifest, models=models, packaged=False, **facts)


def describe_release(folder: str | os.PathLike[str], tag: str, repo: str) -> Release:
    """The entry of a finished folder, see `timm_dpa.hub.folder`.

    Raises:
        ValueError: a model that no tag can stand for, because it is none of ours or has options of its own.
    """
    folder = Path(folder)
    config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
    options = {k: v for k, v in config.get('model_args', {}).items() if (k, v) not in _DEFAULTS}
    if options:
        raise ValueError(
            f'{folder}: has options of its own ({options}), which a tag cannot say; it is loaded by its repository'
        )
    facts = read_facts(folder)
    usual = PretrainedCfg(**_cfg()).to_dict()  # not those of a tag, on which no other is built
    ours = config['pretrained_cfg']
    cfg = {key: ours[key] for key in _CFG_KEYS if key in ours and ours[key] != _as_json(usual.get(key))}
    return Release(
        architecture=config['architecture'],
        tag=tag,
        repo=repo,
        sha256=file_sha256(folder / 'model.safetensors'),
        size=(folder / 'model.safetensors').stat().st_size,
        metrics=[{key: value for key, value in result.items() if key not in _CARD_ONLY} for result in facts.results],
        command=' && '.join(facts.commands),
        trained_on=list(facts.sources),
        cfg=cfg,
        thresholds=list(facts.thresholds),
    )


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
