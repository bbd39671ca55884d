"""The choices that the help lists."""

from __future__ import annotations

from baco.runs.experiments import CONF


def list_choices(group: str) -> str:
    """List the choices of a configuration group, each with the comment that its file begins with."""
    files = sorted((CONF / group).glob("*.yaml"))
    comments = (file.read_text(encoding="utf-8").partition("\n")[0].lstrip("# ") for file in files)
    width = 2 + max(len(file.stem) for file in files)
    return "\n".join(f"  {file.stem:<{width}}{comment}" for file, comment in zip(files, comments, strict=True))
