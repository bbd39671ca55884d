"""Several processes that train together against one: the same losses and the same tables, but for rounding."""

import os
from dataclasses import replace
from pathlib import Path

import torch

from baco.backbones.backbone import MF, LightGCN
from baco.evaluation.evaluator import Evaluator
from baco.losses.bpr import BPR
from baco.losses.ssm import SampledSoftmax
from baco.processes import ALONE, Processes
from baco.training.checkpoint import Checkpoint
from baco.training.trainer import Trainer
from baselines.cce import Cce
from baselines.full import Full
from baselines.hashing import RandomHash
from tests.cli.workplace import forks, variables_of_processes
from tests.conftest import PLANTED, QUICK
from tests.training.test_trainer import CPU, tables_for

COUNT = 2
TRAININGS = {
    "bpr": (LightGCN, Full, BPR()),
    "softmax": (MF, RandomHash, SampledSoftmax(sampling="batch", negatives=64)),
    "learned codes": (MF, Cce, BPR()),
    "lazy rows": (MF, RandomHash, SampledSoftmax(negatives=64)),
}


class SavedOnce(Checkpoint):
    """After the second epoch."""

    asked = 0

    def due(self) -> bool:
        self.asked += 1
        return self.asked == 2


def train(name: str, processes: Processes, folder: Path) -> list:
    """The history and the values of trained tables; for BPR also those of a training that went on after 2 epochs."""
    backbone, method, loss = TRAININGS[name]
    data = PLANTED.load(Path())
    batch_size = (data.train.num_edges - 1) // 3  # the last batch is one pair: the part of one process is empty
    protocol = replace(QUICK, batch_size=batch_size, max_epochs=3, decay_per_epoch=0.1)
    checkpoint, found = SavedOnce(folder / f"{name}.checkpoint", 0, {}) if name == "bpr" else None, []
    for _ in range(1 if checkpoint is None else 2):
        mine = backbone(data.train, backbone.Config(), loss.score)
        evaluator = Evaluator(data, processes)
        options = {"loss": loss, "processes": processes, "lazy_rows": name == "lazy rows"}
        trainer = Trainer(mine, evaluator, protocol, 0, CPU, progress=False, **options)
        tables = tables_for(data, method())
        if processes.rank > 0:  # as if its processor rounded other first values
            tables.reset_parameters(0.2, torch.Generator())
        report = trainer.fit(tables, checkpoint=checkpoint)
        found += [torch.tensor(report.history), list(tables.parameters())]
    assert report.continued_after == ([] if checkpoint is None else [2])
    return found


def work(variables: dict[str, str], folder: Path) -> None:
    os.environ.update(variables)
    torch.set_num_threads(1)
    processes = Processes.join()
    torch.save({name: train(name, processes, folder) for name in TRAININGS}, folder / f"{processes.rank}.pt")
    processes.leave()


def test_several_processes_train_what_one_does(tmp_path):
    children = [forks.Process(target=work, args=(own, tmp_path)) for own in variables_of_processes(COUNT)]
    for child in children:
        child.start()
    (tmp_path / "alone").mkdir()
    alone = {name: train(name, ALONE, tmp_path / "alone") for name in TRAININGS}
    for child in children:
        child.join()
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(COUNT))
    exact, near = {"rtol": 0, "atol": 0}, {"rtol": 1e-4, "atol": 1e-4}
    for name, (history, values, *continued) in first.items():
        torch.testing.assert_close(first[name], second[name], **exact)
        torch.testing.assert_close([history, values] if continued else [], continued, **exact)
        if name != "learned codes":  # k-means makes leaps of roundings
            losses, of_one = history[:, 1], alone[name][0][:, 1]  # a recall leaps where a rounding swaps two items
            torch.testing.assert_close([losses, values], [of_one, alone[name][1]], **near)
