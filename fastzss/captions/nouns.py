"""Which words of a caption name something, without a tagger.

A dictionary knows that "racket" and "play" may be nouns and verbs; which of them they are is read off the words around:

    the children play                behind a noun: a verb of ACTIONS
    a bus stops, buses stop          behind a noun: the -s of a verb after "a", none after a plural
    tennis rackets, a fruit stand    behind a noun: any other, a noun; the one before only says which
    we fish, people drew             behind a pronoun, or an irregular past
    you can also fish, to fly        behind an auxiliary, or "to": the verb itself, without an -s
    dogs that race, that dog         behind "that": what many do, and else the noun

Adverbs between them do not count, and a pronoun behind a preposition does nothing ("behind it trees").

What this cannot do: see a thing in "the fruit stand", or what is done in "the bus stops" and "man skis".
"""

from functools import cache

from fastzss.captions.words import singular, tables, words

# Nouns to a dictionary, but words about the picture, places in it, amounts and colours.
NAMELESS = frozenset(
    """photo photograph picture image view scene shot drawing painting sketch illustration close closeup look display
    today tonight yesterday morning noon afternoon evening left right top bottom middle center centre side front back
    corner edge half part end background foreground distance inside outside above below under over behind near beside
    next between across along around in on at by off up down out lot lots group couple pair bunch pile row set kind
    type sort piece bit number variety many several few some plenty one two three four five six seven eight nine ten
    eleven twelve fifteen twenty forty fifty sixty hundred dozen another other each all both any every something
    nothing thing none nobody someone somewhere nowhere red orange yellow green blue purple violet pink brown black
    white gray grey golden silver beige turquoise cyan magenta color colour colors colours colored coloured dark
    bright pale big small large little tiny huge tall short long wide narrow round square new old young good nice
    beautiful pretty plain day time way place area spot amount whole outdoors indoors upside past through a an the it
    he she is am are was were be been being has have had do does did can could will would may might must shall should
    as and or but if so no not than then there here now thus still this that these those with without from into onto to
    of for about who what which while where when how why we you they them their his her its our my your mine i us me
    him very just only also too even more most less least much such own same first second third last like well work use
    lie lay stand sit rest total overall meanwhile amid amidst see seen shown show let get go using s t re""".split()
)

PRONOUNS = frozenset("i you he she it we they who".split())
RELATIVES = frozenset("that which".split())
AUXILIARIES = frozenset(
    """can could will would may might must shall should cannot can't couldn't won't wouldn't shouldn't don't doesn't
    didn't""".split()
)
DO = frozenset("do does did".split())  # auxiliaries only where something stands between them and the verb: "do not see"
ADVERBS = frozenset("not also just only even still often always never sometimes now then both all".split())
LEADERS = PRONOUNS | RELATIVES | AUXILIARIES | {"to", "t", "ll", "d"}  # what may stand right before a verb
PREPOSITIONS = frozenset("in on at of by with near behind beside under above below over around from for to".split())
ONE = frozenset("a an one each every another this".split())  # words before a noun that is no plural
THE = frozenset("the his her their its my our your two three four some several many".split())
A_FEW = 4  # words that are looked back

# What things in captions do, where the same word may be a noun, but seldom one with another noun before it.
ACTIONS = frozenset(
    f"{verb}{ending}"
    for verb in """bite carry cast catch chase cheer chew climb cook cross dance dig dive drip drive fetch fight float
    flow fly gallop gather graze grow hang hike hit hold hug hunt jog jump kick kiss kneel laugh lead lean leap lick lie
    look meet move observe overlook pause perch play pose pour prepare pull push raise reach read rest ride rise roam
    roar run sail sing sit skate sleep smell smile sniff stand stare stretch stroll surf surround swim take talk throw
    try turn wade wait walk wander want watch wear yawn""".split()
    for ending in ("", "s", "es")
) | frozenset("carries flies tries".split())


def names_in(clean):
    """What a cleaned caption may name: its nouns, and pairs of neighbouring nouns, in singular form."""
    text = words(clean)
    found, before = [], None  # the noun right before, if there is one
    sentence = Sentence(clean, text)
    for i in range(len(text)):
        name = sentence.noun(i)
        if name:
            found.append(name)
            if before and sentence.joined(i):
                found.append(f"{before} {name}")
            before = text[i][0]
        else:
            before = None
    return found


