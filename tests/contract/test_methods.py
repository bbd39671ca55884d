"""What every compression method promises. Parametrised over the registry: a new method is tested by existing."""

import copy
import hashlib
import json
import pickle
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numba
import numpy as np
import pytest
import torch

from baco.backbones.backbone import MF, LightGCN
from baco.compressors.budget import Budget
from baco.compressors.compressor import CodeCompressor, Compressor
from baco.compressors.popularity import popularity_scale, remaining_budget
from baco.embedding.codebook import CodebookTables
from baco.embedding.quantized import QuantizedTables
from baco.embedding.quantizers import unpack_export
from baco.embedding.rounding import UniformQuantizer
from baco.embedding.tables import EmbeddingTables
from baco.errors import UserError
from baco.evaluation.evaluator import Evaluator
from baco.graph import Biadjacency
from baco.registry import METHODS, method_class, tables_class
from baco.rng import stream, torch_stream
from baco.serving.export import export_model
from baco.serving.recommender import Recommender
from baco.training.trainer import Trainer
from tests.conftest import PLANTED, QUICK

method_class("full")  # imports them all
NAMES = sorted(name for name, cls in METHODS.items() if issubclass(cls, Compressor))  # test_scoring has the others
DIM = 16


def pairs(users, items, num_users, num_items) -> Biadjacency:
    return Biadjacency.from_pairs(np.array(users), np.array(items), num_users, num_items)


SHORTER = {  # of searches whose length proves nothing here
    "bet": {"probes": 4, "candidates": 10, "retrained": 1},
    "scall": {"probes": 4, "retrained": 1},
    "dess": {"probes": 4, "retrained": 1},
    "ciess": {"probes": 2, "retrained": 1},
    "optembed": {"population": 4, "generations": 2},
}
DEGENERATE = {
    "one pair": pairs([0], [0], 1, 1),
    "one item": pairs(range(6), [0] * 6, 6, 1),
    "one user": pairs([0] * 6, range(6), 1, 6),
    "star and isolated nodes": pairs([2, 2, 2], [1, 3, 4], 5, 6),
    "two bicliques": Biadjacency.from_matrix(np.kron(np.eye(2), np.ones((3, 3)))),
    "complete": Biadjacency.from_matrix(np.ones((5, 4))),
    "a path": pairs([0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 2, 3], 3, 4),
}


@pytest.fixture(params=NAMES)
def method(request):
    cls = METHODS[request.param]
    return cls(cls.Config(**SHORTER.get(request.param, {})))


def those_that(condition) -> pytest.MarkDecorator:
    """For tests of some methods only: those of which the condition holds."""
    return pytest.mark.parametrize("method", [name for name in NAMES if condition(METHODS[name]())], indirect=True)


with_budget = those_that(lambda method: method.has_budget)
with_start = those_that(lambda method: method.has_start)
with_codes_only = those_that(lambda method: isinstance(method, CodeCompressor))
with_tables_of_its_own = those_that(lambda method: not isinstance(method, CodeCompressor))


def budget_of(graph, value=0.5, unit="parameters") -> Budget:
    return Budget.parse(value, unit, graph.num_users, graph.num_items, DIM)


def fitted(method, graph, budget=None, seed=0) -> EmbeddingTables:
    tables = method.fit(graph, budget or budget_of(graph), stream(seed, "assign"))
    tables.reset_parameters(0.1, torch_stream(seed, "init"))
    return tables


FITS: dict[str, bytes] = {}  # of the planted data, by method


def ready(method, data) -> EmbeddingTables:
    """What `fitted` makes of the planted data. A process fits once, and each test gets a copy."""
    if method.name not in FITS:
        FITS[method.name] = pickle.dumps(method.fit(data.train, budget_of(data), stream(0, "assign")))
    tables = pickle.loads(FITS[method.name])
    tables.reset_parameters(0.1, torch_stream(0, "init"))
    return tables


def trainer_of(data, protocol, start="normal", device="cpu") -> Trainer:
    backbone = LightGCN(data.train, LightGCN.Config())
    return Trainer(backbone, Evaluator(data), protocol, 0, torch.device(device), progress=False, start=start)


def searched(method, data, trainer) -> EmbeddingTables:
    """What the training proper begins with."""
    return method.search(trainer.initialize(ready(method, data)), trainer)


def fitted_or_refused(method, graph, budget) -> EmbeddingTables | None:
    """None where the method says that the budget is too small for it."""
    try:
        return fitted(method, graph, budget)
    except UserError as error:
        if "budget" not in str(error):
            raise
        return None


