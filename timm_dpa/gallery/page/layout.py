"""The page as Gradio components, and what starts it."""

from __future__ import annotations

from importlib import resources
from typing import Any

from .access import LOOPBACK, check_access, security_headers
from .events import Events
from .handlers import Page
from .render import escaped
from .toolkit import gr

__all__ = ['launch', 'make_blocks', 'options']

_KEPT = 3600  # seconds that uploads and exports stay on the disk


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding='utf-8')


def make_blocks(page: Page) -> gr.Blocks:
    """The page for a gallery; `launch` starts it."""
    hidden: dict[str, Any] = {'api_visibility': 'private', 'show_progress': 'minimal'}
    with gr.Blocks(
        title='Vehicle search', analytics_enabled=False, delete_cache=(600, _KEPT), fill_width=True
    ) as blocks:
        session = gr.State(None, time_to_live=24 * _KEPT)
        info = page.info
        when = f', {escaped(info["first"])} to {escaped(info["last"])}' if info['first'] else ''
        gr.HTML(
            f'<h1>Vehicle search</h1><p>{info["rows"]:,} images, {info["tracks"]:,} tracks, {len(page.cameras)} cameras'
            f'{when}. Model {escaped(info["model"])}. {escaped(page.about)}</p>',
            elem_id='head',
            js_on_load=None,
        )
        message = gr.HTML('', elem_id='message', js_on_load=None)
        with gr.Row():
            with gr.Column(scale=1, min_width=310):
                upload = gr.File(
                    label='Drop, paste or choose a picture or a video', elem_id='upload', height=140, type='filepath'
                )
                frame = gr.Slider(1, 2, 1, step=1, label='Frame of the video', visible=False, elem_id='frame')
                picker = gr.HTML('', elem_id='picker', js_on_load=_asset('picker.js'))
                search = gr.Button('Search', variant='primary', elem_id='search')
                with gr.Accordion('Filters', open=True):
                    cameras = gr.Dropdown(
                        page.cameras, value=[], multiselect=True, label='Cameras (none: all)', elem_id='cameras'
                    )
                    with gr.Row():
                        after = gr.Textbox(
                            label='From (UTC)', placeholder='2026-05-01 08:00', elem_id='after', min_width=140
                        )
                        before = gr.Textbox(
                            label='Until (UTC)', placeholder='2026-05-01 12:00', elem_id='before', min_width=140
                        )
                    by = gr.Radio(
                        [('Images', 'image'), ('Tracks, with a time line', 'track')],
                        value='image',
                        label='Show',
                        elem_id='by',
                    )
                    top = gr.Slider(1, page.limits.top, 12, step=1, label='Matches', elem_id='top')
                heat = gr.Checkbox(
                    False, label='Heat map of the query', elem_id='heat', visible=page.explain is not None
                )
            with gr.Column(scale=3, min_width=310):
                shown = gr.HTML('', elem_id='query', js_on_load=None)
                matches = gr.HTML('', elem_id='results', js_on_load=_asset('matches.js'))
                with gr.Row():
                    count = gr.HTML('', elem_id='count', js_on_load=None)
                    export = gr.Button('Export marks as training data', elem_id='export')
                saved = gr.DownloadButton('Download feedback.zip', visible=False, elem_id='download')

        events = Events(page)
        settings = [session, cameras, after, before, by, top, heat]
        found = [session, shown, matches, count, message]
        upload.upload(
            events.guarded(events.upload, 4), [upload, session], [session, picker, frame, message], **hidden
        ).then(lambda: None, None, upload, **hidden)  # ready for another file
        frame.release(events.guarded(events.pick, 3), [frame, session], [session, picker, message], **hidden)
        picker.box(events.draw, session, session, **hidden)
        search.click(events.guarded(events.search, 5), settings, found, **hidden)
        again = events.guarded(events.again, 5)
        for listen in (cameras.input, by.input, after.submit, before.submit, top.release):
            listen(again, settings, found, **hidden)
        heat.input(events.guarded(events.heat, 2), [session, heat], [shown, message], **hidden)
        matches.more(events.more, settings, found, **hidden)
        matches.mark(events.mark, session, [session, count, message], **hidden)
        export.click(events.guarded(events.export, 2), session, [saved, message], **hidden)
        blocks.load(events.guarded(events.first, 5), settings, found, **hidden)
    return blocks


def options(page: Page) -> dict[str, Any]:
    """What `gr.Blocks.launch` gets wherever the page runs: nothing of the machine or of other hosts is reachable."""
    return {
        'theme': gr.themes.Default(
            primary_hue='blue', font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace']
        ),
        'css': _asset('page.css'),
        'js': _asset('page.js'),
        'max_file_size': page.limits.upload_bytes,
        'allowed_paths': [],
        'share': False,
        'footer_links': [],
        'run_history': False,
        'enable_monitoring': False,
        'mcp_server': False,
        'ssr_mode': False,
        'pwa': False,
        'quiet': True,
    }


def launch(
    page: Page, *, host: str = '127.0.0.1', port: int = 7860, user: str = 'timm-dpa', password: str | None = None
) -> tuple[gr.Blocks, str]:
    """Start the page in threads of this process.

    Args:
        host: address to listen at; any but 127.0.0.1 and localhost needs a password.
        port: to listen at.
        user: name that goes with the password.
        password: None lets everybody in who can reach the host.

    Returns:
        The blocks, whose `close()` ends it, and the address.

    Raises:
        ValueError: see `check_access`.
        OSError: the port is in use.
    """
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    check_access(host, password)
    middleware = [Middleware(security_headers)]
    if host in LOOPBACK:  # a name of another host that leads here is an attack (DNS rebinding)
        middleware.append(Middleware(TrustedHostMiddleware, allowed_hosts=list(LOOPBACK)))
    blocks = make_blocks(page)
    blocks.queue(max_size=64, default_concurrency_limit=2, api_open=False)
    blocks.launch(
        server_name=host,
        server_port=port,
        auth=(user, password) if password else None,
        prevent_thread_lock=True,
        app_kwargs={'middleware': middleware, 'docs_url': None, 'redoc_url': None, 'openapi_url': None},
        **options(page),
    )
    return blocks, f'http://{host}:{port}'
