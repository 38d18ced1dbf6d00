"""Tables that tell the network kernels where everything lies."""

from typing import NamedTuple

import numpy as np

from eann_lite.model.parameters import network_names


class NetworkStage(NamedTuple):
    """The networks of one recursion step (or the energy networks), one per element, all of one shape.

    maps (n, 11): table of the linear maps (columns in ``kernels.networks``); starts (S,): where each element's network
    begins in the parameter vector; size: how many parameters each has; hidden_width: sum of the input widths of all
    maps but the first; normed: whether there is layer normalisation.
    """

    maps: np.ndarray
    starts: np.ndarray
    size: int
    hidden_width: int
    normed: bool


def network_stages(specification, layout):
    """NetworkStage of every recursion step and, last, of the energy networks."""
    stages = []
    n_elements = len(specification.elements)
    names = network_names(specification)
    for t in range(specification.recursions + 1):
        rows = names[t * n_elements : (t + 1) * n_elements]
        name, network, outputs, _, _ = rows[0]
        maps = _map_table(specification, layout, name, network, outputs)
        starts = np.array([layout.places[f"{row[0]}.input.weight"][0] for row in rows])
        size = layout.places[f"{name}.output.bias"][1] - int(starts[0])
        hidden_width = int(maps[1:, 0].sum())
        stages.append(NetworkStage(maps, starts, size, hidden_width, bool(network.layer_norm)))
    return stages


def _map_table(specification, layout, name, network, outputs):
    from eann_lite.formulas import ACTIVATION_CODES, IDENTITY
    from eann_lite.kernels import networks as kernel

    begin = layout.places[f"{name}.input.weight"][0]
    act = ACTIVATION_CODES[network.activation]

    def offset(parameter):
        place = layout.places.get(f"{name}.{parameter}")
        return place[0] - begin if place else -1

    # Rows (part, width, out, residual, kind, leaves): which of the part's parameters this map has.
    before, after = ("alpha", "beta", "weight", "bias"), ("alpha", "beta", "scale", "shift", "weight", "bias")
    rows = [("input", specification.densities, network.widths[0], -1, IDENTITY, ("weight", "bias"))]

    def link(part, width, out, residual, normalised):
        if normalised and network.layer_norm == "before":
            # A normalisation before the activation is a map of its own that has no weights.
            rows.append((part, width, width, -1, IDENTITY, ("scale", "shift")))
            normalised = False
        rows.append((part, width, out, residual, act, after if normalised else before))

    for b in range(network.blocks):
        first_of_block = len(rows)
        for i, (width, out) in enumerate(network.links):
            adds_input = network.residual and i == len(network.links) - 1
            link(f"block.{b}.{i}", width, out, first_of_block if adds_input else -1, network.layer_norm)
    link("output", network.widths[0], outputs, -1, network.normalises_output)
    table = np.full((len(rows), kernel.COLUMNS), -1, dtype=np.int64)
    columns = {
        "weight": kernel.WEIGHT, "bias": kernel.BIAS, "alpha": kernel.ALPHA, "beta": kernel.BETA,
        "scale": kernel.SCALE, "shift": kernel.SHIFT,
    }  # fmt: skip
    for n, (part, width, out, residual, kind, leaves) in enumerate(rows):
        table[n, [kernel.IN, kernel.OUT, kernel.RESIDUAL, kernel.KIND]] = width, out, residual, kind
        for leaf in leaves:
            table[n, columns[leaf]] = offset(f"{part}.{leaf}")
    ends = np.cumsum(table[1:, kernel.IN])
    table[:, kernel.ROW] = [ends[-1], 0, *ends[:-1]]
    return table


def weight_places(stages):
    """(n, 3): where every network weight matrix begins in the flat vector, its rows and its columns."""
    from eann_lite.kernels import networks as kernel

    places = [
        (start + row[kernel.WEIGHT], row[kernel.IN], row[kernel.OUT])
        for stage in stages
        for start in stage.starts
        for row in stage.maps[stage.maps[:, kernel.WEIGHT] >= 0]
    ]
    return np.array(places, dtype=np.int64).reshape(-1, 3)
