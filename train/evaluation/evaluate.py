"""Evaluation of a model on a data set: embeddings, a protocol, and the row of the paper's tables."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from timm_dpa.embedding.extractor import FeatureExtractor
from timm_dpa.embedding.images import ImageItem
from timm_dpa.files import write_bytes
from timm_dpa.tables import format_table

from ..data.datasets import ReIDData, Split
from ..data.moments import GAP, STRIDE
from ..data.protocols import DRAWN_PROTOCOLS
from ..data.query_gallery import QueryGallery, check_evaluable, pick_query_gallery, resolve_protocol, warn_about
from ..run.distributed import Processes
from .candidates import Candidates
from .groups import evaluate_groups
from .jitter import check_jitter, jittered
from .metrics import DrawMetrics, RankingMetrics, evaluate, evaluate_distances, evaluate_draws
from .reranking import expand_queries, rerank
from .tables import METRICS
from .verification import Verification, count_pairs, verification_table

__all__ = [
    'Evaluation',
    'embed_split',
    'evaluate_model',
    'markdown_table',
    'with_loose',
    'write_evaluation',
]

_logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores of a model.

    Attributes:
        metrics: mean over the draws, in 0..1: `mAP`, `mINP`, `rank1`, `rank5`, ..., and counts of queries.
        deviation: sample standard deviation over the draws; 0 of a single one.
        cmc: `(max_rank,)` float64, mean CMC curve.
        first: metrics of the first draw, query by query.
        verification: equal error rate and thresholds of the cosine, over all pairs of the first draw that count in the
            ranking. Re-ranking and expansion play no part. None if all pairs are of different vehicles, and
            for the protocol `gap`.
        settings: protocol, draws, seed, rerank, flip, gallery size: what else decides the numbers; also
            `same_file_excluded`, how many gallery images were left out of the first draw as a query's own file or a
            copy of it and for no other reason, and `shared_identities`, how many identities of the test part are in the
            training part too.
        skipped: path -> reason of images that could not be read.
        warnings: what makes the scores mean less than they seem to, a sentence each, see `warn_about`.
    """

    metrics: dict[str, float]
    deviation: dict[str, float]
    cmc: np.ndarray
    first: RankingMetrics
    settings: dict[str, Any]
    skipped: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    verification: Verification | None = None

    def as_dict(self) -> dict[str, Any]:
        """All but the numbers of each query, as JSON takes it."""
        return {
            'metrics': self.metrics,
            'deviation': self.deviation,
            'verification': self.verification.as_dict() if self.verification else None,
            'settings': self.settings,
            'cmc': [round(float(value), 6) for value in self.cmc],
            'skipped': self.skipped,
            'warnings': self.warnings,
        }


