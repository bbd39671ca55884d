import json

import torch

from baco.runs import provenance
from baco.runs.provenance import code_version, environment


def test_the_sources_hash_knows_files_that_git_does_not(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "ROOT", tmp_path)
    seen = set()
    for path, content in (("baco/a.py", "1"), ("baco/a.py", "2"), ("baselines/new.py", "1"), ("run.py", "1")):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(content)
        seen.add(code_version()["sources"])
    (tmp_path / "NOTES.txt").write_text("nothing that runs")
    assert len(seen) == 4 and code_version()["sources"] in seen
    assert code_version()["revision"] is None


def test_the_surroundings_are_plain_values():
    found = json.loads(json.dumps(environment(torch.device("cpu")) | code_version()))
    assert found["libraries"]["torch"] == torch.__version__
    assert found["device"] == "cpu" and found["gpu"] is None and found["cpu"]
