import json
from pathlib import Path

import numba
import pytest
import torch

from baco.errors import UserError
from baco.runs import provenance
from baco.runs.provenance import code_version, environment, peak_memory, reset_peak_memory, resolve_device, set_threads

CPU = torch.device("cpu")


def test_auto_takes_the_gpu_when_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match=r"device=cuda:2 .* 2 CUDA devices"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "tpu", "cuda:x"])
def test_a_missing_device_is_named(monkeypatch, name):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"device={name} .* no CUDA device; take device=cpu"):
        resolve_device(name)


def test_threads_are_limited():
    try:
        set_threads(1)
        assert (torch.get_num_threads(), numba.get_num_threads()) == (1, 1)
    finally:
        set_threads(None)
    assert (torch.get_num_threads(), numba.get_num_threads()) == provenance.ALL_THREADS, (
        "a sweep's next run has them again"
    )
    for threads in (0, numba.config.NUMBA_NUM_THREADS + 1):
        with pytest.raises(UserError, match=f"threads={threads} must lie between 1 and"):
            set_threads(threads)


def test_peak_memory_is_that_since_the_reset():
    big = torch.ones(50_000_000)  # 200 MB
    assert peak_memory(CPU)["host_peak_bytes"] > big.nbytes
    before = peak_memory(CPU)["host_peak_bytes"]
    del big
    reset_peak_memory(CPU)
    after = peak_memory(CPU)
    assert after["host_peak_bytes"] < before - 100_000_000
    assert after["device_peak_bytes"] is None


def test_memory_that_the_kernel_does_not_tell_is_none(monkeypatch):
    monkeypatch.setattr(Path, "read_text", lambda path: "Name: python")
    assert peak_memory(CPU)["host_peak_bytes"] is None


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
    found = json.loads(json.dumps(environment(CPU) | code_version()))
    assert found["libraries"]["torch"] == torch.__version__
    assert found["device"] == "cpu" and found["gpu"] is None and found["cpu"]