def evaluate_model(
    extractor: FeatureExtractor,
    data: ReIDData,
    protocol: str | None = None,
    *,
    draws: int | None = None,
    seed: int = 0,
    use_rerank: bool = False,
    expand: int = 0,
    exclude_same_camera: bool | None = None,
    query_identities: Sequence[str] | None = None,
    gap: int = GAP,
    stride: int = STRIDE,
    jitter: float = 0.0,
    processes: Processes | None = None,
    progress: bool | None = None,
) -> Evaluation:
    """Embed the test images and score the ranking.

    A query never finds its own file, or a copy of it with identical bytes, whatever the protocol.

    Args:
        extractor: the model, and how images are given to it.
        data: see `load_data`.
        protocol: see `pick_query_gallery`; None for the data's own.
        draws: random galleries (`vru`) or queries (`cross-camera`) that are averaged over; None for the protocol's
            `default_draws`.
        seed: of the draws.
        use_rerank: re-rank by k-reciprocal neighbors.
        expand: gallery images by which a query is expanded first, see `expand_queries`; 0 for none.
        exclude_same_camera: the same-camera rule, on or off; None for the protocol's own.
        query_identities: names of the identities whose images are queries; the gallery stays whole.
        gap, stride: frames from a query to its candidates, and between queries, of the protocol `gap`.
        jitter: share of the width and height by which the sides of each image move at random, 0 to 0.4, see `jittered`;
            the seed is that of the draws.
        processes: share the images among them; all get the same result.
        progress: show a bar; None shows one on a terminal only.

    Raises:
        ValueError: what `check_evaluable` raises, unknown identities, or embeddings that are not finite.
    """
    protocol, draws = resolve_protocol(data, protocol, draws)
    wanted = None if query_identities is None else _pids(data, query_identities)
    check_jitter(jitter)
    if expand < 0:
        raise ValueError(f'expand must be at least 0, not {expand}')
    if protocol == 'gap' and (use_rerank or expand):
        raise ValueError('protocol gap: each query has candidates of its own, too few to re-rank or to expand it by')
    parts = check_evaluable(data, protocol, draws, exclude_same_camera, seed, gap, stride)
    images = data.test  # another draw has other queries among them
    if protocol not in DRAWN_PROTOCOLS:
        images = Split(
            parts.query.paths + parts.gallery.paths,
            np.concatenate([parts.query.pids, parts.gallery.pids]),
            np.concatenate([parts.query.camids, parts.gallery.camids]),
        )
    noise = (jitter, seed) if jitter else None
    vectors, rows, skipped = embed_split(extractor, images, processes, progress, noise)
    parts = _chosen(parts, rows, wanted)

    distributed = processes is not None and processes.world_size > 1
    options: dict[str, Any] = {'device': extractor.device, 'distributed': distributed}
    if protocol == 'vru' and wanted is None and not (skipped or use_rerank or expand or exclude_same_camera):
        files = [data.files[path] for path in images.paths]
        result = evaluate_draws(vectors, images.pids, draws, seed, files=files, **options)  # without copies of vectors
    else:
        results = []
        for draw in range(draws):
            drawn = parts
            if draw:
                drawn = _chosen(pick_query_gallery(data, protocol, (seed, draw), exclude_same_camera), rows, wanted)
            results.append(_score(vectors, rows, drawn, data.files, use_rerank, expand, options))
        result = DrawMetrics.of(results)
    settings = {
        'protocol': protocol,
        'draws': draws,
        'seed': seed,
        'gallery': len(parts.gallery),
        'same_camera_excluded': parts.exclude_same_camera,
        'same_file_excluded': int(parts.own_files(data.files).sum()),
        'shared_identities': len(data.shared_identities),
        'rerank': use_rerank,
        'expand': expand,
        'flip': extractor.flip,
    }
    if jitter:
        settings['jitter'] = jitter
    if protocol == 'gap':
        settings |= {'gap': gap, 'stride': stride}
    if query_identities is not None:
        settings['query_identities'] = list(query_identities)
    verification = None
    if parts.query.groups is None:
        verification = _verify(vectors, rows, parts, data.files, extractor.device, processes or Processes())
    warnings = warn_about(data, parts)
    return Evaluation(result.mean, result.std, result.cmc, result.draws[0], settings, skipped, warnings, verification)


def _pids(data: ReIDData, names: Sequence[str]) -> np.ndarray:
    known = {name: pid for pid, name in enumerate(data.identities)}
    unknown = [name for name in names if name not in known]
    if unknown:
        raise ValueError(
            f'no identity is called {", ".join(unknown[:5])}; there are {", ".join(data.identities[:5])}, ...'
        )
    return np.array([known[name] for name in names], np.int64)


def embed_split(
    extractor: FeatureExtractor,
    split: Split,
    processes: Processes | None = None,
    progress: bool | None = None,
    noise: tuple[float, int] | None = None,
) -> tuple[np.ndarray, dict[str, int], dict[str, str]]:
    """Embed the images of a split, shared among the processes; `noise` is that of `jittered`, None for none.

    Returns:
        `(N, D)` float32 of unit length, of the images that could be read; path -> row; path -> reason of the others.
    """
    processes = processes or Processes()
    paths = list(dict.fromkeys(split.paths))  # VeRi-776 keeps its queries in the gallery, too
    share = paths[processes.rank :: processes.world_size]
    images: Iterable[ImageItem] = [ImageItem(path, path) for path in share]
    if noise is not None:
        images = jittered(share, *noise, extractor.decoding)
    embedded = extractor.run(images, progress=progress)
    skipped = dict(embedded.failures)
    if processes.world_size == 1:
        vectors, names = embedded.vectors, embedded.names
    else:
        parts = processes.gather((embedded.vectors, embedded.names, skipped))
        found = {name: vector for part in parts for name, vector in zip(part[1], part[0], strict=True)}
        skipped = {name: reason for part in parts for name, reason in part[2].items()}
        names = [path for path in paths if path in found]  # in the order of a single process
        vectors = np.stack([found[name] for name in names]) if names else embedded.vectors
    for reason in skipped.values():
        _logger.warning('left out: %s', reason)
    return vectors, {name: row for row, name in enumerate(names)}, skipped


def _chosen(parts: QueryGallery, rows: dict[str, int], wanted: np.ndarray | None) -> QueryGallery:
    """The images that have an embedding, and of the queries those of the wanted identities; None for all."""
    known = [np.array([path in rows for path in split.paths], bool) for split in (parts.query, parts.gallery)]
    if wanted is not None:
        known[0] &= np.isin(parts.query.pids, wanted)
    return parts._replace(query=parts.query.subset(known[0]), gallery=parts.gallery.subset(known[1]))


