"""Who may see the page, what may be uploaded, and what a browser may load."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ['LOOPBACK', 'Limits', 'check_access', 'read_password', 'security_headers']

LOOPBACK = ('127.0.0.1', 'localhost')
PASSWORD_VARIABLE = 'TIMM_DPA_PASSWORD'
_SHORTEST = 8  # characters of a password
#: a page that loads nothing from elsewhere, and that no other page can frame; templates of Gradio are compiled: eval
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; "
    "worker-src 'self' blob:; object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
)


@dataclass(frozen=True)
class Limits:
    """What may be uploaded, and how much is shown.

    Attributes:
        upload_bytes: largest file.
        pixels: largest width times height of an image or a frame.
        video_frames: a video is read up to this frame.
        top: most matches of a search.

    Raises:
        ValueError: one of them is below 1.
    """

    upload_bytes: int = 50_000_000
    pixels: int = 50_000_000
    video_frames: int = 3000
    top: int = 60

    def __post_init__(self) -> None:
        for name in ('upload_bytes', 'pixels', 'video_frames', 'top'):
            if getattr(self, name) < 1:
                raise ValueError(f'{name} must be at least 1, not {getattr(self, name)}')


def read_password(file: str | None) -> str | None:
    """The password in the first line of a file, else in the variable `TIMM_DPA_PASSWORD`; None where there is none.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a password that is shorter than 8 characters.
    """
    if file is not None:
        if not Path(file).is_file():
            raise FileNotFoundError(f'{file}: no such file with a password')
        lines = Path(file).read_text(encoding='utf-8').splitlines()
        password, where = (lines[0].strip() if lines else ''), file
    else:
        password, where = os.environ.get(PASSWORD_VARIABLE, ''), PASSWORD_VARIABLE
        if not password:
            return None
    if len(password) < _SHORTEST:
        raise ValueError(f'{where}: the password must have at least {_SHORTEST} characters')
    return password


def check_access(host: str, password: str | None) -> None:
    """Raise ValueError for a host that others can reach, if there is no password."""
    if host not in LOOPBACK and not password:
        raise ValueError(
            f'--host {host}: others can reach it, so it needs a password: give --password-file FILE or set '
            f'{PASSWORD_VARIABLE}; without one the page listens on 127.0.0.1 only'
        )


def security_headers(app: Callable[..., Any]) -> Callable[..., Any]:
    """ASGI middleware: each answer says that the page loads nothing from elsewhere."""
    headers = [
        (b'content-security-policy', _POLICY.encode()),
        (b'x-content-type-options', b'nosniff'),
        (b'referrer-policy', b'no-referrer'),
    ]

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        async def send_more(message: Any) -> None:
            if message['type'] == 'http.response.start':
                message = {**message, 'headers': [*message.get('headers', ()), *headers]}
            await send(message)

        await app(scope, receive, send_more if scope['type'] == 'http' else send)

    return answer
