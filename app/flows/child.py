"""What a child process of ours owes its parent."""

from __future__ import annotations

import ctypes
import signal
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2); elsewhere than on Linux there is no such thing


def end_with_parent() -> None:
    """In the child, before its work: be told to end if the parent is killed outright."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
