"""OptEmbed: what its supernet cuts, how thresholds learn, that sizes spend the budget, and that evolution improves."""

import numpy as np
import pytest
import torch

from baco.compressors.budget import Budget
from baco.errors import UserError
from baco.rng import stream, torch_stream
from baselines.optembed import Genomes, OptEmbed, Step, Supernet, evolve
from baselines.sizes import SizedTables, assign_by_rank, groups_by_rank
from tests.baselines.test_pep import trainer_for

DIM = 16


def supernet_of(data) -> Supernet:
    supernet = Supernet(data.train, DIM, 0.1, epochs=2, rng=np.random.default_rng(0))
    supernet.reset_parameters(0.1, torch_stream(0, "init"))
    return supernet


def test_rows_are_cut_to_drawn_sizes_and_short_ones_vanish(planted):
    supernet = supernet_of(planted)
    with torch.no_grad():
        supernet.thresholds.copy_(torch.tensor([0.08, -1.0]))
    sizes = supernet.sizes[:, 0].numpy().copy()
    for rows, output, own, threshold in zip(
        supernet.rows_of_codebooks(), supernet(), np.split(sizes, [400]), (0.08, -1.0), strict=True
    ):
        expected = rows.detach().numpy() * (np.arange(DIM) < own[:, None])
        expected[np.abs(rows.detach().numpy()).mean(1) < threshold] = 0
        np.testing.assert_array_equal(output.detach().numpy(), expected)
    assert 0.3 < (supernet()[0] == 0).all(1).float().mean() < 0.7
    supernet.on_step_end()
    assert not np.array_equal(supernet.sizes[:, 0].numpy(), sizes) and not supernet.selectable()
    supernet.on_epoch_end(1, None)
    assert supernet.selectable() and (supernet.sizes == DIM).all()


def test_the_step_has_a_gradient_near_it():
    x = torch.tensor([-2.0, -0.5, -0.1, 0.3, 0.7, 1.5], requires_grad=True)
    output = Step.apply(x)
    output.sum().backward()
    assert output.tolist() == [0, 0, 0, 1, 1, 1]
    torch.testing.assert_close(x.grad, torch.tensor([0, 0.4, 1.6, 0.8, 0.4, 0]))


def test_sizes_follow_the_genome_and_spend_the_budget(planted):
    supernet = supernet_of(planted)
    with torch.no_grad():
        supernet.thresholds.copy_(torch.tensor([0.08, -1.0]))
    genomes = Genomes(supernet, planted.train, total=2800, groups=2)
    sizes = genomes.sizes(np.array([[0.0, 0.5, 0.5], [1.0, 0.5, 0.5]]))
    assert sizes.min() == sizes.max() == 4, "no threshold and one number: as su"
    genome = np.array([[1.0, 0.1, 0.4], [1.0, 0.2, 0.2]])
    users, items = np.split(genomes.sizes(genome), [400])
    assert users.sum() + items.sum() == 2800
    without = supernet.users.rows.detach().abs().mean(1).numpy() < 0.08
    np.testing.assert_array_equal(users == 0, without)
    group = assign_by_rank(groups_by_rank(planted.train.num_users, 2), planted.train.user_degrees)
    ratio = users[~without & (group == 1)].mean() / users[~without & (group == 0)].mean()
    assert 3 < ratio < 5 and items.min() > 0, "about 4, of whole sizes"
    frequent = planted.train.user_degrees[group == 0].min()
    assert frequent >= planted.train.user_degrees[group == 1].max()


def test_a_budget_that_few_ids_cannot_spend_keeps_more(planted):
    supernet = supernet_of(planted)
    with torch.no_grad():
        supernet.thresholds.fill_(5.0)
    sizes = Genomes(supernet, planted.train, total=2801, groups=1).sizes(np.ones((2, 2)))
    assert sizes.sum() == 2801 and np.count_nonzero(sizes) == -(-2801 // DIM)
    assert sizes[:400].any() and sizes[400:].any()
    tables = SizedTables.from_joint_sizes(sizes, 400, DIM)
    np.testing.assert_array_equal(SizedTables.from_export(tables.export()).sizes, sizes)


def test_evolution_finds_the_target():
    rng, target, seen = np.random.default_rng(0), np.linspace(0, 1, 6).reshape(2, 3), []

    def fitness(genome):
        seen.append(-np.abs(genome - target).sum())
        return seen[-1]

    best, value = evolve(fitness, lambda: rng.random((2, 3)), population=20, generations=10, rng=rng)
    assert len(seen) == 200 and value == max(seen) == -np.abs(best - target).sum()
    assert max(seen) > 0.5 * max(seen[:20]), "twice as near as the best that was drawn"


@pytest.mark.parametrize("unit", ["parameters", "bytes"])
def test_a_search_ends_with_tables_that_spend_the_budget(planted, unit):
    budget = Budget.parse(0.25, unit, planted.num_users, planted.num_items, DIM)
    method, trainer = OptEmbed(OptEmbed.Config(population=4, generations=2)), trainer_for(planted)
    tables = method.search(method.fit(planted.train, budget, stream(0, "assign")), trainer)
    assert budget.limit - 4 < budget.amount(tables.ledger()) <= budget.limit
    assert isinstance(trainer.trained, Supernet) and trainer.trained.selectable()


def test_a_byte_tells_that_there_is_no_embedding(planted):
    with pytest.raises(UserError, match="dim=256"):
        OptEmbed().fit(planted.train, Budget(10**5, "parameters", 256), stream(0, "assign"))
