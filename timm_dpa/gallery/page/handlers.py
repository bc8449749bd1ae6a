"""What the page does, as plain functions: nothing here knows Gradio."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ...embedding.extractor import FeatureExtractor
from ...embedding.images import Decoding
from ..filters import Filter, parse_time
from ..gallery import Gallery, GalleryMatch
from ..rows import COLUMNS, GalleryRow
from .access import Limits
from .feedback import Export, Feedback, export_feedback
from .pictures import row_picture
from .scenes import Scene, crop_scene, parse_box

__all__ = ['Page', 'Query', 'Results', 'Wanted', 'read_time']

#: picture -> the same with its heat map over it
Explain = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True)
class Query:
    """What is searched for.

    Attributes:
        picture: the vehicle, RGB.
        vector: `(D,)` float32 of unit length.
        name: for people.
        key, track: of its row, if it is an image of the gallery; else empty.
    """

    picture: Image.Image
    vector: np.ndarray
    name: str
    key: str = ''
    track: str = ''


@dataclass(frozen=True)
class Wanted:
    """The settings of a search, as the page has them.

    Attributes:
        cameras: names; empty for all.
        after, before: times as typed, see `read_time`; empty for any.
        by: `'image'` or `'track'`.
        top: number of matches.
    """

    cameras: Sequence[str] = ()
    after: str = ''
    before: str = ''
    by: str = 'image'
    top: int = 12


@dataclass(frozen=True)
class Results:
    """What was found.

    Attributes:
        matches: best first; their rows have thumbnails.
        tracks: of each track that was found the rows of its images that the filter lets count, in the order of time.
        searched: number of images that the filter lets count.
        by: `'image'` or `'track'`.
    """

    matches: list[GalleryMatch]
    tracks: dict[str, list[GalleryRow]] = field(default_factory=dict)
    searched: int = 0
    by: str = 'image'


def read_time(text: str | None, name: str) -> int | None:
    """Milliseconds since 1970 of a time that a user typed; UTC where there is no zone. None for an empty text.

    Raises:
        ValueError: it cannot be read.
    """
    text = (text or '').strip()
    if not text:
        return None
    if re.fullmatch(r'\d{4}-\d\d-\d\d', text):
        text += 'T00:00'
    zone = re.search(r'([Zz]|[+-]\d\d:?\d\d)$', text[10:])
    try:
        return parse_time(text if zone else f'{text}Z', name)
    except ValueError as error:
        raise ValueError(f'{name}: {text!r} is no time; write it as 2026-05-01 10:30 (UTC)') from error


class Page:
    """A gallery with a model.

    Args:
        gallery: what is searched; made by this extractor.
        extractor: embeds what users upload.
        explain: paints the heat map of a picture; None where there is none.
        feedback: keeps the marks of all users; None gives each user marks of their own, which end with the session.
        limits: see `Limits`.
        about: a sentence about the gallery, for the head of the page.
    """

    def __init__(
        self,
        gallery: Gallery,
        extractor: FeatureExtractor,
        *,
        explain: Explain | None = None,
        feedback: Feedback | None = None,
        limits: Limits | None = None,
        about: str = '',
    ) -> None:
        self.gallery, self.extractor, self.explain = gallery, extractor, explain
        self.feedback, self.limits, self.about = feedback, limits or Limits(), about
        self.thresholds = extractor.thresholds
        self.info: dict[str, Any] = gallery.info()

    @property
    def cameras(self) -> list[str]:
        """Names of the cameras."""
        return [name for name in self.info['cameras'] if name]

    def query_scene(self, scene: Scene | None, box: Any) -> Query:
        """What a user uploaded, or the vehicle in a box of it.

        Raises:
            ValueError: nothing was uploaded, or the box is wrong.
        """
        if scene is None:
            raise ValueError('no picture yet: drop, paste or choose one first')
        place = parse_box(box, scene.picture.size)
        picture = crop_scene(scene, place)
        name = scene.name + (f', frame {scene.number}' if scene.video else '') + (', box' if place else '')
        return Query(picture, self.extractor([picture], progress=False)[0], name)

    def query_row(self, key: str) -> Query:
        """An image of the gallery.

        Raises:
            ValueError: there is no such image any more.
        """
        row = self.gallery.known([key], COLUMNS).get(key)
        if row is None:
            raise ValueError('this image is no longer in the gallery; search again')
        picture = row_picture(row, self._decoding) or Image.new('RGB', (64, 64), '#888888')
        return Query(picture, row.vector, Path(row.image or key).name, key, row.track)

    def first_query(self) -> Query | None:
        """An image of the gallery to begin with: the first by key that has a picture; None in an empty gallery."""
        keys = sorted(row.key for row, _ in zip(self.gallery.rows(columns=('key',)), range(1000), strict=False))
        return self.query_row(keys[0]) if keys else None

    def search(self, query: Query | None, wanted: Wanted) -> Results:
        """The most similar images or tracks; the query itself and its own track do not count.

        Raises:
            ValueError: nothing to search for, or settings that cannot be read.
        """
        if query is None:
            raise ValueError('no picture yet: drop, paste or choose one first')
        if not 1 <= wanted.top <= self.limits.top:
            raise ValueError(f'matches: must be in 1..{self.limits.top}, not {wanted.top}')
        after, before = read_time(wanted.after, 'from'), read_time(wanted.before, 'until')
        if after is not None and before is not None and after >= before:
            raise ValueError('from: must be earlier than until')
        where = Filter(
            cameras=list(wanted.cameras) or None,
            after=after,
            before=before,
            exclude_tracks=[query.track] if query.track else (),
        )
        own = [query.key] if query.key else []
        (matches,) = self.gallery.search(query.vector[None], top=wanted.top, where=where, by=wanted.by, exclude=[own])
        thumbnails = self.gallery.known([match.row.key for match in matches], ('thumbnail',))
        shown = [
            replace(match, row=replace(match.row, thumbnail=thumbnails[match.row.key].thumbnail))
            for match in matches
            if match.row.key in thumbnails  # it may have been removed meanwhile
        ]
        return Results(shown, self._tracks(shown, where), self.gallery.count(where), wanted.by)

    def heat_map(self, query: Query | None) -> Image.Image | None:
        """The picture of a query with its heat map over it; None where there is no query or no way to make one."""
        return self.explain(query.picture) if self.explain and query is not None else None

    def mark(
        self, feedback: Feedback, query: Query | None, results: Results | None, key: str, said: str
    ) -> bool | None:
        """Say of a match whether it is right.

        Args:
            said: `'right'`, `'wrong'`, or `''` to take it back.

        Returns:
            What is known of the match now.

        Raises:
            ValueError: it is none of the matches, or something else was said.
        """
        found = next((match for match in results.matches if match.row.key == key), None) if results else None
        if query is None or found is None:
            raise ValueError('this match is no longer shown; search again')
        if said not in ('right', 'wrong', ''):
            raise ValueError(f'a match is right or wrong, not {said!r}')
        right = None if not said else said == 'right'
        feedback.mark(self.query_name(feedback, query), key, right, found.similarity)
        return right

    def marked(self, feedback: Feedback, query: Query | None) -> dict[str, bool]:
        """Key -> whether the match was marked as right, for a query."""
        if query is None or not feedback.marks:
            return {}
        return feedback.marked(self.query_name(feedback, query))

    def query_name(self, feedback: Feedback, query: Query) -> str:
        """The name that marks know a query by."""
        return query.key or feedback.add_query(query.picture)

    def export(self, feedback: Feedback, folder: Path | None = None) -> tuple[Path, Export]:
        """Write the marks as training data, see `export_feedback`; a new ZIP file in `folder`.

        Raises:
            ValueError: nothing is marked.
            OSError: it cannot be written.
        """
        keys = {name for mark in feedback.marks for name in (mark.query, mark.key)}
        rows = self.gallery.known(sorted(keys), COLUMNS)
        out = Path(tempfile.mkdtemp(prefix='timm_dpa_feedback_', dir=folder)) / 'feedback.zip'
        return out, export_feedback(feedback, rows, lambda row: row_picture(row, self._decoding), out)

    @property
    def _decoding(self) -> Decoding:
        return Decoding(max_pixels=self.limits.pixels)

    def _tracks(self, matches: list[GalleryMatch], where: Filter) -> dict[str, list[GalleryRow]]:
        names = dict.fromkeys(match.row.track for match in matches if match.row.track)
        found: dict[str, list[GalleryRow]] = {name: [] for name in names}
        if names:
            for row in self.gallery.rows(replace(where, tracks=list(names), exclude_tracks=())):
                found[row.track].append(row)
        for rows in found.values():
            rows.sort(key=lambda row: (row.time is None, row.time or 0, row.key))
        return found
