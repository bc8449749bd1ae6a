"""The manifest `timm_dpa/weights/manifest.json`: which released weights exist. timm's tags are registered from it.

A list `weights` of entries with the keys of `Release`. `repo` is `org/name`, or `name` until it has been published.
"""

from __future__ import annotations

import dataclasses
import json
import os
import re
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard
from timm.models import PretrainedCfg, list_models

from timm_dpa.dpa_resnet import _cfg
from timm_dpa.files import write_bytes
from timm_dpa.weights.fetch import file_sha256

from .card import read_command, read_metrics, read_sources

__all__ = ['MANIFEST', 'MODELS', 'Release', 'describe_release', 'load_releases', 'record_release']

#: the package's own manifest; in a source tree it is the one in git
MANIFEST = Path(str(files('timm_dpa').joinpath('weights', 'manifest.json')))
#: folders of released models, `<architecture>.<tag>`, exactly as on the Hub
MODELS = Path(__file__).parent / 'models'

_TAG = re.compile(r'[a-z0-9][a-z0-9_]*')
#: of `config.json`: what timm's configuration of a tag can say
_CFG_KEYS = ('input_size', 'pool_size', 'interpolation', 'crop_pct', 'crop_mode', 'mean', 'std', 'license')


@dataclass(frozen=True)
class Release:
    """Weights that exist.

    Attributes:
        architecture, tag: `timm.create_model('<architecture>.<tag>', pretrained=True)` loads them.
        repo: `org/name` on the Hub, or `name` where no organisation has them yet.
        sha256: of `model.safetensors`, 64 hexadecimal digits; a download must have it.
        size: of `model.safetensors` in bytes.
        revision: commit on the Hub that is downloaded, 40 hexadecimal digits; None for the newest.
        metrics: one entry for each evaluation: `data`, `revision`, `protocol`, and mAP, Rank-1, ... in per cent.
        command: that made them.
        trained_on: an entry for each data set, see `timm_dpa.hub.sources.list_source`; empty where it is not recorded.
        cfg: what differs from timm's configuration of the architecture, such as `input_size`.
    """

    architecture: str
    tag: str
    repo: str
    sha256: str
    size: int
    revision: str | None = None
    metrics: list[dict[str, Any]] = field(default_factory=list)
    command: str = ''
    trained_on: list[dict[str, Any]] = field(default_factory=list)
    cfg: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f'{self.architecture}.{self.tag}'

    def __post_init__(self) -> None:
        problems = {
            'architecture': self.architecture in list_models(module='dpa_resnet'),
            'tag (small letters, digits, _)': _matches(_TAG, self.tag),
            'repo (name or org/name)': _matches(re.compile(r'[\w.-]+(/[\w.-]+)?'), self.repo),
            'sha256 (64 hexadecimal digits)': _matches(re.compile('[0-9a-f]{64}'), self.sha256),
            'size (bytes)': isinstance(self.size, int) and self.size > 0,
            'revision (40 hexadecimal digits)': self.revision is None
            or _matches(re.compile('[0-9a-f]{40}'), self.revision),
            'metrics (list)': isinstance(self.metrics, list),
            'trained_on (list)': isinstance(self.trained_on, list),
            'cfg (object)': isinstance(self.cfg, dict),
        }
        wrong = [what for what, right in problems.items() if not right]
        if wrong:
            raise ValueError(f'{self.architecture}.{self.tag}: wrong {", ".join(wrong)}')


def _matches(pattern: re.Pattern, text: Any) -> bool:
    return isinstance(text, str) and pattern.fullmatch(text) is not None


def load_releases(path: Path = MANIFEST) -> list[Release]:
    """Read and check the manifest.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON of this kind, wrong values, or two entries of one name; the message names the entry.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such manifest of weights')
    try:
        releases = [Release(**entry) for entry in json.loads(path.read_text(encoding='utf-8'))['weights']]
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{path}: not a manifest of weights ({error})') from error
    names = [release.name for release in releases]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise ValueError(f'{path}: two entries are called {", ".join(sorted(twice))}')
    return releases


def record_release(release: Release, path: Path = MANIFEST, default: bool = False) -> None:
    """Add an entry to the manifest, or replace the one of the same name. It is written whole or not at all.

    Args:
        default: put it before the others of its architecture, whose name alone stands for the first one.

    Raises:
        ValueError: the manifest cannot be read.
        OSError: it is not there, or cannot be written.
    """
    releases = load_releases(path)
    at = [known.name for known in releases]
    if release.name in at:
        releases[at.index(release.name)] = release
    else:
        releases.append(release)
    if default:
        releases.remove(release)
        first = [known.architecture for known in [*releases, release]].index(release.architecture)
        releases.insert(first, release)
    content = {'weights': [dataclasses.asdict(entry) for entry in releases]}
    write_bytes(path, (json.dumps(content, indent=2) + '\n').encode())


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
    card = ModelCard.load(folder / 'README.md')
    release = Release(
        architecture=config['architecture'],
        tag=tag,
        repo=repo,
        sha256=file_sha256(folder / 'model.safetensors'),
        size=(folder / 'model.safetensors').stat().st_size,
        metrics=read_metrics(card),
        command=read_command(card),
        trained_on=read_sources(card),
    )
    usual = PretrainedCfg(**_cfg()).to_dict()  # not those of a tag, on which no other is built
    ours = config['pretrained_cfg']
    cfg = {key: ours[key] for key in _CFG_KEYS if key in ours and ours[key] != _as_json(usual.get(key))}
    return dataclasses.replace(release, cfg=cfg)


_DEFAULTS = (('in_chans', 3), ('global_pool', 'gem'), ('whiten', True))  # weights bring a whitening along


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
