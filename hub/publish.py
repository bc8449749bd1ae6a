"""Upload of a model's folder, or of the Space, to the Hub.

What is there already is not sent again, and a commit appears as a whole.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import RepositoryNotFoundError

from timm_dpa import __version__
from timm_dpa.files import atomic_folder
from timm_dpa.weights.fetch import MODELS
from timm_dpa.weights.hub_errors import explain_upload
from timm_dpa.weights.manifest import MANIFEST, Release, file_sha256, read_manifest, record_release

from .folder import build_folder, check_repo_id, is_finished, reuse_folder
from .release import describe_release

__all__ = ['SPACE', 'PublishError', 'Published', 'prepare', 'publish', 'publish_all', 'publish_space']

#: the folder of the Space that shows the page
SPACE = Path(__file__).parent / 'space'


class PublishError(RuntimeError):
    """The upload failed. The Hub keeps what was sent, and the same call resumes from there."""


@dataclass(frozen=True)
class Published:
    """The result of an upload.

    Attributes:
        repo_id: `org/name`.
        revision: the commit, 40 hexadecimal digits; of the pull request where there is one.
        url: of the commit or pull request.
        changed: whether the upload changed anything.
    """

    repo_id: str
    revision: str
    url: str
    changed: bool


def prepare(source: str | os.PathLike[str], out: Path, repo_id: str, **facts: Any) -> None:
    """Write the folder that `publish` uploads: a finished one as it is, else as `build_folder` makes it.

    Args:
        source: folder of a run, of a model, or one that this function has written.
        out: a new or an empty folder.
        facts: see `build_folder`; a finished folder takes none.
    """
    out = Path(out)
    if not is_finished(Path(source)):
        build_folder(source, out, repo_id, **facts)
        return
    given = [name for name, value in facts.items() if value]
    if given:
        raise ValueError(
            f'{source}: is finished, and {", ".join(given)} would not change its card; edit its release.json'
        )
    reuse_folder(Path(source), out, repo_id)


def publish(
    source: str | os.PathLike[str],
    repo_id: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    tag: str | None = None,
    default: bool = False,
    manifest: Path = MANIFEST,
    **facts: Any,
) -> Published:
    """Upload a model to `https://<Hub>/<repo_id>`, which is created if it does not exist.

    Args:
        source: see `prepare`.
        repo_id: `org/name`.
        private: create a private repository.
        create_pr: open a pull request instead of changing the repository.
        tag: note it in the manifest as `<architecture>.<tag>`, so that timm knows it by this name.
        default: see `record_release`; for `tag`.
        manifest: the manifest that notes `tag`.
        facts: see `build_folder`.

    Raises:
        FileNotFoundError, ValueError: see `build_folder`; a tag that the manifest cannot take.
        PublishError: no login, no right to write to the repository, or a lost connection.
    """
    check_repo_id(repo_id)
    if tag is not None and create_pr:
        raise ValueError('tag: a pull request has no revision to note yet; note it when it is merged')
    _require_login()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / 'model'
        prepare(source, folder, repo_id, **facts)
        release = None if tag is None else describe_release(folder, tag, repo_id)
        published = _upload(folder, repo_id, private, create_pr)
    if release is not None:
        record_release(replace(release, revision=published.revision), manifest, default)
    return published


def publish_all(
    org: str,
    *,
    private: bool = False,
    create_pr: bool = False,
    manifest: Path = MANIFEST,
    models: Path = MODELS,
    dry_run: Path | None = None,
) -> list[Published]:
    """Upload all models of the manifest to an organization, and note there where they are.

    Args:
        org: organization, or user, on the Hub.
        models: the folder of their folders, `<architecture>.<tag>/`.
        dry_run: write the folders here instead, by name.

    Raises:
        FileNotFoundError: the folder of an entry is missing; nothing was uploaded.
        ValueError: an empty manifest, or weights that are not those of the manifest; nothing was uploaded.
        PublishError: see `publish`.
    """
    releases = [release for release in read_manifest(manifest).values() if not release.weights_of]
    if not releases:
        raise ValueError(f'{manifest}: no weights are released yet; timm-dpa publish --package releases a run')
    for release in releases:  # fail fast
        _check_folder(models / release.name, release)
    done = []
    for release in releases:
        name = release.repo.rpartition('/')[2]
        if dry_run is not None:
            prepare(models / release.name, dry_run / name, f'{org}/{name}')
            continue
        published = publish(models / release.name, f'{org}/{name}', private=private, create_pr=create_pr)
        if not create_pr:
            record_release(replace(release, repo=published.repo_id, revision=published.revision), manifest)
        done.append(published)
    return done


def publish_space(
    repo_id: str, *, private: bool = False, create_pr: bool = False, dry_run: Path | None = None
) -> Published | None:
    """Upload the page as the Space `repo_id`, which is created if it does not exist.

    Args:
        repo_id: `org/name`.
        private, create_pr: see `publish`.
        dry_run: a new or empty folder; write the files here instead, and return None.

    Raises:
        FileExistsError: `dry_run` is there already.
        ValueError: a wrong name, or a public Space where `private` is asked for.
        PublishError: see `publish`.
    """
    check_repo_id(repo_id)
    if dry_run is not None:
        with atomic_folder(dry_run) as folder:
            shutil.copytree(SPACE, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns('__pycache__'))
        return None
    _require_login()
    return _upload(SPACE, repo_id, private, create_pr, 'space')


def _require_login() -> None:
    if not get_token():
        raise PublishError('no login: run hf auth login, or set HF_TOKEN to a token that may write')


def _check_folder(folder: Path, release: Release) -> None:
    if not is_finished(folder):
        raise FileNotFoundError(f'{folder}: no finished model here; timm-dpa publish --package writes one')
    found = file_sha256(folder / 'model.safetensors')
    if found != release.sha256:
        raise ValueError(
            f'{folder}: SHA-256 of its weights is {found[:12]}..., in the manifest {release.sha256[:12]}...'
        )


def _upload(folder: Path, repo_id: str, private: bool, create_pr: bool, kind: str = 'model') -> Published:
    api = HfApi(library_name='timm-dpa', library_version=__version__)
    try:
        before = _head(api, repo_id, kind)
        if before is None:
            sdk: dict[str, Any] = {'space_sdk': 'gradio'} if kind == 'space' else {}
            api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True, **sdk)
            before = _head(api, repo_id, kind)
        elif private and not before.private:
            raise ValueError(f'{repo_id}: exists already and is public; private is for a new repository')
        commit = api.upload_folder(
            repo_id=repo_id,
            repo_type=kind,
            folder_path=folder,
            commit_message=f'{"Page" if kind == "space" else "Model"} by timm-dpa {__version__}',
            create_pr=create_pr or None,
            ignore_patterns=['__pycache__/*'],
        )
    except ValueError:
        raise
    except Exception as error:  # of the Hub, and of its transport
        raise PublishError(explain_upload(error, repo_id)) from error
    changed = before is None or commit.oid != before.sha
    return Published(repo_id, commit.oid, commit.pr_url or commit.commit_url, changed)


def _head(api: HfApi, repo_id: str, kind: str) -> Any:
    try:
        return api.repo_info(repo_id, repo_type=kind)
    except RepositoryNotFoundError:
        return None
