"""Tables that tell the network kernels where everything lies."""

from typing import NamedTuple

import numpy as np

from eann_lite.model.parameters import network_names

#: Rows of a weight matrix that one task of the weight gradient works on.
ROWS_PER_TASK = 16


class NetworkStage(NamedTuple):
    """The networks of one recursion step (or the energy networks), one per element, all of one shape.

    maps (n, 10): table of the linear maps (columns in ``kernels.networks``); kind: activation code; starts (S,): where
    each element's network begins in the parameter vector; outputs: output width; row_width: sum of input widths;
    tasks (n, 4): pieces of the weight gradient; normed: whether there is layer normalisation.
    """

    maps: np.ndarray
    kind: int
    starts: np.ndarray
    outputs: int
    row_width: int
    tasks: np.ndarray
    normed: bool


def network_stages(specification, layout):
    """NetworkStage of every recursion step and, last, of the energy networks."""
    from eann_lite.formulas import ACTIVATION_CODES

    stages = []
    n_elements = len(specification.elements)
    names = network_names(specification)
    for t in range(specification.recursions + 1):
        rows = names[t * n_elements : (t + 1) * n_elements]
        name, network, outputs, _, _ = rows[0]
        maps = _map_table(specification, layout, name, network, outputs)
        starts = np.array([layout.places[f"{row[0]}.input.weight"][0] for row in rows])
        widths = maps[:, 0]
        tasks = [
            (s, n, row, min(row + ROWS_PER_TASK, int(widths[n])))
            for n in range(len(maps))
            for row in range(0, int(widths[n]), ROWS_PER_TASK)
            for s in range(n_elements)
        ]
        stages.append(
            NetworkStage(
                maps, ACTIVATION_CODES[network.activation], starts, outputs, int(widths.sum()), np.array(tasks),
                network.layer_norm,
            )  # fmt: skip
        )
    return stages


def _map_table(specification, layout, name, network, outputs):
    from eann_lite.kernels import networks as kernel

    begin = layout.places[f"{name}.input.weight"][0]

    def offset(parameter):
        place = layout.places.get(f"{name}.{parameter}")
        return place[0] - begin if place else -1

    chain = [("input", specification.densities, network.widths[0], -1)]
    for b in range(network.blocks):
        first_of_block = len(chain)
        for i, (width, out) in enumerate(network.links):
            adds_input = network.residual and i == len(network.links) - 1
            chain.append((f"block.{b}.{i}", width, out, first_of_block if adds_input else -1))
    chain.append(("output", network.widths[0], outputs, -1))
    table = np.empty((len(chain), kernel.COLUMNS), dtype=np.int64)
    row = 0
    for n, (part, width, out, residual) in enumerate(chain):
        table[n, kernel.IN], table[n, kernel.OUT] = width, out
        table[n, kernel.ROW], table[n, kernel.RESIDUAL] = row, residual
        table[n, kernel.WEIGHT], table[n, kernel.BIAS] = offset(f"{part}.weight"), offset(f"{part}.bias")
        table[n, kernel.ALPHA], table[n, kernel.BETA] = offset(f"{part}.alpha"), offset(f"{part}.beta")
        table[n, kernel.SCALE], table[n, kernel.SHIFT] = offset(f"{part}.scale"), offset(f"{part}.shift")
        row += width
    return table


def transpose_weights(stages, vector, out):
    """Copy ``vector`` into ``out`` with every network weight matrix the other way round, at its own offset."""
    from eann_lite.kernels import networks as kernel

    out[:] = vector
    for stage in stages:
        for start in stage.starts:
            for row in stage.maps:
                width, end = int(row[kernel.IN]), int(row[kernel.OUT])
                begin = int(start + row[kernel.WEIGHT])
                matrix = vector[begin : begin + width * end].reshape(width, end)
                out[begin : begin + width * end].reshape(end, width)[:] = matrix.T
    return out
