"""`fastzss segment` and `fastzss name`: what they take, what they leave out and say, and what they write."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from PIL import Image

import fastzss
from fastzss import cli, world
from fastzss.base.runs import Run
from fastzss.methods.simzss.method import METHOD
from fastzss.sources.video import video_frames

FASTZSS = Path(sys.executable).parent / "fastzss"


@pytest.fixture
def photos(tmp_path):
    """A folder as they are: an image in a folder below, one twice, one damaged, hidden ones, a text, an animation."""
    folder = tmp_path / "photos"
    images = [world.scene("test", index).image for index in range(3)]
    for name in ("a.png", "A.jpg", "sub/a.png", ".hidden.png", ".cache/b.png", "__MACOSX/._a.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        images[0].save(folder / name)
    (folder / "bad.jpg").write_bytes(b"no image")
    (folder / "notes.txt").write_text("no image")
    images[0].save(folder / "moving.gif", save_all=True, append_images=images[1:])
    return folder


@pytest.fixture
def call(capsys):
    """Run `fastzss ...`: (exit code, stdout, stderr)."""

    def call(*argv):
        code = cli.main([str(a) for a in argv])
        return code, *capsys.readouterr()

    return call


def test_a_folder_is_segmented_and_a_bad_image_is_said_and_counted(trained, photos, tmp_path, call):
    out = tmp_path / "masks"
    code, stdout, stderr = call(
        "segment", trained, photos, "--classes", "tree, lawn|grass, water", "--out", out, "--json"
    )
    found = json.loads(stdout)
    assert code == 1
    assert f"{photos / 'bad.jpg'}: not a readable image" in stderr.splitlines()[0]
    assert stderr.splitlines()[-1].startswith("fastzss: 1 of 5 pictures could not be read, the first is ")
    assert [one["image"] for one in found] == [
        *(str(photos / name) for name in ("A.jpg", "a.png")),
        *(f"{photos / 'moving.gif'}#{frame}" for frame in range(3)),
        str(photos / "sub" / "a.png"),
    ]
    assert len({one["mask"].lower() for one in found}) == len({one["overlay"].lower() for one in found}) == 6
    written = {str(path) for path in out.rglob("*") if path.is_file()}
    assert written == {one[what] for one in found for what in ("mask", "overlay")}
    assert found[-1]["overlay"] == str(out / "sub" / "a.segmented.png"), "folders below are kept"

    model = fastzss.load(trained, device="cpu")
    expected = model.segment(photos / "a.png", "tree, lawn|grass, water")
    for one in (found[1], found[-1]):
        mask = np.array(Image.open(one["mask"]))
        assert np.array_equal(mask, expected.mask)
        for seen in one["classes"]:
            here = mask == seen["index"]
            assert ("tree", "lawn", "water")[seen["index"]] == seen["name"]
            assert seen["share"] == pytest.approx(here.mean(), abs=1e-4)
            left, top, right, bottom = seen["box"]
            assert here[top:bottom, left].any() and here[top, left:right].any()
        assert sum(seen["share"] for seen in one["classes"]) == pytest.approx(1, abs=1e-3)
    first, second = (np.array(Image.open(found[k]["mask"])) for k in (2, 3))
    assert not np.array_equal(first, second), "frames are different pictures"


def test_what_was_made_is_no_picture_to_look_at(trained, photos, call):
    (photos / "bad.jpg").unlink()
    argv = ("segment", trained, photos, "--classes", "tree, water", "--watch", "sky", "--out", photos, "--json")
    first = call(*argv)
    assert first[0] == 0 and call(*argv) == first


def test_a_file_of_classes_and_words_to_watch(trained, photos, tmp_path, call):
    (tmp_path / "classes.txt").write_text("tree\nwater | sea\n")
    argv = ("segment", trained, photos / "a.png", "--classes-file", tmp_path / "classes.txt", "--out", tmp_path / "o")
    code, stdout, _ = call(*argv, "--watch", "a star", "--watch", "sky", "--json")
    (one,) = json.loads(stdout)
    assert code == 0 and {seen["name"] for seen in one["classes"]} <= {"tree", "water"}
    assert json.loads(Image.open(one["mask"]).text["names"]) == ["tree", "water"]
    assert list(one["watch"]) == ["a star", "sky"] and one["watch"]["a star"].endswith("a.watch-a-star.png")
    model = fastzss.load(trained, device="cpu")
    similar = model.similarities(photos / "a.png", "sky")[0]
    shown = np.asarray(Image.open(one["watch"]["sky"]).convert("RGB"), float)
    assert shown.shape[:2] == similar.shape
    assert np.corrcoef(shown[..., 0].ravel(), similar.ravel())[0, 1] > 0.5, "lighter where it is more similar"


def test_people_get_a_table(trained, photos, tmp_path, call):
    code, stdout, _ = call("segment", trained, photos / "a.png", "--classes", "tree", "--out", tmp_path / "o")
    head, row = stdout.splitlines()
    assert code == 0 and head.split() == ["image", "picture", "seen"]
    assert row.split() == [str(photos / "a.png"), str(tmp_path / "o" / "a.segmented.png"), "tree", "100", "%"]
    code, stdout, _ = call("name", trained, photos / "a.png", "--regions", 3, "--out", tmp_path / "o")
    head, *rows = stdout.splitlines()
    assert code == 0 and head.split() == ["image", "region", "share", "similarity", "or"]
    assert 1 <= len(rows) <= 3 and all(row.startswith(f"{photos / 'a.png'}  ") for row in rows)
    assert (tmp_path / "o" / "a.named.png").is_file()


def test_without_a_decoder_a_video_says_how_to_make_frames(trained, tmp_path, call, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "av" else find(name))
    (tmp_path / "clip.MP4").write_bytes(b"")
    code, _, stderr = call("segment", trained, tmp_path / "clip.MP4", "--classes", "tree", "--out", tmp_path / "o")
    assert code == 1 and "fastzss[video]" in stderr and f"ffmpeg -i {tmp_path / 'clip.MP4'}" in stderr
    assert not (tmp_path / "o").exists()


def clip(path, seconds, fps=8):
    """A video that is dark in its first half and light in the other."""
    with av.open(str(path), "w") as video:
        stream = video.add_stream("mpeg4", rate=fps)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for number in range(seconds * fps):
            level = 40 if number < seconds * fps / 2 else 220
            frame = av.VideoFrame.from_ndarray(np.full((64, 96, 3), level, np.uint8), "rgb24")
            for packet in stream.encode(frame):
                video.mux(packet)
        for packet in stream.encode():
            video.mux(packet)
    return path


def test_a_video_is_looked_at_twice_a_second(trained, tmp_path, call):
    path = clip(tmp_path / "clip.mp4", 3)
    code, stdout, _ = call("segment", trained, path, "--classes", "tree, snow", "--json", "--out", tmp_path / "o")
    found = json.loads(stdout)
    assert code == 0 and [one["image"] for one in found] == [f"{path}#{number}" for number in range(6)]
    assert [one["mask"] for one in found] == [
        str(tmp_path / "o" / f"clip.{n:04d}.segmented.mask.png") for n in range(6)
    ]
    light = [np.asarray(image).mean() for _, image in video_frames(path, 2)]
    assert max(light[:3]) < 60 and min(light[3:]) > 200
    assert len(list(video_frames(path, 1))) == 3 and len(list(video_frames(path, 99))) == 24, "there are no more"
    code, _, stderr = call("segment", trained, path, "--classes", "tree", "--fps", "0", "--out", tmp_path / "o")
    assert code == 2 and "--fps 0: expected" in stderr


def test_a_video_that_cannot_be_read_is_left_out(trained, photos, tmp_path, call):
    (tmp_path / "clip.mov").write_bytes(b"no video")
    argv = [tmp_path / "clip.mov", photos / "a.png", "--classes", "tree", "--out", tmp_path / "o"]
    code, stdout, stderr = call("segment", trained, *argv)
    assert code == 1 and "a.segmented.png" in stdout and "clip.mov: not a readable video" in stderr


@pytest.mark.parametrize("size", [pytest.param((2000, 3), marks=pytest.mark.slow), (50, 8000)])
def test_extreme_sides_need_no_more_memory_than_others(trained, tmp_path, size):
    Image.new("RGB", size, (90, 160, 60)).save(tmp_path / "long.png")
    code = """
