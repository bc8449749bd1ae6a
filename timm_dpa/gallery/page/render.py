"""The parts of the page that show vehicles, as HTML. Whatever comes from a gallery or a user is escaped."""

from __future__ import annotations

import html
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from ..filters import show_time
from .handlers import Query, Results
from .pictures import data_uri, preview
from .rates import explain_rates, false_matches
from .scenes import Scene

__all__ = ['escaped', 'message_html', 'picker_html', 'query_html', 'results_html', 'timeline_html']

_TEMPLATES = {'{': '&#123;', '}': '&#125;', '$': '&#36;', '`': '&#96;'}
_LINE = 26  # height of a track in the time line


def escaped(text: object) -> str:
    """Text for HTML and its attributes, and without signs that Gradio's templates know."""
    safe = html.escape(str(text), quote=True)
    return ''.join(_TEMPLATES.get(character, character) for character in safe)


def message_html(text: str, error: bool = False) -> str:
    """A message that screen readers say at once."""
    if not text:
        return ''
    role, kind = ('alert', 'error') if error else ('status', 'note')
    return f'<p class="message {kind}" role="{role}">{escaped(text)}</p>'


def picker_html(scene: Scene | None) -> str:
    """A picture to draw a box in."""
    if scene is None:
        return ''
    width, height = scene.picture.size
    source = data_uri(preview(scene.picture, 1280))
    return (
        f'<div class="picker" tabindex="0" role="application" data-width="{width}" data-height="{height}" '
        f'aria-label="{escaped(scene.name)}. Draw a box around one vehicle: with the pointer, or with the arrow keys; '
        'Shift and an arrow change its size, Escape removes it">'
        f'<img src="{source}" alt="{escaped(scene.name)}" draggable="false"><div class="box" hidden></div></div>'
        '<p class="hint">Draw a box around one vehicle, or search with the whole picture. '
        'Keys: arrows, Shift + arrows, Escape.</p>'
    )


def query_html(query: Query | None, heat: Image.Image | None = None) -> str:
    """What is searched for, and its heat map."""
    if query is None:
        return ''
    figures = [(query.picture, 'Query', f'query {query.name}')]
    if heat is not None:
        figures.append((heat, 'Heat map: red counts most', 'heat map of the query'))
    parts = [
        f'<figure><img src="{data_uri(preview(picture, 320))}" alt="{escaped(alt)}"><figcaption>{caption}'
        '</figcaption></figure>'
        for picture, caption, alt in figures
    ]
    return f'<div class="query">{"".join(parts)}<p class="name">{escaped(query.name)}</p></div>'


def results_html(
    results: Results | None,
    thresholds: Mapping[float, float] | None,
    marked: Mapping[str, bool] | None = None,
) -> str:
    """Matches as cards, with what their cosine says, and buttons to mark them."""
    if results is None:
        return ''
    if not results.matches:
        return '<p class="none">No image matches these filters. Choose other cameras or a longer time.</p>'
    cards = []
    for match in results.matches:
        row, said = match.row, (marked or {}).get(match.row.key)
        name = Path(row.image or row.key).name
        alt = f'match {match.rank}, {name}'
        image = f'<img src="{data_uri(row.thumbnail)}" alt="{escaped(alt)}">' if row.thumbnail else ''
        image = image or f'<div class="gone" role="img" aria-label="{escaped(alt)}">no picture</div>'
        facts = [
            f'camera {row.camera}' if row.camera else 'camera unknown',
            _short_time(row.time),
            f'track {row.track}' if row.track else '',
        ]
        if match.mean is not None and match.images > 1:
            facts.append(f'{match.images} images, mean {match.mean:.2f}')
        lines = ''.join(f'<span title="{escaped(fact)}">{escaped(fact)}</span>' for fact in facts if fact)
        buttons = ''.join(
            f'<button type="button" class="{word}" data-key="{escaped(row.key)}" data-said="{word}" '
            f'aria-pressed="{str(said is right).lower()}" aria-label="{label} match {match.rank}">{sign}</button>'
            for word, right, label, sign in (
                ('right', True, 'Right:', '✓ Right'),
                ('wrong', False, 'Wrong:', '✗ Wrong'),
            )
        )
        cards.append(
            f'<li class="match" title="{escaped(name)}">{image}'
            f'<div class="score"><b>{match.rank}</b><span class="cosine">{match.similarity:.3f}</span></div>'
            f'<div class="rate">{false_matches(match.similarity, thresholds)}</div>'
            f'<div class="facts">{lines}</div><div class="buttons">{buttons}'
            f'<button type="button" class="more" data-search="{escaped(row.key)}" '
            f'aria-label="Search with match {match.rank}">Search</button></div></li>'
        )
    what = 'tracks' if results.by == 'track' else 'images'
    head = f'<h2>{len(results.matches)} most similar {what} of {results.searched:,} images</h2>'
    timeline = timeline_html(results) if results.by == 'track' else ''
    rates = f'<p class="rates">{escaped(explain_rates(thresholds, results.searched))}</p>'
    return f'{head}<ol class="matches">{"".join(cards)}</ol>{timeline}{rates}'


def timeline_html(results: Results) -> str:
    """When the images of the tracks were taken: a line for each track, a mark for each image."""
    lines = [(match.rank, match.row.track, match.row.camera) for match in results.matches if match.row.track]
    times = [row.time for rows in results.tracks.values() for row in rows if row.time is not None]
    if not lines or not times:
        return '<p class="hint">No track of these matches has times, so there is no time line.</p>'
    first, last = min(times), max(times)
    parts = []
    y = _LINE / 2
    for rank, track, camera in lines:
        taken = [row.time for row in results.tracks.get(track, ()) if row.time is not None]
        label = f'{rank}  {track}' + (f', camera {camera}' if camera else '')
        marks = ''.join(f'<circle cx="{_place(time, first, last):.2f}%" cy="{y:g}" r="4"/>' for time in taken)
        span = [_place(time, first, last) for time in (min(taken, default=first), max(taken, default=first))]
        bar = f'<line x1="{span[0]:.2f}%" x2="{span[1]:.2f}%" y1="{y:g}" y2="{y:g}"/>' if taken else ''
        said = f'{label}: {len(taken)} images' + (
            f', {show_time(min(taken))} to {show_time(max(taken))}' if taken else ''
        )
        parts.append(
            f'<div class="lane"><span class="label" title="{escaped(said)}">{escaped(label)}</span>'
            f'<svg height="{_LINE}" role="img" aria-label="{escaped(said)}"><title>{escaped(said)}</title>'
            f'{bar}{marks}</svg></div>'
        )
    axis = f'<div class="axis"><span>{_short_time(first)}</span><span>{_short_time(last)}</span></div>'
    return (
        f'<section class="timeline" aria-label="Time line of the tracks"><h3>When</h3>{"".join(parts)}{axis}</section>'
    )


def _place(time: int, first: int, last: int) -> float:
    """Percent of the width, with room for a mark at each end."""
    return 3 + 94 * (time - first) / max(1, last - first) if last > first else 50.0


def _short_time(time: int | None) -> str:
    return show_time(time)[:19].replace('T', ' ') if time is not None else ''
