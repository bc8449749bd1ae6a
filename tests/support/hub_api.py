"""What a Hugging Face Hub answers to each request, whatever carries it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

import yaml

from .hub_storage import GIT_ATTRIBUTES, Account, Commit, File, HubError, Repository, check_namespace, is_large


@dataclass
class Request:
    """One request; `line` is how logs and faults name it."""

    method: str
    target: str
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b''

    def __post_init__(self) -> None:
        self.path, _, query = self.target.partition('?')
        self.query = {name: values[-1] for name, values in parse_qs(query).items()}
        self.route, self.parts = _find_route(self.method, self.path)
        if self.route is HubApi.resolve:
            self.line = '{} {repo} {revision} {path}'.format(self.method, **self.parts)
        else:
            self.line = f'{self.method} {unquote(self.path)}'

    def json(self) -> Any:
        return json.loads(self.body or b'{}')


@dataclass
class Answer:
    """What goes back; to HEAD without the body, whose length is told all the same."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b''

    @classmethod
    def of_json(cls, content: object, status: int = 200, **headers: str) -> Answer:
        return cls(status, {'Content-Type': 'application/json', **headers}, json.dumps(content).encode())

    @classmethod
    def of_error(cls, error: HubError) -> Answer:
        # a header takes no other characters
        message = error.message.encode('ascii', 'replace').decode()
        headers = {'X-Error-Message': message, 'X-Error-Code': error.code, 'X-Repo-Commit': error.commit}
        return cls.of_json({'error': error.message}, error.status, **{k: v for k, v in headers.items() if v})

    @classmethod
    def of_bytes(cls, content: bytes, request: Request, headers: dict[str, str]) -> Answer:
        """All of `content`, or the one range that is asked for."""
        wanted = re.fullmatch(r'bytes=(\d+)-(\d*)', request.headers.get('Range', ''))
        headers = {'Content-Type': 'application/octet-stream', 'Accept-Ranges': 'bytes', **headers}
        if not wanted:
            return cls(200, headers, content)
        start, stop = int(wanted[1]), min(int(wanted[2] or len(content)) + 1, len(content))
        if start >= stop:
            return cls(416, {**headers, 'Content-Range': f'bytes */{len(content)}'})
        headers['Content-Range'] = f'bytes {start}-{stop - 1}/{len(content)}'
        return cls(206, headers, content[start:stop])


ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = []


def route(methods: str, template: str) -> Callable[[Callable[..., Answer]], Callable[..., Answer]]:
    """Registers a method of HubApi, which gets the parts in braces unquoted."""
    template = template.replace('/api/models/', '/api/(?:models|spaces)/')  # one place for both: names differ
    shapes = {'repo': '[^/]+/[^/]+', 'path': '.+'}
    pattern = re.sub(r'{(\w+)}', lambda m: f'(?P<{m[1]}>{shapes.get(m[1], "[^/]+")})', template)

    def register(answer: Callable[..., Answer]) -> Callable[..., Answer]:
        ROUTES.extend((method, re.compile(pattern), answer) for method in methods.split())
        return answer

    return register


def _find_route(method: str, path: str) -> tuple[Callable[..., Answer] | None, dict[str, str]]:
    for known, pattern, answer in ROUTES:
        match = pattern.fullmatch(path)
        if known == method and match:
            return answer, {name: unquote(value) for name, value in match.groupdict().items()}
    return None, {}


def is_true(value: str | None) -> bool:
    return (value or '').lower() in ('1', 'true')


def metadata(card: str) -> dict[str, Any]:
    """The YAML block at the head of a model card."""
    block = re.match(r'---\s*\n(.*?)\n---\s*(\n|$)', card, re.DOTALL)
    return (yaml.safe_load(block[1]) if block else None) or {}


