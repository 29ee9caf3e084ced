"""Fields of a form, in all spellings that clients use."""

import pytest

from whisper.server.errors import RequestError
from whisper.server.fields import as_list, as_object, as_text, as_truth, collect


@pytest.mark.parametrize(
    ("sent", "found"),
    [
        ([("a", "1")], {"a": "1"}),
        ([("a", "1"), ("b", "2"), ("a", "3")], {"a": ["1", "3"], "b": "2"}),
        ([("a[]", "1")], {"a": ["1"]}),
        ([("a[]", "1"), ("a[]", "2")], {"a": ["1", "2"]}),
        ([("a", "1"), ("a[]", "2")], {"a": ["1", "2"]}),
        ([("a[x]", "1"), ("b", ""), ("a[y]", "2")], {"a": {"x": "1", "y": "2"}, "b": ""}),
    ],
)
def test_spellings(sent: list[tuple[str, str]], found: dict[str, object]) -> None:
    assert collect(sent) == found


@pytest.mark.parametrize("sent", [[("a[", "1")], [("", "1")], [("a[x][y]", "1")], [("a", "1"), ("a[x]", "2")],
                                  [("a[x]", "1"), ("a[]", "2")]])  # fmt: skip
def test_misspelt(sent: list[tuple[str, str]]) -> None:
    with pytest.raises(RequestError) as error:
        collect(sent)
    assert error.value.status == 400


def test_values() -> None:
    assert as_text("a", ["x"]) == "x"
    assert as_list("a", "x") == ["x"]
    assert as_list("a", '["x", "y"]') == ["x", "y"]
    assert as_object("a", '{"x": 1}') == {"x": 1}
    assert as_object("a", {"x": "1"}) == {"x": "1"}
    assert [as_truth("a", text) for text in ("true", "False", "1", "0")] == [True, False, True, False]


@pytest.mark.parametrize(
    ("read", "value"),
    [(as_text, ["x", "y"]), (as_text, {"x": "1"}), (as_truth, "yes"), (as_list, "[1]"), (as_list, "[x"),
     (as_list, {"x": "1"}), (as_object, "x"), (as_object, "[1]"), (as_list, "[" * 100_000)],
)  # fmt: skip
def test_values_that_cannot_be_meant(read: object, value: object) -> None:
    with pytest.raises(RequestError) as error:
        read("a", value)  # type: ignore[operator]
    assert error.value.param == "a"