import resource, sys
from fastzss.cli import main
code = main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000, file=sys.stderr)
sys.exit(code)
"""
    used = {}
    world.scene("test", 0).image.save(tmp_path / "usual.png")
    names = ", ".join(world.NAMES)
    for image in ("usual", "long"):
        argv = ["segment", trained, tmp_path / f"{image}.png", "--classes", names, "--out", tmp_path, "--device", "cpu"]
        done = subprocess.run([sys.executable, "-c", code, *map(str, argv)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        used[image] = int(done.stderr.split()[-1])
    assert used["long"] < used["usual"] + 250, f"megabytes: {used}"


@pytest.mark.parametrize("command", ["segment", "evaluate"])
def test_what_starts_over_does_not_say_that_it_goes_on(trained, tmp_path, command):
    image = tmp_path / "a.png"
    world.scene("test", 0).image.save(image)
    argv = {
        "segment": ["segment", trained, *[image] * 3000, "--classes", "tree", "--out", tmp_path / "o"],
        "evaluate": ["evaluate", trained, "--data", "world:test,n=100000"],
    }[command]
    process = subprocess.Popen([FASTZSS, *map(str, argv)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    began = time.time()
    if command == "segment":
        while not (tmp_path / "o" / "a.segmented.png").exists() and time.time() < began + 120:
            time.sleep(0.05)
    else:
        time.sleep(8)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    last = stderr.strip().splitlines()[-1]
    assert process.returncode == 130 and "goes on from here" not in last and "anew" in last, stderr


def test_what_is_none_of_the_classes_is_left_empty_where_that_is_asked(trained, photos, tmp_path, call):
    def cover(*flags):
        argv = [
            "segment",
            trained,
            photos / "a.png",
            "--classes",
            "tree",
            "--out",
            tmp_path / "masks",
            "--json",
            *flags,
        ]
        code, stdout, stderr = call(*argv)
        assert code == 0, stderr
        (one,) = json.loads(stdout)
        values = np.unique(np.asarray(Image.open(one["mask"])))
        return sum(seen["share"] for seen in one["classes"]), values.tolist()

    assert cover() == cover("--background", "none") == (1, [0]), "scenes of the built-in world are all of its classes"
    for background in ("threshold", "words", "prob"):
        share, values = cover("--background", background)
        assert share < 0.9 and 255 in values, background


def test_a_run_that_looks_at_photographs_leaves_places_empty_by_itself(trained):
    run, other = Run.open(trained), SimpleNamespace(record={"model": "vit_base_patch14_reg4_dinov2.lvd142m"})
    assert METHOD.model(run, other, "cpu").inference.background == "threshold"
    assert fastzss.load(trained, device="cpu").inference.background == "none"
