"""A Hugging Face Hub on loopback for the real client: downloads, uploads, and what can go wrong with them."""

from __future__ import annotations

import math
import socket
import socketserver
import struct
import sys
import threading
from dataclasses import dataclass
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler

from .hub_api import Answer, HubApi, Request
from .hub_storage import HubError

ALWAYS = math.inf


@dataclass
class Fault:
    """Something that goes wrong with the next `times` requests whose line in `LoopbackHub.requests` fits `request`.

    `request` may have wildcards: `'GET somebody/small * model.safetensors'`, `'PUT /storage/*'`. A range that is asked
    for is no part of what has to fit.
    """

    request: str
    times: float = 1


@dataclass
class Refuse(Fault):
    """Nothing is done, and the answer is an error."""

    status: int = 503
    message: str = 'Service Unavailable'


@dataclass
class CutUpload(Fault):
    """The connection ends when `after` bytes of the request's body are read; nothing is done."""

    after: int = 0


@dataclass
class CutAnswer(Fault):
    """What is asked is done, but the connection ends after as many bytes of the body, or is reset there."""

    after: int = 0
    reset: bool = False


@dataclass
class Corrupt(Fault):
    """One byte of the body is another one: the last, unless `at` says which."""

    at: int = -1


@dataclass
class Truncate(Fault):
    """The body ends after `to` bytes, and its length is told accordingly; X-Linked-Size stays."""

    to: int = 0


class LoopbackHub(HubApi):
    """A Hub on 127.0.0.1; see HubApi for the arguments.

    `requests` lists what was asked: `'GET org/name main file'`, with ` bytes=100-` after it where a range was asked
    for; other than downloads by their path, `'POST /api/repos/create'`. `faults` may be appended to at any time; the
    first that fits a request, and has not acted as often as it should, acts.
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self.lock = threading.Lock()
        self._servers: list[_Server] = []
        # the storage is another host only where downloads are redirected
        self._ports = [0, 0] if self.redirect else [0]

    def __enter__(self) -> LoopbackHub:
        self.start()
        return self

    def __exit__(self, *exc_info) -> None:
        self.stop()

    def start(self) -> None:
        """Listen, after `stop()` at the address of before."""
        self._servers = [_Server(self, port) for port in self._ports]
        self._ports = [server.server_address[1] for server in self._servers]
        self.url = self.storage_url = f'http://127.0.0.1:{self._ports[0]}'
        if self.redirect:  # clients compare hosts by name, some of them without the port
            self.storage_url = f'http://localhost:{self._ports[1]}'
        for server in self._servers:
            threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and drop those that are open."""
        for server in self._servers:
            server.shutdown()
            server.server_close()
            server.drop_connections()
        self._servers = []

    @property
    def environment(self) -> dict[str, str]:
        """For the client, whose HF_HOME, and HF_TOKEN to write, the caller adds; must be set before it is imported."""
        return {
            'HF_ENDPOINT': self.url,
            'HF_HUB_DISABLE_XET': '1',
            # an empty token: one of the user's own would be sent to the server
            'HF_TOKEN': '',
            'HF_HUB_OFFLINE': '0',
            # the HTTP library would ask the user's proxy for loopback, too
            'no_proxy': '127.0.0.1,localhost',
        }

    def note(self, request: Request) -> Fault | None:
        """Log the request, and tell what is to go wrong with it."""
        # asked for at any moment by a client whose HF_HOME is new
        if request.path == '/api/agent-harnesses':
            return None
        with self.lock:
            wanted = request.headers.get('Range')
            self.requests.append(f'{request.line} {wanted}' if wanted else request.line)
            for fault in self.faults:
                if fault.times > 0 and fnmatchcase(request.line, fault.request):
                    fault.times -= 1
                    return fault
        return None


class _Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Not http.server's, which looks up the host's name."""

    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, hub: LoopbackHub, port: int) -> None:
        self.hub = hub
        self._connections: set[socket.socket] = set()
        super().__init__(('127.0.0.1', port), _Handler)

    def process_request(self, request, client_address) -> None:
        with self.hub.lock:
            self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request) -> None:
        with self.hub.lock:
            self._connections.discard(request)
        super().shutdown_request(request)

    def drop_connections(self) -> None:
        with self.hub.lock:
            for connection in self._connections:
                try:
                    connection.shutdown(socket.SHUT_RDWR)
                except OSError:  # the other side was quicker
                    continue

    def handle_error(self, request, client_address) -> None:
        """Silent about clients that are gone, and about connections that a fault has closed."""
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = 'HTTP/1.1'
    # head and body are two writes, of which the second would wait for the client's delayed acknowledgement
    disable_nagle_algorithm = True

    def _handle(self) -> None:
        hub = self.server.hub
        request = Request(self.command, self.path, self.headers)
        fault = hub.note(request)
        length = int(self.headers.get('Content-Length', 0))
        if isinstance(fault, CutUpload):
            self.rfile.read(min(fault.after, length))
            self._hang_up()
            return
        request.body = self.rfile.read(length)
        if len(request.body) < length:
            raise ConnectionAbortedError
        if isinstance(fault, Refuse):
            answer = Answer.of_error(HubError(fault.status, fault.message))
        else:
            with hub.lock:
                answer = hub.answer(request)
        self._send(answer, fault)

    do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815  named by the base class

    def _send(self, answer: Answer, fault: Fault | None) -> None:
        body = answer.body
        if isinstance(fault, Corrupt) and body:
            body = bytearray(body)
            body[fault.at] ^= 0xFF
        elif isinstance(fault, Truncate):
            body = body[: fault.to]
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(body)))
        self.end_headers()
        cut = isinstance(fault, CutAnswer)
        if self.command != 'HEAD':
            self.wfile.write(body[: fault.after] if cut else body)
        if cut:
            self._hang_up(fault.reset)

    def _hang_up(self, reset: bool = False) -> None:
        if reset:
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        # the socket closes when nothing reads from it any more
        self.rfile.close()
        self.connection.close()
        self.close_connection = True

    def log_message(self, *args) -> None:
        pass
