"""Learning curves: errors of fits against the number of training structures, one line for every T, over seeds."""

from itertools import product

import numpy as np

#: From this factor on an error counts as behind another one: single fits scatter by a tenth.
BEHIND = 1.2


def grid_of(**values):
    """All combinations as dicts: ``grid_of(n=[1, 2], seed=[0, 1])``, the last name running fastest."""
    return [dict(zip(values, combination)) for combination in product(*values.values())]


def medians(rows, key, **chosen):
    """(n (K,), median of ``key`` over seeds (K,), smallest (K,), largest (K,)) of the rows with these values."""
    points = {}
    for row in rows:
        if all(row.get(name) == value for name, value in chosen.items()) and row.get(key) is not None:
            points.setdefault(row["n"], []).append(row[key])
    counts = sorted(points)
    errors = [points[n] for n in counts]
    return np.array(counts), *(np.array([reduce(e) for e in errors]) for reduce in (np.median, np.min, np.max))


def behind_from(rows, key, **chosen):
    """Smallest n from which on T = 0 stays behind the best T > 0 by a factor of BEHIND, or None."""
    steps = sorted({row["recursions"] for row in rows})
    curves = {t: dict(zip(*medians(rows, key, recursions=t, **chosen)[:2])) for t in steps}
    others = [curve for t, curve in curves.items() if t > 0]
    shared = sorted(n for n in curves.get(0, {}) if any(n in curve for curve in others))
    found = None
    for n in reversed(shared):
        if curves[0][n] < BEHIND * min(curve[n] for curve in others if n in curve):
            break
        found = int(n)
    return found


def draw_curves(rows, panels, path, xlabel="training structures"):
    """Log-log figure, one panel for each of ``panels``: dicts with title, key, label, and optionally

    chosen : values that the rows of the panel have
    published : list of (name, n values, errors, style) drawn in the same axes; limits : {name: error}, drawn across
    """
    from eann_lite.plots import COLOURS, GREY, label_log_axis, new_figure, save_figure

    figure = new_figure(5.2 * len(panels), 4.3)
    for ax, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
        for t, colour in zip(sorted({row["recursions"] for row in rows}), COLOURS):
            n, middle, low, high = medians(rows, panel["key"], recursions=t, **panel.get("chosen", {}))
            if n.size:
                ax.fill_between(n, low, high, color=colour, alpha=0.15, lw=0)
                ax.plot(n, middle, "o-", color=colour, ms=4, lw=1.5, label=f"T = {t}")
        for name, n, errors, style in panel.get("published", ()):
            ax.plot(n, errors, style, color="black", ms=4, lw=1.0, label=name)
        for (name, error), line in zip(panel.get("limits", {}).items(), ("--", ":")):
            ax.axhline(error, color=GREY, lw=1, ls=line, label=name)
        ax.set(xscale="log", yscale="log", xlabel=xlabel, ylabel=panel["label"])
        ax.set_title(panel["title"], fontsize="medium")
        label_log_axis(ax.xaxis)
        label_log_axis(ax.yaxis)
        # Below the axes, where it hides no curve.
        ax.legend(frameon=False, fontsize="small", loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)
    return save_figure(figure, path)
