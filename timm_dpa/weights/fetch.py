"""Released weights: where they are, and downloads that are checked before they are used."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download, try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from timm.models import PretrainedCfg, build_model_with_cfg, is_model_pretrained, resolve_pretrained_cfg
from torch import nn

from ..layers.optional import OPTIONAL_PARTS, fixed_tensors, held_parts, stored_parts
from .checkpoint import fill, read_checkpoint, select_network
from .hub_errors import explain
from .manifest import PART_TAGS, Release, file_sha256, read_manifest
from .thresholds import as_mapping, stored_thresholds

__all__ = [
    'MODELS',
    'ORG_VARIABLE',
    'MissingWeightsError',
    'WeightsError',
    'build_checked',
    'locate_weights',
    'require_released',
]

#: environment variable: the organization on the Hub from which registered tags are downloaded, instead of the one in
#: the manifest, and instead of the weights that come with this package; read when timm_dpa is imported
ORG_VARIABLE = 'TIMM_DPA_HUB_ORG'

#: folders of the released models that come with this package, `<architecture>.<tag>`, exactly as on the Hub
MODELS = Path(getattr(find_spec('timm_dpa.hub'), 'origin', '')).parent / 'models'  # found, not imported

WEIGHTS_FILE = 'model.safetensors'  # what timm's export writes
_SHA256 = re.compile(r'[0-9a-f]{64}')


class WeightsError(RuntimeError):
    """Weights are unavailable, or are not what they should be. Nothing wrong stays in the cache."""


class MissingWeightsError(WeightsError, FileNotFoundError):
    """Released weights that are not in this installation, while no organization on the Hub is known to have them."""


def locate_weights(release: Release) -> tuple[str | None, Path | None]:
    """Where released weights are: `org/name@revision` on the Hub, and the file in this package; None where not there.

    An organization in `TIMM_DPA_HUB_ORG` is the user's choice: its newest commit is taken, and no file of the package.
    """
    org, _, name = release.repo.rpartition('/')
    override = os.environ.get(ORG_VARIABLE)
    if override:
        return f'{override}/{name}', None
    repository = f'{release.repo}@{release.revision}' if release.revision else release.repo
    return repository if org else None, _packaged_weights(release)


def _packaged_weights(release: Release) -> Path | None:
    path = MODELS / release.folder / WEIGHTS_FILE
    return path if path.is_file() else None


def build_checked(model_cls: Any, variant: str, pretrained: bool, **kwargs: Any) -> Any:
    """`timm.models.build_model_with_cfg`, but weights from the Hub, or of this package, are checked first.

    Weights that hold a whitening or a color normalization give the model one, unless the release, `whiten=False` or
    `color_norm=False` leaves it out. `color_norm=True` adds one to weights without. The weights of
    a registered tag must have the SHA-256 that the manifest states, those of any other repository the one that the Hub
    states. Names and shapes must be those of the model, except for a classifier that is to be replaced. The model gets
    the thresholds that are known of the weights.

    Raises:
        MissingWeightsError: the manifest has such weights, but this installation does not, and no organization is
            known to have them.
        WeightsError: the download failed, or the weights are not what they should be.
        ValueError: weights of another architecture, or a classifier with another number of classes than the
            configuration states.
    """
    _check_known(variant, pretrained, kwargs)
    for part in PART_TAGS.get(str(kwargs.get('pretrained_cfg')), ()):
        kwargs.setdefault(part, True)
    if not pretrained:
        model = build_model_with_cfg(model_cls, variant, pretrained, **kwargs)
        model.pretrained_cfg['tag'] = ''  # that of weights that it does not have
        return model
    overlay = dict(kwargs.pop('pretrained_cfg_overlay', None) or {})
    cfg = resolve_pretrained_cfg(variant, kwargs.get('pretrained_cfg'), overlay)
    name = f'{variant}.{cfg.tag}' if cfg.tag else variant
    release = read_manifest().get(name) if cfg.source != 'hf-hub' else None
    found = _find_checked(cfg, name, release, kwargs.get('cache_dir'))
    source = name if found and cfg.file else cfg.hf_hub_id or cfg.file or name
    own_file = cfg.file if found is None and cfg.source not in ('hf-hub', 'local-dir') and not cfg.state_dict else None
    changed = False  # other embeddings than those of the release
    if found is not None:
        overlay.update(file=str(found), source='')
        held = stored_parts(found)
        for part in OPTIONAL_PARTS:
            own = part in held and not (release and release.weights_of)
            if part in held:
                kwargs.setdefault(part, own)
            changed |= bool(kwargs.get(part)) != own
    elif own_file:
        overlay.update(state_dict=read_checkpoint(own_file).weights)
        for part in held_parts(overlay['state_dict']):
            kwargs.setdefault(part, True)

    def check(weights: dict[str, torch.Tensor], model: nn.Module) -> dict[str, torch.Tensor]:
        weights, _ = select_network(weights, model.state_dict().keys(), source)
        left_out = tuple(f'{part}.' for part in OPTIONAL_PARTS if kwargs.get(part) is False)
        weights = fixed_tensors(model) | {k: v for k, v in weights.items() if not k.startswith(left_out)}
        _check_fits(weights, model, source, cfg.num_classes, asked=bool(own_file))
        return weights

    model = build_model_with_cfg(
        model_cls, variant, pretrained, pretrained_cfg_overlay=overlay, pretrained_filter_fn=check, **kwargs
    )
    if found is not None:  # the configuration does not name a place in the cache
        model.pretrained_cfg.update(file=cfg.file, source=cfg.source)
    elif own_file:
        del model.pretrained_cfg['state_dict']
    if hasattr(model, 'thresholds'):  # no wrapper of its maps
        model.thresholds = None if changed else _known_thresholds(cfg, release, found)
    return model


def _known_thresholds(cfg: PretrainedCfg, release: Release | None, found: Path | None) -> dict[float, float] | None:
    if cfg.source == 'local-dir' and cfg.file:
        return stored_thresholds(Path(cfg.file))
    if found is None:
        return None
    return as_mapping(release.thresholds) if release is not None else stored_thresholds(found.parent)


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
    """Raise MissingWeightsError for `architecture.tag`, or `architecture`, if the manifest has it and timm has not."""
    if is_model_pretrained(wanted):
        return
    for name, release in read_manifest().items():
        if wanted in (name, release.architecture):
            raise MissingWeightsError(
                f'{name}: its weights are not in this installation, and no organization on the Hub is known to have '
                f'them: set {ORG_VARIABLE}=<org>, or load hf-hub:<org>/{release.repo.rpartition("/")[2]}, or install '
                'from a checkout of the repository, which contains them (pip install .)'
            )


def _find_checked(
    cfg: PretrainedCfg, name: str, release: Release | None, cache_dir: str | os.PathLike[str] | None
) -> Path | None:
    """The file of a configuration's weights, from the Hub or in this package; None where the caller brings them."""
    packaged = _packaged_weights(release) if release is not None else None
    if packaged is not None and cfg.file == str(packaged):
        wrong = _what_is_wrong(packaged, release)
        if wrong is not None:
            raise WeightsError(f'{name}: {packaged} {wrong}; install timm-dpa again')
        return packaged
    if not cfg.hf_hub_id or cfg.hf_hub_filename or (cfg.source != 'hf-hub' and (cfg.file or cfg.state_dict)):
        return None
    try:
        return _download(cfg.hf_hub_id, release, cache_dir)
    except WeightsError as error:
        if packaged is None:
            raise
        raise WeightsError(f'{error}; without {ORG_VARIABLE} the weights of the package are taken') from error


