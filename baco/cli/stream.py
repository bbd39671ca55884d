"""`baco stream`: train on what has come of a stream, rank what comes next, segment by segment."""

from __future__ import annotations

from baco.cli.run import run_command


def run_stream(arguments: list[str]) -> int:
    """Follow the stream that the arguments describe, see conf/stream.yaml; returns the exit status."""
    return run_command(arguments, "baco stream", "stream")
