"""What a person sees of a running fit: a bar on a terminal, a line now and then elsewhere, or nothing.

Every object has the methods that ``eann_lite.fit`` calls: ``start``, ``update`` and ``finish``.  Progress is written
to standard error, so that standard output holds results only.
"""

import sys
import time

#: Without a terminal a line is written at each of so many parts of the work, and after this many seconds.
LINE_PARTS, LINE_SECONDS = 10, 60.0
#: The bar is drawn at most this often (seconds): a fit may report each of thousands of steps.
REDRAW_SECONDS = 0.2
#: Errors on the validation set that are shown, with their units.
SHOWN_ERRORS = (("energy_rmse_mev", "meV"), ("forces_rmse_mev_per_ang", "meV/A"))


def progress_for(stream=None, quiet=False):
    """The progress object for a stream (default: standard error): a bar, lines, or None when ``quiet``."""
    stream = sys.stderr if stream is None else stream
    if quiet:
        return None
    return BarProgress(stream) if stream.isatty() else LineProgress(stream)


class Clock:
    """Time left of work whose finished fraction is told now and then.

    The first call sets the starting point: a resumed fit does not begin at zero, and the time before (compiling,
    reading) says nothing about the speed.
    """

    def __init__(self, now=time.monotonic):
        self._now = now
        self._first = None

    def seconds_left(self, fraction):
        """Seconds until the fraction is 1 at the mean speed so far; None while that is unknown."""
        if self._first is None:
            self._first = fraction, self._now()
        done = fraction - self._first[0]
        if done <= 0.0:
            return None
        return (self._now() - self._first[1]) * max(0.0, 1.0 - fraction) / done


def time_text(seconds):
    """Seconds as minutes and seconds, or hours, minutes and seconds.

    >>> time_text(83.4), time_text(3723)
    ('1:23', '1:02:03')
    """
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"


def errors_text(row):
    """Validation errors of a history row, as far as there are any.

    >>> errors_text({"energy_rmse_mev": 43.51, "forces_rmse_mev_per_ang": 160.2})
    '43.5 meV, 160 meV/A'
    """
    found = [(row.get(key), unit) for key, unit in SHOWN_ERRORS]
    return ", ".join(f"{number_text(value)} {unit}" for value, unit in found if value is not None)


def number_text(value):
    """An error with three digits that count, without an exponent; a dash where there is none.

    >>> number_text(0.01234), number_text(43.517), number_text(1234.5), number_text(None)
    ('0.0123', '43.5', '1234', '-')
    """
    if value is None:
        return "-"
    if abs(value) >= 100.0:
        return f"{value:.0f}"
    return f"{value:.3g}" if abs(value) >= 1e-3 or value == 0.0 else f"{value:.1e}"


def end_text(seconds_left):
    """Time left, and when the work will end on the clock."""
    if seconds_left is None:
        return ""
    clock = time.strftime("%H:%M:%S", time.localtime(time.time() + seconds_left))
    return f"{time_text(seconds_left)} left, ends {clock}"


class BarProgress:
    """A bar on a terminal: fraction, epoch, validation errors, time left and the clock time of the end."""

    def __init__(self, stream):
        self._stream = stream
        self._bar = None
        self._clock = Clock()
        self._drawn = 0.0
        self._row = None

    def start(self, total_fraction_unit, settings):
        """Draw the bar, once; ``total_fraction_unit`` says what the fraction is of, epochs or time."""
        from tqdm import tqdm

        self._row = None
        if self._bar is not None:
            self._bar.set_description_str(total_fraction_unit)
            return
        # Fixed and short, so that the line fits into 80 columns and its end is never cut off.
        bar_format = "fit {percentage:3.0f}% |{bar:6}| {desc}"
        self._bar = tqdm(total=1.0, bar_format=bar_format, file=self._stream, dynamic_ncols=True)
        self._bar.set_description_str("starting")

    def update(self, fraction, epoch, row):
        """Show that ``fraction`` (0 to 1) is done, in epoch ``epoch``; ``row`` is its history entry, or None."""
        left = self._clock.seconds_left(fraction)
        self._row = row or self._row
        if time.monotonic() - self._drawn < REDRAW_SECONDS and fraction < 1.0:
            return
        self._drawn = time.monotonic()
        parts = [f"epoch {epoch}", errors_text(self._row or {}), end_text(left)]
        self._bar.n = min(1.0, fraction)
        self._bar.set_description_str(", ".join(part for part in parts if part))

    def finish(self, message):
        """Leave the bar as it stands, and write ``message`` below it."""
        if self._bar is not None:
            self._bar.close()
        if message:
            print(message, file=self._stream, flush=True)


class LineProgress:
    """A line at each tenth of the work and each minute, for logs."""

    def __init__(self, stream, now=time.monotonic):
        self._stream = stream
        self._now = now
        self._clock = Clock(now)
        self._last_part, self._last_time = 0, now()
        self._row = None

    def start(self, total_fraction_unit, settings):
        """Write that it begins; ``total_fraction_unit`` says what the fraction is of, epochs or time."""
        self._say(f"fit, progress by {total_fraction_unit}")

    def update(self, fraction, epoch, row):
        """Write a line if a tenth of the work or a minute has passed since the last."""
        left = self._clock.seconds_left(fraction)
        self._row = row or self._row
        now = self._now()
        # The small number keeps 0.3 from being counted as less than three tenths.
        part = int(LINE_PARTS * fraction + 1e-9)
        if part == self._last_part and now - self._last_time < LINE_SECONDS:
            return
        self._last_part, self._last_time = part, now
        parts = [f"{100.0 * fraction:3.0f}%", f"epoch {epoch}", errors_text(self._row or {}), end_text(left)]
        self._say(", ".join(part for part in parts if part))

    def finish(self, message):
        """Write ``message``."""
        if message:
            self._say(message)

    def _say(self, text):
        print(text, file=self._stream, flush=True)


class PartOfProgress:
    """Progress of one of several fits after each other, as a part of the whole, which ends with the last of them.

    whole : object with ``start``, ``update`` and ``finish``; begin, width : the part, of 1; name : of the part
    """

    def __init__(self, whole, begin, width, name):
        self._whole, self._begin, self._width, self._name = whole, begin, width, name

    def start(self, total_fraction_unit, settings):
        """Say that this part begins."""
        self._whole.start(f"{total_fraction_unit}: {self._name}", settings)

    def update(self, fraction, epoch, row):
        """Show the fraction of the whole that is done."""
        self._whole.update(self._begin + self._width * fraction, epoch, row)

    def finish(self, message):
        """The end, if it is."""
        if self._begin + self._width > 1.0 - 1e-9:
            self._whole.finish(message)


class StepProgress:
    """One line that is rewritten: the part done and what is done now; for a terminal."""

    def __init__(self, stream):
        self._stream, self._width = stream, 0

    def update(self, fraction, text):
        """Show that ``fraction`` (0 to 1) is done and ``text`` is being done."""
        line = f"{fraction:4.0%} {text}"
        print(f"\r{line:<{self._width}}", end="", file=self._stream, flush=True)
        self._width = len(line)

    def finish(self):
        """Take the line away."""
        print(f"\r{'':<{self._width}}\r", end="", file=self._stream, flush=True)
