"""What crosses from Python into the kernels: arrays that belong together as one NamedTuple.

Shapes: N atoms of the batch, P ordered pairs, R rows of ``Batch``, S elements, Q structures, T recursions, K Gaussians,
L largest degree, A monomials, D derivatives of monomials that are not zero everywhere, M densities, C products of
power spectra, B blocks.  Network stores are flat, (T + 1, N * the sum of widths): the rows (N, width) of map n > 0 of a
step t begin at N * (sum of the widths of maps 1 to n - 1).
Arrays of floats in ``Values``, and what they meet of ``Potential``, are float64 or float32.  A field of another shape,
or a new one, changes compiled code, so this file belongs to the sources that the cache watches.
"""

from typing import NamedTuple

import numpy as np


class Potential(NamedTuple):
    """A model as kernels read it.

    cutoff, repulsion_cutoff : Angstrom; repulsion_cutoff is 0 without repulsion.
    exponents, centers, coefficients (S, K) : alpha, r_s and the orbital coefficients of step 0.
    contraction (L + 1, K, M), contraction_transposed (L + 1, M, K).
    products (C, 3) : l, k and k' of the products of ``kernels.power``, without rows where they are not used;
        power_contraction (C, M) and power_contraction_transposed (M, C) : V, made of the contraction.
    degree, weight, parent, axis (A,), slope_place (A, 3), slope_of, slope_power (D,) : tables of the monomials
        (``model.sweeps``).
    numbers (S,) : atomic numbers as floats.  reference_energies (S,) eV; energy_scale eV.
    vector, transposed : all parameters, and the same with every network weight matrix the other way round; places (4,):
        where exponents, centers, coefficients and contraction begin in it, -1 for a contraction that is not learned.
    density_shift, density_scale (T + 1, S, M); starts (T + 1, S): where each network begins in the vector.
    recursion_maps, energy_maps (n, 11) : tables of linear maps (columns in ``kernels.networks``); network_sizes
        (T + 1,) : how many parameters each network of a step has.
    """

    cutoff: float
    repulsion_cutoff: float
    exponents: np.ndarray
    centers: np.ndarray
    coefficients: np.ndarray
    contraction: np.ndarray
    contraction_transposed: np.ndarray
    products: np.ndarray
    power_contraction: np.ndarray
    power_contraction_transposed: np.ndarray
    degree: np.ndarray
    weight: np.ndarray
    parent: np.ndarray
    axis: np.ndarray
    slope_place: np.ndarray
    slope_of: np.ndarray
    slope_power: np.ndarray
    numbers: np.ndarray
    reference_energies: np.ndarray
    energy_scale: float
    vector: np.ndarray
    transposed: np.ndarray
    places: np.ndarray
    density_shift: np.ndarray
    density_scale: np.ndarray
    starts: np.ndarray
    recursion_maps: np.ndarray
    energy_maps: np.ndarray
    network_sizes: np.ndarray


class Batch(NamedTuple):
    """Some structures as the kernels take them: atoms sorted by element, cut into blocks of one element.

    order (N,) packed atom of each batch atom; structure (N,) which of the chosen structures (0 .. Q-1) it belongs to;
    blocks (B, 3) rows (start, stop, element); segments (S, 2) first and last atom of each element; threaded: whether
    kernels use threads inside this batch (never decided by the number of threads, since the cut into blocks, and
    so the bits, depend on it).

    Pairs by centre: first (N + 1,); of 32 bits neighbor (P,) and image (P,), which of the displacements images (I, 3),
    in Angstrom, the neighbour has.

    What pairs pass back to their neighbours is summed up block by block, in R rows: one for each block and each
    neighbour that it has.  row (P,), of 32 bits: that of a pair; block_first (B + 1,): the rows of a block; those of atom
    j are atom_rows[atom_first[j] : atom_first[j + 1]] (N + 1 and R numbers), in the order of blocks.
    """

    n_structures: int
    order: np.ndarray
    structure: np.ndarray
    species: np.ndarray
    positions: np.ndarray
    first: np.ndarray
    neighbor: np.ndarray
    image: np.ndarray
    images: np.ndarray
    blocks: np.ndarray
    row: np.ndarray
    block_first: np.ndarray
    atom_first: np.ndarray
    atom_rows: np.ndarray
    segments: np.ndarray
    threaded: bool


class Values(NamedTuple):
    """What the sweeps leave: "x_bar" is the derivative of the energy with respect to x.

    vector (3, P); distance and log_slope = f_c'/f_c (P,); radial (P, K);
    message (R, K) and recoil (R, 3): what pairs pass back to orbital coefficients and to forces, in the rows of
        ``Batch``: see ``kernels.orbitals`` and ``kernels.pair_gradients``; recoil is float64 always;
    coefficients (T + 1, N, K), sums and sums_bar (T + 1, N, A, K), power_bar (T + 1, N, C);
    density (1, N, M), of the last step, or (T + 1, N, M) where those of all steps are asked for;
    output_bar (N, 1); inputs (T + 1, N * M) : what the networks take; pre, act_gate, act_slope, act_bar, lin_bar :
        network stores; last_hidden (N, width) : what the last maps of the energy networks take.

    Arrays of pairs, and of rows of the batch, may have room for more.
    Where only energies and forces are asked for, distance, power_bar, inputs, last_hidden, density_bar and the network
    stores but act_slope (and pre, with layer normalisation) have length 0 along their first axis: see
    ``kernels.networks``; sums_bar is sums.  Where derivatives are asked for, act_slope has length 0.
    """

    vector: np.ndarray
    distance: np.ndarray
    log_slope: np.ndarray
    radial: np.ndarray
    message: np.ndarray
    recoil: np.ndarray
    coefficients: np.ndarray
    sums: np.ndarray
    density: np.ndarray
    pre: np.ndarray
    act_gate: np.ndarray
    act_slope: np.ndarray
    inputs: np.ndarray
    last_hidden: np.ndarray
    output_bar: np.ndarray
    coefficients_bar: np.ndarray
    sums_bar: np.ndarray
    density_bar: np.ndarray
    power_bar: np.ndarray
    act_bar: np.ndarray
    lin_bar: np.ndarray


class Tangents(NamedTuple):
    """Derivatives of ``Values`` along a direction of positions and strain; fields and shapes as there.

    But of density_bar there is one part that serves all steps in turn, of sums_bar one or all, which Hessians need.
    """

    vector: np.ndarray
    distance: np.ndarray
    message: np.ndarray
    coefficients: np.ndarray
    sums: np.ndarray
    density: np.ndarray
    pre: np.ndarray
    inputs: np.ndarray
    output_bar: np.ndarray
    coefficients_bar: np.ndarray
    sums_bar: np.ndarray
    density_bar: np.ndarray