class HubApi:
    """The repositories, by name, and the accounts, by token, that requests read and change.

    Args:
        repos: `{'org/name': {'main': {'config.json': b'...'}}}`: files by repository and revision.
        accounts: Whom the tokens that are let in stand for.
        redirect: Whether large files come from another host, as huggingface.co sends them.
    """

    url = storage_url = ''

    def __init__(
        self,
        repos: Mapping[str, Mapping[str, Mapping[str, bytes]]] | None = None,
        accounts: Mapping[str, Account] | None = None,
        redirect: bool = False,
    ) -> None:
        self.accounts = dict(accounts or {})
        self.redirect = redirect
        self.repos: dict[str, Repository] = {}
        for name, revisions in (repos or {}).items():
            repo = self.repos[name] = Repository(name)
            for revision, contents in revisions.items():
                files = {path: File.at(path, content) for path, content in contents.items()}
                commit = repo.record(Commit(self.commit(name, revision), files, title=revision))
                (repo.branches if revision == 'main' else repo.tags)[revision] = commit

    @staticmethod
    def commit(repo: str, revision: str) -> str:
        """The id that a revision given to the constructor has."""
        return hashlib.sha1(f'{repo}@{revision}'.encode()).hexdigest()

    def answer(self, request: Request) -> Answer:
        try:
            if request.route is None:
                raise HubError(404, f'Nothing is served at {request.path}')
            # an address of the storage is itself the permission
            account = None if request.path.startswith('/storage/') else self._account(request)
            return request.route(self, request, account, **request.parts)
        except HubError as error:
            return Answer.of_error(error)

    def _account(self, request: Request) -> Account | None:
        token = request.headers.get('Authorization', '').removeprefix('Bearer ')
        if token and token not in self.accounts:
            raise HubError(401, 'Invalid credentials in Authorization header')
        return self.accounts.get(token)

    def _repo(self, name: str, account: Account | None, files: bool = False) -> Repository:
        if name not in self.repos:
            raise HubError(404, 'Repository not found', 'RepoNotFound')
        self.repos[name].check_readable(account, files)
        return self.repos[name]

    def _objects(self, repo: str) -> dict[str, bytes]:
        if repo not in self.repos:
            raise HubError(404, 'No such storage')
        return self.repos[repo].objects

    def _writable(self, name: str, account: Account | None, pull: bool) -> Repository:
        """Whoever may read a repository may open a pull request."""
        repo = self._repo(name, account)
        if not (pull and account):
            repo.check_writable(account)
        return repo

    # Accounts and new repositories

    @route('GET', '/api/whoami-v2')
    def whoami(self, request: Request, account: Account | None) -> Answer:
        if account is None:
            raise HubError(401, 'Invalid username or password.')
        role = 'write' if account.write else 'read'
        orgs = [{'type': 'org', 'name': name, 'roleInOrg': role} for name in account.orgs]
        token = {'accessToken': {'displayName': 'loopback', 'role': role}}
        return Answer.of_json({'type': 'user', 'name': account.name, 'orgs': orgs, 'auth': token})

    @route('POST', '/api/repos/create')
    def create(self, request: Request, account: Account | None) -> Answer:
        if account is None:
            raise HubError(401, 'Invalid username or password.')
        wanted = request.json()
        namespace = wanted.get('organization') or account.name
        check_namespace(account, namespace)
        name = f'{namespace}/{wanted["name"]}'
        if wanted.get('type') == 'space' and wanted.get('sdk') not in ('gradio', 'docker', 'static'):
            raise HubError(400, 'sdk must be one of gradio, docker, static')
        about = {'url': f'{self.url}/{name}', 'name': name}
        if name in self.repos:
            return Answer.of_json({'error': 'You already created this model repo', **about}, 409)
        # clients before 1.0 say private, later ones visibility
        private = wanted.get('visibility') == 'private' or bool(wanted.get('private'))
        self.repos[name] = Repository(name, private)
        self.repos[name].write({'.gitattributes': GIT_ATTRIBUTES}, 'initial commit')
        return Answer.of_json(about)

    @route('POST', '/api/validate-yaml')
    def validate(self, request: Request, account: Account | None) -> Answer:
        try:
            found = metadata(request.json()['content'])
        except yaml.YAMLError as error:
            return Answer.of_json({'errors': [{'message': str(error)}], 'warnings': []}, 400)
        warnings = [] if found else [{'message': 'empty or missing yaml metadata in repo card'}]
        return Answer.of_json({'errors': [], 'warnings': warnings})

    @route('GET', '/api/agent-harnesses')
    def agents(self, request: Request, account: Account | None) -> Answer:
        return Answer.of_json({'standardEnvVars': [], 'harnesses': {}})

    # Reading

    @route('GET HEAD', '/{repo}/resolve/{revision}/{path}')
    def resolve(self, request: Request, account: Account | None, repo: str, revision: str, path: str) -> Answer:
        commit = self._repo(repo, account, files=True).find(revision)
        if path not in commit.files:
            raise HubError(404, 'Entry not found', 'EntryNotFound', commit.id)
        file = commit.files[path]
        headers = {'X-Repo-Commit': commit.id, 'ETag': f'"{file.etag}"'}
        if file.large:
            headers |= {'X-Linked-Etag': f'"{file.sha256}"', 'X-Linked-Size': str(len(file.content))}
            if self.redirect:
                return Answer(302, {**headers, 'Location': f'{self.storage_url}/storage/{repo}/{file.sha256}'})
        return Answer.of_bytes(file.content, request, headers)

    @route('GET HEAD', '/storage/{repo}/{oid}')
    def stored(self, request: Request, account: None, repo: str, oid: str) -> Answer:
        if oid not in self._objects(repo):
            raise HubError(404, 'No such object')
        return Answer.of_bytes(self._objects(repo)[oid], request, {'ETag': f'"{oid}"'})

    @route('GET', '/api/models/{repo}')
    @route('GET', '/api/models/{repo}/revision/{revision}')
    def info(self, request: Request, account: Account | None, repo: str, revision: str = 'main') -> Answer:
        found = self._repo(repo, account)
        commit = found.find(revision)
        siblings: list[dict[str, Any]] = [{'rfilename': path} for path in sorted(commit.files)]
        if is_true(request.query.get('blobs')):
            for sibling in siblings:
                entry = _entry(sibling['rfilename'], commit.files[sibling['rfilename']])
                sibling |= {'size': entry['size'], 'blobId': entry['oid']}
                if 'lfs' in entry:
                    sibling['lfs'] = {**entry['lfs'], 'sha256': entry['lfs']['oid']}
        card = metadata(commit.files['README.md'].content.decode()) if 'README.md' in commit.files else {}
        about = {
            'id': repo,
            'modelId': repo,
            'author': found.namespace,
            'sha': commit.id,
            'lastModified': commit.date,
            'private': found.private,
            'gated': 'manual' if found.gated else False,
            'disabled': False,
            'downloads': 0,
            'likes': 0,
            'siblings': siblings,
            'cardData': card,
            'tags': card.get('tags', []),
            **{name: card[name] for name in ('library_name', 'pipeline_tag') if name in card},
        }
        return Answer.of_json(about)

    @route('GET', '/api/models/{repo}/tree/{revision}')
    @route('GET', '/api/models/{repo}/tree/{revision}/{path}')
    def tree(self, request: Request, account: Account | None, repo: str, revision: str, path: str = '') -> Answer:
        commit = self._repo(repo, account).find(revision)
        start = f'{path}/' if path else ''
        below = [name for name in _entries(commit) if name.startswith(start)]
        if path and not below:
            raise HubError(404, f'{path} does not exist on "{revision}"', 'EntryNotFound', commit.id)
        if not is_true(request.query.get('recursive')):
            below = [name for name in below if '/' not in name[len(start) :]]
        return Answer.of_json(_listing(commit, below, is_true(request.query.get('expand'))))

    @route('POST', '/api/models/{repo}/paths-info/{revision}')
    def paths_info(self, request: Request, account: Account | None, repo: str, revision: str) -> Answer:
        commit = self._repo(repo, account).find(revision)
        form = parse_qs(request.body.decode())
        known = _entries(commit)
        paths = [path for path in form.get('paths', []) if path in known]
        return Answer.of_json(_listing(commit, paths, is_true(form.get('expand', [''])[0])))

    @route('GET', '/api/models/{repo}/refs')
    def refs(self, request: Request, account: Account | None, repo: str) -> Answer:
        found = self._repo(repo, account)

        def listed(known: Mapping[str, Commit], start: str) -> list[dict[str, str]]:
            return [{'name': n, 'ref': start + n, 'targetCommit': c.id} for n, c in known.items()]

        answer = {'branches': listed(found.branches, 'refs/heads/'), 'converts': [], 'tags': []}
        answer['tags'] = listed(found.tags, 'refs/tags/')
        if is_true(request.query.get('include_prs')):
            answer['pullRequests'] = listed(found.pulls, '')
        return Answer.of_json(answer)

    # Writing

    @route('POST', '/api/models/{repo}/tag/{revision}')
    def add_tag(self, request: Request, account: Account | None, repo: str, revision: str) -> Answer:
        found = self._writable(repo, account, pull=False)
        return self._add_ref(found.tags, request.json()['tag'], found.find(revision))

    @route('POST', '/api/models/{repo}/branch/{branch}')
    def add_branch(self, request: Request, account: Account | None, repo: str, branch: str) -> Answer:
        found = self._writable(repo, account, pull=False)
        return self._add_ref(found.branches, branch, found.find(request.json().get('startingPoint', 'main')))

    def _add_ref(self, known: dict[str, Commit], name: str, commit: Commit) -> Answer:
        if name in known:
            raise HubError(409, f'The reference {name} exists')
        known[name] = commit
        return Answer.of_json({})

    @route('POST', '/api/models/{repo}/preupload/{revision}')
    def preupload(self, request: Request, account: Account | None, repo: str, revision: str) -> Answer:
        found = self._writable(repo, account, is_true(request.query.get('create_pr')))
        there = found.find(revision).files
        files = []
        for wanted in request.json()['files']:
            path = wanted['path']
            large = is_large(path, wanted['size'], base64.b64decode(wanted['sample']))
            files.append({'path': path, 'uploadMode': 'lfs' if large else 'regular', 'shouldIgnore': False})
            if path in there:
                files[-1]['oid'] = there[path].etag
        return Answer.of_json({'files': files})

    @route('POST', '/{repo}.git/info/lfs/objects/batch')
    def batch(self, request: Request, account: Account | None, repo: str) -> Answer:
        wanted = request.json()
        # for a pull request the client names no branch
        found = self._writable(repo, account, pull='ref' not in wanted)
        objects = []
        for item in wanted['objects']:
            objects.append({'oid': item['oid'], 'size': item['size']})
            if item['oid'] not in found.objects:
                objects[-1]['actions'] = {
                    'upload': {'href': f'{self.storage_url}/storage/{repo}/{item["oid"]}'},
                    'verify': {'href': f'{self.url}/{repo}.git/info/lfs/objects/verify'},
                }
        return Answer.of_json({'transfer': 'basic', 'objects': objects})

    @route('PUT', '/storage/{repo}/{oid}')
    def store(self, request: Request, account: None, repo: str, oid: str) -> Answer:
        if hashlib.sha256(request.body).hexdigest() != oid:
            raise HubError(400, 'The SHA-256 of what arrived is another one')
        self._objects(repo)[oid] = request.body
        return Answer(headers={'ETag': f'"{oid}"'})

    @route('POST', '/{repo}.git/info/lfs/objects/verify')
    def verify(self, request: Request, account: Account | None, repo: str) -> Answer:
        wanted = request.json()
        stored = self._repo(repo, account).objects.get(wanted['oid'])
        if stored is None or len(stored) != wanted['size']:
            raise HubError(404, 'No such object')
        return Answer.of_json({'message': 'ok'})

    @route('POST', '/api/models/{repo}/commit/{revision}')
    def add_commit(self, request: Request, account: Account | None, repo: str, revision: str) -> Answer:
        pull = is_true(request.query.get('create_pr'))
        found = self._writable(repo, account, pull)
        if pull:
            name, known = f'refs/pr/{len(found.pulls) + 1}', found.pulls
        else:
            name, known = revision, found.pulls if revision in found.pulls else found.branches
        parent = found.find(revision)
        if revision not in (found.branches if pull else known):
            raise HubError(404, f'{revision} is no branch', 'RevisionNotFound')
        header, changed, removed = _changes(found, parent, request.body)
        expected = header.get('parentCommit', '')
        if not parent.id.startswith(expected):
            if not pull:
                raise HubError(412, 'A commit has happened since. Please refresh and try again.')
            parent = found.find(expected)
        about = {'title': header['summary'], 'description': header.get('description', ''), 'author': account.name}
        known[name] = commit = found.extend(parent, changed, removed, **about)
        answer = {'success': True, 'commitOid': commit.id, 'commitUrl': f'{self.url}/{repo}/commit/{commit.id}'}
        if pull:
            answer['pullRequestUrl'] = f'{self.url}/{repo}/discussions/{len(found.pulls)}'
        return Answer.of_json(answer)


