"""ONNX files that many runtimes can read: operator sets from 16 on, with the lowest IR version that they allow.

What depends on nothing but weights is computed once, here. Half precision is that of onnxruntime's converter.
"""

from __future__ import annotations

import importlib
import json
import warnings
from pathlib import Path
from typing import Any

import torch

__all__ = ['MIN_OPSET', 'ExportError', 'check_onnx_size', 'first_line', 'import_onnx', 'write_half', 'write_onnx']

MIN_OPSET = 16
_TORCH_OPSET = 18  # the lowest that torch writes; lower ones are made of it
ONNX_LIMIT = 2**31 - 2**24  # a protobuf message holds 2 GiB; some room for the graph
#: attributes that operators have since opset 18, with the value that says what they did before
_NEW_ATTRIBUTES = {'antialias': 0, 'keep_aspect_ratio_policy': b'stretch', 'noop_with_empty_axes': 0}
#: of GeM pooling, of soft pooling, of the length of an embedding and of pixels
_FLOAT32_OPERATORS = ('Pow', 'Log', 'Exp', 'ReduceMean', 'ReduceSum', 'ReduceL2', 'Sub', 'Div')


class ExportError(RuntimeError):
    """The export is impossible, or its file does not compute what the model does. No file was written."""


def import_onnx(runtime: bool = True) -> Any:
    """`onnx`, with all that the ONNX format needs known to be there."""
    try:
        if runtime:
            importlib.import_module('onnxruntime')
            importlib.import_module('onnxscript')
        return importlib.import_module('onnx')
    except ImportError as error:
        raise ExportError(f"ONNX needs more packages: pip install 'timm-dpa[export]' ({error})") from error


def check_onnx_size(network: torch.nn.Module) -> None:
    """Raise ExportError for weights that one file cannot hold."""
    tensors = [*network.parameters(), *network.buffers()]
    total = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if total > ONNX_LIMIT:
        raise ExportError(
            f'the weights take {total / 2**30:.2f} GiB, and one ONNX file holds 2 GiB at most; '
            "use format='torch-export'"
        )


def write_onnx(
    program: torch.export.ExportedProgram, path: Path, metadata: dict[str, Any], axes: dict[int, str], opset: int
) -> None:
    """Write `program`, whose input is `images` with the free `axes`, and whose output is `embeddings`."""
    onnx = import_onnx()
    exported: Any = torch.onnx.export(
        program,
        dynamo=True,
        dynamic_shapes={'images': axes} if axes else None,
        input_names=['images'],
        output_names=['embeddings'],
        opset_version=max(opset, _TORCH_OPSET),
        verbose=False,
    )
    _fold_constants(exported.model)
    proto = exported.model_proto
    graph = proto.graph
    if opset < _TORCH_OPSET:
        _lower_opset(onnx, proto, opset)
    proto.ir_version = onnx.helper.find_min_ir_version_for(proto.opset_import)
    for part in (graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output):
        del part.metadata_props[:]  # notes of the exporter, of a newer IR version
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in metadata.items()})
    onnx.save(proto, path)
    onnx.checker.check_model(path, full_check=True)


def _fold_constants(model: Any) -> None:
    """Compute what depends on weights only, such as the middle tap of a kernel, but nothing larger than a weight.

    The optimizer of `torch.onnx` leaves constants of more than 8192 numbers as they are. Some tools (NNCF, TensorRT)
    want weights to be weights.
    """
    optimizer = importlib.import_module('onnxscript.optimizer')
    largest = max((value.const_value.size for value in model.graph.initializers.values()), default=0)
    optimizer.fold_constants(model, input_size_limit=largest + 1, output_size_limit=largest + 1)


def write_half(source: Path, path: Path) -> None:
    """Write the ONNX file `source` with weights and most operators in float16; input and output stay as they are.

    Operators that may leave the range of float16, such as sums over a map, compute in float32.
    """
    onnx = import_onnx()
    float16 = importlib.import_module('onnxruntime.transformers.float16')
    proto = onnx.load(source)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # of weights near 0, which is what they become
        half = float16.convert_float_to_float16(
            proto, keep_io_types=True, op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *_FLOAT32_OPERATORS]
        )
    del half.graph.value_info[:]  # types and shapes of results, some of which the converter leaves as they were
    ir = importlib.import_module('onnx_ir')
    sorted_model = ir.serde.deserialize_model(half)
    sorted_model.graph.sort()  # the converter leaves the new cast of the input behind its first use
    onnx.save(ir.serde.serialize_model(sorted_model), path)
    onnx.checker.check_model(path, full_check=True)


def first_line(error: Exception) -> str:
    """Type and first line of a message that may have many."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f'{type(error).__name__}: {lines[0][:300]}' if lines else type(error).__name__


def _lower_opset(onnx: Any, proto: Any, opset: int) -> None:
    """Rewrite a graph of opset 18 in terms of opset 16 or 17; what cannot be said there fails the check of the file.

    `onnx.version_converter` cannot do it: it has no way back for Pad.
    """
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in proto.graph.node:
        # axes became an input, which ReduceSum had already
        if node.op_type.startswith('Reduce') and node.op_type != 'ReduceSum' and len(node.input) == 2:
            axes = onnx.numpy_helper.to_array(constants[node.input[1]]).tolist()
            del node.input[1]
            node.attribute.append(onnx.helper.make_attribute('axes', axes))
        for attribute in list(node.attribute):
            # those of Split say what the number of its outputs says
            if attribute.name == 'num_outputs' or (
                attribute.name in _NEW_ATTRIBUTES
                and node.op_type != 'ReduceSum'
                and onnx.helper.get_attribute_value(attribute) == _NEW_ATTRIBUTES[attribute.name]
            ):
                node.attribute.remove(attribute)
    for entry in proto.opset_import:
        if entry.domain in ('', 'ai.onnx'):
            entry.version = opset
