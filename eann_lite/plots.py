"""Plots of a fit: predicted against reference energies and forces, and the learning curve.

Figures are plain ``matplotlib.figure.Figure`` objects, drawn without a window and without pyplot's global state.
"""

import math
from pathlib import Path

import numpy as np

#: Colours that people with any colour vision tell apart (Okabe and Ito), in the order of the parts.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9")
#: From this many points on a parity plot counts points in hexagons instead of drawing each.
HEXAGONS_FROM = 3000
GREY = "#777777"
#: What the two parity plots show: title, quantity on the axes, factor and unit of the errors.
ENERGY = ("Energy per atom", "energy (eV/atom)", "meV/atom")
FORCES = ("Force components", "force (eV/Å)", "meV/Å")


def write_parity_plots(directory, predictions):
    """Write parity_energy.png and parity_forces.png, each if there are such labels; returns the paths.

    predictions : {"train_energy_true": array, ...} as in predictions.npz: for each part energy_true,
        energy_predicted (Q,) in eV, n_atoms (Q,), forces_true, forces_predicted (N, 3) in eV/Angstrom; NaN is missing.
    """
    directory = Path(directory)
    written = []
    for name, kind, quantity in (("parity_energy.png", "energy", ENERGY), ("parity_forces.png", "forces", FORCES)):
        pairs = labelled_pairs(predictions, kind)
        if pairs:
            written.append(save_figure(parity_figure(pairs, quantity), directory / name))
    return written


def write_learning_curve(directory, history):
    """Write learning_curve.png from the history (list of rows) of a fit; returns its path."""
    return save_figure(learning_curve_figure(history), Path(directory) / "learning_curve.png")


def labelled_pairs(predictions, kind):
    """{part: (true, predicted)} where labelled; ``kind`` is "energy" (eV per atom) or "forces" (all components)."""
    pairs = {}
    ending = f"_{kind}_true"
    for name in predictions:
        if not name.endswith(ending):
            continue
        part = name.removesuffix(ending)
        true, predicted = (np.asarray(predictions[f"{part}_{kind}_{which}"], float) for which in ("true", "predicted"))
        if kind == "energy":
            n_atoms = np.asarray(predictions[f"{part}_n_atoms"])
            true, predicted = true / n_atoms, predicted / n_atoms
        known = ~np.isnan(true)
        if known.any():
            pairs[part] = true[known], predicted[known]
    return pairs


def parity_figure(pairs, quantity):
    """Figure with a parity plot for each part, and the distribution of the absolute errors of all parts.

    pairs : {part: (true, predicted)}, flat arrays in the unit of the axes (eV/atom or eV/Angstrom).
    quantity : title, axis label, unit of a thousandth of it, as ``ENERGY`` and ``FORCES``.
    """
    title, label, unit = quantity
    columns = 2 if len(pairs) in (1, 3) else 3
    rows = math.ceil((len(pairs) + 1) / columns)
    figure = new_figure(4.4 * columns, 4.1 * rows + 0.3)
    figure.suptitle(title, fontweight="bold")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for i, (part, (true, predicted)) in enumerate(pairs.items()):
        _draw_parity(figure, axes[i], part, true, predicted, label, unit, COLOURS[i % len(COLOURS)])
    _draw_distribution(axes[len(pairs)], pairs, unit)
    for empty in axes[len(pairs) + 1 :]:
        empty.set_axis_off()
    return figure


def learning_curve_figure(history):
    """Figure of the losses and of the validation errors by epoch, on logarithmic axes; the best epoch is marked.

    history : rows with epoch, seconds, loss, validation_loss, energy_rmse_mev, energy_mae_mev, forces_rmse_mev_per_ang,
        forces_mae_mev_per_ang and best; None is missing.
    """
    panels = [([("loss", "training, mean of the epoch"), ("validation_loss", "validation")], "loss")]
    for name, unit, ending in (("energy", "meV", "mev"), ("forces", "meV/Å", "mev_per_ang")):
        lines = [(f"{name}_rmse_{ending}", "RMSE"), (f"{name}_mae_{ending}", "MAE")]
        if any(row.get(key) is not None for row in history for key, _ in lines):
            panels.append((lines, f"validation {name} error ({unit})"))
    figure = new_figure(8.0, 2.3 * len(panels) + 0.6)
    axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    epochs = np.array([row["epoch"] for row in history], dtype=float)
    best = [row["epoch"] for row in history if row.get("best")]
    marker = "o" if len(history) < 30 else None
    for ax, (lines, label) in zip(axes, panels):
        for (key, name), colour in zip(lines, COLOURS):
            if all(row.get(key) is None for row in history):
                continue
            values = np.array([np.nan if row.get(key) is None else row[key] for row in history], dtype=float)
            # The largest value is at the start and says little, but hiding it would hide a fit that went wrong.
            ax.plot(epochs, values, color=colour, lw=1.5, marker=marker, ms=3, label=name)
        ax.set_yscale("log")
        label_log_axis(ax.yaxis)
        ax.set_ylabel(label)
        if best:
            ax.axvline(best[-1], color=GREY, lw=1, ls="--", zorder=0)
        ax.legend(framealpha=0.9, edgecolor="none", fontsize="small", loc="upper right")
    axes[-1].set_xlabel("epoch")
    seconds = history[-1].get("seconds") if history else None
    notes = [] if seconds is None else [f"{seconds / 60:.1f} minutes"]
    notes += [f"best epoch {best[-1]}, dashed"] if best else []
    axes[0].set_title("Learning curve" + (f" ({', '.join(notes)})" if notes else ""), fontweight="bold")
    return figure


