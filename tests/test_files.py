import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baco.errors import UserError
from baco.files import (
    atomic_path,
    check_writable,
    decode_texts,
    encode_texts,
    from_json_array,
    json_array,
    read_arrays,
    write_arrays,
    write_text,
)


def test_a_file_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "new" / "file.txt"
    for text in ("first", "second, and longer"):
        write_text(path, text)
        assert path.read_text() == text
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def interrupted():
        with atomic_path(path) as temporary:
            temporary.write_text("half of the n")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_arrays_come_back(tmp_path):
    arrays = {"a/b": np.arange(5, dtype=np.int32), "text": np.array(["x", "yz"]), "scalar": np.float32(2)}
    write_arrays(tmp_path / "arrays.npz", arrays)
    again = read_arrays(tmp_path / "arrays.npz")
    assert set(again) == set(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(again[name], array)
        assert again[name].dtype == array.dtype
    assert set(read_arrays(tmp_path / "arrays.npz", ["text"])) == {"text"}
    with pytest.raises(KeyError, match="other"):
        read_arrays(tmp_path / "arrays.npz", ["text", "other"])


def test_a_description_comes_back_from_an_archive(tmp_path):
    description = {"sizes": [1, 2.5], "of": {"name": "Prüfung", "none": None}}
    write_arrays(tmp_path / "arrays.npz", {"header": json_array(description)})
    array = read_arrays(tmp_path / "arrays.npz")["header"]
    assert array.dtype == np.uint8 and from_json_array(array) == description


def test_pickled_objects_are_not_read(tmp_path):
    np.savez(tmp_path / "objects.npz", value=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="allow_pickle"):
        read_arrays(tmp_path / "objects.npz")


def test_what_cannot_be_written_is_known_beforehand(tmp_path):
    check_writable(tmp_path / "new" / "file.npz", "export")
    assert list(tmp_path.iterdir()) == [tmp_path / "new"]
    (tmp_path / "taken").write_text("a file")
    for path in (tmp_path / "taken" / "file.npz", tmp_path / "taken" / "deeper" / "file.npz", tmp_path / "new"):
        with pytest.raises(UserError, match="export: "):
            check_writable(path, "export")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_texts_come_back_from_their_bytes(monkeypatch, texts):
    monkeypatch.setattr("baco.files.PIECE", 3)
    array = np.array(texts, np.dtypes.StringDType())
    stored = encode_texts("ids", array)
    assert [part.dtype for part in stored.values()] == [np.uint8, np.int64]
    assert decode_texts(*stored.values()).tolist() == texts


def test_texts_of_any_length_come_back_from_a_file(tmp_path):
    texts = np.array(["", "é", "x" * 10_000], np.dtypes.StringDType())
    write_arrays(tmp_path / "arrays.npz", {"ids": texts, "other": np.arange(3)})
    again = read_arrays(tmp_path / "arrays.npz")
    assert set(again) == {"ids", "other"} and again["ids"].tolist() == texts.tolist()
    assert read_arrays(tmp_path / "arrays.npz", ["ids"])["ids"].dtype == texts.dtype


@pytest.mark.parametrize("offsets", [[], [0], [0, 5], [1, 2], [0, 2, 1, 2]])
def test_offsets_that_do_not_fit_are_refused(offsets):
    with pytest.raises(ValueError, match="do not fit"):
        decode_texts(np.zeros(2, np.uint8), np.array(offsets, np.int64))
