import json
from pathlib import Path

import torch

from baco.runs import provenance
from baco.runs.provenance import code_version, environment


def test_the_sources_hash_knows_files_that_git_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    seen = set()
    for path, content in (("baco/a.py", "1"), ("baco/a.py", "2"), ("baselines/new.py", "1"), ("baco/cli/b.py", "1")):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
        seen.add(code_version()["sources"])
    (tmp_path / "NOTES.txt").write_text("nothing that runs")
    assert len(seen) == 4 and code_version()["sources"] in seen
    assert code_version()["revision"] is None


def test_an_installed_package_has_no_revision_of_the_repository_around_it(monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", Path(__file__).parent)  # as an environment inside of a checkout is
    assert code_version()["revision"] is None and code_version()["clean"] is None


def test_the_surroundings_are_plain_values():
    found = json.loads(json.dumps(environment(torch.device("cpu")) | code_version()))
    assert found["libraries"]["torch"] == torch.__version__
    assert found["device"] == "cpu" and found["gpu"] is None and found["cpu"]
