"""Classes as users write them, and what is asked back."""

from pathlib import Path

import pytest

from fastzss.base.errors import UserError
from fastzss.masks.classes import classes_of


def told(given):
    return [(found.name, found.aliases, found.prompts) for found in classes_of(given)]


def test_names_lists_aliases_prompts_and_files(tmp_path):
    expected = [("dog", ("dog",), ()), ("red car", ("red car", "automobile"), ())]
    (tmp_path / "c.txt").write_text("\ufeffdog\n\n red  car | automobile \n", encoding="utf-8")
    for given in ("dog,  red   car|automobile ,dog,", ["dog", "red car|automobile"], ("dog", ["red car", "automobile"]),
                  (name for name in ("dog", "red car | automobile")), tmp_path / "c.txt"):  # fmt: skip
        assert told(given) == expected
    prompts = {"dog": ["a photo of a {}.", "a puppy"], "cat": "one cat"}
    assert told(prompts) == [("dog", (), ("a photo of a {}.", "a puppy")), ("cat", (), ("one cat",))]


def test_classes_of_one_name_are_one():
    assert told("car|auto, dog, car|bus") == [("car", ("car", "auto", "bus"), ()), ("dog", ("dog",), ())]


@pytest.mark.parametrize(
    "classes, sentence",
    [("", "class list is empty"), (" , ,", "class list is empty"), ([], "class list is empty"), ([""], "empty"),
     ([f"thing {i}" for i in range(65_536)], "65536 classes; a mask holds at most 65535"),
     ("a; red b", 'has ";" in it; did you mean "a, red b"?'), ("ade.txt", "looks like a file.*--classes-file ade.txt"),
     (Path("no/such.txt"), "no/such.txt: cannot be read"), ({"dog": []}, 'the class "dog" has no prompts'),
     ({" ": ["a"]}, "a class has no name")],
)  # fmt: skip
def test_a_mistake_is_one_sentence(classes, sentence):
    with pytest.raises(UserError, match=sentence.replace("?", r"\?")) as problem:
        classes_of(classes)
    assert "\n" not in str(problem.value)


def test_a_name_may_look_like_a_file_among_others():
    assert [c.name for c in classes_of("ade.txt,")] == ["ade.txt"]
    assert [c.name for c in classes_of(["a;b", "c.txt"])] == ["a;b", "c.txt"]


@pytest.mark.parametrize("classes", [3, None, b"dog", {"dog", "cat"}, [3], [["dog", 3]], {3: "a"}, {"dog": 3}, [None]])
def test_anything_else_is_a_type_error_that_says_what_is_taken(classes):
    with pytest.raises(TypeError, match="expected names with commas between"):
        classes_of(classes)


def test_an_empty_file_is_named(tmp_path):
    (tmp_path / "c.txt").write_text("\n \n")
    with pytest.raises(UserError, match=r"c.txt: is empty; expected a class a line"):
        classes_of(tmp_path / "c.txt")
