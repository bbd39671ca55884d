"""`run.py` as a user meets it: in a process of its own, on small data."""

import io
import re
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import torch

from baco.cli.main import call
from baco.data.interactions import save_interactions
from baco.files import read_arrays
from baco.registry import METHODS, method_class
from baco.runs.experiments import GROUPS
from baco.runs.record import record_arrays, unpack_hits
from baco.serving.export import load_tables
from baco.serving.recommender import Recommender
from tests.cli.workplace import ROOT, TINY, Running, Workplace


def test_one_run_is_recorded_and_then_skipped(workplace):
    command = workplace.command(*TINY, "method=baco", "backbone=lightgcn")
    first = subprocess.run(**command, capture_output=True, text=True, check=True)
    assert "synthetic: 300 users, 200 items" in first.stderr and "recorded in" in first.stderr
    header, row = first.stdout.splitlines()
    assert header.split()[:4] == ["method", "parameters", "bytes", "R@20"] and row.startswith("BACO")

    ((name, record),) = workplace.records().items()
    assert name.startswith("synthetic-lightgcn-baco-") and name.endswith(record["id"])
    assert 0 < record["size"]["parameters"] <= 0.5 * 500 * 16 and record["size"]["budget_used"] <= 1
    assert set(record["metrics"]) == {"val", "test", "test_by_activity"}
    assert record["assignment"]["resolution"] > 0
    assert record["seconds"]["training"] > 0 and record["memory"]["host_peak_bytes"] > 1e7
    assert record["training"]["convergence"]["cut_off"] in (True, False, None)
    assert record["environment"]["libraries"]["torch"] and record["code"]["version"]
    assert f"{100 * record['metrics']['test']['recall@20']:.2f}" in row
    _, num_relevant, hits = unpack_hits(record_arrays(record, workplace.path / "records"))
    recall = (hits[:, :20].sum(1) / np.minimum(num_relevant, 20)).mean()
    assert recall == pytest.approx(record["metrics"]["test"]["recall@20"])

    again = workplace.succeeds(*TINY, "method=baco", "backbone=lightgcn")
    assert "already recorded in" in again.stderr and again.stdout == first.stdout
    assert workplace.records() == {name: record}


def test_force_repeats_the_same_numbers(workplace):
    workplace.succeeds(*TINY, "method=random", "threads=1")
    ((name, first),) = workplace.records().items()
    workplace.succeeds(*TINY, "method=random", "force=true")
    ((same_name, second),) = workplace.records().items()
    assert same_name == name
    assert second["metrics"] == first["metrics"] and second["training"] == first["training"]
    assert second["seconds"] != first["seconds"]


def test_where_data_and_results_lie_decides_nothing(workplace):
    workplace.succeeds(*TINY, "method=full")
    (workplace.path / "elsewhere").mkdir()
    moved = Workplace(workplace.path / "elsewhere")
    moved.succeeds(*TINY, "method=full", "device=cpu", "threads=1")
    assert set(moved.records()) == set(workplace.records())


def test_a_sweep_ends_in_one_table_in_the_order_asked_for(workplace):
    done = workplace.succeeds("-m", *TINY, "method=full,random,baco", "backbone=mf", "seed=0,1")
    assert [line.split()[:2] for line in done.stdout.splitlines()] == [
        ["seed", "method"],
        ["0", "Full"],
        ["1", "Full"],
        ["0", "Random"],
        ["1", "Random"],
        ["0", "BACO"],
        ["1", "BACO"],
    ]
    assert len(workplace.records()) == 6
    assert {path.name for path in workplace.path.iterdir()} == {"records", "runs"}, "nothing is strewn about"
    logs = list((workplace.path / "runs").glob("*.log"))
    assert len(logs) == 6 and all("epoch 1: loss" in log.read_text() for log in logs)


def test_a_sweep_over_budgets_ends_with_the_runs_that_could_be_done(workplace):
    done = workplace.run("-m", *TINY[:-1], "method=baco", "budget=0.001,0.4,0.6")
    assert done.returncode == 1
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "budget of 8 parameters is below the least" in error and "raise the budget" in error
    sizes = [record["size"]["parameters"] for record in workplace.records().values()]
    assert len(sizes) == 2 and len(done.stdout.splitlines()) == 3
    assert sorted(sizes) == pytest.approx([0.4 * 8000, 0.6 * 8000], rel=0.03)