def digest(tables: EmbeddingTables) -> str:
    """Of everything a server would get."""
    arrays = tables.export()
    return hashlib.sha256(b"".join(arrays[name].tobytes() for name in sorted(arrays))).hexdigest()


@pytest.mark.parametrize("name", DEGENERATE)
def test_odd_graphs_give_embeddings_or_one_clear_error(method, name):
    graph = DEGENERATE[name]
    tables = fitted_or_refused(method, graph, budget_of(graph, 1.0))
    if tables is None:
        return
    users, items = tables()
    assert users.shape == (graph.num_users, DIM) and items.shape == (graph.num_items, DIM)
    assert users.isfinite().all() and items.isfinite().all()
    if method.has_budget:
        budget_of(graph, 1.0).check(tables.ledger(), method.name)


@with_budget
@pytest.mark.parametrize("unit", ["parameters", "bytes"])
@pytest.mark.parametrize("value", [1.0, 0.5, 0.25, 0.1, 0.02])
def test_budgets_are_kept_or_refused(method, planted, value, unit):
    budget = budget_of(planted, value, unit)
    tables = fitted_or_refused(method, planted.train, budget)
    if tables is None:
        assert value <= 0.1, "a budget this large can be met"
        return
    budget.check(tables.ledger(), method.name)
    assert budget.share(tables.ledger()) > 0.5


@with_budget
def test_more_budget_buys_more(method, planted):
    less, more = (fitted(method, planted.train, budget_of(planted, value)) for value in (0.3, 0.8))
    costs = [tables.ledger().parameters for tables in (less, ready(method, planted), more)]
    assert costs == sorted(costs)


def test_the_seed_decides_everything(method, planted):
    first = digest(ready(type(method)(), planted))
    assert digest(fitted(method, planted.train)) == first, "another object"
    available = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        assert digest(fitted(method, planted.train)) == first, "twice on one object, one thread"
    finally:
        numba.set_num_threads(available)
    assert digest(fitted(method, planted.train, seed=1)) != first


def test_another_process_gets_the_same_bytes(planted):
    ours = {name: digest(ready(METHODS[name](), planted)) for name in NAMES}
    program = "import json; from tests.conftest import PLANTED; from tests.contract.test_methods import *\n"
    program += "data = PLANTED.load(Path())\n"
    program += "print(json.dumps({name: digest(fitted(METHODS[name](), data.train)) for name in NAMES}))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    assert json.loads(done.stdout) == ours


def test_the_graph_is_left_alone(method, planted):
    graph = Biadjacency.from_pairs(
        planted.train.users.copy(), planted.train.items.copy(), planted.num_users, planted.num_items
    )
    for array in (
        graph.users,
        graph.items,
        *graph.joint,
        graph.by_user.indptr,
        graph.by_user.indices,
        graph.by_item.indptr,
        graph.by_item.indices,
        graph.user_degrees,
        graph.item_degrees,
    ):
        array.flags.writeable = False
    assert digest(fitted(method, graph)) == digest(ready(method, planted))


def test_the_ledger_is_what_the_export_holds(method, planted):
    tables = ready(method, planted)
    tables.on_training_end()
    arrays = tables.export()
    assert sum(array.nbytes for name, array in arrays.items() if name != "header") == tables.ledger().bytes
    again = tables_class(tables.kind).from_export(unpack_export(arrays))
    for output, restored in zip(tables(), again(), strict=True):
        torch.testing.assert_close(output, restored, rtol=0, atol=0)


def test_an_export_recommends_as_the_tables_do(method, planted, tmp_path):
    backbone = LightGCN(planted.train, LightGCN.Config(3))
    config = {"dataset": planted.fingerprint, "backbone": {"name": "lightgcn", "num_layers": 3}}
    choices = [ready(method, planted)]
    if choices[0].quantizable():
        choices.append(QuantizedTables(ready(method, planted), UniformQuantizer(8), 0))
    for tables in choices:
        tables.on_training_end()
        export_model(tmp_path / "tables.npz", tables, config, PLANTED, planted)
        served = Recommender.load(tmp_path / "tables.npz", tmp_path)
        for final, again in zip(backbone.final_embeddings(tables), (served.users, served.items), strict=True):
            torch.testing.assert_close(final, again, rtol=0, atol=0)


