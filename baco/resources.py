"""Where the folders lie that travel with the code: the configuration and the published numbers."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent


def resource_folder(in_package: str, in_checkout: str) -> Path:
    """Find a folder of files that are no code.

    An installed package holds it (setup.py puts it there). A checkout has it at the top of the tree, and so has an
    editable install of one.

    Parameters
    ----------
    in_package : str
        Its path below the package `baco`.
    in_checkout : str
        Its path below the top of a checkout.
    """
    installed = PACKAGE / in_package
    return installed if installed.is_dir() else PACKAGE.parent / in_checkout
