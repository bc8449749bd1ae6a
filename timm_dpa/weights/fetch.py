"""Released weights: which there are, where they lie, and downloads that are checked before they are used."""

from __future__ import annotations

import hashlib
import json
import os
import re
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import constants, hf_hub_download, try_to_load_from_cache
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors import SafetensorError, safe_open
from timm.models import (
    PretrainedCfg,
    build_model_with_cfg,
    is_model_pretrained,
    resolve_pretrained_cfg,
)
from torch import nn

from ..layers.whitening import holds_whitening

__all__ = [
    'ORG_VARIABLE',
    'MissingWeightsError',
    'WeightsError',
    'build_checked',
    'explain',
    'file_sha256',
    'hub_repository',
    'is_released',
    'packaged_weights',
    'read_manifest',
    'require_released',
]

#: environment variable: the organisation on the Hub from which registered tags are downloaded, instead of the one in
#: the manifest, and instead of the weights that come with this package; read when timm_dpa is imported
ORG_VARIABLE = 'TIMM_DPA_HUB_ORG'

WEIGHTS_FILE = 'model.safetensors'  # what timm's export writes
_SHA256 = re.compile(r'[0-9a-f]{64}')


class WeightsError(RuntimeError):
    """Weights cannot be had, or are not what they should be. Nothing wrong stays in the cache."""


class MissingWeightsError(WeightsError, FileNotFoundError):
    """Released weights that are neither in this installation nor on an organisation of the Hub that it knows."""


def read_manifest() -> dict[str, dict[str, Any]]:
    """The entries of the package's manifest `manifest.json`, by `architecture.tag`; see `timm_dpa.hub.weights`."""
    text = files(__package__).joinpath('manifest.json').read_text(encoding='utf-8')
    return {f'{entry["architecture"]}.{entry["tag"]}': entry for entry in json.loads(text)['weights']}


def hub_repository(entry: dict[str, Any]) -> str | None:
    """`org/name@revision` of an entry, as timm takes it; None where no organisation is known.

    An organisation in `TIMM_DPA_HUB_ORG` has commits of its own: its newest is taken.
    """
    org, _, name = entry['repo'].rpartition('/')
    override = os.environ.get(ORG_VARIABLE)
    if override:
        return f'{override}/{name}'
    if not org:
        return None
    return f'{org}/{name}@{entry["revision"]}' if entry.get('revision') else f'{org}/{name}'


def is_released(name: str) -> bool:
    """Whether the manifest has weights of `architecture.tag`, or any of `architecture`; here or not."""
    return any(name in (known, entry['architecture']) for known, entry in read_manifest().items())


def packaged_weights(name: str) -> Path | None:
    """File of the weights `architecture.tag` that came with this package; None where they did not."""
    room = find_spec('timm_dpa.hub')  # only found: this room imports no other
    path = room and Path(room.origin).parent / 'models' / name / WEIGHTS_FILE
    return path if path and path.is_file() else None


