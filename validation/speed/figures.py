"""Log-log plots of the measurements, with fitted exponents."""

from pathlib import Path

from timing import exponent

#: Axis of every scan: label of what is varied.
AXES = {
    "recursions": "densities per atom, T + 1",
    "radial": "Gaussians K",
    "max_degree": "monomials (L = 0, 1, 2, 3)",
    "densities": "densities M",
    "cutoff": "neighbours",
    "threads": "threads (1,536 atoms of water; 64 CH4)",
}
LABELS = {
    "forces": "energy + forces", "gradient": "gradient of the loss", "energy": "energy alone",
    "list": "neighbour list",
}  # fmt: skip


def _draw(axes, points, colours, fitted=None):
    """Lines of {what: [(size, microseconds, floor in microseconds or None)]}; ``fitted`` picks the sizes of the fit."""
    for colour, (what, rows) in zip(colours, points.items()):
        sizes, values, floors = zip(*rows)
        label = LABELS[what]
        chosen = [row for row in rows if fitted is None or fitted[0] <= row[0] <= fitted[1]]
        if len(chosen) > 1:
            label += f", exponent {exponent([row[0] for row in chosen], [row[1] for row in chosen]):.3f}"
        axes.loglog(sizes, values, "o-", color=colour, label=label, markersize=4)
        if None not in floors:
            axes.loglog(sizes, floors, ":", color=colour, linewidth=1)
    axes.grid(True, which="major", color="#dddddd")
    axes.legend(fontsize=8, frameon=False)


def write_figures(folder, points, fitted):
    """Write speed_atoms.png and speed_model.png; ``points`` is {scan: {what: [(x, microseconds, floor)]}}."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter

    from eann_lite.plots import COLOURS

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    if "atoms" in points:
        figure = Figure(figsize=(7, 5), layout="constrained")
        axes = figure.add_subplot()
        _draw(axes, points["atoms"], COLOURS, fitted)
        axes.set(xlabel="atoms", ylabel="µs", title="Water, one thread (dotted: floor of the arithmetic)")
        written.append((figure, folder / "speed_atoms.png"))
    scans = [name for name in AXES if name in points]
    if scans:
        figure = Figure(figsize=(4 * min(3, len(scans)), 3.4 * -(-len(scans) // 3)), layout="constrained")
        for n, name in enumerate(scans):
            axes = figure.add_subplot(-(-len(scans) // 3), min(3, len(scans)), n + 1)
            _draw(axes, points[name], COLOURS)
            ticks = sorted({row[0] for rows in points[name].values() for row in rows})
            axes.set_xticks(ticks, [f"{tick:.0f}" for tick in ticks])
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.set(xlabel=AXES[name], ylabel="µs per atom")
        figure.suptitle("192 atoms of water; dotted: floor of the arithmetic", fontsize=10)
        written.append((figure, folder / "speed_model.png"))
    for figure, path in written:
        figure.savefig(path, dpi=120)
    return [str(path) for _, path in written]
