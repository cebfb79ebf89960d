"""Words: their singular, and which of them name something where they stand."""

import pytest

from fastzss.captions import words
from fastzss.captions.nouns import names_in
from fastzss.captions.parsers import choose_parser

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


@pytest.mark.parametrize(
    "caption, names",
    [
        # behind a pronoun
        ("i see a kite", "kite"),
        ("you see saw dust", "dust"),
        ("he fishes in a river", "river"),
        ("she skis down a hill", "hill"),
        ("it flies over the house", "house"),
        ("they park near a wall", "wall"),
        ("we water flowers", "flower"),
        ("a boy who races a dog", "boy, dog"),
        ("here we often picnic on grass", "grass"),
        ("i really love sea food", "sea, food, sea food"),
        ("they all play soccer", "soccer"),
        ("i always see birds", "bird"),
        # behind an auxiliary and a pronoun
        ("can you see a dog", "dog"),
        ("do you see it", ""),
        ("did they fish here", ""),
        ("will he fly a kite", "kite"),
        ("should we park the car", "car"),
        ("could i pet a cat", "cat"),
        ("does she ski", ""),
        ("may i ride it", ""),
        ("can't you also see a dog", "dog"),
        ("would it float in a bowl", "bowl"),
        ("must we always queue here", ""),
        ("shall we picnic on a beach", "beach"),
        # behind an auxiliary, or "to"
        ("you can see a dog", "dog"),
        ("one can see a house", "house"),
        ("we could not see the man", "man"),
        ("you'll see a dog", "dog"),
        ("i'd love a boat", "boat"),
        ("he didn't park the car", "car"),
        ("they do not fish", ""),
        ("you can clearly fish in the lake", "lake"),
        ("a dog will guard the house", "dog, house"),
        ("i want to fly a kite", "kite"),
        ("let us see", ""),
        ("see a dog and people see a car", "dog, people, car"),
        # behind "that" and "which"
        ("a dog that races", "dog"),
        ("dogs that race", "dog"),
        ("people that fish", "people"),
        ("a train which stops here", "train"),
        # and nouns that stand where a verb might
        ("i love sea food", "sea, food, sea food"),
        ("i like my cat", "cat"),
        ("can dogs swim", "dog"),
        ("you can see people", "people"),
        ("they do water sports", "water, sport, water sport"),
        ("she does tricks", "trick"),
        ("that dog is big", "dog"),
        ("look at that boat", "boat"),
        ("which house is red", "house"),
        ("a house and behind it trees", "house, tree"),
        ("a meadow in which cows graze", "meadow, cow"),
        ("next to water", "water"),
        ("a trash can lid", "trash, lid"),
        ("we see two family dogs", "family, dog, family dog"),
    ],
)
def test_what_somebody_does_is_no_name(caption, names):
    assert ", ".join(names_in(caption)) == names


def test_a_caption_of_any_length_has_an_end():
    assert names_in("walk " * 5000)
    assert list(choose_parser("bank")(["run " * 5000], {"run": 0}))[0]


def test_a_name_is_spaced_as_its_words_are_found():
    for name in ("t-shirt", "u.s. flag", "fire_hydrant", "café", "salt & pepper", "dog"):
        assert words.spaced(name).split() == [word for word, _, _ in words.words(name)]
    assert words.spaced("t-shirt") == "t shirt" and words.spaced("--") == ""