def build_checked(model_cls: Any, variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """`timm.models.build_model_with_cfg`, but weights from the Hub, or of this package, are checked first.

    Weights that hold a whitening make a model that has one. A registered tag must have the SHA-256 that the manifest
    states; any other repository the one that the Hub states.
    Names and shapes of the weights must be those of the model, but for a classifier that is to be replaced.

    Raises:
        MissingWeightsError: the manifest has such weights, but they are not here, and no organisation is known.
        WeightsError: the download failed, or the weights are not what they should be.
        ValueError: weights of another architecture, or a classifier of other classes than the configuration states.
    """
    _check_known(variant, pretrained, kwargs)
    if not pretrained:
        return build_model_with_cfg(model_cls, variant, pretrained, **kwargs)
    overlay = dict(kwargs.pop('pretrained_cfg_overlay', None) or {})
    cfg = resolve_pretrained_cfg(variant, kwargs.get('pretrained_cfg'), overlay)
    name = f'{variant}.{cfg.tag}' if cfg.tag else variant
    found = _find_checked(cfg, name, kwargs.get('cache_dir'))
    source = name if found and cfg.file else cfg.hf_hub_id or cfg.file or name
    if found is not None:
        overlay.update(file=str(found), source='')
        if holds_whitening(found):
            kwargs.setdefault('whiten', True)

    def check(weights: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
        _check_fits(weights, model, source, cfg.num_classes)
        return weights

    model = build_model_with_cfg(
        model_cls, variant, pretrained, pretrained_cfg_overlay=overlay, pretrained_filter_fn=check, **kwargs
    )
    if found is not None:  # a place in the cache is nobody's business
        model.pretrained_cfg.update(file=cfg.file, source=cfg.source)
    return model


def _check_known(variant: str, pretrained: bool, options: dict[str, Any]) -> None:
    """`require_released`, unless the caller brings weights."""
    given = options.get('pretrained_cfg')
    tag = given if isinstance(given, str) else None
    overlay = options.get('pretrained_cfg_overlay') or {}
    if (given and not tag) or any(overlay.get(key) for key in ('url', 'file', 'state_dict', 'hf_hub_id')):
        return
    if tag or pretrained:
        require_released(f'{variant}.{tag}' if tag else variant)


def require_released(wanted: str) -> None:
    """MissingWeightsError for `architecture.tag`, or `architecture`, that the manifest has and timm has not."""
    if is_model_pretrained(wanted):
        return
    for name, entry in read_manifest().items():
        if wanted in (name, entry['architecture']):
            repo = entry['repo'].rpartition('/')[2]
            raise MissingWeightsError(
                f'{name}: its weights are not in this installation, and no organisation of the Hub is known that has '
                f'them: set {ORG_VARIABLE}=<org>, or load hf-hub:<org>/{repo}, or install from a checkout of the '
                'repository, which carries them (pip install .)'
            )


def _find_checked(cfg: PretrainedCfg, name: str, cache_dir: str | os.PathLike[str] | None) -> Path | None:
    """The file of a configuration's weights, from the Hub or in this package; None where the caller brings them."""
    entry = read_manifest().get(name) if cfg.source != 'hf-hub' else None
    packaged = packaged_weights(name) if entry is not None else None
    if packaged is not None and cfg.file == str(packaged):
        wrong = _what_is_wrong(packaged, entry)
        if wrong is not None:
            raise WeightsError(f'{name}: {packaged} {wrong}; install timm-dpa again')
        return packaged
    if not cfg.hf_hub_id or cfg.hf_hub_filename or (cfg.source != 'hf-hub' and (cfg.file or cfg.state_dict)):
        return None
    try:
        return _fetch(cfg.hf_hub_id, entry, cache_dir)
    except WeightsError as error:
        if packaged is None:
            raise
        raise WeightsError(f'{error}; without {ORG_VARIABLE} the weights of the package are taken') from error


def _fetch(hub_id: str, entry: dict[str, Any] | None, cache_dir: str | os.PathLike[str] | None) -> Path:
    """Download the weights of `org/name@revision`, or take them from the cache, and check them."""
    repo, _, revision = hub_id.partition('@')
    where = {'revision': revision or None, 'cache_dir': cache_dir}
    for attempt in (0, 1):
        known = try_to_load_from_cache(repo, WEIGHTS_FILE, **where)
        try:
            path = Path(hf_hub_download(repo, WEIGHTS_FILE, library_name='timm-dpa', **where))
        except Exception as error:  # of the Hub, of its transport, of the disk: many types
            raise WeightsError(explain(error, hub_id)) from error
        wrong = _what_is_wrong(path, entry)
        if wrong is None:
            return path
        # the Hub gives what it has again only if the cache has lost it
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if attempt or str(path) != known:  # it came from the Hub right now
            break
    raise WeightsError(f'{hub_id}: {WEIGHTS_FILE} {wrong}; it was removed from the cache')


def _what_is_wrong(path: Path, entry: dict[str, Any] | None) -> str | None:
    if entry is not None:
        expected, whose = entry['sha256'], 'this version of timm-dpa expects'
    else:
        expected, whose = path.resolve().name, 'the Hub states'  # the cache calls large files by their digest
    if _SHA256.fullmatch(expected):
        size = path.stat().st_size
        if entry is not None and size != entry['size']:
            return f'has {size:,} bytes instead of the {entry["size"]:,} that {whose}'
        found = file_sha256(path)
        if found != expected:
            return f'has SHA-256 {found[:12]}... instead of the {expected[:12]}... that {whose}'
    try:
        with safe_open(path, framework='pt'):
            return None
    except SafetensorError as error:
        return f'is no safetensors file ({error})'


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    with open(path, 'rb') as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def _check_fits(weights: dict[str, torch.Tensor], model: nn.Module, source: str, num_classes: int) -> None:
    """timm loads with `strict=False` where the classifier is replaced, and would then leave out what is missing."""
    state = model.state_dict()
    classifier = weights.get('fc.weight')
    found = 0 if classifier is None else classifier.shape[0]
    if found != num_classes:
        raise ValueError(
            f'{source}: its weights have a classifier of {found} classes, its configuration says '
            f'num_classes={num_classes}'
        )
    rest = {name: value for name, value in weights.items() if not name.startswith('fc.')}
    expected = [name for name in state if not name.startswith('fc.')]
    wrong = [*(name for name in expected if name not in rest), *(name for name in rest if name not in state)]
    if not wrong and not any(value.is_meta for value in state.values()):
        stem = model.pretrained_cfg.get('first_conv')  # timm adapts it to other input channels
        rest.pop(f'{stem}.weight', None)
        try:
            model.load_state_dict(rest, strict=False)  # modules may take other shapes than their own
        except (RuntimeError, ValueError) as error:
            wrong = [name for name in rest if rest[name].shape != state[name].shape]
            if not wrong:
                raise ValueError(f'{source}: {error}') from error
    if wrong:
        raise ValueError(f'{source}: weights of another architecture, {difference(wrong, weights, state)}')


def difference(names: list[str], weights: dict[str, torch.Tensor], state: dict[str, torch.Tensor]) -> str:
    """How the first of some names of weights differs from a model's state, and how many more do."""
    name = names[0]
    if name not in weights:
        what = f'{name} is missing'
    elif name not in state:
        what = f'{name} has no place in the model'
    else:
        what = f'{name} is {tuple(weights[name].shape)} instead of {tuple(state[name].shape)}'
    return what if len(names) == 1 else f'{what}, and {len(names) - 1} more differ'


def explain(error: BaseException, source: str) -> str:
    """An error of the Hub's client in one line that says what to do.

    Args:
        error: what `huggingface_hub`, or timm through it, raised.
        source: what was asked for, such as `org/name@revision`.
    """
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        error = error.__cause__  # the Hub did answer
    source = source.removeprefix('hf-hub:').removeprefix('hf_hub:')
    repo, _, revision = source.partition('@')
    response = getattr(error, 'response', None)
    status = getattr(response, 'status_code', None)
    if isinstance(error, GatedRepoError):
        return f'{repo}: access must be asked for at {constants.ENDPOINT}/{repo}, then log in (hf auth login)'
    if isinstance(error, RepositoryNotFoundError) and status == 401:
        return (
            f'{repo}: no such repository on {constants.ENDPOINT}, or a private one; '
            'for a private one log in (hf auth login) or set HF_TOKEN'
        )
    if isinstance(error, RepositoryNotFoundError):
        return f'{repo}: no such repository on {constants.ENDPOINT} that you may read; check the name'
    if isinstance(error, RevisionNotFoundError):
        return f'{repo}: has no revision {revision or "main"}'
    if isinstance(error, OfflineModeIsEnabled) or (
        isinstance(error, LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE
    ):
        return (
            f'{source}: not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set; '
            'unset it once to download'
        )
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f'{source}: no connection to {constants.ENDPOINT}, and not in the cache ({constants.HF_HUB_CACHE}); '
            'connect and try again, or use a folder (local-dir:FOLDER)'
        )
    if isinstance(error, EntryNotFoundError):
        missing = re.search(r'/resolve/[^/]+/([^\s?]*[^\s?.])', str(error))
        return f'{repo}: holds no {missing.group(1) if missing else "such file"}; is it the repository of a timm model?'
    if isinstance(error, HfHubHTTPError):
        reason = str(error).strip().splitlines()[0]
        return f'{source}: the Hub answered with an error ({reason}); try again'
    reason = ' '.join(str(error).split()) or type(error).__name__
    return f'{source}: the download failed ({reason}); try again, it goes on where it stopped'
