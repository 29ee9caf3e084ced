"""The database of the library: documents with versions, tags, and a search that finds what was said."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from whisper.errors import OptionError
from whisper.server.errors import RequestError
from whisper.server.library.store import ImportedRecording, LibraryStore, Recording, fts_query


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LibraryStore]:
    made = LibraryStore(tmp_path)
    yield made
    made.close()


def add(store: LibraryStore, owner: str = "", name: str = "a.wav", **changed: Any) -> Recording:
    columns = {"name": name, "job": "job", "model": "nano", "fields": [("model", "nano")], "n_bytes": 3, "tags": []}
    return store.add(owner, store.new_id(), **{**columns, **changed})


def document(*texts: str) -> dict[str, Any]:
    segments = [
        {"uid": f"s{i}", "start": 2.0 * i, "end": 2.0 * i + 2, "text": text, "words": []}
        for i, text in enumerate(texts)
    ]
    return {"language": "en", "segments": segments, "speakers": {}, "findings": [], "speech": None}


def texts(hits: list[dict[str, Any]]) -> list[str]:
    return [hit["text"] for hit in hits]


def test_a_document_is_changed_only_by_who_knows_its_version(store: LibraryStore) -> None:
    one = add(store)
    with pytest.raises(RequestError) as none:
        store.document(one)
    assert none.value.code == "not_finished"
    store.finish(one, document("Hello."))
    store.finish(one, document("A second time, after a crash."))
    assert store.document(one) == (1, document("Hello."))
    assert store.save(one, 1, document("Hello there."), "change") == 2
    with pytest.raises(RequestError) as stale:
        store.save(one, 1, document("Lost."), "other")
    assert (stale.value.status, stale.value.code) == (409, "version_conflict")
    assert store.document(one) == (2, document("Hello there."))
    assert store.document(one, original=True) == (2, document("Hello."))
    now = store.get(one.id, "")
    assert now is not None
    assert (now.status, now.version, now.last_change, now.beginning) == ("done", 2, "change", "Hello there.")
    assert now.changed > one.changed


def test_a_new_result_of_a_job_has_the_place_of_the_last_one(store: LibraryStore) -> None:
    columns = {"name": "a.wav", "job": "", "model": "nano", "fields": [], "n_bytes": 3, "duration": 2.0, "created": 1.0}
    name = store.new_id()

    def take_in(text: str) -> None:
        store.take_in("", [ImportedRecording(name, text, columns, ["tag"], document(text), "a.wav")])

    take_in("First.")
    asked = store.get(name, "")
    assert asked is not None
    store.change(asked, name="Interview")
    store.set_tags(asked, ["mine"])
    take_in("Second.")
    assert store.document(asked) == (2, document("Second."))  # asked for before, read after
    with pytest.raises(RequestError, match="changed elsewhere"):
        store.save(asked, 1, document("First, corrected."), "")
    assert (texts(store.search("", "second")), store.search("", "first")) == (["Second."], [])
    now = store.get(name, "")
    assert now is not None
    assert (now.name, store.tags_of(now)) == ("Interview", ["mine"])
    store.save(now, 2, document("Corrected."), "")
    take_in("Third.")
    assert store.document(now) == (3, document("Corrected."))


def test_search_finds_in_all_recordings_of_an_owner(store: LibraryStore) -> None:
    mine, other, foreign = add(store, "me", "mine"), add(store, "me", "other"), add(store, "you")
    store.finish(mine, document(" The quick brown fox", " jumps over Zoë's dog"))
    store.finish(other, document(" A fox is quick"))
    store.finish(foreign, document(" The quick fox of somebody else"))
    assert set(texts(store.search("me", "quick fox"))) == {"The quick brown fox", "A fox is quick"}
    assert texts(store.search("me", '"quick brown"')) == ["The quick brown fox"]
    assert store.search("me", "zoe") == [
        {"recording": mine.id, "name": "mine", "uid": "s1", "start": 2.0, "text": "jumps over Zoë's dog"}
    ]
    assert texts(store.search("me", "jum")) == ["jumps over Zoë's dog"]
    assert not store.search("me", "jum ")
    assert not store.search("me", "elephant")
    store.save(mine, 1, document(" An elephant"), "")
    assert texts(store.search("me", "elephant")) == ["An elephant"]
    assert texts(store.search("me", "fox")) == ["A fox is quick"]
    store.delete(mine)
    assert not store.search("me", "elephant")


def test_writing_without_spaces_is_found_by_any_part(store: LibraryStore) -> None:
    one = add(store)
    store.finish(one, document("東京タワーに行きました", "ฉันไปกรุงเทพ"))
    assert texts(store.search("", "タワー")) == ["東京タワーに行きました"]
    assert texts(store.search("", "京")) == ["東京タワーに行きました"]
    assert texts(store.search("", "กรุงเทพ")) == ["ฉันไปกรุงเทพ"]
    assert not store.search("", "京東")


@pytest.mark.parametrize(
    "query", ['"', "AND", "a OR", "NEAR(", "text:fox", "*", "^fox", "-fox", '"" "', "f\0x", "(", "'", "{a}"]
)
def test_nothing_that_is_typed_is_an_operator(store: LibraryStore, query: str) -> None:
    store.finish(add(store), document("nothing"))
    assert store.search("", query) == []


def test_a_query_without_words_asks_nothing() -> None:
    assert fts_query(" ! ?") == ""
    assert fts_query('say "good day" now') == '"say" "good day" "now"*'


def test_tags(store: LibraryStore) -> None:
    one, two = add(store, tags=["b", "a", "b"]), add(store, tags=["b"])
    assert store.tags_of(one) == ["a", "b"]
    assert store.all_tags("") == [("a", 1), ("b", 2)]
    store.set_tags(one, ["<b>"])
    assert store.all_tags("") == [("<b>", 1), ("b", 1)]
    assert [found.id for found in store.page("", 10, None, "b")] == [two.id]
    store.delete(two)
    assert store.all_tags("") == [("<b>", 1)]


def test_pages_are_the_newest_first(store: LibraryStore) -> None:
    ids = [add(store).id for _ in range(5)]
    add(store, "somebody else")
    first = store.page("", 2, None, None)
    assert [one.id for one in first] == ids[:2:-1]
    assert [one.id for one in store.page("", 9, first[-1], None)] == ids[2::-1]
    assert store.get(ids[0], "somebody else") is None
    assert store.get("rec_\ud800", "") is None


def test_a_library_of_another_version_is_left_alone(tmp_path: Path) -> None:
    LibraryStore(tmp_path).close()
    db = sqlite3.connect(tmp_path / "library.sqlite")
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(OptionError, match="another release"):
        LibraryStore(tmp_path)


def test_a_file_that_is_no_database_is_named(tmp_path: Path) -> None:
    (tmp_path / "library.sqlite").write_bytes(b"no database at all" * 100)
    with pytest.raises(OptionError, match="cannot be used"):
        LibraryStore(tmp_path)
