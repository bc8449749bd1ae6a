"""Ranking a gallery by its similarity to queries, and a picture of the ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .images import ImageError, ImageItem, load_rgb

__all__ = ['Match', 'nearest', 'rank_figure']

_PRODUCTS = 1 << 24  # that are in memory at once
_PEAK_OF = 64  # similarities in a block


@dataclass(frozen=True)
class Match:
    """One place in a ranking: position from 1, cosine similarity in -1..1, and which image."""

    rank: int
    similarity: float
    name: str


def nearest(
    queries: np.ndarray,
    gallery: np.ndarray,
    names: Sequence[str],
    top: int = 10,
    excluded: Sequence[frozenset[int]] | None = None,
) -> list[list[Match]]:
    """The most similar gallery images of each query, best first.

    Similarities are compared to 9 decimals; equal ones, as of copies of an image, are in the gallery's order.

    Args:
        queries: `(Q, D)` float32 of unit length.
        gallery: `(N, D)` float32 of unit length.
        names: N names.
        top: how many matches at the most.
        excluded: for each query the gallery rows that do not count.

    Raises:
        ValueError: widths that differ, numbers of names and embeddings that differ, numbers that are not finite, or
            `top` below 1.
    """
    if top < 1:
        raise ValueError(f'top must be at least 1, not {top}')
    if queries.ndim != 2 or gallery.ndim != 2:
        raise ValueError(f'queries and gallery must be (N, D), not {queries.shape} and {gallery.shape}')
    if queries.shape[1] != gallery.shape[1]:
        raise ValueError(f'queries have {queries.shape[1]} numbers, the gallery {gallery.shape[1]}: not of one model')
    if len(names) != len(gallery):
        raise ValueError(f'{len(names)} names for {len(gallery)} gallery embeddings')
    rankings: list[list[Match]] = []
    for index, (query, similarity) in enumerate(_similarities(queries, gallery)):
        left_out = excluded[index] if excluded is not None else frozenset()
        wanted = min(top + len(left_out), len(gallery))
        if not wanted:
            rankings.append([])
            continue
        # all that may be among the first, whatever float32 rounded, so that ties do not depend on the partition
        reached = _reaching(similarity, wanted, 2 * _rounding(gallery.shape[1]))
        exact = _exact(query, gallery, reached)
        order = np.argsort(-exact, kind='stable').tolist()
        ranked = [(int(reached[k]), float(exact[k])) for k in order if int(reached[k]) not in left_out][:top]
        rankings.append([Match(rank, value, names[row]) for rank, (row, value) in enumerate(ranked, start=1)])
    return rankings


def _similarities(queries: np.ndarray, gallery: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each query with its cosines in float32, in which those of equal rows may differ by their place."""
    chunk = max(1, min(128, _PRODUCTS // max(1, len(gallery))))
    for start in range(0, len(queries), chunk):
        some = queries[start : start + chunk].astype(np.float32, copy=False)
        products = some @ gallery.T
        if not np.isfinite(products).all():  # of a number that is not finite no product is
            raise ValueError('embeddings have numbers that are not finite')
        yield from zip(some, products, strict=True)


def _reaching(similarity: np.ndarray, wanted: int, slack: float) -> np.ndarray:
    """Rows, ascending, that the `wanted`-th largest similarity exceeds by at most `slack`.

    It is not below the `wanted`-th largest of the peaks of blocks. So only blocks whose peak comes near that are looked
    at: a partition of all rows takes several times as long as the peaks.
    """
    whole = len(similarity) - len(similarity) % _PEAK_OF
    if wanted * _PEAK_OF > whole:
        last = np.partition(similarity, len(similarity) - wanted)[len(similarity) - wanted]
        return np.flatnonzero(similarity >= last - slack)
    peaks = similarity[:whole].reshape(-1, _PEAK_OF).max(axis=1)
    least = np.partition(peaks, len(peaks) - wanted)[len(peaks) - wanted]
    near = np.flatnonzero(peaks >= least - slack) * _PEAK_OF
    rows = np.concatenate([(near[:, None] + np.arange(_PEAK_OF)).ravel(), np.arange(whole, len(similarity))])
    found = similarity[rows]
    last = np.partition(found, len(found) - wanted)[len(found) - wanted]
    return rows[found >= last - slack]


def _rounding(width: int) -> float:
    """By how much the float32 product of two vectors of length 1 can be wrong, in whatever order it is summed."""
    return 1.01 * width * 2.0**-24


def _exact(query: np.ndarray, gallery: np.ndarray, rows: np.ndarray, block: int = 4096) -> np.ndarray:
    """Cosines of some rows to 9 decimals."""
    wide = query.astype(np.float64)
    parts = [gallery[rows[k : k + block]].astype(np.float64) @ wide for k in range(0, len(rows), block)]
    return np.concatenate(parts).round(9)


def rank_figure(
    queries: Sequence[str | Path],
    rankings: Sequence[Sequence[Match]],
    folders: Sequence[str | Path] = (),
    tile: int = 144,
    pictures: Mapping[str, Image.Image] | None = None,
) -> Image.Image:
    """Draw a row per query: the query, then its matches with rank, similarity and file name.

    Args:
        queries: image files.
        rankings: of each query, see `nearest`.
        folders: where match names that are relative paths are looked for besides the working folder. A gray tile
            stands for images that have moved.
        tile: side of a picture in pixels. Images keep their proportions.
        pictures: name -> picture of matches that are no files, such as boxes of a video.
    """
    pictures = pictures or {}
    label, gap, name_height = 20, 8, 16
    columns = 1 + max((len(ranking) for ranking in rankings), default=0)
    width = columns * (tile + gap) + 3 * gap
    row_height = label + tile + name_height + 2 * gap
    figure = Image.new('RGB', (width, row_height * len(rankings) + gap), 'white')
    draw = ImageDraw.Draw(figure)
    font, small = ImageFont.load_default(14), ImageFont.load_default(11)
    for row, (query, ranking) in enumerate(zip(queries, rankings, strict=True)):
        top = row * row_height + gap
        cells = [('query', str(query), '#1f4e9c')]
        cells += [(f'{match.rank}   {match.similarity:.4f}', match.name, '#222222') for match in ranking]
        for column, (title, name, color) in enumerate(cells):
            left = gap + column * (tile + gap) + (2 * gap if column else 0)
            draw.text((left, top), title, fill=color, font=font)
            box = (left, top + label, left + tile - 1, top + label + tile - 1)
            draw.rectangle(box, fill='#eeeeee')
            known = pictures.get(name) if column else None
            picture = thumbnail(name, tile, folders) if known is None else _fitted(known, tile)
            if picture is None:
                draw.text((left + 8, top + label + tile // 2 - 8), 'not available', fill='#777777', font=small)
            else:
                offset = ((tile - picture.width) // 2, (tile - picture.height) // 2)
                figure.paste(picture, (left + offset[0], top + label + offset[1]))
            draw.rectangle(box, outline=color, width=3 if not column else 1)
            text = _fit(Path(name).name, tile, small)
            draw.text((left, top + label + tile + 2), text, fill='#555555', font=small)
    return figure


def thumbnail(name: str | Path, side: int, folders: Sequence[str | Path] = ()) -> Image.Image | None:
    """The image of a file, its longer side `side` pixels; None where it has moved or cannot be read."""
    path = _find(name, folders)
    if path is None:
        return None
    try:
        image = load_rgb(ImageItem(path, str(path)))
    except ImageError:
        return None
    return _fitted(image, side)


def _fitted(image: Image.Image, side: int) -> Image.Image:
    width, height = (max(1, round(length * side / max(image.size))) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC)


def _find(name: str | Path, folders: Sequence[str | Path]) -> Path | None:
    """The file that a name stands for: from here, or from one of the folders."""
    return next((path for folder in ('.', *folders) if (path := Path(folder, name)).is_file()), None)


def _fit(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """`text` in one printable line, its middle left out where it is wider than `width` pixels."""
    text = ''.join(character if character.isprintable() else '?' for character in text)
    shown = text
    while font.getlength(shown) > width and len(text) > 2:
        text = text[: len(text) // 2] + text[len(text) // 2 + 1 :]
        shown = f'{text[: len(text) // 2]}...{text[len(text) // 2 :]}'
    return shown


def same_files(
    paths: Sequence[str | Path], names: Sequence[str], folders: Sequence[str | Path] = ()
) -> list[frozenset[int]]:
    """For each path the positions of the names that are this very file, whatever it is called there."""
    positions: dict[tuple[int, int], set[int]] = {}
    for index, name in enumerate(names):
        found = _find(name, folders)
        if found is not None:
            positions.setdefault(_identity(found), set()).add(index)
    return [frozenset(positions.get(_identity(path), ())) for path in paths]


def _identity(path: str | Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
