"""Embeddings of the boxes in frames: what a detector found becomes one row for each box, whatever the box is like."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np

from .boxes import crop_boxes
from .images import ImageError

__all__ = ['EmbedsFrames']


class _Extractor(Protocol):
    @property
    def embedding_size(self) -> int: ...

    def stream(self, images: Any, *, on_error: str = ..., progress: bool | None = ...) -> Iterator[Any]: ...


class EmbedsFrames:
    """What `FeatureExtractor` does with frames and boxes."""

    def embed_boxes(
        self: _Extractor,
        frame: Any,
        boxes: Any,
        *,
        color: str | None = None,
        margin: float = 0.0,
        min_side: float = 2,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Embed the boxes of one frame.

        ```python
        vectors, valid = extractor.embed_boxes(frame, detections, color='bgr')
        ```

        Args:
            frame: `(H, W, 3)` uint8 array, a PIL image or the path of an image.
            boxes: in pixels: `(N, 4)` x1, y1, x2, y2; `(N, 5)` cx, cy, w, h, radians; `(N, 4, 2)` or `(N, 8)` corners;
                or an object with `xyxy`, such as `supervision.Detections`. See `parse_boxes`.
            color: order of an array's channels, `'rgb'`, or `'bgr'` for frames of OpenCV; arrays have no default.
            margin: share of the width and of the height that is added on each side of a box, 0 to 1.
            min_side: width and height in pixels that a box has to have inside the frame.

        Returns:
            vectors: `(N, D)` float32 in the order of the boxes, of Euclidean length 1 where `valid`, else zeros; with
                them, a box that is not valid has cosine 0 to everything. `(0, D)` without boxes.
            valid: `(N,)` bool. False for a box with NaN, an inverted one, and one with too little inside the frame.

        Raises:
            ValueError: other frames, boxes, colors or numbers.
            TypeError: the frame is no image, or boxes are no numbers.
            FileNotFoundError: no such image file.
            ImageError: an image file that cannot be read.
        """
        pairs = [(frame, boxes)]
        return next(_embed(self, pairs, named=False, color=color, margin=margin, min_side=min_side))

    def embed_frames(
        self: _Extractor,
        frames: Iterable[tuple[Any, Any]],
        *,
        color: str | None = None,
        margin: float = 0.0,
        min_side: float = 2,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Embed the boxes of many frames, in batches that cross frames: faster than frame by frame where boxes are few.

        ```python
        for vectors, valid in extractor.embed_frames(zip(frames, boxes), color='bgr'):
            ...
        ```

        Args:
            frames: pairs `(frame, boxes)`. They are read as far ahead as one batch of boxes (two on a GPU); a frame may
                be overwritten as soon as the next one is asked for.
            color: as in `embed_boxes`, for all frames.
            margin: as in `embed_boxes`.
            min_side: as in `embed_boxes`.

        Yields:
            What `embed_boxes` returns, for each frame in order.

        Raises:
            ValueError, TypeError, FileNotFoundError, ImageError: as in `embed_boxes`; the message counts frames from 0.
        """
        return _embed(self, frames, named=True, color=color, margin=margin, min_side=min_side)


def _embed(
    extractor: _Extractor, frames: Iterable[tuple[Any, Any]], named: bool, **options: Any
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    waiting: deque[np.ndarray] = deque()  # `valid` of the frames whose vectors are not complete
    done = np.empty((0, extractor.embedding_size), np.float32)

    def crops() -> Iterator[np.ndarray]:
        for index, pair in enumerate(frames):
            try:
                frame, boxes = _pair(pair)
                found, valid = crop_boxes(frame, boxes, **options)
            except (TypeError, ValueError, FileNotFoundError) as error:
                if not named:
                    raise
                kinds = (ImageError, FileNotFoundError, TypeError, ValueError)
                kind = next(kind for kind in kinds if isinstance(error, kind))
                raise kind(f'frame {index}: {error}') from error
            waiting.append(valid)
            yield from found

    def complete() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        nonlocal done
        while waiting and len(done) >= (count := int(waiting[0].sum())):
            valid = waiting.popleft()
            vectors = np.zeros((len(valid), done.shape[1]), np.float32)
            vectors[valid], done = done[:count], done[count:]
            yield vectors, valid

    for batch in extractor.stream(crops(), on_error='raise', progress=False):
        done = np.concatenate([done, batch.vectors])
        yield from complete()
    yield from complete()


def _pair(pair: Any) -> tuple[Any, Any]:
    if isinstance(pair, (tuple, list)) and len(pair) == 2:
        return pair[0], pair[1]
    raise TypeError(f'expected a pair (frame, boxes), not {type(pair).__name__}; zip(frames, boxes) makes pairs')