@with_tables_of_its_own
def test_items_can_be_scaled_within_the_budget(method, planted):
    """By their popularity, those of models within a search, too. Codes store such a scale themselves."""
    scale, budget = popularity_scale(planted.train.item_degrees, 0.25), budget_of(planted)
    backbone, protocol = MF(planted.train, MF.Config()), replace(QUICK, max_epochs=1)
    trainer = Trainer(backbone, Evaluator(planted), protocol, 0, torch.device("cpu"), False, item_scale=scale)
    tables = method.fit(planted.train, remaining_budget(scale, budget), stream(0, "assign"))
    tables = trainer.scaled(method.search(trainer.initialize(tables), trainer))
    trainer.fit(tables)
    ledger, arrays = tables.ledger(), tables.export()
    if method.has_budget:
        budget.check(ledger, method.name)
    assert ledger.parameters == tables.inner.ledger().parameters + planted.num_items
    assert sum(array.nbytes for name, array in arrays.items() if name != "header") == ledger.bytes
    users, items = tables()
    torch.testing.assert_close(items, tables.inner()[1] * torch.from_numpy(scale).float()[:, None])
    ids = torch.tensor([3, 1, 3])
    torch.testing.assert_close(tables.lookup("items", ids), items[ids])
    torch.testing.assert_close(tables.lookup("users", ids), users[ids])
    again = tables_class(tables.kind).from_export(unpack_export(arrays))
    for output, restored, ranked in zip((users, items), again(), backbone.final_embeddings(again), strict=True):
        torch.testing.assert_close(output, restored, rtol=0, atol=0)
        torch.testing.assert_close(output, ranked)


def test_state_and_pickle_restore_the_output(method, planted):
    tables, other = fitted(method, planted.train), ready(method, planted)
    other.reset_parameters(0.1, torch_stream(1, "init"))
    other.load_state_dict(copy.deepcopy(tables.state_dict()))
    for restored in (other, pickle.loads(pickle.dumps(tables))):
        for output, same in zip(tables(), restored(), strict=True):
            torch.testing.assert_close(output, same, rtol=0, atol=0)


def test_every_row_in_use_is_trained(method, planted):
    tables = ready(method, planted)
    sum((output * output).sum() for output in tables()).backward()
    for name, parameter in tables.named_parameters():
        assert parameter.grad is not None, f"{name} is never used"
    if isinstance(tables, CodebookTables):
        for side in ("users", "items"):
            assert (getattr(tables, side).rows.grad.abs().sum(1) > 0).all(), (
                "rows that nobody uses are paid for in vain"
            )


@with_codes_only
def test_codes_fit_the_data_and_their_details_the_record(method, planted):
    assignment = ready(method, planted).assignment
    json.dumps(assignment.details)  # they go into the record
    for side, size in (("users", planted.num_users), ("items", planted.num_items)):
        codes = getattr(assignment, side)
        assert codes.num_ids == size and codes.index.dtype == np.int32


@with_start
def test_tables_that_can_start_near_embeddings_do(method, planted):
    embeddings = []
    for start in ("normal", "spectral"):
        trainer = trainer_of(planted, replace(QUICK, max_epochs=1), start)
        embeddings.append(torch.cat(searched(method, planted, trainer)()))
    normal, spectral = embeddings
    assert not torch.equal(normal, spectral) and spectral.isfinite().all()


def test_a_short_training_beats_chance_and_repeats(method, planted):
    protocol = replace(QUICK, max_epochs=8, eval_every=4)
    values = []
    for _ in range(2):
        trainer = trainer_of(planted, protocol)
        tables = method.search(ready(method, planted), trainer)
        trainer.fit(tables)
        values.append(trainer.evaluate(tables, "test").means()["recall@20"])
    assert values[0] == values[1]
    assert values[0] > 1.5 * 20 / planted.num_items


def test_training_on_another_device_is_the_cpus(method, planted, pretended):
    """No tensors of two devices meet, and nothing is read on the host that lies on the device."""
    found = []
    for device in ("cpu", pretended):
        trainer = trainer_of(planted, replace(QUICK, max_epochs=2), device=device)
        tables = searched(method, planted, trainer)
        trainer.fit(tables)
        finished = [tables]
        if tables.quantizable():
            finished.append(QuantizedTables(tables, UniformQuantizer(8), 0))
            finished[1].on_training_end()
        found.append([trainer.evaluate(one, "test").means()["recall@20"] for one in finished])
        for one in finished:
            tables_class(one.kind).from_export(unpack_export(one.export()))
    here, there = found
    assert there == pytest.approx(here, abs=0.01)