def _download(hub_id: str, release: Release | None, cache_dir: str | os.PathLike[str] | None) -> Path:
    """Download the weights of `org/name@revision`, or take them from the cache, and check them."""
    repo, _, revision = hub_id.partition('@')
    where: dict[str, Any] = {'revision': revision or None, 'cache_dir': cache_dir}
    for attempt in (0, 1):
        known = try_to_load_from_cache(repo, WEIGHTS_FILE, **where)
        try:
            path = Path(hf_hub_download(repo, WEIGHTS_FILE, library_name='timm-dpa', **where))
        except Exception as error:  # of the Hub, of its transport, of the disk: many types
            raise WeightsError(explain(error, hub_id)) from error
        wrong = _what_is_wrong(path, release)
        if wrong is None:
            return path
        # the client asks the Hub again only if the cache has lost the file
        path.resolve().unlink(missing_ok=True)
        path.unlink(missing_ok=True)
        if attempt or str(path) != known:  # the file came from the Hub just now
            break
    raise WeightsError(f'{hub_id}: {WEIGHTS_FILE} {wrong}; it was removed from the cache')


def _what_is_wrong(path: Path, release: Release | None) -> str | None:
    if release is not None:
        expected, whose = release.sha256, 'this version of timm-dpa expects'
    else:
        expected, whose = path.resolve().name, 'the Hub states'  # the cache calls large files by their digest
    if _SHA256.fullmatch(expected):
        size = path.stat().st_size
        if release is not None and size != release.size:
            return f'has {size:,} bytes instead of the {release.size:,} that {whose}'
        found = file_sha256(path)
        if found != expected:
            return f'has SHA-256 {found[:12]}... instead of the {expected[:12]}... that {whose}'
    try:
        with safe_open(path, framework='pt'):
            return None
    except SafetensorError as error:
        return f'is no safetensors file ({error})'


def _check_fits(weights: dict[str, torch.Tensor], model: Any, source: str, num_classes: int, asked: bool) -> None:
    """timm loads with `strict=False` where the classifier is replaced, and would then leave out what is missing."""
    classifier = weights.get('fc.weight')
    found = 0 if classifier is None else classifier.shape[0]
    if found != num_classes:
        raise ValueError(
            f'{source}: its weights have a classifier of {found} classes, its configuration says '
            f'num_classes={num_classes}' + (f'; give num_classes={found} in pretrained_cfg_overlay' if asked else '')
        )
    stem = f'{model.pretrained_cfg.get("first_conv")}.weight'  # timm adapts it to other input channels
    rest = {name: value for name, value in weights.items() if not name.startswith(('fc.', stem))}
    fill(model, rest, source, but=('fc.', stem) if stem in weights else ('fc.',))
