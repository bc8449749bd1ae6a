"""Embeddings of vehicle images: any images in, vectors of unit length out."""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from huggingface_hub.utils import tqdm
from timm.data import create_transform, resolve_data_config
from torch import nn

from ..forks import prepare_process
from .frames import EmbedsFrames
from .images import Decoding, ImageError, ImageItem, check_on_error, iter_images, load_rgb
from .models import (
    autocast_dtype,
    check_embedding_model,
    create_embedding_model,
    fixed_size,
    model_source,
    network_sha256,
    resolve_device,
)
from .runtimes import check_runtime, choose_runtimes, open_runtime
from .view import evaluation_view, uncompiled

__all__ = ['Embeddings', 'FeatureExtractor', 'autocast_dtype', 'create_embedding_model', 'resolve_device']

_logger = logging.getLogger(__name__)


@dataclass
class Embeddings:
    """What a run gives.

    Attributes:
        vectors: `(N, D)` float32, each of Euclidean length 1.
        names: N paths, or `image <index>` for images that have none.
        failures: name -> reason of the images that could not be read; they have no vector.
    """

    vectors: np.ndarray
    names: list[str]
    failures: dict[str, str] = field(default_factory=dict)


class FeatureExtractor(EmbedsFrames):
    """Turns vehicle images into embeddings.

    ```python
    extractor = FeatureExtractor('dpa_resnet50')
    vectors = extractor(['a.jpg', 'b.jpg'])  # (2, 2048) float32, unit length
    similarity = vectors @ vectors.T  # cosine
    ```

    An extractor may be used by several threads at once, and beside a loop that trains its module: each call gives what
    it gives alone, with the weights that the module has at that moment, and changes nothing of the module (neither its
    modes nor its buffers, gradients or compiled code). Hooks of the module run, and are given a module that shares its
    weights. What `forward` stores in attributes of the module is not kept.

    Args:
        model: name of a timm model (`'dpa_resnet50'`, `'hf-hub:org/name'`, `'local-dir:folder'`), folder of a training
            run or of a model, or a module made by `timm.create_model`, which is used as it is: on its device, with the
            weights that it has at each call. It takes RGB. A module that was compiled is used without its compilation.
        pretrained: for a name: True for the registered weights, a path for those of a checkpoint file, False for
            random ones. None takes the registered weights where there are some, else random ones with a warning.
            Random weights are the same in every run.
        device: `'auto'` for CUDA, MPS or the CPU, in this order (for a module: where it is), or a torch device.
        precision: `'fp32'`, `'bf16'`, `'fp16'` (autocast), or `'auto'`: bf16 where the device computes with it, else
            fp16 on CUDA, else fp32. The cosine between an embedding in bf16 and in fp32 is above 0.999.
        batch_size: images that are computed together; more use more memory.
        image_size: side, or height and width, in pixels, to which images are resized; None for the model's own. By
            name, a transformer that takes one size only is made for this one.
        workers: threads that decode.
        flip: embed the sum of an image and of its mirror image, each of unit length; takes twice the time.
        decoding: what image files may be: their largest size, and whether their end may be missing.
        runtime: what computes: `'torch'`; `'onnxruntime'` or `'openvino'`, on the CPU, for a model that is given by
            name, with its weights of now; or `'auto'` for the fastest of them that is installed, see `choose_runtimes`.
            Their graph is exported once, see `cached_graph`. In float32 they differ from torch by less than 1e-4.

    Attributes:
        runtime: `'torch'`, `'onnxruntime'` or `'openvino'`.

    Raises:
        ValueError: no such model, precision, device or runtime, no RGB model, sizes below 1, or weights of another
            model.
        ImportError: the runtime is not installed.
        FileNotFoundError: no such checkpoint or model folder.
        WeightsError: weights that cannot be downloaded, or are not those that were released.
        RuntimeError: weights in a folder that cannot be read.
    """

    def __init__(
        self,
        model: str | Path | nn.Module = 'dpa_resnet50',
        pretrained: bool | str | Path | None = None,
        device: str | torch.device = 'auto',
        precision: str = 'auto',
        batch_size: int = 32,
        image_size: int | tuple[int, int] | None = None,
        workers: int | None = None,
        flip: bool = False,
        *,
        decoding: Decoding | None = None,
        runtime: str = 'torch',
    ) -> None:
        check_runtime(runtime)
        if batch_size < 1:
            raise ValueError(f'batch_size must be at least 1, not {batch_size}')
        if workers is not None and workers < 1:
            raise ValueError(f'workers must be at least 1, not {workers}')
        size = None if image_size is None else _height_and_width(image_size)
        self.origin: dict[str, str] = {}
        self.model: Any  # timm's models have methods that nn.Module does not
        if isinstance(model, nn.Module):
            if pretrained is not None:
                raise ValueError('pretrained is for a model that is given by name; load the weights into the module')
            self.model = uncompiled(model)
            self.device = next((tensor.device for tensor in model.parameters()), torch.device('cpu'))
            wanted = self.device if device == 'auto' else resolve_device(device)
            if wanted.type != self.device.type or wanted.index not in (None, self.device.index):
                raise ValueError(f'the module is on {self.device}; move it with .to({str(wanted)!r}) first')
        elif isinstance(model, (str, Path)):
            name = model_source(model)
            # enough to make the same extractor again, unlike describe()
            self.origin['source'] = name
            if pretrained and pretrained is not True:
                self.origin['checkpoint'] = os.path.abspath(pretrained)
            is_graph = runtime in ('onnxruntime', 'openvino')
            self.device = resolve_device('cpu' if device == 'auto' and is_graph else device)
            self.model = create_embedding_model(name, pretrained, size)
            self.model.to(self.device, memory_format=torch.channels_last).eval()
        else:
            raise TypeError(f'model must be a name or a module, not {type(model).__name__}')
        check_embedding_model(self.model)
        self.autocast_dtype = autocast_dtype(precision, self.device)
        self.batch_size = batch_size
        self.flip = flip
        self.decoding = decoding or Decoding()
        self.workers = workers or max(2, torch.get_num_threads())
        self.data_config = resolve_data_config(model=self.model)
        own_size = fixed_size(self.model)
        if size or own_size:
            self.data_config['input_size'] = (3, *(size or own_size or ()))
        # to uint8: a quarter of the memory between the threads, and normalized where the model computes
        self.transform = create_transform(**{**self.data_config, 'use_prefetcher': True})
        self.mean, self.std = (
            torch.tensor(self.data_config[key], device=self.device).view(1, -1, 1, 1) * 255 for key in ('mean', 'std')
        )
        runtimes = choose_runtimes(runtime, precision, self.device, by_name=bool(self.origin))
        self.runtime, self._graph = open_runtime(runtimes, self.model, self.data_config['input_size'][1:], precision)

    @property
    def embedding_size(self) -> int:
        """Width D of an embedding."""
        return int(self.model.head_hidden_size)

    @property
    def thresholds(self) -> dict[float, float] | None:
        """From which cosine on two images show one vehicle: false-match rate in 0..1 -> cosine, ascending rates.

        As measured with the weights that the model was created with (`timm-dpa models --thresholds` says on what).
        None if unknown: other weights, mirror images (`flip`), or images of another size than the model's own.

        ```python
        threshold = FeatureExtractor('dpa_resnet50').thresholds[0.01]  # one in a hundred different vehicles passes
        ```
        """
        known: dict[float, float] | None = getattr(self.model, 'thresholds', None)
        own_size = resolve_data_config(model=self.model)['input_size']
        return dict(known) if known and not self.flip and tuple(self.data_config['input_size']) == own_size else None

    def describe(self) -> dict[str, str]:
        """What decides an embedding: extractors that differ in `model` at most give comparable embeddings."""
        config = getattr(self.model, 'pretrained_cfg', None) or {}
        tag = config.get('tag')
        return {
            'model': config.get('architecture', type(self.model).__name__) + (f'.{tag}' if tag else ''),
            'network_sha256': network_sha256(self.model),
            'flip': json.dumps(self.flip),
            **{
                key: json.dumps(self.data_config[key])
                for key in ('input_size', 'mean', 'std', 'interpolation', 'crop_mode', 'crop_pct')
            },
        }

    def __call__(self, images: Any, *, on_error: str = 'raise', progress: bool | None = None) -> np.ndarray:
        """Embed `images`, in their order.

        Args:
            images: a path, a folder (all images below it, sorted), a PIL image, a numpy array (HWC or HW; uint8,
                uint16, or float in 0..1), a tensor (CHW, uint8 or float in 0..1, not normalized), a batch of arrays or
                tensors in one with 4 dimensions, or a list or generator of any of these. Grayscale, palette, alpha,
                CMYK, 16-bit and EXIF-rotated images are understood. A generator is read as far ahead as one batch.
            on_error: what happens to an image that cannot be used, be it a path, a file in a folder, an array, `None`
                or an empty crop. `'raise'` stops with an error that names it. `'report'` does the others and logs a
                warning; its row is NaN, so that row k is still that of image k.
            progress: show a bar; None shows one on a terminal only, after a second.

        Returns:
            `(N, D)` float32, each row of Euclidean length 1. N is 0 for an empty list.

        Raises:
            ImageError: an image cannot be read, or a folder is without images.
            FileNotFoundError: a path does not exist.
            TypeError: something is no image at all, such as a number or a list in a list.
        """
        rows = [np.empty((0, self.embedding_size), np.float32)]
        for batch, reasons, vectors in self._batches(images, on_error, progress):
            whole = np.full((len(batch), self.embedding_size), np.nan, np.float32)
            whole[[reason is None for reason in reasons]] = vectors
            rows.append(whole)
            for reason in filter(None, reasons):
                _logger.warning('%s', reason)
        return np.concatenate(rows)

    def run(self, images: Any, *, on_error: str = 'report', progress: bool | None = None) -> Embeddings:
        """The same as a call, with names. Images that could not be read are among the failures and have no row."""
        batches = list(self.stream(images, on_error=on_error, progress=progress))
        vectors = [batch.vectors for batch in batches] or [np.empty((0, self.embedding_size), np.float32)]
        result = Embeddings(np.concatenate(vectors), [name for batch in batches for name in batch.names])
        for batch in batches:
            result.failures.update(batch.failures)
        return result

    def stream(
        self, images: Any, *, on_error: str = 'report', progress: bool | None = None, total: int | None = None
    ) -> Iterator[Embeddings]:
        """The same as `run` in batches, as they are done, for more embeddings than fit into memory."""
        for batch, reasons, vectors in self._batches(images, on_error, progress, total):
            pairs = list(zip(batch, reasons, strict=True))
            names = [item.name for item, reason in pairs if reason is None]
            yield Embeddings(vectors, names, {item.name: reason for item, reason in pairs if reason is not None})

    def _batches(
        self, images: Any, on_error: str, progress: bool | None, total: int | None = None
    ) -> Iterator[tuple[list[ImageItem], list[str | None], np.ndarray]]:
        """Batches: their images, why each of them could not be read or None, and the rows of those that could."""
        check_on_error(on_error)
        items: Iterable[ImageItem] = iter_images(images, on_error=on_error)
        if isinstance(images, (str, os.PathLike, list, tuple)):
            items = list(items)  # a wrong path shows before the work, and the bar knows its end
            total = len(items) if total is None else total
        bar = tqdm(
            total=total,
            unit='image',
            desc='embedding',
            disable=None if progress is None else not progress,
            delay=1 if progress is None else 0,
        )
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix='decode')
        try:
            with bar:
                for batch, decoded in self._decoded(pool, iter(items)):
                    reasons, vectors = self._embed(batch, decoded, on_error)
                    bar.update(len(batch))
                    yield batch, reasons, vectors
        finally:  # after Ctrl-C wait for what is being decoded at the most
            pool.shutdown(cancel_futures=True)

    def _decoded(
        self, pool: ThreadPoolExecutor, items: Iterator[ImageItem]
    ) -> Iterator[tuple[list[ImageItem], list[Future[torch.Tensor]]]]:
        """Batches whose images are being decoded.

        On a GPU the next batch is decoded while this one is computed. On the CPU both would wait for the same cores.
        """
        ahead = 1 if self.device.type == 'cpu' else 2
        queue: deque[tuple[list[ImageItem], list[Future[torch.Tensor]]]] = deque()
        while True:
            batch = list(islice(items, self.batch_size))
            if batch:
                queue.append((batch, [pool.submit(self._decode, item) for item in batch]))
            if not queue:
                return
            if len(queue) >= ahead or not batch:
                yield queue.popleft()

    def _decode(self, item: ImageItem) -> torch.Tensor:
        image = load_rgb(item, self.decoding)
        item.show(image)
        return torch.as_tensor(self.transform(image))

    def _embed(
        self, items: list[ImageItem], decoded: list[Future[torch.Tensor]], on_error: str
    ) -> tuple[list[str | None], np.ndarray]:
        pixels: list[torch.Tensor] = []
        names: list[str] = []
        reasons: list[str | None] = []
        for item, future in zip(items, decoded, strict=True):
            try:
                pixels.append(future.result())
                names.append(item.name)
                reasons.append(None)
            except ImageError as error:
                if on_error == 'raise':
                    raise
                reasons.append(str(error))
        if not pixels:
            return reasons, np.empty((0, self.embedding_size), np.float32)
        vectors: np.ndarray = self.embed_pixels(torch.stack(pixels)).cpu().numpy()
        finite = np.isfinite(vectors).all(axis=1)
        if not finite.all():
            raise RuntimeError(
                f'{names[int(np.argmin(finite))]}: the embedding is not finite; the weights are damaged, or '
                "too large for this precision: try precision='fp32'"
            )
        return reasons, vectors

    @torch.no_grad()  # and not inference_mode, whose tensors a model could not be trained with
    def embed_pixels(self, pixels: torch.Tensor) -> torch.Tensor:
        """Embed images that have the model's input size already.

        Args:
            pixels: `(B, 3, H, W)` uint8 RGB.

        Returns:
            `(B, D)` float32 of Euclidean length 1, on the extractor's device.

        Raises:
            ValueError: other pixels, or a model that gives maps.
        """
        if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] != 3:
            raise ValueError(f'pixels must be (B, 3, H, W) uint8, not {tuple(pixels.shape)} {pixels.dtype}')
        if self._graph is not None:
            return self._graph.embed(pixels, self.flip)
        prepare_process()
        x = pixels.to(self.device, non_blocking=True).to(torch.float32, memory_format=torch.channels_last)
        x.sub_(self.mean).div_(self.std)
        # where it is disabled, too: the caller may be inside another one, and its cache is for weights with gradients
        autocast = torch.autocast(
            self.device.type, dtype=self.autocast_dtype, enabled=self.autocast_dtype is not None, cache_enabled=False
        )
        if self.autocast_dtype is None:
            x = x.to(next(self.model.parameters()).dtype)
        network = evaluation_view(self.model)
        with autocast:
            embedding = _unit(network, x)
            if self.flip:
                embedding = F.normalize(embedding + _unit(network, x.flip(-1)), dim=1)
        return embedding

    def close(self) -> None:
        """Free what a runtime other than torch holds: its graph, memory and threads. The next call loads it again."""
        if self._graph is not None:
            self._graph.close()


def _height_and_width(image_size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
    if min(height, width) < 1:
        raise ValueError(f'image_size must be at least 1, not {image_size}')
    return height, width


def _unit(network: Any, x: torch.Tensor) -> torch.Tensor:
    size = tuple(x.shape[2:])
    try:
        x = network.forward_head(network.forward_features(x), pre_logits=True)
    except (AssertionError, AttributeError, IndexError, TypeError, RuntimeError) as error:
        own_size = resolve_data_config(model=network)['input_size'][1:]
        if isinstance(error, RuntimeError) and size == tuple(own_size):
            raise  # such as a lack of memory
        reason = str(error).partition('\n')[0]
        raise ValueError(
            f'{type(network).__name__} gives no embedding of images of {size[0]} x {size[1]} pixels ({reason})'
            + (f'; its own size is {own_size[0]} x {own_size[1]}' if size != tuple(own_size) else '')
        ) from error
    if not isinstance(x, torch.Tensor):
        raise ValueError(f'{type(network).__name__} gives a {type(x).__name__} of features, not one embedding')
    if x.ndim != 2:
        raise ValueError(f'the model gives {x.ndim}-dimensional features; create it with global_pool="gem"')
    return F.normalize(x.float(), dim=1)
