"""What to pass instead of a thing that holds images and is none: for error messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ['advice_for']

#: names of columns that tend to hold images or their paths, the likely ones first
_COLUMNS = ('image', 'img', 'path', 'file', 'filename', 'file_name', 'image_path', 'images', 'pixel_values')


def advice_for(thing: Any, *, alone: bool = True) -> str:
    """`'; pass ...'` for what other packages call a set of images or a detection, empty for what says nothing.

    Nothing is imported: things are known by what they can do.

    Args:
        thing: what was given.
        alone: it is all that was given, not one of several things.
    """
    if hasattr(thing, 'xyxy') or (hasattr(thing, 'boxes') and hasattr(thing, 'orig_img')):
        boxes = 'results.boxes' if hasattr(thing, 'boxes') else 'detections'
        return f"; boxes need their frame: extractor.embed_boxes(frame, {boxes}, color='bgr')"
    if hasattr(thing, 'iloc') and hasattr(thing, 'columns'):
        return f'; pass its column of images or paths: extractor(df[{_column(thing.columns)!r}])'
    if hasattr(thing, 'column_names') and hasattr(thing, 'features'):
        return f'; pass its column of images: extractor(dataset[{_column(thing.column_names)!r}])'
    if isinstance(thing, dict):
        item = f'item[{_column(thing)!r}]'
        return f'; pass its images: {item}' + ('' if alone else f', as in ({item} for item in items)')
    if isinstance(thing, (tuple, list)) and not alone:
        kinds = ', '.join(type(part).__name__ for part in thing[:3]) + (', ...' if len(thing) > 3 else '')
        return f' of {kinds or "nothing"}; pass one list of images, or the images alone: (image for image, *_ in items)'
    return ''


def _column(names: Iterable[Any]) -> str:
    """The likely column of images."""
    known = {str(name).lower(): str(name) for name in names}
    return next((known[name] for name in _COLUMNS if name in known), 'image')
