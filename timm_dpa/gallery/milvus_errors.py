"""Milvus's errors in words for users."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from .store import StoreError

__all__ = ['is_present', 'speaking']

#: what the message of an error has in it -> what is wrong, and what to do
_REASONS = (
    (
        r'fail connecting|server unavailable|connection refused|unavailable|deadline exceeded|timeout|timed out',
        'no Milvus server answers there; check the address and the network',
    ),
    (
        r'auth|permission|unauthenticated|privilege|password',
        'the server refuses these credentials; set TIMM_DPA_MILVUS_TOKEN=user:password',
    ),
    (r'memory|quota|disk|no space', 'the server has no room left; what was acknowledged before is kept'),
    (r'collection .{0,250}(does not exist|not found)', 'the gallery is gone; another process deleted it'),
)


def is_present(error: Exception) -> bool:
    """Whether what was to be made is there already."""
    return 'already exist' in str(error).lower()


@contextmanager
def speaking(location: str) -> Iterator[None]:
    """Turn what pymilvus raises in the block into one line that begins with `location`.

    Raises:
        StoreError: the server failed, or cannot be reached.
    """
    try:
        yield
    except (StoreError, FileNotFoundError, ImportError, MemoryError):
        raise
    except Exception as error:
        if type(error).__module__.partition('.')[0] not in ('pymilvus', 'grpc'):
            raise
        text = str(getattr(error, 'message', '') or error).strip()
        reason = next((reason for pattern, reason in _REASONS if re.search(pattern, text.lower())), '')
        raise StoreError(f'{location}: {reason or "Milvus failed: " + text.splitlines()[0][:300]}') from error
