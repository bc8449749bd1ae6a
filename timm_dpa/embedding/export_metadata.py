"""What an exported file says about itself, and the file beside it from which BoxMOT learns the same."""

from __future__ import annotations

import json
import os
import zipfile
from pathlib import Path
from typing import Any

import torch
from timm.data import resolve_data_config
from torch import nn

from ..files import write_bytes
from .export_inputs import ExportInput, is_imagenet
from .onnx_file import import_onnx

__all__ = ['METADATA_FILE', 'data_config_of', 'file_metadata', 'read_metadata', 'sidecar_path', 'write_sidecar']

METADATA_FILE = 'timm_dpa.json'


def data_config_of(model: nn.Module) -> dict[str, Any]:
    """timm's data configuration with the channels of `model`.

    Raises:
        ValueError: mean and std of another number of channels.
    """
    data_config = resolve_data_config(model=model)
    channels = getattr(model, 'in_chans', None) or data_config['input_size'][0]
    data_config['input_size'] = (channels, *data_config['input_size'][1:])
    for name in ('mean', 'std'):
        if len(data_config[name]) != channels:
            raise ValueError(
                f'the model takes {channels} channels, but its configuration has {name}={tuple(data_config[name])}; '
                f'set model.pretrained_cfg[{name!r}] to one number per channel'
            )
    return data_config


def file_metadata(
    model: nn.Module,
    data_config: dict[str, Any],
    input: str,
    kind: ExportInput,
    size: tuple[int, int],
    axes: list[str],
    batch: int | None,
    embedding_size: int,
    precision: str,
) -> dict[str, Any]:
    """The metadata that `read_metadata` describes; every value can be written as JSON."""
    from .. import __version__

    channels = data_config['input_size'][0]
    pretrained_cfg = getattr(model, 'pretrained_cfg', None) or {}
    return {
        'model': pretrained_cfg.get('architecture') or type(model).__name__,
        'input_size': [channels, *size],
        'dynamic_axes': axes,
        'interpolation': data_config['interpolation'],
        'crop_mode': data_config['crop_mode'],
        'crop_pct': data_config['crop_pct'],
        'input': input,
        'input_type': 'uint8' if kind.dtype == torch.uint8 else 'float32',
        'layout': kind.layout,
        'pixel_range': kind.pixel_range(channels),
        'mean': [0.0] * channels if kind.normalizes else list(data_config['mean']),
        'std': [1.0] * channels if kind.normalizes else list(data_config['std']),
        'embedding_size': embedding_size,
        'normalisation': 'l2',
        'precision': precision,
        # read by Ultralytics as a Python literal, by others as JSON: 0 and 1 are both. Without it, it runs the images
        # of a batch one by one, and of a fixed batch it needs the size
        'args': {'dynamic': int(batch is None)},
        **({} if batch is None else {'batch': batch}),
        'timm_dpa_version': __version__,
        'torch_version': str(torch.__version__),
    }


def read_metadata(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Metadata of a file of `export_model`, of either format. Nothing is unpickled or run.

    Returns:
        - `model`: name of the architecture.
        - `input_size`: `[in_chans, height, width]`; with free axes `height` and `width` it is the recommended size.
        - `dynamic_axes`: names of the free axes of `images`, of `'batch'`, `'height'` and `'width'`.
        - `interpolation`, `crop_mode`, `crop_pct`: how timm resizes to that size.
        - `input`: `'normalized'`, `'unit'` or `'uint8-bgr'`, see `export_model`.
        - `input_type`: `'float32'` or `'uint8'`.
        - `layout`: `'NCHW'` or `'NHWC'`, the order of the axes of `images`.
        - `pixel_range`: what pixels are before they are normalized: `'0..1 RGB'`, or `'0..255 BGR'`.
        - `mean`, `std`: one number per channel, the input is `(pixel - mean) / std`; 0 and 1 if the graph does it.
        - `embedding_size`: D.
        - `normalisation`: `'l2'`, the embeddings have L2 norm 1.
        - `precision`: `'float32'`, or `'half'` or `'int8'` for weights and most operators.
        - `args`, and `batch` where that is fixed: for Ultralytics.
        - `timm_dpa_version`, `torch_version`: what wrote the file.

        Files of timm-dpa 0.1 lack `input`, `input_type`, `layout`, `precision` and `args`: they are `'normalized'`,
        `'float32'`, `'NCHW'` and `'float32'`.

    Raises:
        ValueError: the file is neither format, or has no such metadata.
        ExportError: `onnx` is missing.
        OSError: the file cannot be read.
    """
    path = Path(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            names = [name for name in archive.namelist() if name.rpartition('/')[2] == METADATA_FILE]
            metadata = json.loads(archive.read(names[0])) if names else {}
    else:
        onnx = import_onnx(runtime=False)
        try:
            properties = onnx.load(path, load_external_data=False).metadata_props
        except OSError:
            raise
        except Exception as error:
            raise ValueError(f'{path} is neither an ONNX nor a torch.export file') from error
        metadata = {entry.key: _from_json(entry.value) for entry in properties}
    if 'timm_dpa_version' not in metadata:
        raise ValueError(f'{path} has no metadata of timm-dpa; export it with `timm-dpa export`')
    return metadata


def _from_json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # an entry of another program
        return text


def sidecar_path(path: Path) -> Path:
    """The file from which BoxMOT learns what an ONNX file needs."""
    return path.with_name(f'{path.name}.metadata.json')


def write_sidecar(path: Path, metadata: dict[str, Any], data_config: dict[str, Any]) -> Path | None:
    """Write what BoxMOT has to know of the ONNX file `path`, where it can run it: BoxMOT normalizes as ImageNet does.

    Its size of crops is that of the graph, or the recommended one where the graph takes any; BoxMOT would resize to
    256 x 128. A sidecar of an earlier export is removed where the file wants other pixels.

    Returns:
        The sidecar, or None.
    """
    sidecar = sidecar_path(path)
    if metadata['input'] != 'normalized' or not is_imagenet(data_config):
        if _is_ours(sidecar):
            sidecar.unlink()
        return None
    content = {
        'schema_version': 1,
        'model_name': metadata['model'],
        'model_kwargs_schema_version': 1,
        'model_kwargs': {'img_size': metadata['input_size'][1:]},
        'img_size': metadata['input_size'][1:],
        'preprocess': 'resize',
        'exported_by': f'timm-dpa {metadata["timm_dpa_version"]}',
    }
    write_bytes(sidecar, json.dumps(content, indent=2).encode())
    return sidecar


def _is_ours(sidecar: Path) -> bool:
    try:
        return str(json.loads(sidecar.read_text(encoding='utf-8'))['exported_by']).startswith('timm-dpa ')
    except (OSError, ValueError, KeyError, TypeError):
        return False
