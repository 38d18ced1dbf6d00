"""Plots of an audit, each from the plain data of one part."""

import math

import numpy as np

from eann_lite.plots import COLOURS, ENERGY, FORCES, GREY, label_log_axis, labelled_pairs, new_figure, parity_figure


def figures_of(records):
    """{part: list of (title, figure)} of all parts that have something to show."""
    makers = {
        "smoothness": _smoothness, "dynamics": _dynamics, "modes": _modes, "approach": _approach,
        "sensitivity": _sensitivity, "data": _data,
    }  # fmt: skip
    return {part: maker(records[part]) for part, maker in makers.items() if records.get(part)}


def _smoothness(record):
    path = record["path"]
    if not path:
        return []
    figure = new_figure(7.5, 5.6)
    axes = figure.subplots(3, 1, sharex=True)
    s = path["position_angstrom"]
    shown = (("energy_ev", "energy (eV)"), ("force_ev_per_ang", "force (eV/Å)"),
             ("second_derivative_ev_per_ang2", "2nd deriv. (eV/Å²)"))  # fmt: skip
    for ax, (key, label), colour in zip(axes, shown, COLOURS):
        for crossing in path["crossings_angstrom"]:
            ax.axvline(crossing, color=GREY, lw=0.7, ls=":")
        ax.plot(s, path[key], color=colour, lw=1.5)
        ax.set_ylabel(label, fontsize="small")
    axes[0].set_title(f"{path['text']}; dotted: a pair passes the cutoff", fontsize="medium")
    axes[-1].set_xlabel("way of the atom (Å)")
    return [("path through the cutoff", figure)]


def _dynamics(record):
    steps, fluctuation = np.array(record["steps_fs"]), 1e3 * np.array(record["fluctuation_ev_per_atom"])
    figure = new_figure(5.6, 4.0)
    ax = figure.subplots()
    ax.loglog(steps, fluctuation, "o-", color=COLOURS[0], label="standard deviation of the total energy")
    # The line of slope 2 goes through the middle of what was found.
    middle = np.exp(np.mean(np.log(fluctuation) - 2 * np.log(steps)))
    ax.loglog(steps, middle * steps**2, "--", color=GREY, label="slope 2")
    for axis in (ax.xaxis, ax.yaxis):
        label_log_axis(axis)
    slope = f", slope {record['slope']:.3f}" if "slope" in record else ""
    ax.set(xlabel="time step (fs)", ylabel="energy fluctuation (meV/atom)", title=f"NVE, {record['structure']}{slope}")
    ax.title.set_fontsize("medium")
    ax.legend(fontsize="small", edgecolor="none")
    return [("energy fluctuation against time step", figure)]


def _modes(record):
    figure = new_figure(7.5, 2.2)
    ax = figure.subplots()
    ax.vlines(record["wavenumbers_per_cm"], 0.0, 1.0, color=COLOURS[0], lw=1.5)
    ax.axvline(0.0, color=GREY, lw=0.8, ls=":")
    ax.set(yticks=[], ylim=(0, 1.1), xlabel="wavenumber (1/cm); imaginary ones to the left of 0")
    ax.set_title(f"Normal modes, {record['structure']}", fontsize="medium")
    return [("normal modes", figure)]


def _approach(record):
    curves = record["curves"]
    if not curves:
        return []
    pairs = list(dict.fromkeys(curve["pair"] for curve in curves))
    columns = min(3, len(pairs))
    rows = math.ceil(len(pairs) / columns)
    figure = new_figure(3.1 * columns, 2.9 * rows + 0.3)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for ax, pair in zip(axes, pairs):
        for curve in (curve for curve in curves if curve["pair"] == pair):
            energy = np.array(curve["energy_ev"], dtype=float)
            inside = curve["inside"]
            label = "inside a structure" if inside else "the pair alone"
            ax.plot(curve["distance_angstrom"], energy, color=COLOURS[inside], lw=1.5, label=label)
            shortest = curve["shortest_angstrom"]
        ax.axvspan(0.25, shortest, color="#d9d9d9", alpha=0.5, lw=0)
        # Linear near zero and logarithmic beyond: walls of thousands of eV and holes of one are both to be seen.
        ax.set_yscale("symlog", linthresh=1.0)
        ax.axhline(0.0, color=GREY, lw=0.8, ls=":")
        ax.set(xlabel=f"{pair} distance (Å)", ylabel="energy (eV)", title=pair, xlim=(0.25, None))
        ax.title.set_fontsize("medium")
        ax.legend(fontsize="x-small", edgecolor="none", framealpha=0.9)
    for empty in axes[len(pairs) :]:
        empty.set_axis_off()
    figure.suptitle("Two atoms approach; grey: closer than known", fontsize="medium")
    return [("two atoms approach", figure)]


def _sensitivity(record):
    figure = new_figure(6.4, 3.6)
    ax = figure.subplots()
    for number, centre in enumerate(record["centres"]):
        values = np.array(centre["singular_values"])
        values = np.maximum(values / values[0], 1e-18) if values.size and values[0] > 0 else values
        colour = COLOURS[record["elements"].index(centre["element"]) % len(COLOURS)]
        first = centre["element"] not in [c["element"] for c in record["centres"][:number]]
        ax.semilogy(np.arange(1, values.size + 1), values, ".-", ms=4, lw=0.8, color=colour, alpha=0.7,
                    label=f"around {centre['element']}" if first else None)  # fmt: skip
    ax.axhline(record["threshold"], color=GREY, lw=0.8, ls="--")
    ax.set(xlabel="number of the singular value", ylabel="part of the largest one")
    ax.set_title("Derivatives of the densities with respect to positions", fontsize="medium")
    ax.legend(fontsize="small", edgecolor="none")
    return [("singular values of the densities' derivatives", figure)]


def _data(record):
    figures = []
    for kind, quantity in (("energy", ENERGY), ("forces", FORCES)):
        pairs = labelled_pairs(record["parity"], kind)
        if pairs:
            figures.append((f"{kind} of the data", parity_figure(pairs, quantity)))
    return figures
