"""Write the LightGCN release's split of Gowalla and Yelp2018 to lightgcn_split.npz."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from _common import run_script

from baco.data.lightgcn import BLOBS, prepare


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=list(BLOBS), help=f"default: {' '.join(BLOBS)}")
    folder = Path(os.environ.get("BACO_DATA_DIR", "data"))
    parser.add_argument("--data", type=Path, default=folder, help=f"where to write (default: {folder})")
    arguments = parser.parse_args()
    for name in arguments.names:
        data = prepare(name, arguments.data)
        print(f"{name}: {data.num_users} users, {data.num_items} items, split {data.fingerprint[:8]}")


if __name__ == "__main__":
    run_script(main)
