"""SIGTERM, which batch systems send before they kill, as Ctrl-C: what goes on then ends in order."""

import signal
import threading
from contextlib import contextmanager


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM."""


@contextmanager
def heeding_sigterm():
    """While this lasts SIGTERM raises Terminated, unless somebody heeds it or signals do not reach this thread."""
    here = threading.current_thread() is threading.main_thread()
    if not here or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def is_heeded():
    """Whether SIGTERM raises Terminated now."""
    return signal.getsignal(signal.SIGTERM) is _terminate


def _terminate(number, frame):
    raise Terminated
