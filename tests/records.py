"""Records for tests of what stands around them."""

from baco.runs.record import NEEDED, RECORD_SCHEMA


def blank_record(**sections) -> dict:
    """A record with all that readers rely on, its values 0 where none is given."""
    record: dict = {"schema": RECORD_SCHEMA}
    for path in NEEDED:
        *outer, key = path.split(".")
        inner = record
        for section in outer:
            inner = inner.setdefault(section, {})
        inner[key] = 0
    for name, values in sections.items():
        record[name] = record[name] | values if isinstance(values, dict) else values
    return record
