"""Ranked lists (fig. 6 of the paper): what several models find for the same queries, right and wrong."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.images import ImageError, ImageItem, load_rgb
from timm_dpa.embedding.search import Match, nearest, thumbnail

from ..data.datasets import ReIDData, Split
from ..data.query_gallery import QueryGallery, pick_query_gallery
from ..evaluation.evaluate import embed_split
from ..evaluation.metrics import evaluate
from .canvas import DPI, check_figure_path, new_canvas, new_figure, plain_text, save_figure, shortened

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ['RankedQuery', 'rank_list_figure', 'rank_lists']

_logger = logging.getLogger(__name__)

# of equal meaning for any color vision by their signs; the green is darker than the red, too
_RIGHT, _WRONG, _QUERY = '#007a3d', '#e8372c', '#1f4e9c'
_TILE, _GAP, _LINE, _LABEL = 1.0, 0.09, 0.2, 1.35  # inches: tile, space, line of text, column of the models' names
_FRAME = 0.04


@dataclass(frozen=True)
class RankedQuery:
    """A query and what the models find.

    Attributes:
        path: of the query.
        pid, camid: its identity and camera.
        ap: average precision in 0..1 of each model, over the whole gallery.
        matches: the nearest gallery images of each model, best first.
        correct: of each model, whether these matches show the query's identity.
    """

    path: str
    pid: int
    camid: int
    ap: list[float]
    matches: list[list[Match]]
    correct: list[list[bool]]


def rank_list_figure(
    models: Sequence[tuple[str, FeatureExtractor]],
    data: ReIDData,
    out: Path,
    *,
    protocol: str | None = None,
    queries: int = 4,
    top: int = 10,
    seed: int = 0,
    query_names: Sequence[str] | None = None,
) -> Path:
    """Draw `rank_lists`: a query and, a row for each model, its nearest gallery images with rank and cosine.

    Matches with the query's identity have a tick and a green frame, others a cross and a red one. A gray tile stands
    for an image that has gone.

    Args:
        models: name, as it is to be called, and extractor of each.
        out: `.png`, `.svg` or `.pdf`.
        data, protocol, queries, top, seed, query_names: as `rank_lists`.

    Returns:
        `out`.

    Raises:
        ValueError: another suffix, or as `rank_lists`.
        ImportError: matplotlib is missing.
        OSError: the figure cannot be written.
    """
    out = check_figure_path(out)
    new_figure(1, 1)  # what is missing shows before the work
    extractors = [extractor for _, extractor in models]
    ranked = rank_lists(
        extractors, data, protocol=protocol, queries=queries, top=top, seed=seed, query_names=query_names
    )
    names = [name for name, _ in models]
    columns = max(len(matches) for query in ranked for matches in query.matches)
    row = _LINE + _TILE + _GAP
    block = len(models) * row + 2 * _GAP  # of a query
    left = _GAP + _TILE + _GAP + _LABEL  # of the first match
    figure, axes = new_canvas(left + columns * (_TILE + _GAP), len(ranked) * block + _GAP)
    for k, query in enumerate(ranked):
        upper = _GAP + k * block
        if k:
            axes.axhline(upper - _GAP, color='#cccccc', linewidth=0.8)
        middle = upper + (len(models) * row - _GAP - _LINE - _TILE) / 2
        identity = data.identities[query.pid]
        title = f'{identity}, camera {query.camid}' if data.has_cameras else identity
        _text(axes, _GAP, middle + _LINE - 0.05, shortened(title, 17), color=_QUERY, fontsize=8)
        _tile(axes, _GAP, middle + _LINE, query.path, _QUERY)
        for m, name in enumerate(names):
            top_edge = upper + m * row
            lines = _wrapped(plain_text(name), 15)
            label = '\n'.join(lines[:3] if len(lines) <= 3 else [*lines[:2], '…' + lines[-1][-16:]])
            _text(axes, 2 * _GAP + _TILE, top_edge + _LINE + 0.48 * _TILE, label, fontsize=9, fontweight='bold')
            score = f'AP {100 * query.ap[m]:.1f} %'
            _text(axes, 2 * _GAP + _TILE, top_edge + _LINE + 0.72 * _TILE, score, fontsize=9)
            for c, (match, correct) in enumerate(zip(query.matches[m], query.correct[m], strict=True)):
                at = left + c * (_TILE + _GAP)
                color = _RIGHT if correct else _WRONG
                sign = f'{match.rank}  {"✔" if correct else "✘"}'
                _text(axes, at, top_edge + _LINE - 0.05, sign, color=color, fontsize=9, fontweight='bold')
                similarity = f'{match.similarity:.3f}'
                _text(axes, at + _TILE, top_edge + _LINE - 0.05, similarity, ha='right', fontsize=8, color='#444444')
                _tile(axes, at, top_edge + _LINE, match.name, color)
    return save_figure(figure, out)


def _wrapped(name: str, width: int) -> list[str]:
    """Lines of a name, broken after a space or a sign where that is possible."""
    lines = ['']
    for part in re.findall(r'[^\s._/-]+[\s._/-]*|[\s._/-]+', name):
        if lines[-1] and len(lines[-1] + part.rstrip()) > width:
            lines.append('')
        whole = lines.pop() + part
        lines += [whole[k : k + width] for k in range(0, len(whole.rstrip()), width)] or [whole]
    return [line.strip() for line in lines]


def _text(axes: Axes, x: float, y: float, text: str, **style) -> None:
    axes.text(x, y, text, **{'va': 'baseline', 'parse_math': False, **style})


def _tile(axes: Axes, left: float, top: float, path: str, color: str) -> None:
    from matplotlib.patches import Rectangle

    axes.add_patch(Rectangle((left, top), _TILE, _TILE, facecolor='#e4e4e4', edgecolor='none'))
    inside = _TILE - 2 * _FRAME
    picture = thumbnail(path, round(inside * DPI))
    if picture is None:
        _text(axes, left + _TILE / 2, top + _TILE / 2, 'not available', ha='center', fontsize=7, color='#777777')
    else:
        width, height = (inside * side / max(picture.size) for side in picture.size)
        x, y = left + (_TILE - width) / 2, top + (_TILE - height) / 2
        axes.imshow(np.asarray(picture), extent=(x, x + width, y + height, y), aspect='auto', zorder=1.5)
    corner, side = (left + _FRAME / 2, top + _FRAME / 2), _TILE - _FRAME  # a line is as wide to both sides
    style: dict[str, Any] = {'fill': False, 'edgecolor': color, 'linewidth': 72 * _FRAME, 'joinstyle': 'miter'}
    axes.add_patch(Rectangle(corner, side, side, **style))


# --- the ranking ------------------------------------------------------------------------------------------------------


def rank_lists(
    extractors: Sequence[FeatureExtractor],
    data: ReIDData,
    *,
    protocol: str | None = None,
    queries: int = 4,
    top: int = 10,
    seed: int = 0,
    query_names: Sequence[str] | None = None,
) -> list[RankedQuery]:
    """Rank the gallery by cosine for some queries, the same for all models.

    As in the metrics, the query's own file is left out of the gallery, and where the protocol says so, images of the
    query's vehicle by its own camera are, too.

    Args:
        extractors: the models.
        data: see `load_data`.
        protocol: see `pick_query_gallery`; None for the data's own. A random gallery is the first draw of
            `evaluate_model`.
        queries: how many, of different vehicles as far as there are so many; fewer where there are fewer. Picked among
            those that have a match.
        top: matches of each.
        seed: of the queries and of the gallery.
        query_names: these queries instead: paths, paths below `data.root`, or file names that occur once.

    Raises:
        ValueError: no model, numbers below 1, a protocol that these data do not allow, an unknown or ambiguous query
            or one without a match, no query with a match, or a gallery without a readable image.
    """
    if not extractors:
        raise ValueError('models is empty; give at least one')
    if queries < 1 or top < 1:
        raise ValueError(f'queries and top must be at least 1, not {queries} and {top}')
    parts = pick_query_gallery(data, protocol, (seed, 0))
    if parts.query.groups is not None:
        raise ValueError('protocol gap: each query has candidates of its own; draw ranks with --protocol vru')
    named = [_find_query(data, parts.query, name) for name in query_names or ()]
    chosen = parts.query  # until it is known what can be read
    results: list[tuple[np.ndarray, list[list[Match]], list[list[bool]]]] = []
    for extractor in extractors:
        vectors, rows, _ = embed_split(extractor, parts.gallery)
        if not results:
            readable = [k for k, path in enumerate(parts.gallery.paths) if path in rows]
            parts = parts._replace(gallery=parts.gallery.subset(readable))
            chosen = parts.query.subset(_choose(parts, data.files, queries, seed, named))
        gallery = vectors[[rows[path] for path in parts.gallery.paths]]
        results.append(_rank(extractor(chosen.paths), gallery, chosen, parts, data.files, top))
    return [
        RankedQuery(
            path,
            int(chosen.pids[k]),
            int(chosen.camids[k]),
            [float(ap[k]) for ap, _, _ in results],
            [matches[k] for _, matches, _ in results],
            [correct[k] for _, _, correct in results],
        )
        for k, path in enumerate(chosen.paths)
    ]


def _rank(
    vectors: np.ndarray,
    gallery_vectors: np.ndarray,
    query: Split,
    parts: QueryGallery,
    files: dict[str, int],
    top: int,
) -> tuple[np.ndarray, list[list[Match]], list[list[bool]]]:
    """Average precisions, matches, and whether they are right, of one model."""
    gallery = parts.gallery
    query_files, gallery_files = (np.array([files[path] for path in split.paths]) for split in (query, gallery))
    excluded = []
    for pid, camid, file in zip(query.pids, query.camids, query_files, strict=True):
        left_out = gallery_files == file
        if parts.exclude_same_camera:
            left_out |= (gallery.pids == pid) & (gallery.camids == camid)
        excluded.append(frozenset(np.flatnonzero(left_out).tolist()))
    # ranked by row first: a list may name a file twice
    rankings = nearest(vectors, gallery_vectors, [str(row) for row in range(len(gallery))], top, excluded)
    correct = [
        [bool(gallery.pids[int(match.name)] == pid) for match in ranking]
        for pid, ranking in zip(query.pids, rankings, strict=True)
    ]
    matches = [[Match(m.rank, m.similarity, gallery.paths[int(m.name)]) for m in ranking] for ranking in rankings]
    scores = evaluate(
        vectors,
        gallery_vectors,
        query.pids,
        gallery.pids,
        query.camids,
        gallery.camids,
        exclude_same_camera=parts.exclude_same_camera,
        query_files=query_files,
        gallery_files=gallery_files,
    )
    return scores.ap, matches, correct


def _find_query(data: ReIDData, query: Split, name: str) -> int:
    home = data.root.parent if data.layout == 'csv' else data.root
    places = {name, os.path.abspath(name), str(home / name)}
    found = [k for k, path in enumerate(query.paths) if path in places]
    found = found or [k for k, path in enumerate(query.paths) if os.path.basename(path) == name]
    if len(found) != 1:
        reason = 'is the name of several queries; give the path' if found else 'is no query of this protocol'
        raise ValueError(f'query_names: {name} {reason}, such as {query.paths[0]}')
    return found[0]


def _choose(parts: QueryGallery, files: dict[str, int], count: int, seed: int, named: list[int]) -> list[int]:
    """Rows of the queries to show."""
    query, matched = parts.query, parts.has_match(files)
    if named:
        alone = [query.paths[k] for k in named if not matched[k]]
        if alone:
            raise ValueError(f'query_names: {alone[0]} has no match in the gallery')
        return named
    order = np.random.default_rng(seed).permutation(np.flatnonzero(matched))
    first = np.sort(np.unique(query.pids[order], return_index=True)[1])
    chosen: list[int] = []
    for k in [*order[first], *np.delete(order, first)]:
        if len(chosen) == count:
            break
        try:
            load_rgb(ImageItem(query.paths[k], query.paths[k]))
        except ImageError as error:
            _logger.warning('left out: %s', error)
        else:
            chosen.append(int(k))
    if not chosen:
        raise ValueError('no query that can be read has a match in the gallery')
    return chosen
