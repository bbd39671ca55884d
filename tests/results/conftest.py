"""What the committed records give, made once for all tests of a process: it takes seconds."""

import pytest

from baco.results.tables import Document, documents
from baco.runs.record import load_records
from tests.results.test_tables import RECORDS


@pytest.fixture(scope="session")
def committed_records() -> list[dict]:
    return load_records(RECORDS)


@pytest.fixture(scope="session")
def committed(committed_records) -> dict[str, Document]:
    return {document.name: document for document in documents(committed_records, RECORDS)}
