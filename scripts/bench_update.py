"""Updates against training again: `python scripts/bench_update.py ratings.csv --timestamp t method=baco_plus`.

Of a log, a tenth of the interactions at random is held out. Of the others, the first part in time is the log that a
model is trained on and exported (without times, all of a part of the users, of a part of the items, and some of the
other interactions are left out of it), and the rest is the update. Ranks for all users of the held-out part with

- the first model as it is: users who came later by their interactions alone (docs/use.md), new items not at all;
- its update, after several numbers of epochs;
- a model trained anew on both parts, by the same settings.

Prints recall@20 and seconds, those of reading, of exports and of the first model aside.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from _common import configuration, run_script

from baco.cli.console import log_to_console
from baco.runs.run import Plan, run
from baco.serving.recommender import Recommender
from baco.serving.update import update

K = 20
HELD_OUT, UPDATE = 0.1, 0.1  # of the log, and of what is left
SETTINGS = ["dataset=custom", "dataset.val_share=0.05", "dataset.test_share=0.005"]


def parts(log: pd.DataFrame, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """The first log, the update, and what is held out of both."""
    held_out = rng.random(len(log)) < HELD_OUT
    left, test = log[~held_out], log[held_out]
    if "time" in log:
        left = left.sort_values("time", kind="stable")
        later = np.arange(len(left)) >= (1 - UPDATE) * len(left)
    else:
        share = 1 - (1 - UPDATE) ** (1 / 3)  # of users, of items, and of what is left of the interactions
        later = rng.random(len(left)) < share
        for side in ("user", "item"):
            ids = log[side].unique()
            later |= left[side].isin(ids[rng.random(len(ids)) < share]).to_numpy()
    return left[~later], left[later], test


def trained(folder: Path, log: pd.DataFrame, name: str, overrides: list[str]) -> tuple[Path, float]:
    """The export of a run on a log, and the seconds of codes and training."""
    path = folder / f"{name}.parquet"  # which keeps the type of ids
    log[["user", "item"]].to_parquet(path)
    places = [f"{key}={folder / key}" for key in ("data_dir", "runs_dir", "results_dir")]
    export = folder / f"{name}.npz"
    given = [*SETTINGS, f"dataset.path={path}", f"export={export}", *places, *overrides]
    seconds = run(Plan.of(configuration(given)))["seconds"]
    return export, sum(seconds[part] for part in ("clustering", "search", "training", "validation"))


def recall(recommended: pd.DataFrame, known: pd.DataFrame, test: pd.DataFrame) -> float:
    """Recall@K in percent, over min(K, relevant), of all users of the test; nobody is recommended what is known."""
    taken = recommended.merge(known[["user", "item"]], how="left", indicator=True)
    taken = taken[taken["_merge"] == "left_only"].sort_values(["user", "rank"])
    best = taken.groupby("user").head(K)
    hits = best.merge(test[["user", "item"]]).groupby("user").size()
    relevant = test.groupby("user").size()
    return 100 * float((hits.reindex(relevant.index, fill_value=0) / relevant.clip(upper=K)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("log", type=Path, help="CSV, or the interactions.npz of a prepared dataset")
    parser.add_argument("--user", default="user")
    parser.add_argument("--item", default="item")
    parser.add_argument("--timestamp")
    parser.add_argument("--epochs", type=int, nargs="+", default=[0, 1, 3, 5])
    parser.add_argument("--thresholds", type=float, nargs="+", default=[0.2])
    parser.add_argument("--seed", type=int, default=0, help="of the parts")
    parser.add_argument("overrides", nargs="*", help="of the runs")
    arguments = parser.parse_intermixed_args()
    log_to_console()
    first, later, test = parts(read(arguments), np.random.default_rng(arguments.seed))
    both = pd.concat([first, later])
    new = later[~later["user"].isin(first["user"])]
    come_later = test["user"].isin(new["user"])
    lines = []

    def measure(name: str, recommended: pd.DataFrame, seconds: float) -> None:
        groups = test, test[come_later], test[test["user"].isin(later["user"]) & ~come_later]
        values = "".join(f"{recall(recommended, both, one):>9.2f}" for one in groups)
        lines.append(f"{name:<34}{seconds:>9.2f}{values}")

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        export, seconds = trained(folder, first, "first", arguments.overrides)
        most = K + int(later.groupby("user").size().max())  # what is known of a user since is taken out
        served = Recommender.load(export, folder / "data_dir")
        old = served.recommend(k=most)
        folded = [old, served.recommend(k=most, interactions=new[["user", "item"]])] if len(new) else [old]
        measure("as it is, new users by fold-in", pd.concat(folded), 0)
        for threshold in arguments.thresholds:
            for epochs in arguments.epochs:
                updated = folder / "updated.npz"
                done = update(export, later[["user", "item"]], updated, folder / "data_dir", epochs, threshold)
                text = f"update, {epochs} epochs, threshold {threshold:g}"
                recommended = Recommender.load(updated, folder).recommend(k=K)
                measure(text, recommended, done.assignment_seconds + done.training_seconds)
                print(done)
        anew, again = trained(folder, both, "both", arguments.overrides)
        measure("trained anew", Recommender.load(anew, folder / "data_dir").recommend(k=K), again)
    sizes = f"{len(first):,} interactions, {len(later):,} later, {len(test):,} held out"
    print(f"{sizes}; the first model took {seconds:.1f} s")
    print(f"R@{K} of all users, of new ones, and of old ones with interactions in the update")
    print(f"{'':<34}{'seconds':>9}{'all':>9}{'new':>9}{'old':>9}")
    print("\n".join(lines))


def read(arguments: argparse.Namespace) -> pd.DataFrame:
    """The columns `user`, `item` and, where it was named, `time`."""
    if arguments.log.suffix == ".npz":
        with np.load(arguments.log) as arrays:
            pairs = np.concatenate([arrays[split] for split in ("train", "val", "test")], axis=1)
        return pd.DataFrame({"user": pairs[0], "item": pairs[1]})
    columns = {arguments.user: "user", arguments.item: "item"}
    if arguments.timestamp is not None:
        columns[arguments.timestamp] = "time"
    return pd.read_csv(arguments.log, usecols=list(columns)).rename(columns=columns).drop_duplicates(["user", "item"])


if __name__ == "__main__":
    run_script(main)
