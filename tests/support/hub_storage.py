"""What a Hugging Face Hub keeps: accounts, and repositories with their commits, references and large files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from functools import cached_property

#: stored outside git whatever their size
LARGE_SUFFIXES = ('.bin', '.ckpt', '.h5', '.npy', '.npz', '.onnx', '.pt', '.pt2', '.pth', '.safetensors', '.zip')
LARGE_SIZE = 10 * 1024 * 1024
#: the first file of a repository that is created
GIT_ATTRIBUTES = ''.join(f'*{suffix} filter=lfs diff=lfs merge=lfs -text\n' for suffix in LARGE_SUFFIXES).encode()


class HubError(Exception):
    """An answer that is no success; clients tell some of them apart by `code`, others by `status`."""

    def __init__(self, status: int, message: str, code: str = '', commit: str = '') -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.commit = status, message, code, commit


@dataclass(frozen=True)
class Account:
    """Whom a token stands for; a token without `write` may only read."""

    name: str
    orgs: tuple[str, ...] = ()
    write: bool = True

    def belongs(self, namespace: str) -> bool:
        return namespace in (self.name, *self.orgs)


def is_large(path: str, size: int, sample: bytes) -> bool:
    return size > 0 and (path.endswith(LARGE_SUFFIXES) or size >= LARGE_SIZE or b'\0' in sample)


@dataclass(frozen=True)
class File:
    """One version of a file; a large one is a pointer in git."""

    content: bytes
    large: bool

    @classmethod
    def at(cls, path: str, content: bytes) -> File:
        return cls(content, is_large(path, len(content), content[:512]))

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @cached_property
    def in_git(self) -> bytes:
        if not self.large:
            return self.content
        lines = ('version https://git-lfs.github.com/spec/v1', f'oid sha256:{self.sha256}', f'size {len(self.content)}')
        return '\n'.join((*lines, '')).encode()

    @cached_property
    def blob_id(self) -> str:
        return hashlib.sha1(b'blob %d\0' % len(self.in_git) + self.in_git).hexdigest()

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.blob_id


@dataclass(frozen=True)
class Commit:
    """All files of the repository at one moment."""

    id: str
    files: Mapping[str, File]
    title: str = ''
    description: str = ''
    author: str = ''
    parent: Commit | None = None
    date: str = field(default_factory=lambda: datetime.now(timezone.utc).strftime('%Y-%m-%dT%H:%M:%S.000Z'))

    def below(self, path: str) -> dict[str, str]:
        """Ids of the file `path`, or of the files in that folder."""
        return {p: f.blob_id for p, f in self.files.items() if p == path or p.startswith(path + '/')}

    def last_change(self, path: str) -> Commit:
        commit = self
        while commit.parent and commit.parent.below(path) == self.below(path):
            commit = commit.parent
        return commit


class Repository:
    """A model repository; `private` and `gated` may be set at any time, `readers` are names of users let in."""

    def __init__(self, name: str, private: bool = False) -> None:
        self.name, self.private, self.gated = name, private, False
        self.namespace = name.partition('/')[0]
        self.readers: set[str] = set()
        self.commits: dict[str, Commit] = {}
        self.branches: dict[str, Commit] = {}
        self.tags: dict[str, Commit] = {}
        self.pulls: dict[str, Commit] = {}
        #: uploaded large files by sha256, whether a commit names them or not
        self.objects: dict[str, bytes] = {}

    def find(self, revision: str) -> Commit:
        """The commit of a branch, a tag, a pull request (`refs/pr/1`) or a full id."""
        for known in (self.branches, self.tags, self.pulls, self.commits):
            if revision in known:
                return known[revision]
        raise HubError(404, f'Invalid rev id: {revision}', 'RevisionNotFound')

    def history(self, revision: str = 'main') -> list[Commit]:
        """The newest first."""
        commits: list[Commit] = []
        commit: Commit | None = self.find(revision)
        while commit:
            commits.append(commit)
            commit = commit.parent
        return commits

    def contents(self, revision: str = 'main') -> dict[str, bytes]:
        return {path: file.content for path, file in self.find(revision).files.items()}

    def record(self, commit: Commit) -> Commit:
        self.commits[commit.id] = commit
        self.objects.update({file.sha256: file.content for file in commit.files.values() if file.large})
        return commit

    def write(self, files: Mapping[str, bytes], title: str = 'Write', branch: str = 'main') -> Commit:
        """What somebody else might push: a commit of `files` on top of the branch."""
        parent = self.branches.get(branch)
        changed = {path: File.at(path, content) for path, content in files.items()}
        self.branches[branch] = self.extend(parent, changed, title=title)
        return self.branches[branch]

    def extend(
        self, parent: Commit | None, changed: Mapping[str, File], removed: Iterable[str] = (), **about: str
    ) -> Commit:
        """A recorded commit after `parent`; moving a branch to it is the caller's."""
        kept = {path: file for path, file in (parent.files if parent else {}).items() if path not in set(removed)}
        unique = f'{self.name} {len(self.commits)}'.encode()
        return self.record(Commit(hashlib.sha1(unique).hexdigest(), {**kept, **changed}, parent=parent, **about))

    def check_readable(self, account: Account | None, files: bool = False) -> None:
        """Everybody may see that a gated repository is there, and only `readers` its `files`."""
        known = account is not None and (account.belongs(self.namespace) or account.name in self.readers)
        if known:
            return
        if self.private and account:
            raise HubError(404, 'Repository not found', 'RepoNotFound')
        if self.private:
            raise unauthorized()
        if self.gated and files:
            status = 403 if account else 401
            raise HubError(status, f'Access to model {self.name} is restricted.', 'GatedRepo')

    def check_writable(self, account: Account | None) -> None:
        if account is None:
            raise unauthorized()
        check_namespace(account, self.namespace)


def check_namespace(account: Account, namespace: str) -> None:
    if not (account.write and account.belongs(namespace)):
        raise HubError(403, f'You have no write access to the namespace {namespace}')


def unauthorized() -> HubError:
    # huggingface.co sends no code here: the client takes a 401 of its repositories for "not found", on https only
    return HubError(401, 'Invalid username or password.', 'RepoNotFound')
