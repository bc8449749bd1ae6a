"""A Hugging Face Hub on loopback for the real client: downloads of public model repositories."""

import hashlib
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class LoopbackHub:
    """Serves `repos`, `{'org/name': {'main': {'config.json': b'...'}}}`: files by repository and revision.

    A revision is served by its name and by `commit(...)`. `requests` lists what was asked, `'GET org/name main file'`.
    """

    def __init__(self, repos: dict[str, dict[str, dict[str, bytes]]]) -> None:
        self.repos = repos
        self.requests: list[str] = []

    @staticmethod
    def commit(repo: str, revision: str) -> str:
        return hashlib.sha1(f'{repo}@{revision}'.encode()).hexdigest()

    def __enter__(self) -> 'LoopbackHub':
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_HEAD(self) -> None:
                status, headers, body = hub.answer(self.command, self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header('Content-Length', str(len(body)))
                self.end_headers()
                if self.command == 'GET':
                    self.wfile.write(body)

            do_GET = do_HEAD  # noqa: N815  named by the base class

            def log_message(self, *args) -> None:
                pass

        self._server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc_info) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def environment(self) -> dict[str, str]:
        """For the client, whose HF_HOME the caller adds; must be set before it is imported."""
        host, port = self._server.server_address
        # an empty token: one of the user's own would be sent to the server
        return {
            'HF_ENDPOINT': f'http://{host}:{port}',
            'HF_HUB_DISABLE_XET': '1',
            'HF_TOKEN': '',
            'HF_HUB_OFFLINE': '0',
        }

    def answer(self, method: str, path: str) -> tuple[int, dict[str, str], bytes]:
        match = re.fullmatch(r'/([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)(\?.*)?', path)
        if not match:
            return 404, {}, b''
        repo, wanted, file = match.group(1, 2, 3)
        self.requests.append(f'{method} {repo} {wanted} {file}')
        if repo not in self.repos:
            return 404, {'X-Error-Code': 'RepoNotFound'}, b''
        revisions = self.repos[repo]
        found = [revision for revision in revisions if wanted in (revision, self.commit(repo, revision))]
        if not found:
            return 404, {'X-Error-Code': 'RevisionNotFound'}, b''
        files, commit = revisions[found[0]], self.commit(repo, found[0])
        if file not in files:
            return 404, {'X-Error-Code': 'EntryNotFound', 'X-Repo-Commit': commit}, b''
        etag = hashlib.sha256(files[file]).hexdigest()
        return 200, {'X-Repo-Commit': commit, 'ETag': f'"{etag}"'}, files[file]