class Sentence:
    """The words of a caption, and what each of them may be where it stands."""

    def __init__(self, clean, text):
        self.clean, self.text = clean, text  # text: (word, first, last + 1) as words() gives them

    def joined(self, i):
        """Whether there are two words i - 1 and i with nothing but space between."""
        return 0 < i < len(self.text) and self.clean[self.text[i - 1][2] : self.text[i][1]].isspace()

    def word(self, i):
        return self.text[i][0]

    def noun(self, i):
        """The singular of word i if it is a noun here, else None."""
        word = self.word(i)
        name = may_name(word)
        if name is None or self.does(i) or self.participle(i):
            return None
        if word in tables().adjectives and self.joined(i + 1):
            after = self.word(i + 1)
            if after in tables().adjectives or len(after) > 2 and singular(after) in tables().nouns:
                return None  # "light blue", "cool water"; but "in", "at", "a" are nouns to the dictionary too
        return name

    def does(self, i, back=A_FEW):
        """Whether word i, which may be a noun, is a verb here: what a noun or a pronoun before it does.

        In "a woman drinks water" that depends on what "drinks" is; `back` ends the question.
        """
        word, t = self.word(i), tables()
        if not self.joined(i) or not (word in t.verbs or word in t.irregular or stem(word) in t.verbs):
            return False
        if self.led(i):
            return True
        before = self.word(i - 1)
        subject = may_name(before)
        if subject is None or before in t.adjectives or back and self.does(i - 1, back - 1):
            return False
        ends, one = stem(word) != word, before == subject and self._one(i - 1)
        if word in ACTIONS or word in t.irregular:
            return ends or not one  # "a fruit stand" is a thing
        return one if ends else before != subject

    def led(self, i):
        """Whether a pronoun, an auxiliary or "to" before word i, which may be a verb, makes it one."""
        k = i - 1
        if self.word(k) not in LEADERS and not adverb(self.word(k)):
            return False  # nearly always
        while self.joined(k) and adverb(self.word(k)):
            k -= 1
        word, before, earlier = self.word(i), self.contracted(k), self.word(k - 1) if self.joined(k) else ""
        bare = stem(word) == word
        if before in PRONOUNS:
            return earlier not in PREPOSITIONS
        if before in RELATIVES:
            many = earlier == "people" or may_name(earlier) not in (None, earlier)
            return earlier not in PREPOSITIONS and (many or not bare)
        if before in AUXILIARIES or before in DO and k < i - 1 or before.endswith(("'ll", "'d")):
            return bare and earlier not in ONE and earlier not in THE
        return before == "to" and bare and word in ACTIONS

    def contracted(self, i):
        """Word i, with the one before it if an apostrophe joins them: don't, you'll."""
        begin, end = self.text[i][1:]
        if i and self.clean[self.text[i - 1][2] : begin] in ("'", "’"):
            begin = self.text[i - 1][1]
        return self.clean[begin:end].replace("’", "'")

    def participle(self, i):
        """Whether word i is what somebody is doing ("people building a house") and no thing ("a tall building")."""
        word = self.word(i)
        if not verbal(word):
            return False
        before = self.word(i - 1) if self.joined(i) else ""
        named = before in ONE or before in THE or before in tables().adjectives
        return not named or self.joined(i + 1) and may_name(self.word(i + 1)) is not None

    def modifies(self, i):
        """Whether the noun that ends with word i only says which one the next noun is: "tennis" of "tennis rackets"."""
        if not self.joined(i + 1):
            return False
        head = self.noun(i + 1)
        return head not in (None, singular(self.word(i))) and self.word(i + 1) not in tables().adjectives

    def _one(self, i):
        """Whether an article before word i says that it is one, and alone: "a small boat", not "a dog and a cat"."""
        for k in range(i - 1, max(-1, i - 1 - A_FEW), -1):
            if not self.joined(k + 1):
                return False
            if self.word(k) in ONE:
                return not (self.joined(k) and self.word(k - 1) == "and")
        return False


@cache
def may_name(word):
    """The singular of a word that a dictionary has as a noun, and that is none of NAMELESS; else None."""
    name = singular(word)
    known = name in tables().nouns and len(name) > 1 and NAMELESS.isdisjoint((name, word))
    return name if known else None


@cache
def stem(word):
    """A word without the -s of a plural, or of what one does: dogs, races, and flies, which is a noun as well."""
    verb = f"{word[:-3]}y"
    return verb if word.endswith("ies") and verb in tables().verbs else singular(word)


@cache
def adverb(word):
    return word in ADVERBS or word.endswith("ly") and may_name(word) is None  # a family is none


@cache
def verbal(word):
    """Whether a word has the form of a participle or of an irregular past: building, parked, drew."""
    verbs = tables().verbs
    if word in tables().irregular:
        return True
    if not word.endswith(("ing", "ed")) or word.endswith("eed"):
        return False
    stem = word.removesuffix("ing").removesuffix("ed")
    return len(stem) > 2 and not verbs.isdisjoint((stem, f"{stem}e", stem[:-1]))