def test_a_sweep_over_methods_can_set_what_the_default_one_lacks(workplace):
    error = workplace.fails("-m", *TINY, "method=lp,brim", "method.matched=false")
    assert error.endswith("no setting of the default method; in a sweep give it as ++method.matched=VALUE")
    workplace.succeeds("-m", *TINY, "method=lp,brim", "++method.matched=false")
    assert [record["config"]["method"]["matched"] for record in workplace.records().values()] == [False, False]


def test_the_assignment_is_shared_between_backbones(workplace):
    workplace.succeeds("-m", *TINY, "method=baco", "backbone=mf,lightgcn")
    assert len(list((workplace.path / "runs" / "assignments").glob("*.npz"))) == 1
    seconds = {record["seconds"]["clustering"] for record in workplace.records().values()}
    assert len(seconds) == 1


def stored_bytes(arrays: dict[str, np.ndarray]) -> int:
    """What an export holds for a server, beside its descriptions and what only an update needs."""
    others = ("header", "model", "labels", "users.names", "items.names")
    return sum(array.nbytes for name, array in arrays.items() if name not in others)


def test_trained_tables_are_exported(workplace):
    workplace.succeeds(*TINY, "method=baco", "export=out/tables.npz")
    (record,) = workplace.records().values()
    with np.load(workplace.path / "out" / "tables.npz") as archive:
        arrays = dict(archive)
    assert stored_bytes(arrays) == record["size"]["bytes"]
    users, items = load_tables(arrays)()
    assert users.shape == (300, 16) and items.shape == (200, 16)


def test_an_export_recommends_items_under_the_ids_of_the_log(workplace, capsys):
    rng = np.random.default_rng(0)
    group = rng.integers(2, size=600)  # two groups of users, each with items of its own
    log = pd.DataFrame({"user": 2 * rng.integers(30, size=600) + group, "item": 2 * rng.integers(40, size=600) + group})
    log = log.drop_duplicates().astype(str)
    log["user"], log["item"] = "u" + log["user"], "i" + log["item"]
    log.to_csv(workplace.path / "log.csv", index=False)
    of_log = ["dataset=custom", "dataset.path=log.csv", "method=baco_plus", "budget=0.5", "export=tables.npz"]
    workplace.succeeds(*of_log, "dim=16", "protocol.max_epochs=4")
    command = ["recommend", str(workplace.path / "tables.npz"), "--data", str(workplace.path / "data")]
    assert call([*command, "--users", "u5", "u8", "-k", "3"]) == 0
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert found[["user", "rank"]].to_numpy().tolist() == [
        ["u5", 1],
        ["u5", 2],
        ["u5", 3],
        ["u8", 1],
        ["u8", 2],
        ["u8", 3],
    ]
    known = set(zip(log["user"], log["item"], strict=True))
    for user, item in zip(found["user"], found["item"], strict=True):
        assert (user, item) not in known
        assert int(item[1:]) % 2 == int(user[1:]) % 2, "of the user's own group"
    assert call([*command, "--users", "u5", "eve"]) == 1
    assert capsys.readouterr().err.startswith("error: user 'eve' has no interaction in 'custom'")


def test_a_loss_is_chosen_and_its_score_is_that_of_the_export(workplace):
    """Recall under cosines needs cosines all the way; dot products of the same tables rank otherwise."""
    workplace.succeeds(*TINY, "method=baco", "loss=ssm", "loss.negatives=64", "export=tables.npz")
    workplace.succeeds(*TINY, "method=baco", "loss=bpr")
    by_loss = {record["config"]["loss"]["name"]: record for record in workplace.records().values()}
    assert by_loss.keys() == {"bpr", "ssm"}
    assert by_loss["ssm"]["config"]["loss"]["negatives"] == 64
    recommender = Recommender.load(workplace.path / "tables.npz", workplace.path / "data")
    lengths = torch.cat([recommender.users, recommender.items]).norm(dim=1)
    torch.testing.assert_close(lengths[lengths > 0], torch.ones_like(lengths[lengths > 0]))
    assert recommender.recommend(k=5)["score"].abs().max() <= 1 + 1e-6


