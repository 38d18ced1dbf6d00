"""The table: rows, their targets, and how they are printed."""

from timing import here, take_turns

#: Targets (bar, stretch) of rows, in their unit.
TARGETS = {
    "E + F, T 3": (18.0, 14.0), "E + F, T 3, float32": (11.0, 8.0), "E + F, T 0": (8.0, 6.0), "gradient, T 3": (65.0, 45.0),
    "gradient / (E + F)": (4.0, 3.2), "neighbour list / (E + F)": (0.3, 0.15), "exponent of E + F": (1.02, 1.0),
    "CH4 through ASE": (250.0, 120.0), "CH4 in a batch of 1000": (60.0, 40.0), "training on CH4": (4000.0, 8000.0),
    "2 threads, E + F of 1536 atoms": (1.8, 1.9), "2 threads, gradient of 64 CH4": (1.8, 1.9),
    "peak memory, E + F": (30.0, 10.0), "first call, cold": (25.0, 12.0), "first call, cached": (2.0, 1.0),
    "import eann_lite": (0.3, 0.15), "E + F, other cores busy: 2 threads / 1": (1.2, None),
}  # fmt: skip


class Report:
    """Rows of the table, points of the plots, and what all measurements share.

    against : (folder of the published code, interpreter for it), or None
    """

    def __init__(self, quick, against=None):
        self.quick, self.against, self.rows, self.points = quick, against, [], {}

    def take_turns(self, functions, others=None, longest=20.0):
        """``Times`` of functions of this process and, among them, of seconds(loops) of ``others``.

        longest : after so many seconds (8 of a quick run) no further round begins, but there are three.
        """
        timers = {name: here(function) for name, function in functions.items()} | (others or {})
        return take_turns(timers, *((3, 0.25, 8.0) if self.quick else (7, 0.25, longest)))

    def add(self, what, value, unit, floor=None, spread=None, published=None, note=""):
        """One row; for a unit per second more is better, for all others less."""
        self.rows.append({"what": what, "value": value, "unit": unit, "floor": floor, "spread": spread, "note": note})
        if floor:
            self.rows[-1]["over_floor"] = floor / value if unit.endswith("/s") else value / floor
        for name, theirs in (published or {}).items():
            self.rows[-1] |= {f"published_{name}": theirs, f"times_{name}": theirs / value}
        if what in TARGETS:
            self.rows[-1]["bar"], self.rows[-1]["stretch"] = TARGETS[what]
        print(line(self.rows[-1]), flush=True)

    def add_per_atom(self, what, times, name, n_atoms, floor_work=None, lanes=1, **more):
        """Row of microseconds per atom of something that took its turn; float32 has two lanes where float64 has one."""
        per_atom = 1e6 / n_atoms
        floor = floor_work and 1e6 * floor_work.seconds(times.rate) / lanes
        self.add(what, times.median(name) * per_atom, "us/atom", floor, times.spread(name), **more)

    def point(self, scan, what, x, microseconds, floor=None):
        """Point of a plot."""
        self.points.setdefault(scan, {}).setdefault(what, []).append((x, microseconds, floor))


def line(row):
    """Row of the table as text."""

    def number(name, text="{:>9.4g}", width=9):
        return text.format(row[name]) if row.get(name) is not None else " " * width

    columns = [f"{row['what']:44.44s}", number("value"), f"{row['unit']:13s}", number("spread", "{:>5.0%}", 5)]
    columns += [number("floor"), number("over_floor", "{:>7.2f}", 7)]
    for name in ("tuned", "plain"):
        columns += [number(f"published_{name}"), number(f"times_{name}", "{:>6.1f}x", 7)]
    columns += [number("bar", "{:>7g}", 7), number("stretch", "{:>7g}", 7), row.get("note", "")]
    return " ".join(columns).rstrip()


HEADER = (
    f"{'':44s} {'ours':>9s} {'unit':13s} {'+-':>5s} {'floor':>9s} {'/ floor':>7s} {'REANN':>9s} {'/ ours':>7s} "
    f"{'untuned':>9s} {'/ ours':>7s} {'bar':>7s} {'stretch':>7s}"
)
