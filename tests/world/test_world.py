"""The built-in world: a pure function whose captions and masks tell the truth."""

import re
import subprocess
import sys
import zlib
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastzss import world
from fastzss.world.captions import plural
from fastzss.world.scene import Beyond

MAKE_WORLD = Path(__file__).parents[2] / "tools" / "make_world.py"
COLOUR_TABLE = np.array(list(world.COLOURS.values()), float)


@cache
def scenes():
    return [world.scene("train", index) for index in range(500)]


@cache
def words_of():
    """word -> class name, for every word a caption may use for a class."""
    words = {name: (name, *world.SYNONYMS.get(name, ())) for name in world.NAMES}
    singular = {word: name for name, all_ in words.items() for word in all_}
    return singular | {plural(word): name for word, name in singular.items()}


def named(caption):
    words = re.findall("[a-z]+", caption.lower())
    return [words_of()[word] for word in words if word in words_of()]


def same(a, b):
    return a.image.tobytes() == b.image.tobytes() and a.captions == b.captions and np.array_equal(a.mask, b.mask)


def colour_shares(scene, name):
    """How much of the class's pixels lies next to each colour name."""
    pixels = np.asarray(scene.image, float)[scene.mask == world.NAMES.index(name)]
    nearest = ((pixels[:, None] - COLOUR_TABLE) ** 2).sum(-1).argmin(1)
    return dict(zip(world.COLOURS, np.bincount(nearest, minlength=len(world.COLOURS)) / len(pixels), strict=True))


def test_scene_is_a_pure_function_of_its_arguments():
    first = {index: world.scene("test", index, seed=3) for index in range(6)}
    for index in reversed(range(6)):
        assert same(first[index], world.scene("test", index, seed=3))
    # in a fresh process too, where strings hash differently
    code = "from fastzss import world; import zlib; s = world.scene('test', 2, 3); print(zlib.crc32(s.image.tobytes()))"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(printed) == zlib.crc32(first[2].image.tobytes())


def test_splits_and_seeds_share_no_scene():
    seen = [world.scene(split, index, seed) for split in world.SPLITS for seed in (0, 1) for index in range(8)]
    assert len({scene.image.tobytes() for scene in seen}) == len(seen)


def test_unknown_split_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="'val'.*train, validation, test"):
        world.scene("val", 0)


def test_scene_has_the_promised_form():
    for scene in scenes()[:20]:
        assert scene.image.mode == "RGB" and scene.image.size == (world.SIZE, world.SIZE)
        assert scene.mask.dtype == np.uint8 and scene.mask.shape == (world.SIZE, world.SIZE)
        assert len(scene.captions) == 2 and all(isinstance(caption, str) for caption in scene.captions)
    assert world.NAMES == world.THINGS + world.STUFFS and len(set(world.NAMES)) == len(world.NAMES)
    assert set(world.SYNONYMS) <= set(world.NAMES)


def test_every_class_is_drawn_and_no_other():
    pixels = sum(np.bincount(scene.mask.ravel(), minlength=256) for scene in scenes())
    assert pixels[len(world.NAMES) :].sum() == 0
    assert (pixels[: len(world.NAMES)] > 0.0015 * pixels.sum()).all()
    things = sum(pixels[: len(world.THINGS)]) / pixels.sum()
    assert 0.15 < things < 0.5
    for scene in scenes():
        assert 1 <= len(set(np.unique(scene.mask)) - set(range(len(world.THINGS)))) <= 2


def test_every_class_is_named_by_some_caption():
    counts = Counter(name for scene in scenes() for caption in scene.captions for name in named(caption))
    assert min(counts[name] for name in world.NAMES) >= 20


def test_named_classes_are_visible():
    for scene in scenes():
        for caption in scene.captions:
            for name in named(caption):
                shown = (scene.mask == world.NAMES.index(name)).sum()
                assert shown > (100 if name in world.THINGS else 500), (caption, name, shown)


def test_captions_name_most_but_not_all_of_what_is_visible():
    told = visible = 0
    for scene in scenes():
        shown = {world.NAMES[k] for k, pixels in enumerate(np.bincount(scene.mask.ravel())) if pixels > 200}
        for caption in scene.captions:
            told += len(shown & set(named(caption)))
            visible += len(shown)
    assert 0.75 < told / visible < 0.90


def test_colour_words_are_true():
    checked = 0
    for scene in scenes():
        for caption in scene.captions:
            for colour, word in re.findall(rf"\b({'|'.join(world.COLOURS)}) ([a-z]+)", caption.lower()):
                name = words_of()[word]
                if name in world.STUFFS or (scene.mask == world.NAMES.index(name)).sum() < 400:
                    continue
                checked += 1
                assert colour_shares(scene, name)[colour] > 0.08, (caption, colour, name)
    assert checked > 150


def test_counts_are_true():
    """Two of a class cover more than one of them could."""
    for scene in scenes():
        for caption in scene.captions:
            for count, _, word in re.findall(r"\b(two|three|four) ((?:[a-z]+ )?)([a-z]+)", caption.lower()):
                if word in words_of():
                    assert (scene.mask == world.NAMES.index(words_of()[word])).sum() > 300, (caption, count)