def test_quantized_tables_spend_their_bytes_on_rows_and_are_exported_packed(workplace):
    spends = ["method=random", "budget=0.2", "budget_unit=bytes", "quantize=int8"]
    done = workplace.succeeds(*TINY[:-1], *spends, "export=out/tables.npz")
    assert done.stdout.splitlines()[1].startswith("Random + int8 ")
    (record,) = workplace.records().values()
    assert record["config"]["quantize"] == {"name": "uniform", "bits": 8, "symmetric": True, "fitted": False}
    size = record["size"]
    rows = size["user_rows"] + size["item_rows"]
    assert rows == (6400 - 32) // 18, "of 18 bytes, beside a hash for each side"
    assert size["bytes"] == 32 + 18 * rows and size["budget_limit"] == 6400
    with np.load(workplace.path / "out" / "tables.npz") as archive:
        arrays = dict(archive)
    assert stored_bytes(arrays) == size["bytes"]
    users, items = load_tables(arrays)()
    assert users.shape == (300, 16) and items.shape == (200, 16)


def test_an_export_asked_for_later_is_made(workplace):
    workplace.succeeds(*TINY, "method=random")
    workplace.succeeds(*TINY, "method=random", "export=tables.npz")
    made = (workplace.path / "tables.npz").read_bytes()
    assert "already recorded" in workplace.succeeds(*TINY, "method=random", "export=tables.npz").stderr
    done = workplace.succeeds(*TINY, "method=full", "export=tables.npz")
    assert "tables.npz holds the tables of another run; these will take their place" in done.stderr
    assert (workplace.path / "tables.npz").read_bytes() != made
    workplace.succeeds(*TINY, "method=random", "export=tables.npz")
    assert (workplace.path / "tables.npz").read_bytes() == made, "an export of another run does not count"


def test_a_file_that_is_no_export_is_not_replaced_by_one(workplace):
    (workplace.path / "mine.npz").write_bytes(b"mine")
    error = workplace.fails(*TINY, "method=random", "export=mine.npz")
    assert "mine.npz is there and no export of a run; remove it or give another path" in error
    assert (workplace.path / "mine.npz").read_bytes() == b"mine"


def test_the_distance_to_a_full_model_is_added_to_a_record_that_is_there(workplace):
    workplace.succeeds(*TINY, "method=full", "export=full.npz")
    workplace.succeeds(*TINY, "method=random")
    before = next(one for one in workplace.records().values() if one["names"]["method"] == "random")
    workplace.succeeds(*TINY, "method=random", "full_export=full.npz")
    after = next(one for one in workplace.records().values() if one["names"]["method"] == "random")
    assert "distance" not in before and before["metrics"] == after["metrics"]
    assert 0 < after["distance"]["rotated_all"] < after["distance"]["all"]
    assert "already recorded" in workplace.succeeds(*TINY, "method=random", "full_export=full.npz").stderr


@pytest.fixture
def own_log(workplace) -> pd.DataFrame:
    """A log of one's own: text ids, ratings, times."""
    rng = np.random.default_rng(0)
    users, items = rng.integers(60, size=1500), rng.zipf(1.3, 1500) % 40
    table = pd.DataFrame(
        {
            "customer": [f"c{user}" for user in users],
            "article": [f"a{item}" for item in items],
            "stars": rng.integers(1, 6, 1500),
            "when": rng.integers(10**9, 2 * 10**9, 1500),
        }
    ).drop_duplicates(["customer", "article"])
    table.to_csv(workplace.path / "log.csv", index=False)
    return table


OWN = [
    "dataset=custom",
    "dataset.path=log.csv",
    "dataset.user=customer",
    "dataset.item=article",
    "protocol.max_epochs=2",
    "dim=8",
]


def test_ones_own_log_is_imported_and_results_can_be_joined_back(workplace, own_log):
    workplace.succeeds(
        *OWN,
        "dataset.name=shop",
        "dataset.rating=stars",
        "dataset.min_rating=3",
        "dataset.timestamp=when",
        "dataset.split=time",
        "method=random",
        "budget=0.5",
        "export=tables.npz",
    )
    (record,) = workplace.records().values()
    kept = own_log[own_log["stars"] >= 3]
    sizes = record["dataset"]
    assert sizes["name"] == "shop"
    assert sizes["train"] + sizes["val"] + sizes["test"] == len(kept)
    exported = read_arrays(workplace.path / "tables.npz")
    assert set(exported["user_ids"]) == set(kept["customer"])
    assert set(exported["item_ids"]) == set(kept["article"])


