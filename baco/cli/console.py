"""What a program shows while it runs."""

from __future__ import annotations

import logging


def log_to_console() -> None:
    """Show what happens; details go to the log file of the run."""
    console = logging.StreamHandler()
    console.setLevel(logging.INFO)
    logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[console])
