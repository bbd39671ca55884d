"""The texts: what they link to is there, and what they show works."""

import re
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from baco.compressors.budget import Budget
from baco.registry import METHODS, method_class
from baco.rng import stream

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "results/README.md", ROOT / "baselines/README.md"]


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(text):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text.read_text(encoding="utf-8"))
    inside = [link for link in links if not link.startswith("http")]
    assert inside, "a text without links would test nothing"
    assert [link for link in inside if not (text.parent / link).exists()] == []


def test_the_example_of_a_method_is_one(planted):
    text = (ROOT / "baselines" / "README.md").read_text(encoding="utf-8")
    (code,), (settings,) = (re.findall(f"```{kind}\n(.*?)```", text, re.DOTALL) for kind in ("python", "yaml"))
    name = OmegaConf.create(settings).name
    assert f"`baselines/{name}.py`" in text and f"`conf/method/{name}.yaml`" in text
    method_class("full")  # imports them all
    assert name not in METHODS
    try:
        exec(code, {"__name__": f"baselines.{name}"})
        method = METHODS[name]()
    finally:
        METHODS.pop(name, None)
    for unit in ("parameters", "bytes"):
        budget = Budget.parse(0.25, unit, planted.num_users, planted.num_items, 16)
        tables = method.fit(planted.train, budget, stream(0, "assign"))
        budget.check(tables.ledger(), name)
        assert budget.share(tables.ledger()) > 0.95
        users = tables.assignment.users.first
        means = [planted.train.user_degrees[users == row].mean() for row in range(users.max() + 1)]
        assert means == sorted(means), "of as many interactions"