def test_methods_without_training_are_recorded_once_whatever_is_said_of_training(workplace):
    done = workplace.succeeds("-m", *TINY, "method=mostpop,itemknn,gfcf,ease", "backbone=mf,lightgcn")
    assert len(done.stdout.splitlines()) == 9
    found = workplace.records()
    assert [name.rpartition("-")[0] for name in found] == [
        f"synthetic-none-{method}" for method in ("ease", "gfcf", "itemknn", "mostpop")
    ]
    again = workplace.succeeds(*TINY[:-3], "method=ease", "protocol=paper", "dim=8", "budget=0.1", "seed=5")
    assert "already recorded in" in again.stderr and workplace.records() == found
    for record in found.values():
        config = record["config"]
        assert config["backbone"] == config["protocol"] == {"name": "none"} and config["budget"] is None
        assert record["labels"]["backbone"] == "—" and record["names"]["protocol"] == "none"
        assert set(record["metrics"]) == {"val", "test", "test_by_activity"}
        assert record["seconds"]["test"] > 0 and record["memory"]["host_peak_bytes"] > 1e7
        _, num_relevant, hits = unpack_hits(record_arrays(record, workplace.path / "records"))
        recall = (hits[:, :20].sum(1) / np.minimum(num_relevant, 20)).mean()
        assert recall == pytest.approx(record["metrics"]["test"]["recall@20"])
    recalls = {record["names"]["method"]: record["metrics"]["test"]["recall@20"] for record in found.values()}
    assert min(recalls, key=recalls.get) == "mostpop"


