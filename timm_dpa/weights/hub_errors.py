"""Errors of the Hugging Face Hub, of its client and of its transport, each in one line that says what to do."""

from __future__ import annotations

import re

from huggingface_hub import constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

__all__ = ['explain', 'explain_upload']


def explain(error: BaseException, source: str) -> str:
    """Describe an error of a download in one line that says what to do.

    Args:
        error: what `huggingface_hub`, or timm through it, raised.
        source: what was requested, such as `org/name@revision`.
    """
    if isinstance(error, LocalEntryNotFoundError) and isinstance(error.__cause__, HfHubHTTPError):
        error = error.__cause__  # the Hub did answer
    source = source.removeprefix('hf-hub:').removeprefix('hf_hub:')
    repo, _, revision = source.partition('@')
    response = getattr(error, 'response', None)
    status = getattr(response, 'status_code', None)
    if isinstance(error, GatedRepoError):
        return f'{repo}: access must be requested at {constants.ENDPOINT}/{repo}, then log in (hf auth login)'
    if isinstance(error, RepositoryNotFoundError) and status == 401:
        return (
            f'{repo}: no such repository on {constants.ENDPOINT}, or a private one; '
            'for a private one log in (hf auth login) or set HF_TOKEN'
        )
    if isinstance(error, RepositoryNotFoundError):
        return f'{repo}: no such repository on {constants.ENDPOINT} that you may read; check the name'
    if isinstance(error, RevisionNotFoundError):
        return f'{repo}: has no revision {revision or "main"}'
    if isinstance(error, OfflineModeIsEnabled) or (
        isinstance(error, LocalEntryNotFoundError) and constants.HF_HUB_OFFLINE
    ):
        return (
            f'{source}: not in the cache ({constants.HF_HUB_CACHE}), and HF_HUB_OFFLINE is set; '
            'unset it once to download'
        )
    if isinstance(error, LocalEntryNotFoundError):
        return (
            f'{source}: no connection to {constants.ENDPOINT}, and not in the cache ({constants.HF_HUB_CACHE}); '
            'connect and try again, or use a folder (local-dir:FOLDER)'
        )
    if isinstance(error, EntryNotFoundError):
        missing = re.search(r'/resolve/[^/]+/([^\s?]*[^\s?.])', str(error))
        return f'{repo}: holds no {missing.group(1) if missing else "such file"}; is it the repository of a timm model?'
    if isinstance(error, HfHubHTTPError):
        reason = str(error).strip().splitlines()[0]
        return f'{source}: the Hub answered with an error ({reason}); try again'
    reason = ' '.join(str(error).split()) or type(error).__name__
    return f'{source}: the download failed ({reason}); try again, the download resumes where it stopped'


def explain_upload(error: BaseException, repo_id: str) -> str:
    """Describe an error of an upload to `repo_id` in one line that says what to do."""
    if isinstance(error.__cause__, HfHubHTTPError):  # of one of the files
        error = error.__cause__
    status = getattr(getattr(error, 'response', None), 'status_code', None)
    if status == 401:
        return f'{repo_id}: the Hub does not know this token; hf auth login, or set HF_TOKEN to one that may write'
    if status == 403:
        return f'{repo_id}: this token may not write there; check the organization, and that the token has write access'
    if status == 404:
        return f'{repo_id}: no such organization or repository on {constants.ENDPOINT} that this token may write to'
    if isinstance(error, OfflineModeIsEnabled):
        return f'{repo_id}: HF_HUB_OFFLINE is set; unset it to publish'
    reason = ' '.join(str(error).split()) or type(error).__name__
    if isinstance(error, HfHubHTTPError):
        return f'{repo_id}: the Hub refused the upload ({reason})'
    return f'{repo_id}: the connection to {constants.ENDPOINT} was lost ({reason}); the same command resumes from there'
