"""When methods that learn their codes while they train look for new ones."""

from __future__ import annotations

from dataclasses import dataclass

from baco.errors import UserError


@dataclass(frozen=True)
class CodeUpdates:
    """update_from, update_until : codes are renewed at the end of these epochs, counted from 1, and all in between."""

    update_from: int = 1
    update_until: int = 1

    def __post_init__(self):
        if self.update_from < 1:
            raise UserError(f"method.update_from={self.update_from} must be 1 or more; epochs are counted from 1")
        if self.update_until < 0:
            raise UserError(f"method.update_until={self.update_until} must be 0 (never) or the last epoch of an update")

    def due(self, epoch: int) -> bool:
        """Whether codes are renewed at the end of this epoch, counted from 0."""
        return self.update_from <= epoch + 1 <= self.update_until
