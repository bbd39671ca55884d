"""When methods that learn their codes while they train look for new ones."""

from __future__ import annotations

from dataclasses import dataclass

from baco.validation import Validated, setting


@dataclass(frozen=True)
class CodeUpdates(Validated):
    """update_from, update_until : codes are renewed at the end of these epochs, counted from 1, and all in between.

    They are never renewed if `update_until` is 0.
    """

    update_from: int = setting(1, at_least=1)
    update_until: int = setting(1, at_least=0)

    def due(self, epoch: int) -> bool:
        """Whether codes are renewed at the end of this epoch, counted from 0."""
        return self.update_from <= epoch + 1 <= self.update_until
