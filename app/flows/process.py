"""What a process of ours sets for itself before its work."""

from __future__ import annotations

import ctypes
import gc
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2); elsewhere than on Linux there is no such thing


def end_with_parent() -> None:
    """In a child, before its work: be told to end if the parent is killed outright."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def collect_seldom() -> None:
    """A batch makes a few hundred thousand short-lived objects and no cycles: with the default
    thresholds the collector walks them again and again, for a third of the time."""
    gc.freeze()
    gc.set_threshold(100_000, 50, 1000)
