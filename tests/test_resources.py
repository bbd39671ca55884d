import pytest

from baco import resources
from baco.resources import resource_folder


@pytest.mark.parametrize("installed", [True, False])
def test_what_the_package_holds_counts_more_than_what_lies_beside_it(tmp_path, monkeypatch, installed):
    monkeypatch.setattr(resources, "PACKAGE", tmp_path / "baco")
    (tmp_path / "conf").mkdir()  # of a checkout, or of another package beside an installed one
    if installed:
        (tmp_path / "baco" / "conf").mkdir(parents=True)
    assert resource_folder("conf", "conf") == (tmp_path / "baco" / "conf" if installed else tmp_path / "conf")
