"""The table of the models: size, cost, embedding and released weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Any

import timm
import torch
from timm.models import get_arch_pretrained_cfgs, list_models
from torch.utils.flop_counter import FlopCounterMode

from .dpa_resnet import ReIDResNet
from .tables import format_table
from .weights.manifest import read_manifest

__all__ = ['count_macs', 'match_models', 'thresholds_table', 'zoo_table']

_COLUMNS = ('model', 'attention', 'parameters (M)', 'GMACs', 'embedding', 'pretrained tags')


def count_macs(model: Any, image_size: tuple[int, int] = (256, 256)) -> int:
    """Multiply-accumulate operations of one image in convolutions and matrix products, on any device, `meta` too."""
    parameter = next(model.parameters())
    image = torch.empty(1, model.in_chans, *image_size, device=parameter.device, dtype=parameter.dtype)
    with _quiet(), FlopCounterMode(display=False) as counter, torch.no_grad():
        model(image)
    return counter.get_total_flops() // 2


def match_models(*patterns: str) -> list[str]:
    """Our architectures whose names match one of the patterns, such as `*_resnet18`, sorted.

    Raises:
        ValueError: a pattern matches none.
    """
    chosen: set[str] = set()
    for pattern in patterns:
        names = list_models(pattern, module='dpa_resnet')
        if not names:
            raise ValueError(f'no model is called {pattern}; timm-dpa models lists all')
        chosen.update(names)
    return sorted(chosen)


def zoo_table(pattern: str = '*', markdown: bool = False) -> str:
    """The registered models whose name matches `pattern`, as text; parameters without classifier, GMACs at 256 px.

    Raises:
        ValueError: no model matches.
    """
    rows, released = [_COLUMNS], read_manifest()
    for name in sorted(match_models(pattern), key=lambda name: (int(name.rpartition('resnet')[2]), name)):
        model: ReIDResNet = timm.create_model(name, device='meta').eval()
        tags = [
            tag.partition('.')[2] + (_describe_sources(released[tag].trained_on) if tag in released else '')
            for tag, cfg in get_arch_pretrained_cfgs(name).items()
            if cfg.has_weights
        ]
        rows.append(
            (
                name,
                name.partition('_')[0].replace('reid', 'none'),
                f'{sum(p.numel() for p in model.parameters()) / 1e6:.1f}',
                f'{count_macs(model) / 1e9:.2f}',
                str(model.head_hidden_size),
                ', '.join(tags) or '-',
            )
        )
    return format_table(rows, numeric=(2, 3, 4), markdown=markdown)


def thresholds_table(pattern: str = '*', markdown: bool = False) -> str:
    """Thresholds of the cosine of the released weights whose name matches `pattern`, `architecture` or
    `architecture.tag`, as text.

    Raises:
        ValueError: none matches, or none has thresholds.
    """
    rows = [
        ('weights', 'false matches', 'cosine', 'misses', 'measured on', 'pairs of one vehicle', 'of different ones')
    ]
    for name, release in read_manifest().items():
        if not (fnmatchcase(name, pattern) or fnmatchcase(release.architecture, pattern)):
            continue
        rows += [
            (
                name,
                f'{100 * row["false_match_rate"]:g} %',
                f'{row["cosine"]:.4f}',
                f'{100 * row["miss_rate"]:.1f} %',
                row['data'],
                f'{row["same_pairs"]:,}',
                f'{row["different_pairs"]:,}',
            )
            for row in release.thresholds
        ]
    if len(rows) == 1:
        raise ValueError(f'no released weights called {pattern} have thresholds; timm-dpa eval measures them')
    return format_table(rows, numeric=(1, 2, 3, 5, 6), markdown=markdown)


def _describe_sources(sources: list[dict[str, Any]]) -> str:
    """What weights were trained on, in brackets; nothing where that is not recorded."""
    if not sources:
        return ''
    synthetic = [source['name'] for source in sources if source['synthetic']]
    kind = 'rendered images' if all('rendered' in name for name in synthetic) else 'synthetic images'
    real = list(dict.fromkeys(source['name'] for source in sources if not source['synthetic']))
    return f' ({" and ".join([*[kind][: len(synthetic)], *real])}{"" if real else " only"})'


@contextmanager
def _quiet() -> Iterator[None]:
    """The counter warns that it sees no module hierarchy, which is not asked for."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(previous)
