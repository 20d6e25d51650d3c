# SPDX-License-Identifier: Apache-2.0
"""Progress: a bar in a terminal, and in a log a line now and then."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm

LINE_S = 30.0  # from one line of a log to the next


class ProgressBar(tqdm):  # type: ignore[misc]
    """As tqdm; where standard error is no terminal it writes few lines and no bar."""

    disable: bool

    def __init__(
        self, iterable: Any = None, desc: str = '', total: int | None = None, **options: Any
    ) -> None:
        """
        Begin.

        :param iterable: what is gone through, or None where :meth:`update` says how far it is.
        :param desc: what is done, for people.
        :param total: how many there are, if it is known.
        :param options: as of tqdm.
        """
        self._lines = not sys.stderr.isatty()
        if self._lines:
            options.update(mininterval=LINE_S, maxinterval=LINE_S, miniters=1, delay=LINE_S)
        super().__init__(iterable, desc, total, **options)

    def display(self, msg: str | None = None, pos: int | None = None) -> bool | None:
        """Show how far it is."""
        if not self._lines:
            return bool(super().display(msg, pos))
        values = self.format_dict
        of = f' of {values["total"]}' if values['total'] is not None else ''
        more = f', {values["postfix"]}' if values['postfix'] else ''
        elapsed_s = values['elapsed']
        print(f'{self.desc}: {values["n"]}{of}, {elapsed_s:.0f} s{more}', file=sys.stderr)
        return True

    def close(self) -> None:
        """End; in a log with a line that says how far it came."""
        if self._lines and not self.disable:
            self.display()
            self.disable = True  # tqdm would write to where a bar was
        super().close()