def test_records_of_methods_without_training_are_listed_beside_others(workplace, capsys):
    workplace.succeeds("-m", *TINY, "method=mostpop,random")
    assert call(["records", "--results", str(workplace.path)]) == 0
    rows = {line.split()[2]: line.split() for line in capsys.readouterr().out.splitlines()}
    assert rows["Random"][1] == "LightGCN" and rows["Most"][1] == "—"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=bacco"], r"method 'bacco' is unknown; did you mean 'baco'\?"),
        (["dataset=gowala"], r"dataset 'gowala' is unknown; did you mean 'gowalla'\?"),
        (["backbone=lightgnc"], "did you mean 'lightgcn'"),
        (["protocol=quik"], "protocol 'quik' is unknown; did you mean 'quick'"),
        (["quantize=int3"], r"quantize 'int3' is unknown; did you mean 'int[248]'\?"),
        (["quantize=int8", "quantize.bits=16"], r"quantize\.bits=16 must lie between 2 and 8"),
        (["quantize=pq", "quantize.blocks=32"], r"quantize\.blocks=32 is more than the embedding width dim=16"),
        (["method=ease", "quantize=int4"], "quantize is for embedding tables, and method=ease has none; leave it out"),
        (["method=ease", "export=out.npz"], "export is for embedding tables, and method=ease has none"),
        (["method=ease", "full_export=out.npz"], "full_export is for embedding tables, and method=ease has none"),
        (["method=ease", "start=spectral"], "start=spectral does not work with method=ease; take start=normal"),
        (["method=ease", "popularity=0.5"], "popularity=0.5 is for methods that are trained; 'ease' is not"),
        (["method=ease", "method.trained=true"], r"method\.trained=True is not true of method=ease"),
        (["method=itemknn", "method.k=0"], r"method\.k=0 must be 1 or more"),
        (["method=int8", "quantize=int4"], "cannot be packed as int4; train them without a quantizer"),
        (["method=pq", "budget=0.001"], "method 'pq' needs 64 parameters at least, over the budget of 8"),
        (["budgets=0.5"], "setting 'budgets' is unknown; did you mean 'budget'"),
        (["method.num_round=3"], r"setting 'method\.num_round' is unknown; did you mean 'method\.num_rounds'"),
        (["method=full", "method.num_rounds=3"], r"'method\.num_rounds' is no setting of the chosen method"),
        (["+method.num_round=3"], r"method\.num_round is not a known setting; did you mean 'num_rounds'"),
        (["+method.colour=red"], r"method\.colour is not a known setting"),
        (["budget=0"], "budget=0.0 must be a ratio in"),
        (["budget=-0.5"], "budget=-0.5 must be a ratio in"),
        (["budget=1.5"], "budget=1.5 is no ratio"),
        (["budget=100000"], "budget=100000 rows is more than the 500 rows"),
        (["budget=half"], "budget=half must be a number"),
        (["budget=nan"], "budget=nan must be"),
        (["budget=inf"], "budget=inf is no ratio"),
        (["dim=null"], "dim=null must be a whole number"),
        (["dataset.name=my/data"], "dataset.name=my/data names files: it must be of letters"),
        (["method=baco", "method.secondary=maybe"], r"method\.secondary=maybe must be true or false"),
        (["method=baco", "method.seed=-1"], r"method\.seed=-1 must be 0 or more, or not be given"),
        (["quantize=none", "+quantize.bits=3"], r"quantize\.bits is no setting of quantize=none"),
        (["budget_unit=bits"], "budget_unit=bits must be parameters or bytes"),
        (["budget=0.001", "method=baco"], "is below the least that this method reaches"),
        (["budget=0.001", "method=random"], "raise the budget"),
        (["dim=0"], "dim=0 must lie between 1 and 1000"),
        (["dim=100000000"], "dim=100000000 must lie between 1 and 1000"),
        (["seed=-1"], "seed=-1 must be 0 or more"),
        (["seed=x"], "seed=x must be a whole number"),
        (["seed=true"], "seed=true must be a whole number"),
        (["threads=2.5"], "threads=2.5 must be a whole number, or not be given"),
        (["force=3"], "force=3 must be true or false"),
        (["minutes=true"], "minutes=True must be a number"),
        (["method.num_rounds=true"], r"method\.num_rounds=true must be a whole number, or not be given"),
        (["protocol.patience=null"], r"protocol\.patience=null must be a whole number"),
        (["dataset.data_seed=1.5"], r"dataset\.data_seed=1\.5 must be a whole number"),
        (["~dataset.source"], r"dataset\.source is missing; the file of conf/dataset that was chosen must have it"),
        (["~quantize.name"], r"quantize\.name is missing"),
        (["device=cuda:99"], "device=cuda:99 does not exist here"),
        (["threads=0"], "threads=0 must lie between 1 and"),
        (["protocol.learning_rate=0"], r"protocol\.learning_rate=0\.0 must be positive"),
        (["method.solver=fast"], r"method\.solver=fast must be asynchronous, alternating or multilevel"),
        (["method.user_weight=none"], r"method\.user_weight=none must be one, sqrt, log or degree; did you mean 'one'"),
        (["method=cce", "method.num_chunks=3"], r"method\.num_chunks=3 does not divide dim=16"),
        (["method=prune", "method.protect=17"], r"method\.protect=17 is more than dim=16"),
        (["dataset.num_clusters=1000"], r"dataset\.num_clusters=1000 is more than there are users or items"),
        (
            [
                "dataset.num_interactions=1000",
                "dataset.num_clusters=200",
                "dataset.main_share=1",
                "dataset.second_share=0",
            ],
            r"dataset\.num_interactions=1000 is more than co",
        ),
        (["dataset=beauty"], r"beauty.interactions\.npz"),
        (["dataset=custom"], r"dataset\.path must be given"),
        (["dataset=custom", "dataset.path=missing.csv"], r"dataset\.path=missing\.csv cannot be read"),
        (["export=."], "export: . cannot be written"),
        (["budget"], "the command line cannot be read"),
        (["method=null"], "the command line cannot be read: Config group override must be"),
        (["--resolve"], "the command line cannot be read: The --resolve flag"),
        (["~method"], "method=NAME must choose one of conf/method"),
        (["dataset.path=r=1.csv"], r"needs two pairs of quotes, as in \"key='a value, b=1'\""),
        (["method=full,baco"], "method=full,baco has several values: a sweep over them is baco run -m"),
        (["seed=range(1,3)"], r"seed=range\(1,3\) has several values: a sweep over them is baco run -m"),
        (["grid=smoke"], r"write \+grid=NAME"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_gets_one_clear_line(workplace, overrides, message, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # no network for the dataset that is missing
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    chosen = {override.split("=")[0] for override in overrides}
    tiny = TINY if "dataset" not in chosen else [o for o in TINY if not o.startswith("dataset")]
    error = workplace.fails(*[o for o in tiny if o.split("=")[0] not in chosen], *overrides)
    assert re.search(message, error), error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "log.csv"),
        ("user,item\n", "log.csv"),
        ("user,article\n1,2\n", "'item'"),
        ("user,item\n1,2\n,3\n", "line 3|row 3|row 2"),
    ],
)
def test_a_bad_log_is_named_with_its_row(workplace, content, message):
    (workplace.path / "log.csv").write_text(content)
    error = workplace.fails("dataset=custom", "dataset.path=log.csv", "protocol.max_epochs=1")
    assert re.search(message, error), error


