"""What a section costs: weights in bits and sums per frame, read from its file."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ddnn.bundle import SectionInfo
from ddnn.section_file import check_file


class Cost(NamedTuple):
    """One section, one frame.

    Attributes:
        binary_weights: -1/+1 weights, one bit each.
        thresholds: of binary channels.
        byte_sums: additions of a pixel or score byte, with either sign.
        binary_sums: products of -1/+1 with -1/+1, or with a byte weight, that are summed up.
        byte_weights: weights of a byte each.
    """

    binary_weights: int
    thresholds: int
    byte_sums: int
    binary_sums: int
    byte_weights: int = 0


def section_cost(info: SectionInfo, data: bytes) -> Cost:
    """Count from the graph that `training.sections` builds.

    Raises:
        BundleError: the file does not fit `info`.
    """
    graph = check_file(info, data).graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    shapes = {name: tuple(tensor.dims) for name, tensor in constants.items()}
    first = info.inputs[0].shape
    scores = info.role.startswith(("local", "join"))  # takes score bytes, not binary features
    size = first[:2] if info.role.startswith("device") else (0, 0)
    weights = thresholds = byte_sums = binary_sums = byte_weights = 0
    for node in graph.node:
        inputs = list(node.input)
        if node.op_type == "Reshape" and inputs[1] in constants:
            shape = tuple(np.frombuffer(constants[inputs[1]].raw_data, np.int64).tolist())
            shapes[node.output[0]] = shape
            if len(shape) == 4 and shape[0] == 0:  # features as a map, of free batch
                size = shape[2:]
        elif node.op_type in ("Cast", "Mul") and inputs[0] in shapes:
            shapes[node.output[0]] = shapes[inputs[0]]
        elif node.op_type in ("Conv", "QLinearConv"):
            kernel = shapes[inputs[1 if node.op_type == "Conv" else 3]]
            sums = int(np.prod(kernel)) * size[0] * size[1]
            thresholds += kernel[0]
            if node.op_type == "QLinearConv" and inputs[3] in constants:
                byte_weights += int(np.prod(kernel))
            else:
                weights += int(np.prod(kernel))
            if node.op_type == "Conv":
                byte_sums += sums
            else:
                binary_sums += sums
        elif node.op_type == "MaxPool":
            size = tuple((side - 1) // 2 + 1 for side in size)
        elif node.op_type == "Gemm":
            matrix = int(np.prod(shapes[inputs[1]]))
            if scores:
                byte_sums += matrix
            else:
                weights, binary_sums = weights + matrix, binary_sums + matrix
        elif node.op_type in ("ReduceSum", "ReduceMax") and scores:
            byte_sums += _scores(node, graph, first)
    return Cost(weights, thresholds, byte_sums, binary_sums, byte_weights)


def _scores(node: Any, graph: Any, shape: tuple[int, ...]) -> int:
    """Scores that a local aggregator reduces; 0 where it counts members."""
    made_by = {output: each for each in graph.node for output in each.output}
    source = made_by.get(node.input[0])
    return int(np.prod(shape)) if source is not None and source.op_type in ("Mul", "Add") else 0
