"""Loops of Python's side: drawing structures out of a packed set into one batch sorted by element; transposing weights."""

import numpy as np

from eann_lite.compiled import compile_loops


@compile_loops
def batch_order(chosen, offsets, species, n_species, order, place, structure):
    """Fill order (N,): packed atom of every batch atom; place (all atoms,): its inverse; structure (N,).

    Atoms of one element are consecutive, in the order of the chosen structures.  Returns counts (n_species,).
    """
    counts = np.zeros(n_species, np.int64)
    for q in chosen:
        for i in range(offsets[q], offsets[q + 1]):
            counts[species[i]] += 1
    fill = np.zeros(n_species, np.int64)
    for s in range(1, n_species):
        fill[s] = fill[s - 1] + counts[s - 1]
    for n in range(chosen.size):
        for i in range(offsets[chosen[n]], offsets[chosen[n] + 1]):
            s = species[i]
            order[fill[s]] = i
            place[i] = fill[s]
            structure[fill[s]] = n
            fill[s] += 1
    return counts


@compile_loops
def batch_pairs_first(order, first, batch_first):
    """batch_first (N+1,): offsets of the batch's pairs by centre."""
    batch_first[0] = 0
    for n in range(order.size):
        batch_first[n + 1] = batch_first[n] + first[order[n] + 1] - first[order[n]]


@compile_loops
def batch_pairs(order, place, first, neighbor, reverse, image, batch_first, batch_neighbor, batch_reverse, batch_image):
    """Neighbours, reversed pairs and image displacements of the batch's pairs, in the batch's own numbering."""
    for n in range(order.size):
        begin = first[order[n]]
        for p in range(begin, first[order[n] + 1]):
            j = neighbor[p]
            q = batch_first[n] + p - begin
            batch_neighbor[q] = place[j]
            batch_reverse[q] = batch_first[place[j]] + reverse[p] - first[j]
            for x in range(3):
                batch_image[q, x] = image[p, x]


@compile_loops
def transpose_matrices(places, vector, out):
    """Matrices (rows, columns) of a flat vector, written the other way round at their own places of ``out``.

    places (n, 3): where each begins, its rows, its columns.
    """
    for n in range(places.shape[0]):
        begin, rows, columns = places[n, 0], places[n, 1], places[n, 2]
        for c in range(columns):
            for r in range(rows):
                out[begin + c * rows + r] = vector[begin + r * columns + c]