def test_a_diverged_training_leaves_no_record(workplace):
    done = workplace.run(*TINY, "protocol.learning_rate=1e38", "export=tables.npz")
    assert done.returncode == 1 and workplace.records() == {} and not (workplace.path / "tables.npz").exists()
    (error,) = (line for line in done.stderr.splitlines() if line.startswith("error: "))
    assert "lower the protocol's learning_rate" in error
    (log,) = (workplace.path / "runs").glob("*.log")
    assert "the run failed" in log.read_text(), "the log keeps the traceback"


def test_a_corrupt_prepared_file_is_named(workplace, planted):
    path = workplace.path / "data" / "beauty" / "interactions.npz"
    save_interactions(planted, path)
    assert "beauty" in workplace.fails("dataset=beauty", "protocol.max_epochs=1")
    path.write_bytes(path.read_bytes()[:1000])
    error = workplace.fails("dataset=beauty", "protocol.max_epochs=1")
    assert str(path) in error and "delete it if it was downloaded" in error


def test_tracebacks_on_demand(workplace):
    workplace.environment["HYDRA_FULL_ERROR"] = "1"
    done = workplace.run(*TINY, "budget=-1")
    assert done.returncode != 0 and "Traceback" in done.stderr


def test_help_lists_every_choice_with_a_line(workplace):
    done = workplace.succeeds("--help")
    sections, lines = {}, {}
    for line in done.stdout.splitlines():
        if line.startswith("  "):
            name, about = line.strip().split(maxsplit=1)
            lines[name] = about
        else:
            lines = sections.setdefault(line.partition("=")[0], {})
    method_class("full")
    for group in GROUPS:
        for path in (ROOT / "conf" / group).glob("*.yaml"):
            assert path.read_text().startswith(f"# {sections[group][path.stem]}\n")
    assert set(METHODS) <= set(sections["method"])


