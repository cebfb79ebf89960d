"""Captions: the tokens are open_clip's, their spans are exact, and mentions land on the right tokens."""

import pytest
import regex
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from fastzss.base.errors import UserError
from fastzss.captions import words
from fastzss.captions.mentions import find_mentions
from fastzss.captions.parsers import choose_parser
from fastzss.captions.tokens import CONTEXT, END, START, Tokenizer, tokens_of

OURS, THEIRS = Tokenizer(), SimpleTokenizer(clean="lower")
BANK = choose_parser("bank")
TEXTS = [
    "A baseball bat and two Giraffes standing near a fence.",
    "it's the dogs' bone; they've said we're, I'm, she'd, he'll, can't, IT'S",
    "10 umbrellas cost 3.99, 2,000 did not; 1st ²³ Ⅷ ½",
    "a café in Zürich, naïve façade, coöperate, smørrebrød",
    "猫と犬が公園で遊んでいる",
    "собака бежит по траве",
    "a dog 🐕 and a family 👨‍👩‍👧‍👦 wave 👋🏽!!! :-)",
    "cats &amp; dogs &lt;3 &quot;quoted&quot; &amp;amp; &eacute; &#128054;",
    "  white \t space\n\nof   all\u00a0kinds\u2003here ",
    "curly ‘quotes’ and “more” – dashes — and … dots",
    "schÃ¶n mojibake â€œtextâ€\x9d",
    "ﬁsh ligature, ＦＵＬＬ width, İstanbul, ſmall, ẞ",
    "a_b__c snake_case http://example.org/x?y=1&z=2 #tag @user",
    "supercalifragilisticexpialidocious antidisestablishmentarianism",
    "!!!???...---***~~~```^^^",
    "word</w>word </w> < / w >",
    "",
    "   ",
]


def squeezed(text):
    return regex.sub(r"\s", "", text)


@pytest.mark.parametrize("text", TEXTS)
def test_the_tokens_are_open_clips(text):
    assert OURS(OURS.clean(text)).ids == [START, *THEIRS.encode(text)[: CONTEXT - 2], END]


@pytest.mark.parametrize("name", ["<start_of_text>", "<end_of_text>"])
def test_a_caption_that_spells_a_special_token_is_text_like_any_other(name):
    ids = OURS(OURS.clean(f"a {name} dog")).ids
    assert ids[0] == START and ids[-1] == END
    assert not {START, END} & set(ids[1:-1])
    assert THEIRS.decode(ids[1:-1]).split()[-1] == "dog"


captions = st.one_of(
    st.text(max_size=40),
    st.text(alphabet="aAbé' -.&;19\u0301中🐕👨\u200dﬁ", max_size=40),
    st.lists(st.sampled_from(" ".join(TEXTS).split()), max_size=9).map(" ".join),
)


@given(captions)
@settings(max_examples=300, deadline=None)
def test_any_text_gets_open_clips_tokens_and_spans_that_cover_it_in_order(text):
    clean = OURS.clean(text)
    tokens = Tokenizer(context=10_000)(clean) if len(text) > 1000 else OURS(clean)
    assert tokens.ids == [START, *THEIRS.encode(text)[: CONTEXT - 2], END]
    assert len(tokens.spans) == len(tokens.ids)
    assert tokens.spans[0] == (0, 0) and tokens.spans[-1] == (len(clean), len(clean))
    inner, covered = tokens.spans[1:-1], set()
    for first, last in inner:
        assert 0 <= first < last <= len(clean)
        assert not regex.search(r"\s", clean[first:last])
        covered.update(range(first, last))
    for (_, last), (next_first, next_last) in zip(inner, inner[1:], strict=False):
        assert next_first >= last or next_first == last - 1  # two tokens may share the bytes of one character
        assert next_last >= last
    if tokens.end == len(clean):
        assert covered == {i for i, letter in enumerate(clean) if not regex.match(r"\s", letter)}


@given(captions, st.data())
@settings(max_examples=300, deadline=None)
def test_the_tokens_of_a_span_spell_its_characters(text, data):
    clean = OURS.clean(text)
    tokens = OURS(clean)
    if not clean or tokens.end < len(clean):
        return
    first = data.draw(st.integers(0, len(clean) - 1))
    last = data.draw(st.integers(first + 1, len(clean)))
    spots = tokens_of(tokens.spans, first, last)
    if not squeezed(clean[first:last]):
        assert not spots
        return
    assert spots == list(range(spots[0], spots[-1] + 1))
    a, b = first, last
    while (wide := (min(a, tokens.spans[spots[0]][0]), max(b, tokens.spans[spots[-1]][1]))) != (a, b):
        a, b = wide  # to whole tokens; one that ends inside a character draws in the next one
        spots = tokens_of(tokens.spans, a, b)
    assert squeezed(THEIRS.decode([tokens.ids[i] for i in spots])) == squeezed(clean[a:b])


