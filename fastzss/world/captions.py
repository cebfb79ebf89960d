"""Captions of the built-in world: what an inattentive person would say of a scene.

A caption never says what is not there: names, counts, colours and positions are true. It does leave things out
(`DROPPED` of what is visible), calls a class by another of its words, and adds words that stand for nothing.
"""

from typing import NamedTuple

DROPPED = 0.2  # chance that a caption passes over a class; one that would pass over all names one

SYNONYMS = {
    "tree": (),
    "house": ("cottage",),
    "boat": ("ship",),
    "car": ("automobile",),
    "fish": (),
    "flower": ("blossom",),
    "mushroom": ("toadstool",),
    "apple": (),
    "bird": (),
    "snail": (),
    "butterfly": (),
    "star": (),
    "moon": (),
    "kite": (),
    "balloon": (),
    "rocket": ("spaceship",),
    "cup": ("mug",),
    "clock": (),
    "chair": (),
    "key": (),
    "bell": (),
    "ladder": (),
    "ball": (),
    "umbrella": ("parasol",),
    "grass": ("lawn",),
    "sand": ("beach",),
    "water": (),
    "brick": (),
    "snow": (),
    "wood": (),
    "sky": (),
    "stone": (),
}
PLURALS = {"fish": "fish"}
COUNTS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
STUFF_PHRASES = {
    "grass": ("grass", "the grass", "the grass", "green grass"),
    "lawn": ("a lawn", "the lawn"),
    "sand": ("sand", "the sand", "the sand", "dry sand"),
    "beach": ("a beach", "the beach"),
    "water": ("water", "the water", "the water", "cool water"),
    "brick": ("brick", "the brick", "a brick wall", "plain brick"),
    "snow": ("snow", "the snow", "the snow", "fresh snow"),
    "wood": ("wood", "the wood", "bare wood", "old wood"),
    "sky": ("sky", "the sky", "the sky", "a wide sky"),
    "stone": ("stone", "the stone", "rough stone", "a stone wall"),
}

OPENINGS = ("a picture of ", "a drawing of ", "here we see ", "look, ", "a quiet scene with ", "we found ", "I drew ")
ENDINGS = (" today", " in the afternoon", " at noon", ", as usual", " on a lovely day", ", drawn by hand")
BETWEEN = (" and ", " and ", " with ", " next to ", " beside ")


class Seen(NamedTuple):
    """A visible thing: class, colour, centre (0 to 1, y downwards), length in a picture of 128 pixels, ground."""

    name: str
    colour: str
    x: float
    y: float
    size: float
    ground: str


def plural(word):
    if word in PLURALS:
        return PLURALS[word]
    if word.endswith(("s", "x", "ch", "sh")):
        return word + "es"
    if word.endswith("y") and word[-2] not in "aeiou":
        return word[:-1] + "ies"
    return word + "s"


def with_article(phrase):
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def word_for(random, name):
    others = SYNONYMS.get(name, ())
    return random.choice(others) if others and random.random() < 0.15 else name


def thing_phrase(random, group):
    """'a small red car', 'two fish', 'some blue boats': one class, all of its visible members."""
    word, colours = word_for(random, group[0].name), {thing.colour for thing in group}
    adjectives = []
    if random.random() < 0.12 and all(thing.size > 62 for thing in group):
        adjectives.append(random.choice(("big", "large")))
    elif random.random() < 0.12 and all(thing.size < 52 for thing in group):
        adjectives.append("small")
    if len(colours) == 1 and random.random() < 0.55:
        adjectives += colours
    if len(group) == 1:
        phrase = " ".join(adjectives + [word])
        return random.choice(("the " + phrase, "one " + phrase)) if random.random() < 0.12 else with_article(phrase)
    number = COUNTS[len(group)] if len(group) < len(COUNTS) else "many"
    count = random.choice((number,) * 4 + ("some", "several" if len(group) > 2 else "a pair of"))
    return " ".join([count] + adjectives + [plural(word)])


def place_phrase(random, thing):
    """Where a thing is, or '' when it is nowhere in particular."""
    words = []
    if thing.x < 0.36:
        words += ["on the left", "to the left"]
    elif thing.x > 0.64:
        words += ["on the right", "to the right"]
    if thing.y < 0.36:
        words += ["at the top", "further up"]
    elif thing.y > 0.64:
        words += ["at the bottom", "down below"]
    return " " + random.choice(words or ["in the middle"])


def relation(random, first, second):
    """How the first thing lies to the second, in words that are true."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) < 0.15 and abs(dy) < 0.15:
        return random.choice((" near ", " close to "))
    if abs(dx) > abs(dy):
        return " left of " if dx < 0 else " right of "
    return " above " if dy < 0 else " below "


def listed(phrases):
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]


def say_things(random, groups):
    """One phrase for all groups; returns it and whether it may be followed by ' on the grass'."""
    phrases = [thing_phrase(random, group) for group in groups]
    if len(groups) == 1:
        if len(groups[0]) == 1 and random.random() < 0.3:
            return phrases[0] + place_phrase(random, groups[0][0]), False
        return phrases[0], True
    if len(groups) == 2:
        if len(groups[0]) == len(groups[1]) == 1 and random.random() < 0.45:
            return phrases[0] + relation(random, groups[0][0], groups[1][0]) + phrases[1], False
        return phrases[0] + random.choice(BETWEEN) + phrases[1], True
    return listed(phrases), True


def say_stuffs(random, stuffs):
    words = [word_for(random, stuff) for stuff in stuffs]
    return " and ".join(random.choice(STUFF_PHRASES.get(word, (word, "the " + word))) for word in words)


def make_caption(random, things, stuffs):
    """One sentence about the visible `things` (Seen) and `stuffs` (names), most of them named."""
    names = list(dict.fromkeys(thing.name for thing in things))
    concepts = names + list(stuffs)
    kept = [name for name in concepts if random.random() > DROPPED] or [random.choice(concepts)]
    groups = [[thing for thing in things if thing.name == name] for name in names if name in kept]
    stuffs = [stuff for stuff in stuffs if stuff in kept]
    random.shuffle(groups)
    random.shuffle(stuffs)

    if not groups:
        sentence = random.choice(("nothing but ", "a lot of ", "a view over ", "mostly ")) + say_stuffs(random, stuffs)
    else:
        sentence, open_ended = say_things(random, groups)
        grounds = {thing.ground for group in groups for thing in group}
        if stuffs and open_ended and grounds == set(stuffs) and random.random() < 0.75:
            where = (" in ", " in ", " under ") if "sky" in stuffs else (" on ", " on ", " over ", " upon ")
            sentence += random.choice(where) + say_stuffs(random, stuffs)
        elif stuffs and random.random() < 0.25:
            sentence = say_stuffs(random, stuffs) + " with " + sentence
        elif stuffs:
            joint = random.choice((", with {} around", " and {}", ", and {} too", " in front of {}", " with {}"))
            sentence += joint.format(say_stuffs(random, stuffs))
        if random.random() < 0.6:
            sentence = random.choice(OPENINGS) + sentence
    if random.random() < 0.5:
        sentence += random.choice(ENDINGS)
    if random.random() < 0.7:
        sentence = sentence[0].upper() + sentence[1:]
        sentence += "" if random.random() < 0.15 else "."
    return sentence
