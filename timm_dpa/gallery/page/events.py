"""What happens on the page: components in, components out. What it does is in `handlers`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..store import StoreError
from .feedback import Feedback
from .handlers import Page, Query, Results, Wanted
from .render import message_html, picker_html, query_html, results_html
from .scenes import Scene, open_scene, pick_frame
from .toolkit import FOLDER, gr

__all__ = ['Events', 'Session']

#: what is said on the page; anything else is a fault of the program, and shows in its log
_FAULTS = (ValueError, OSError, StoreError, ImportError, MemoryError)


@dataclass
class Session:
    """What one browser tab is about; it stays on the server."""

    scene: Scene | None = None
    box: Any = None
    query: Query | None = None
    results: Results | None = None
    feedback: Feedback = field(default_factory=Feedback)


class Events:
    """The functions that Gradio calls. The last output of each but `draw` is a message.

    Args:
        page: what they work on.
    """

    def __init__(self, page: Page) -> None:
        self.page = page

    def guarded(self, handler: Callable[..., Any], outputs: int) -> Callable[..., Any]:
        """`handler`, whose errors become the message."""

        def run(*values: Any) -> Any:
            return _safe(outputs, handler, *values)

        return run

    def upload(self, path: str | None, session: Session | None) -> tuple[Any, ...]:
        session = self._session(session)
        if path is None:
            return session, gr.skip(), gr.skip(), ''
        scene = open_scene(path, self.page.limits)
        session.scene, session.box = scene, None
        frames = gr.Slider(minimum=1, maximum=max(2, scene.frames), value=1, visible=scene.frames > 1)
        note = f'{scene.name}: draw a box around one vehicle, or search with the whole picture.'
        return session, picker_html(scene), frames, message_html(note)

    def pick(self, number: float, session: Session | None) -> tuple[Any, ...]:
        session = self._session(session)
        if session.scene is None or not session.scene.video:
            return session, gr.skip(), ''
        session.scene, session.box = pick_frame(session.scene, int(number), self.page.limits), None
        return session, picker_html(session.scene), ''

    def draw(self, session: Session | None, event: gr.EventData) -> Session:
        session = self._session(session)
        session.box = event._data.get('box')
        return session

    def search(self, session: Session | None, *settings: Any) -> tuple[Any, ...]:
        """Search with what was uploaded, or again with what was searched for before."""
        session = self._session(session)
        if session.scene is not None or session.query is None:
            session.query = self.page.query_scene(session.scene, session.box)
        return self.again(session, *settings)

    def again(self, session: Session | None, *settings: Any) -> tuple[Any, ...]:
        """The same query with other filters."""
        session = self._session(session)
        cameras, after, before, by, top, heat = settings
        wanted = Wanted(tuple(cameras or ()), after or '', before or '', by, int(top))
        session.results = self.page.search(session.query, wanted)
        marked = self.page.marked(session.feedback, session.query)
        return (
            session,
            query_html(session.query, self.page.heat_map(session.query) if heat else None),
            results_html(session.results, self.page.thresholds, marked),
            _count(session.feedback),
            '',
        )

    def more(
        self,
        session: Session | None,
        cameras: Any,
        after: Any,
        before: Any,
        by: Any,
        top: Any,
        heat: Any,
        event: gr.EventData,
    ) -> tuple[Any, ...]:
        """Search with a match."""
        return _safe(5, self._more, session, str(event._data.get('key')), (cameras, after, before, by, top, heat))

    def _more(self, session: Session | None, key: str, settings: tuple[Any, ...]) -> tuple[Any, ...]:
        session = self._session(session)
        session.query, session.scene, session.box = self.page.query_row(key), None, None
        return self.again(session, *settings)

    def heat(self, session: Session | None, heat: bool) -> tuple[Any, ...]:
        session = self._session(session)
        return query_html(session.query, self.page.heat_map(session.query) if heat else None), ''

    def first(self, session: Session | None, *settings: Any) -> tuple[Any, ...]:
        """What a new visitor sees: a search with an image of the gallery."""
        session = self._session(session)
        session.query = self.page.first_query()
        if session.query is None:
            note = 'The gallery is empty; timm-dpa embed --gallery fills it.'
            return session, '', '', '', message_html(note)
        return self.again(session, *settings)

    def mark(self, session: Session | None, event: gr.EventData) -> tuple[Any, ...]:
        return _safe(3, self._mark, session, str(event._data.get('key')), str(event._data.get('said')))

    def _mark(self, session: Session | None, key: str, said: str) -> tuple[Any, ...]:
        session = self._session(session)
        self.page.mark(session.feedback, session.query, session.results, key, said)
        return session, _count(session.feedback), ''

    def export(self, session: Session | None) -> tuple[Any, ...]:
        session = self._session(session)
        path, done = self.page.export(session.feedback, Path(FOLDER))
        parts = [f'{_number(done.images, "image")} of {_number(done.vehicles, "vehicle")} in feedback.zip']
        if done.missing:
            parts.append(f'{_number(done.missing, "image")} left out, being gone')
        if done.contradicting:
            parts.append(f'{_number(done.contradicting, "vehicle")} left out, because marks contradict each other')
        text = '; '.join(parts) + '. Unpack it, and give feedback.csv to timm-dpa train --data.'
        return gr.DownloadButton(value=str(path), visible=True), message_html(text)

    def _session(self, session: Session | None) -> Session:
        if session is None:
            session = Session()
            if self.page.feedback is not None:
                session.feedback = self.page.feedback
        return session


def _safe(outputs: int, handler: Callable[..., Any], *values: Any) -> Any:
    try:
        return handler(*values)
    except _FAULTS as error:
        text = ' '.join(str(error).split()) or type(error).__name__
        return (*(gr.skip() for _ in range(outputs - 1)), message_html(text, error=True))


def _number(count: int, what: str) -> str:
    return f'{count} {what}' + ('s' if count != 1 else '')


def _count(feedback: Feedback) -> str:
    marks = feedback.marks
    right = sum(mark.right for mark in marks)
    return f'<p class="hint" role="status">Marked: {right} right, {len(marks) - right} wrong.</p>' if marks else ''