@pytest.mark.parametrize("program", [["run.py"], ["-m", "baco", "run"], ["-m", "baco", "grid"]], ids=" ".join)
def test_help_does_not_wait_for_torch(program):
    command = [sys.executable, "-X", "importtime", *program, "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "hydra" in imported and not {"torch", "numba", "pandas"} & imported


def test_the_configuration_can_be_printed(workplace):
    done = workplace.succeeds("--cfg=job", "method=random")
    assert "name: random" in done.stdout and workplace.records() == {}


def test_a_killed_run_continues_to_the_same_numbers(workplace, tmp_path):
    """SIGKILL in the middle of the training, then the same command again, against a run left in peace."""
    settings = [*TINY, "protocol.max_epochs=60", "protocol.eval_every=3", "method=baco", "checkpoint_every=0"]
    peace = Workplace(tmp_path / "peace")
    peace.path.mkdir()
    peace.succeeds(*settings, "export=tables.npz")
    assert not list(peace.path.glob("runs/*.checkpoint")), "nothing is left to continue"

    for _ in range(2):
        seen = checkpoint_time(workplace)
        with workplace.running(*settings, "export=tables.npz") as process:
            wait_until(process, lambda seen=seen: checkpoint_time(workplace) != seen)
    assert not workplace.records()
    workplace.succeeds(*settings, "export=tables.npz")
    (killed,), (left,) = workplace.records().values(), peace.records().values()
    first, second = killed["training"]["continued_after"]
    assert 0 < first < second < 60
    assert killed["metrics"] == left["metrics"] and killed["training"]["history"] == left["training"]["history"]
    name = next(iter(peace.records()))
    for file in ("tables.npz", f"records/{name}.npz"):
        ours, theirs = np.load(workplace.path / file), np.load(peace.path / file)
        assert all(np.array_equal(ours[key], theirs[key]) for key in theirs.files)
    assert not list(workplace.path.glob("runs/*.checkpoint"))


def test_a_method_that_trains_the_full_model_first_does_not_begin_it_anew(workplace, tmp_path):
    settings = [*TINY, "protocol.max_epochs=20", "protocol.eval_every=3", "method=mec", "checkpoint_every=0"]
    peace = Workplace(tmp_path / "peace")
    peace.path.mkdir()
    peace.succeeds(*settings)
    with workplace.running(*settings) as process:
        wait_until(process, lambda: list(workplace.path.glob("runs/*.full.checkpoint")))
    assert "continuing after epoch" in workplace.succeeds(*settings).stderr
    (killed,), (left,) = workplace.records().values(), peace.records().values()
    assert killed["metrics"] == left["metrics"] and killed["training"] == left["training"]
    assert not list(workplace.path.glob("runs/*.checkpoint"))


def test_a_run_that_another_process_does_is_left_to_it(workplace):
    endless = [*TINY, "method=random", "protocol.max_epochs=1000000", "protocol.eval_every=1000000"]
    with workplace.running(*endless) as process:
        wait_until(process, lambda: any("epoch 1:" in log.read_text() for log in workplace.path.glob("runs/*.log")))
        error = workplace.fails(*endless)
    assert f"it is being run by process {process.pid} on" in error and "wait for that, or end it" in error


def wait_until(process: Running, happened: Callable[[], object]) -> None:
    while not happened():
        assert process.poll() is None, "the process ended before"
        time.sleep(0.01)


def checkpoint_time(workplace: Workplace) -> float:
    """When the last checkpoint was saved; 0 before the first."""
    return max((path.stat().st_mtime for path in workplace.path.glob("runs/*.checkpoint")), default=0.0)


def test_baco_plus_scales_items_where_nothing_propagates_and_any_codes_can_be_scaled(workplace):
    workplace.succeeds("-m", *TINY, "loss=bpr", "method=baco_plus", "backbone=mf,lightgcn", "popularity=null,0")
    export = workplace.path / "random.npz"
    workplace.succeeds(*TINY, "method=random", "popularity=0.5", f"export={export}")
    found = {
        (record["names"]["backbone"], record["names"]["method"], record["config"]["popularity"])
        for record in workplace.records().values()
    }
    assert found == {
        ("mf", "baco_plus", 0.25),
        ("mf", "baco_plus", 0),
        ("lightgcn", "baco_plus", 0),
        ("lightgcn", "random", 0.5),
    }
    assert all(record["size"]["budget_used"] <= 1 for record in workplace.records().values())
    with np.load(export) as archive:
        arrays = dict(archive)
    (ledger,) = (record["size"] for record in workplace.records().values() if record["names"]["method"] == "random")
    assert stored_bytes(arrays) == ledger["bytes"]
    items = load_tables(arrays).items
    rows, codes = items.rows.detach().numpy(), items.codes.numpy()[:, 0]
    np.testing.assert_allclose(items().detach(), rows[codes] * arrays["items.scale"][:, None].astype(np.float32))


def test_baco_plus_starts_near_singular_vectors_and_others_can(workplace):
    workplace.succeeds("-m", *TINY, "method=baco_plus", "start=null,normal")
    workplace.succeeds("-m", *TINY, "method=pq,full", "start=spectral")
    found = {
        (record["names"]["method"], record["config"]["start"]): record["metrics"]["val"]["recall@20"]
        for record in workplace.records().values()
    }
    assert set(found) == {("baco_plus", "spectral"), ("baco_plus", "normal"), ("pq", "spectral"), ("full", "spectral")}
    assert found["baco_plus", "spectral"] != found["baco_plus", "normal"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method=baco", "popularity=2"], "popularity=2.0 must lie between 0 and 1"),
        (
            ["method=baco_plus", "backbone=mf", "loss=bpr", "method.mf_popularity=much"],
            "popularity=much must be a number",
        ),
        (
            ["method=pq", "backbone=mf", "loss=ssm", "popularity=0.25"],
            "popularity=0.25 changes no cosine of backbone=mf; take loss.score=dot or popularity=0",
        ),
        (["method=cce", "start=spectral"], "start=spectral does not work with method=cce; take start=normal"),
        (["method=baco", "start=spectre"], "start=spectre must be normal or spectral; did you mean 'spectral'?"),
    ],
)
def test_scale_and_start_are_checked_before_anything_else(workplace, overrides, message):
    assert message in workplace.fails(*TINY, *overrides)
