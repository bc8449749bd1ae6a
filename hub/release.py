"""Release of a model: its folder among those of the manifest, and its entry there."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from .folder import build_folder, read_architecture
from .weights import MANIFEST, MODELS, Release, describe_release, load_releases, record_release

__all__ = ['release_model']


def release_model(
    source: str | os.PathLike[str],
    tag: str,
    *,
    manifest: Path = MANIFEST,
    models: Path = MODELS,
    packaged: bool = True,
    default: bool = False,
    **facts: Any,
) -> Release:
    """Write `models/<architecture>.<tag>/` and note it in the manifest; nothing is uploaded.

    Without other arguments this is a release of the package: `timm.create_model('<architecture>.<tag>',
    pretrained=True)` loads it from there, after an installation as well. `publish_all` uploads it, to the repository
    `<architecture>.<tag>`.

    Args:
        source: folder of a run, or of a model.
        tag: small letters, digits and _.
        manifest, models: where the entry and the folder go.
        packaged: whether they are the package's own, which the card says.
        default: whether the name of the architecture alone stands for these weights from now on.
        facts: see `build_folder`.

    Returns:
        The entry.

    Raises:
        FileExistsError: a folder of this name is there.
        FileNotFoundError, ValueError: see `build_folder` and `describe_release`; nothing was written.
    """
    name = f'{read_architecture(source)}.{tag}'
    folder = models / name
    if folder.exists():
        raise FileExistsError(f'{folder} is there already; remove it first, or give another tag')
    load_releases(manifest)  # what is wrong shows before the work
    models.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix='.', dir=models) as temporary:
        making = Path(temporary) / 'model'
        build_folder(source, making, f'ORG/{name}', packaged_as=name if packaged else None, **facts)
        release = describe_release(making, tag, name)
        os.replace(making, folder)
    record_release(release, manifest, default)
    return release