def test_a_long_caption_ends_in_the_end_token_and_counts_what_was_cut():
    whole, long = OURS("dog " * 75), OURS("dog " * 101)
    assert len(whole.ids) == len(long.ids) == 77
    assert [OURS.encode("dog " * count)[1] for count in (75, 76, 101)] == [0, 1, 26]
    assert whole.ids == long.ids and long.ids[-1] == END
    assert long.spans[-2] == (74 * 4, 74 * 4 + 3)
    assert len(Tokenizer(context=9)("dog " * 20).ids) == 9
    assert whole.end == len("dog " * 75) and long.end == 75 * 4
    assert Tokenizer(context=4)("ab\U00010000").end == 2, "a character that is cut in two is not read"


def test_a_character_that_is_in_no_word_moves_no_token():
    clean = "½\u0345 é x"  # open_clip's expression passes over U+0345
    tokens = OURS(clean)
    assert tokens.spans[-2] == (5, 6) and {(3, 4), (0, 1)} < set(tokens.spans) and (1, 2) not in tokens.spans


@pytest.mark.parametrize("ids", [OURS("a dog").ids, OURS("dog " * 50).ids, [START, END]], ids=["less", "more", "none"])
def test_tokens_of_another_text_are_refused(ids):
    with pytest.raises(UserError, match='"two dogs run" are not those of its text.*Delete the captions folder'):
        OURS.located(ids, "two dogs run")


@given(st.text(alphabet=st.characters(min_codepoint=9, max_codepoint=130), max_size=60))
@settings(max_examples=500, deadline=None)
def test_a_plain_caption_is_cleaned_as_any_other(text):
    assert OURS.clean(text) == THEIRS.clean_fn(text)


LETTERS = "abcdefghijklmnopqrstuvwxyz \u00e9\u0301\u00df\u0130\ufb01\u4e2d\u732b\u0438\U0001f415\u200d'-.,&_4"
sentences = st.one_of(
    st.lists(st.text(alphabet=LETTERS, min_size=1, max_size=9), max_size=8).map(" ".join),
    st.lists(st.text(max_size=7), max_size=6).map(" ".join),
)


@given(sentences, st.data())
@settings(max_examples=5000, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_tokens_of_a_mention_decode_to_the_text_of_its_span(text, data):
    """Names are words of the caption itself, so that there is something to mention, whatever its letters."""
    clean = OURS.clean(text)
    found = words.words(clean)
    if not found:
        return
    first = data.draw(st.integers(0, len(found) - 1))
    last = min(len(found) - 1, first + data.draw(st.integers(0, 2)))
    terms = {" ".join(word for word, _, _ in found[first : last + 1]): 0, found[-1][0]: 1}
    tokens = OURS(clean)
    (spoken,) = BANK([clean], terms)
    mentions = find_mentions([clean], terms, BANK)
    assert len(mentions.name) + mentions.cut == len(spoken)
    for mention, begin, end in zip(spoken, mentions.offset, mentions.offset[1:], strict=False):
        spots = mentions.token[begin:end].tolist()
        ((a, b),) = mention.spans
        spelled = clean[min(tokens.spans[i][0] for i in spots) : max(tokens.spans[i][1] for i in spots)]
        # a token may reach beyond its word: "can" of "cannot"; one that ends inside a character shares it with the next
        assert squeezed(clean[a:b]) in squeezed(spelled)
        whole = tokens_of(tokens.spans, *span_of_whole_tokens(tokens.spans, a, b))
        assert set(spots) <= set(whole)
        letters = squeezed(THEIRS.decode([tokens.ids[i] for i in whole]))
        assert letters == squeezed(clean[tokens.spans[whole[0]][0] : tokens.spans[whole[-1]][1]])


def span_of_whole_tokens(spans, a, b):
    """Characters a .. b - 1, widened until no token ends inside."""
    while True:
        own = tokens_of(spans, a, b)
        wide = min(a, spans[own[0]][0]), max(b, spans[own[-1]][1])
        if wide == (a, b):
            return wide
        a, b = wide