def save_figure(figure, path):
    """Write a figure as PNG, whole or not at all; returns the path."""
    from eann_lite.io.atomic import write_atomically

    write_atomically(path, lambda file: file.write(figure_png(figure)))
    return path


def figure_png(figure):
    """The bytes of a figure as PNG; without metadata equal data give equal bytes for one version of matplotlib."""
    from io import BytesIO

    content = BytesIO()
    figure.savefig(content, format="png", dpi=130, metadata={"Software": None})
    return content.getvalue()


def new_figure(width, height):
    """An empty figure (inches) that needs neither a window nor pyplot."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def label_log_axis(axis):
    """Plain numbers, also between powers of ten: an axis that spans less than a decade would carry no label."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=8))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


# ---- parts ----------------------------------------------------------------------------------------------------------


def _draw_parity(figure, ax, part, true, predicted, label, unit, colour):
    low, high = min(true.min(), predicted.min()), max(true.max(), predicted.max())
    margin = 0.04 * (high - low) or 1e-3 * max(1.0, abs(high))
    limits = low - margin, high + margin
    ax.plot(limits, limits, color=GREY, lw=1, zorder=0 if true.size < HEXAGONS_FROM else 3, alpha=0.7)
    if true.size < HEXAGONS_FROM:
        ax.plot(true, predicted, ".", color=colour, ms=5, alpha=0.45 if true.size > 100 else 0.8, mew=0)
    else:
        cells = ax.hexbin(
            true, predicted, gridsize=100, bins="log", mincnt=1, extent=(*limits, *limits), linewidths=0.1
        )
        figure.colorbar(cells, ax=ax, label="points", shrink=0.75, pad=0.02)
    ax.set(xlim=limits, ylim=limits, xlabel=f"reference {label}", ylabel=f"predicted {label}", aspect="equal")
    for axis in (ax.xaxis, ax.yaxis):
        axis.get_major_formatter().set_useOffset(False)
    ax.locator_params(nbins=5)
    errors = 1e3 * (predicted - true)
    rmse, mae = np.sqrt(np.mean(errors**2)), np.mean(np.abs(errors))
    ax.set_title(f"{part}: RMSE {_three_digits(rmse)}, MAE {_three_digits(mae)} {unit}", fontsize="medium")


def _draw_distribution(ax, pairs, unit):
    """Share of points with an absolute error below x, x on a logarithmic axis: median and tail at a glance."""
    lowest, highest = np.inf, 0.0
    for (part, (true, predicted)), colour in zip(pairs.items(), COLOURS * len(pairs)):
        errors = np.sort(1e3 * np.abs(predicted - true))
        share = np.arange(1, errors.size + 1) / errors.size
        median = np.median(errors)
        ax.step(errors, share, where="post", color=colour, lw=1.5, label=f"{part}, median {_three_digits(median)}")
        # Errors that vanish by chance would stretch the axis over decades in which nothing happens.
        lowest, highest = min(lowest, np.quantile(errors, 0.01)), max(highest, errors[-1])
    ax.axhline(0.5, color=GREY, lw=0.8, ls=":")
    if highest > 0.0:
        ax.set_xscale("log")
        ax.set_xlim(max(lowest, 1e-5 * highest), 1.3 * highest)
    ax.set(ylim=(0, 1.02), xlabel=f"absolute error ({unit})", ylabel="share with a smaller error")
    ax.set_title("distribution of errors", fontsize="medium")
    ax.legend(framealpha=0.9, edgecolor="none", fontsize="small", loc="lower right")
    ax.set_box_aspect(1)


def _three_digits(value):
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
