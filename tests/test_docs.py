"""The texts: what they link to is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXTS = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md")), ROOT / "results/README.md", ROOT / "baselines/README.md"]


@pytest.mark.parametrize("text", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(text):
    links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text.read_text(encoding="utf-8"))
    inside = [link for link in links if not link.startswith("http")]
    assert inside, "a text without links would test nothing"
    assert [link for link in inside if not (text.parent / link).exists()] == []
