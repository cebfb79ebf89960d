"""Words: their singular, and which of them name something where they stand."""

import pytest

from fastzss.captions import choose_parser, words
from fastzss.captions.nouns import names_in

PLURALS = """boats boat, buses bus, boxes box, knives knife, leaves leaf, children child, geese goose, men man,
    skis ski, people people, cities city, skies sky, potatoes potato, dishes dish, horses horse, houses house,
    fish fish, bus bus, sheep sheep, glass glass, grass grass, dress dress, dresses dress, tennis tennis,
    dog dog, boss boss, qwertys qwertys, crosses cross, vases vase, cookies cookie, axes ax, classes class,
    movies movie, benches bench, policemen policeman, scissors scissors, watches watch"""


@pytest.mark.parametrize("plural, singular", [pair.split() for pair in PLURALS.split(",")])
def test_the_singular_of(plural, singular):
    assert words.singular(plural) == singular


@pytest.mark.parametrize(
    "caption, names",
    [
        ("a boat", "boat"),
        ("two boats", "boat"),
        ("a man's dog on the grass", "man, dog, grass"),
        ("two dogs and a fire hydrant", "dog, fire, hydrant, fire hydrant"),
        ("three buses parked near houses", "bus, house"),
        ("a boat floats", "boat"),
        ("a cat sleeps", "cat"),
        ("we see a tree", "tree"),
        ("i drew a house", "house"),
        ("the girl drew a cat", "girl, cat"),
        ("cool water", "water"),
        ("a small red car", "car"),
        ("a photo of a star", "star"),
        ("people are skiing", "people"),
        ("a red house boat", "house, boat, house boat"),
        ("a house, boat and star", "house, boat, star"),
        ("a car, park bench", "car, park, bench, park bench"),
        ("a kitchen sink with dishes", "kitchen, sink, kitchen sink, dish"),
        ("one fish on the left", "fish"),
        ("in the middle of the afternoon", ""),
        ("", ""),
        ("!?", ""),
        # behind a noun: a verb, or the noun that the first one describes
        ("tennis rackets on a table", "tennis, racket, tennis racket, table"),
        ("two fire trucks", "fire, truck, fire truck"),
        ("children play in the park", "child, park"),
        ("a group of children play soccer", "child, soccer"),
        ("giraffes stand in a field", "giraffe, field"),
        ("a man and a woman walk a dog", "man, woman, dog"),
        ("a man rides a horse", "man, horse"),
        ("a woman drinks water", "woman, water"),
        ("a bus stops at the bus stop", "bus, bus, stop, bus stop"),
        ("a small boat stops here", "boat"),
        ("cars park on the street", "car, street"),
        ("a dog house", "dog, house, dog house"),
        ("the man saw a bear", "man, bear"),
        ("people watch a baseball game", "people, baseball, game, baseball game"),
        # participles and the nouns that look like them
        ("people building a house", "people, house"),
        ("a tall building near a bed", "building, bed"),
        ("a building with a ceiling fan", "building, ceiling, fan, ceiling fan"),
        ("a sleeping cat and parked cars", "cat, car"),
        ("a butterfly and a family", "butterfly, family"),
        ("crosses on a church", "cross, church"),
        ("a light blue boat", "boat"),
        ("a traffic light", "traffic, light, traffic light"),
        ("a quiet scene with water", "water"),
    ],
)
def test_what_a_caption_may_name(caption, names):
    assert ", ".join(names_in(caption)) == names


def test_a_caption_of_any_length_has_an_end():
    assert names_in("walk " * 5000)
    assert list(choose_parser("bank")(["run " * 5000], {"run": 0}))[0]


def test_a_name_is_spaced_as_its_words_are_found():
    for name in ("t-shirt", "u.s. flag", "fire_hydrant", "café", "salt & pepper", "dog"):
        assert words.spaced(name).split() == [word for word, _, _ in words.words(name)]
    assert words.spaced("t-shirt") == "t shirt" and words.spaced("--") == ""