def _score(
    vectors: np.ndarray,
    rows: dict[str, int],
    parts: QueryGallery,
    files: dict[str, int],
    use_rerank: bool,
    expand: int,
    options: dict[str, Any],
) -> RankingMetrics:
    """The metrics of one draw."""
    query, gallery = ([rows[path] for path in split.paths] for split in (parts.query, parts.gallery))
    queries: Any = vectors[query]
    if parts.query.groups is not None:
        return evaluate_groups(queries, vectors[gallery], parts, files, device=options['device'])
    known: dict[str, Any] = {
        'query_pids': parts.query.pids,
        'gallery_pids': parts.gallery.pids,
        'query_camids': parts.query.camids,
        'gallery_camids': parts.gallery.camids,
        'query_files': [files[path] for path in parts.query.paths],
        'gallery_files': [files[path] for path in parts.gallery.paths],
        'exclude_same_camera': parts.exclude_same_camera,
    }
    if expand:
        queries = expand_queries(queries, vectors[gallery], expand, device=options['device'])
    if use_rerank:
        return evaluate_distances(rerank(queries, vectors[gallery], device=options['device']), **known)
    return evaluate(queries, vectors[gallery], **known, **options)


def _verify(
    vectors: np.ndarray,
    rows: dict[str, int],
    parts: QueryGallery,
    files: dict[str, int],
    device: torch.device,
    processes: Processes,
) -> Verification | None:
    """The verification of one draw, whose queries are shared among the processes."""
    first, end = (len(parts.query) * share // processes.world_size for share in (processes.rank, processes.rank + 1))
    query, gallery = parts.query.subset(np.arange(first, end)), parts.gallery
    candidates = Candidates(
        (len(query), len(gallery)),
        (query.pids, gallery.pids),
        (query.camids, gallery.camids),
        ([files[path] for path in query.paths], [files[path] for path in gallery.paths]),
        parts.exclude_same_camera,
        (-1,),
        device,
    )
    asking, given = (np.array([rows[path] for path in split.paths], np.int64) for split in (query, gallery))
    counts = processes.gather(count_pairs(vectors, asking, vectors[given], candidates))
    return Verification.of(*(np.sum([each[kind] for each in counts], axis=0) for kind in (0, 1)))


def markdown_table(rows: Sequence[tuple[str, Evaluation]]) -> str:
    """The paper's table, in %: a row for each named evaluation, with the deviation over several draws."""
    lines = [['Method', *METRICS.values()]]
    for name, result in rows:
        cells = [f'{100 * result.metrics[key]:.2f}' for key in METRICS]
        if result.settings['draws'] > 1:
            cells = [f'{cell} ± {100 * result.deviation[key]:.2f}' for cell, key in zip(cells, METRICS, strict=True)]
        lines.append([name, *cells])
    return format_table(lines, numeric=range(1, len(METRICS) + 1), markdown=True)


def with_loose(name: str, result: Evaluation, loose: Evaluation | None) -> list[tuple[str, Evaluation]]:
    """The rows of a table: an evaluation and, if there is one, the same with jitter."""
    rows = [(name, result)]
    if loose is not None:
        rows.append((f'{name}, boxes off by up to {100 * loose.settings["jitter"]:g} %', loose))
    return rows


def write_evaluation(
    result: Evaluation, name: str, folder: Path, loose: Evaluation | None = None, **origin: Any
) -> tuple[Path, Path]:
    """Write `evaluation.json` and `evaluation.md`; returns their paths.

    Args:
        name: of the model, for the row.
        loose: the same with jitter: a second row, and `loose` in the numbers.
        origin: what else to note, such as the data.

    Raises:
        OSError: they cannot be written.
    """
    table, numbers = folder / 'evaluation.md', folder / 'evaluation.json'
    notes = ''.join(f'\nNote: {warning}.\n' for warning in result.warnings)
    text = markdown_table(with_loose(name, result, loose)) + '\n'
    if result.verification:
        text += f'\n{verification_table(result.verification, markdown=True)}\n'
    write_bytes(table, (text + notes).encode('utf-8', 'backslashreplace'))
    content = {'name': name, **origin, **result.as_dict()}
    if loose is not None:
        content['settings'] = {**result.settings, 'jitter': loose.settings['jitter']}
        content['loose'] = {'metrics': loose.metrics, 'deviation': loose.deviation, 'skipped': loose.skipped}
    write_bytes(numbers, json.dumps(content, indent=2, ensure_ascii=False).encode('utf-8', 'backslashreplace'))
    return table, numbers
