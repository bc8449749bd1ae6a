"""The manifest of released weights, `manifest.json` beside this module: its schema, reading and writing.

The file is an object with a list `weights` of entries that have the keys of `Release`. timm's tags are registered from
it when `timm_dpa` is imported, and every download of a registered tag is checked against it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from timm.models import list_models

from ..files import write_bytes
from .thresholds import are_thresholds

__all__ = [
    'MANIFEST',
    'PART_TAGS',
    'Release',
    'file_sha256',
    'is_released',
    'read_manifest',
    'record_release',
]

#: the package's own manifest; in a source tree it is the one in git
MANIFEST = Path(__file__).with_name('manifest.json')

#: tags without weights, which no release may have -> parts of the architecture; for packages that make a network by its
#: name alone
PART_TAGS = {'color_norm': ['color_norm'], 'whiten': ['whiten'], 'color_norm_whiten': ['color_norm', 'whiten']}
_FILE = ('repo', 'sha256', 'size', 'revision')  # what is known of the file


@dataclass(frozen=True)
class Release:
    """An entry of the manifest: weights that exist.

    Attributes:
        architecture, tag: `timm.create_model('<architecture>.<tag>', pretrained=True)` loads them.
        repo: `org/name` on the Hub, or `name` where no organization has published them yet.
        sha256: of `model.safetensors`, 64 hexadecimal digits; a download must have it.
        size: of `model.safetensors` in bytes.
        revision: commit on the Hub that is downloaded, 40 hexadecimal digits; None for the newest.
        metrics: one entry for each evaluation: `data`, `revision`, `protocol`, and mAP, Rank-1, ... in percent.
        command: the command that trained them.
        trained_on: one entry for each data set, see `timm_dpa.hub.lineage.list_source`; empty where none is recorded.
        cfg: how timm's configuration differs from that of the architecture, for example in `input_size`.
        thresholds: of the cosine, measured with these weights, see `timm_dpa.weights.thresholds`; may be empty.
        weights_of: another entry whose file these weights are, too, but for its whitening and color normalization,
            which they lack. Such an entry has no folder of its own; in the file `repo`, `sha256`, `size` and `revision`
            are those of the other.

    Raises:
        ValueError: wrong values; the message names the keys.
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
    thresholds: list[dict[str, Any]] = field(default_factory=list)
    weights_of: str = ''

    @property
    def name(self) -> str:
        return f'{self.architecture}.{self.tag}'

    @property
    def folder(self) -> str:
        """Name of the folder that has the file."""
        return self.weights_of or self.name

    def __post_init__(self) -> None:
        ours = list_models(module='dpa_resnet')  # empty while these very models are being registered
        problems = {
            'architecture': self.architecture in ours or not ours,
            'tag (small letters, digits, _)': _matches('[a-z0-9][a-z0-9_]*', self.tag) and self.tag not in PART_TAGS,
            'repo (name or org/name)': _matches(r'[\w.-]+(/[\w.-]+)?', self.repo),
            'sha256 (64 hexadecimal digits)': _matches('[0-9a-f]{64}', self.sha256),
            'size (bytes)': isinstance(self.size, int) and self.size > 0,
            'revision (40 hexadecimal digits)': self.revision is None or _matches('[0-9a-f]{40}', self.revision),
            'metrics (list)': isinstance(self.metrics, list),
            'trained_on (list)': isinstance(self.trained_on, list),
            'cfg (object)': isinstance(self.cfg, dict),
            'thresholds (see timm_dpa/weights/thresholds.py)': are_thresholds(self.thresholds),
            'weights_of (name of another entry)': isinstance(self.weights_of, str) and self.weights_of != self.name,
        }
        wrong = [what for what, right in problems.items() if not right]
        if wrong:
            raise ValueError(f'{self.architecture}.{self.tag}: wrong {", ".join(wrong)}')


def _matches(pattern: str, text: Any) -> bool:
    return isinstance(text, str) and re.fullmatch(pattern, text) is not None


def read_manifest(path: Path = MANIFEST) -> dict[str, Release]:
    """Read and check a manifest; returns its entries by `architecture.tag`, in their order.

    Raises:
        FileNotFoundError: no such file.
        ValueError: no JSON of this kind, wrong values, or two entries of one name; the message names the entry.
    """
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such manifest of weights')
    releases: dict[str, Release] = {}
    try:
        entries = json.loads(path.read_text(encoding='utf-8'))['weights']
        files = {f'{entry["architecture"]}.{entry["tag"]}': {key: entry.get(key) for key in _FILE} for entry in entries}
        for entry in entries:
            other = entry.get('weights_of')
            if other and other not in files:
                raise ValueError(f'no entry is called {other!r}')
            release = Release(**{**entry, **files[other]} if other else entry)
            if release.name in releases:
                raise ValueError(f'two entries are called {release.name}')
            releases[release.name] = release
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f'{path}: not a manifest of weights ({error})') from error
    return releases


def record_release(release: Release, path: Path = MANIFEST, default: bool = False) -> None:
    """Add an entry to a manifest, or replace the entry of the same name. The file is replaced as a whole.

    Args:
        default: put the entry before the others of its architecture: the name of the architecture alone stands for
            the first one.

    Raises:
        ValueError: the manifest cannot be read.
        OSError: it does not exist, or cannot be written.
    """
    releases = {**read_manifest(path), release.name: release}
    if default:
        others = [known for known in releases.values() if known != release]
        first = next((i for i, known in enumerate(others) if known.architecture == release.architecture), len(others))
        entries = [*others[:first], release, *others[first:]]
    else:
        entries = list(releases.values())
    content = {'weights': [_as_entry(entry) for entry in entries]}
    write_bytes(path, (json.dumps(content, indent=2) + '\n').encode())


def _as_entry(release: Release) -> dict[str, Any]:
    left_out = _FILE if release.weights_of else ('weights_of',)
    return {key: value for key, value in dataclasses.asdict(release).items() if key not in left_out}


def is_released(name: str) -> bool:
    """Whether the manifest has weights of `architecture.tag`, or any of `architecture`; in this installation or not."""
    return any(name in (known, release.architecture) for known, release in read_manifest().items())


def file_sha256(path: str | os.PathLike[str]) -> str:
    """SHA-256 of a file's content, 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
