"""How many batches a host works on at once: while anybody else asks, a core is left to them.

The web processes of a host know nothing of each other but what lies in a folder: `asked`, changed
when somebody last asked for something other than a batch, and a file for each batch that may be
worked on meanwhile, which whoever works on one holds locked. The system lets go for who has ended.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from app.config import ConfigError
from app.cores import but_one, ours

CALM_S: Final = 2.0  # after the last one asked; then batches take all cores
_NOTE_S = 0.5  # a change of the file counts for so long
_PAUSE_S = 0.02
_PAIR = 2


class Turns:
    """The folder, as one web process sees it. `most` is how many batches leave a core free; all
    but the first core are theirs then. Raises ConfigError if the folder cannot be written to."""

    def __init__(self, folder: Path, most: int | None = None) -> None:
        self._asked = folder / "asked"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._asked.touch()
        except OSError as error:
            raise ConfigError(
                f"{folder}: {error.strerror}; let PUHUI_DATA name a folder that web may write to"
            ) from None
        self._cores = ours()
        self._but_one = but_one()
        self._left = self._cores
        self._places = [folder / f"batch-{n}" for n in range(most or len(self._but_one))]
        self._note_at = 0.0

    def note(self) -> None:
        """Somebody asks for something other than a batch."""
        now = time.monotonic()
        if now >= self._note_at:
            self._note_at = now + _NOTE_S
            os.utime(self._asked)
            self._left = self._cores
            if len(self._cores) == _PAIR and any(map(_is_held, self._places)):
                self._left = self._cores - self._but_one

    def left(self) -> frozenset[int]:
        """The cores on which the database is to work for whoever asks, as when last noted: on a
        pair, the one that the batch at work leaves. Of more there is mostly an idle one."""
        return self._left

    @contextmanager
    def taken(self) -> Iterator[frozenset[int]]:
        """Work on a batch, as soon as there is a place or nobody asks for anything else; on which
        cores."""
        with ExitStack() as held:
            while not any(_take(held, place) for place in self._places) and self._is_asked():
                time.sleep(_PAUSE_S)
            yield self._but_one if self._is_asked() else self._cores

    def _is_asked(self) -> bool:
        return time.time() - self._asked.stat().st_mtime < CALM_S


def _take(held: ExitStack, place: Path) -> bool:
    file = place.open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        return False
    held.enter_context(file)  # to be closed, which lets go of it
    return True


def _is_held(place: Path) -> bool:
    with ExitStack() as own:
        return place.exists() and not _take(own, place)