def _entry(path: str, file: File) -> dict[str, Any]:
    entry = {'type': 'file', 'path': path, 'size': len(file.content), 'oid': file.blob_id}
    if file.large:
        entry['lfs'] = {'oid': file.sha256, 'size': len(file.content), 'pointerSize': len(file.in_git)}
    return entry


def _entries(commit: Commit) -> dict[str, dict[str, Any]]:
    """Files and folders by path."""
    entries = {}
    for path, file in sorted(commit.files.items()):
        parts = path.split('/')
        for depth in range(1, len(parts)):
            folder = '/'.join(parts[:depth])
            oid = hashlib.sha1(repr(commit.below(folder)).encode()).hexdigest()
            entries[folder] = {'type': 'directory', 'path': folder, 'size': 0, 'oid': oid}
        entries[path] = _entry(path, file)
    return entries


def _listing(commit: Commit, paths: list[str], expand: bool) -> list[dict[str, Any]]:
    entries = _entries(commit)
    for path in paths if expand else ():
        last = commit.last_change(path)
        entries[path]['lastCommit'] = {'id': last.id, 'title': last.title, 'date': last.date}
    return [entries[path] for path in paths]


def _changes(repo: Repository, parent: Commit, body: bytes) -> tuple[dict[str, Any], dict[str, File], list[str]]:
    """The header of a commit, the files that it adds or replaces, and the paths that it removes."""
    header: dict[str, Any] = {}
    changed: dict[str, File] = {}
    removed: list[str] = []
    for line in body.splitlines():
        item = json.loads(line)
        key, value = item['key'], item['value']
        if key == 'header':
            header = value
        elif key == 'file':
            content = value['content'].encode()
            content = base64.b64decode(content) if value['encoding'] == 'base64' else content
            changed[value['path']] = File(content, large=False)
        elif key == 'lfsFile':
            if value['oid'] not in repo.objects:
                raise HubError(400, f'{value["path"]} points to a large file that does not exist')
            changed[value['path']] = File(repo.objects[value['oid']], large=True)
        elif key in ('deletedFile', 'deletedFolder'):
            path = value['path'].rstrip('/')
            gone = list(parent.below(path))
            if not gone or (key == 'deletedFile') != (gone == [path]):
                raise HubError(404, f"A file with this name doesn't exist: {path}", 'EntryNotFound')
            removed += gone
        else:
            raise HubError(400, f'No such operation: {key}')
    return header, changed, removed