def test_unseen_combinations_are_drawn_in_their_own_split_alone():
    shown = Counter(name for index in range(60) for name in visible("combinations", index))
    assert set(shown) <= set(world.UNSEEN + world.SEEN + world.STUFFS)
    assert sum(shown[name] for name in world.UNSEEN) > 30 and sum(shown[name] for name in world.SEEN) > 30
    told = " ".join(caption.lower() for scene in scenes() for caption in scene.captions)
    others = [world.scene(split, index) for split in ("drawings", "large", "test") for index in range(100)]
    told += " ".join(caption.lower() for scene in others for caption in scene.captions)
    for phrase in world.UNSEEN:
        colour, name = phrase.split()
        words = {name, *world.SYNONYMS.get(name, ())}
        assert not re.search(rf"\b{colour} ({'|'.join(words | set(map(plural, words)))})\b", told), phrase
    assert any(phrase in told for phrase in world.SEEN)
    assert not set(world.UNSEEN) & set(world.SEEN)


def visible(split, index):
    names = [name for group in world.groups(split).values() for name in group]
    return [names[k] for k in np.unique(world.scene(split, index).mask)]


def test_the_colours_of_combinations_are_those_of_their_phrases():
    names = [name for group in world.groups("combinations").values() for name in group]
    for index in range(40):
        scene = world.scene("combinations", index)
        for k in np.unique(scene.mask):
            colour = names[k].split()[0]
            if (scene.mask == k).sum() > 400 and colour in world.COLOURS:
                pixels = np.asarray(scene.image, float)[scene.mask == k]
                nearest = ((pixels[:, None] - COLOUR_TABLE) ** 2).sum(-1).argmin(1)
                assert (nearest == list(world.COLOURS).index(colour)).mean() > 0.08, (index, names[k])


def test_new_drawings_have_parameters_outside_the_usual_ranges():
    random = Beyond(0)
    drawn = np.array([random.uniform(2, 5) for _ in range(500)])
    assert ((drawn < 2) | (drawn > 5)).all() and 1 <= drawn.min() < 1.3 and 5.7 < drawn.max() <= 6
    assert 150 < (drawn < 2).sum() < 350
    assert [random.choice("ab") for _ in range(20)].count("a") not in (0, 20)
    # and every class survives them
    seen = Counter(name for index in range(80) for name in visible("drawings", index))
    assert set(seen) == set(world.NAMES)


def test_large_scenes_have_other_sizes_and_aspects_and_more_in_them():
    large = [world.scene("large", index) for index in range(40)]
    assert {min(scene.image.size) for scene in large} == {96, 128, 192, 256}
    for scene in large:
        assert scene.mask.shape == scene.image.size[::-1]
        assert 1.15 < max(scene.image.size) / min(scene.image.size) < 2.55
    classes = [len(set(np.unique(scene.mask)) & set(range(len(world.THINGS)))) for scene in large]
    assert np.mean(classes) > 1.2 * np.mean([len(set(visible("test", k)) & set(world.THINGS)) for k in range(100)])


def test_drawings_stand_where_the_mask_says():
    """Changing a thing's pixels changes nothing else: the picture jumps at the mask's border."""
    jump, calm = [], []
    for scene in scenes()[:60]:
        picture = np.asarray(scene.image, float)
        step = np.abs(picture[:, 1:] - picture[:, :-1]).sum(-1)
        border = scene.mask[:, 1:] != scene.mask[:, :-1]
        jump.append(step[border].mean())
        calm.append(step[~border].mean())
    assert np.mean(jump) > 2.5 * np.mean(calm)


def test_a_class_is_a_family_of_shapes():
    """Lone drawings of a class differ in extent and proportion."""
    for k, name in enumerate(world.THINGS):
        spreads = []
        for scene in scenes():
            rows, columns = np.nonzero(scene.mask == k)
            if len(rows) > 400:
                spreads.append((rows.std() / columns.std(), len(rows)))
        ratio, area = np.std(spreads, 0) / np.mean(spreads, 0)
        assert ratio > 0.03 and area > 0.1, name


def test_make_world_writes_what_the_world_says(tmp_path):
    options = "--split validation --n 3 --seed 5".split()
    command = [sys.executable, MAKE_WORLD, tmp_path / "out", *options, "--sheet", tmp_path / "s.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert len(done.stdout.splitlines()) == 1 and "3 validation scenes" in done.stdout
    assert (tmp_path / "out" / "classes.txt").read_text().split() == list(world.NAMES)
    assert len(list((tmp_path / "out" / "images").iterdir())) == 6
    for index in range(3):
        scene = world.scene("validation", index, seed=5)
        label = Image.open(tmp_path / "out" / "labels" / f"{index:06d}.png")
        assert label.mode == "P" and np.array_equal(np.asarray(label), scene.mask)
        images = tmp_path / "out" / "images"
        assert tuple((images / f"{index:06d}.txt").read_text().splitlines()) == scene.captions
        photo = np.asarray(Image.open(images / f"{index:06d}.jpg"), float)
        assert np.abs(photo - np.asarray(scene.image, float)).mean() < 8
    assert Image.open(tmp_path / "s.png").size[0] > 3 * 128


def test_make_world_explains_a_folder_it_cannot_write(tmp_path):
    (tmp_path / "file").write_text("in the way")
    command = [sys.executable, str(MAKE_WORLD), str(tmp_path / "file"), "--n", "1"]
    failed = subprocess.run(command, capture_output=True, text=True)
    assert failed.returncode == 1 and "cannot write" in failed.stderr and "Traceback" not in failed.stderr
