"""`fastzss serve` for programs: what it answers, and what it refuses."""

import io

import numpy as np
import pytest
from helpers.serving import WORDS, opened, pixels, scene, segment, sentence

from fastzss import world


def test_masks_are_those_of_the_model(client, model):
    image = scene(3)
    found = segment(client, image, classes=WORDS).json()
    own = model.segment(image, WORDS)
    assert (pixels(found["mask"]) == own.mask).all()
    assert [one["name"] for one in found["classes"]] == list(own.names) and found["nothing"] == 0
    for one in found["classes"]:
        assert one["share"] == pytest.approx(own.scores.get(one["name"], {"share": 0})["share"], abs=1e-4)
    assert (found["width"], found["height"]) == own.image.size
    assert set(found["seconds"]) == {"read", "look", "words", "masks"}


def test_another_word_needs_no_look(client, model):
    image = scene(4)
    look = client.post("/api/look", files={"image": image}).json()
    assert set(look["seconds"]) == {"read", "look"}
    found = segment(client, look=look["look"], classes=WORDS + ", water").json()
    assert "look" not in found["seconds"] and "read" not in found["seconds"]
    assert (pixels(found["mask"]) == model.segment(image, WORDS + ", water").mask).all()


def test_a_view_agrees_with_the_mask(client):
    found = segment(client, scene(5), classes=WORDS, view="128").json()
    mask = pixels(segment(client, scene(5), classes=WORDS).json()["mask"])
    index, certainty, _ = np.moveaxis(pixels(found["view"]), -1, 0)
    assert (index == mask).mean() > 0.999 and certainty.min() >= 255 // 5 and "mask" not in found


def test_below_the_threshold_is_nothing(client):
    certainty = pixels(segment(client, scene(5), classes=WORDS, view="128").json()["view"])[..., 1]
    found = segment(client, scene(5), classes=WORDS, threshold="0.6").json()
    mask = pixels(found["mask"])
    assert 0 < found["nothing"] < 1 and found["nothing"] == pytest.approx((mask == 255).mean(), abs=1e-3)
    assert ((mask == 255) == (certainty < 0.6 * 255)).mean() > 0.999


def test_answers_are_pictures_too(client):
    mask = segment(client, scene(5), classes=WORDS, answer="mask")
    overlay = segment(client, scene(5), classes=WORDS, answer="overlay", opacity="0.8")
    assert mask.headers["content-type"] == overlay.headers["content-type"] == "image/png"
    assert opened(mask.content).mode == "P" and opened(mask.content).size == (world.SIZE, world.SIZE)
    assert opened(overlay.content).mode == "RGB"


def test_names_without_a_list(client, model):
    found = client.post("/api/name", files={"image": scene(6)}).json()
    own = model.name(scene(6))
    assert [one["name"] for one in found["classes"]] == list(own.names)
    assert (pixels(found["mask"]) == own.mask).all() and all(len(one["or"]) for one in found["classes"])


def test_heat_of_a_class(client, model):
    look = client.post("/api/look", files={"image": scene(6)}).json()["look"]
    answer = client.post("/api/heat", files={"look": (None, look), "class": (None, "grass"), "view": (None, "256")})
    assert opened(answer.content).size == (256, 256)


def test_a_large_image_is_shrunk_and_its_mask_is_not(client):
    file = io.BytesIO()
    opened(scene(7)).resize((2400, 2400)).save(file, "JPEG")
    found = segment(client, file.getvalue(), classes=WORDS).json()
    assert (found["width"], found["height"]) == (2400, 2400) and pixels(found["mask"]).shape == (2400, 2400)
    small = {one["name"]: one["share"] for one in segment(client, scene(7), classes=WORDS).json()["classes"]}
    assert all(one["share"] == pytest.approx(small[one["name"]], abs=0.08) for one in found["classes"])


def test_the_description_is_that_of_the_server(client):
    document = client.get("/openapi.json").json()
    for path, what in document["paths"].items():
        for method, about in what.items():
            answer = client.request(method, path)
            assert answer.status_code != 404
            if method == "post":
                known = set(about["requestBody"]["content"]["multipart/form-data"]["schema"]["properties"])
                asked = client.post(path, files={"nonsense": (None, "1")})
                assert set(sentence(asked).partition("known: ")[2].split(", ")) == known, path
    schema = document["components"]["schemas"]["Segmented"]
    found = client.post("/api/name", files={"image": scene(6)}).json()
    assert set(schema["required"]) <= set(found) <= set(schema["properties"])
    assert set(found["classes"][0]) <= set(schema["properties"]["classes"]["items"]["properties"])


@pytest.mark.parametrize("classes", ["!!!", "\N{FOX FACE}" * 100, "a|b|c", "{} %s {0}", "<script>", "x.txt", "é" * 100])
def test_odd_words_are_words(client, classes):
    answer = segment(client, scene(), classes=classes + ", tree")
    assert answer.status_code == 200 and len(answer.json()["classes"]) == 2


@pytest.mark.parametrize(
    "fields, status, said",
    [
        ({"classes": ""}, 400, "empty"),
        ({"classes": "tree, \0"}, 400, "reads as nothing"),
        ({"classes": "x" * 101}, 400, "longer than 100"),
        ({"classes": ",".join(f"c{n}" for n in range(201))}, 400, "at most 200"),
        ({"classes": "a", "threshold": "2"}, 400, "from 0.0 to 1.0"),
        ({"classes": "a", "threshold": "nan"}, 400, "from 0.0 to 1.0"),
        ({"classes": "a", "view": "99999"}, 400, "from 16 to 2048"),
        ({"classes": "a", "answer": "exe"}, 400, "json or mask or overlay"),
        ({"classes": "a", "clases": "a"}, 400, 'did you mean "classes"'),
        ({"classes": "a", "look": "../../etc/passwd"}, 400, "expected one of the fields"),
        ({}, 400, '"classes" is missing'),
    ],
)
def test_what_is_wrong_is_said(client, fields, status, said):
    answer = client.post("/api/segment", data=fields, files={"image": scene()})
    assert answer.status_code == status and said in sentence(answer)


def test_an_unknown_look_and_an_unknown_address(client):
    answer = segment(client, look="../../etc/passwd", classes="a")
    assert answer.status_code == 410 and "send it again" in sentence(answer)
    for path in ("/page.py", "/..%2f..%2fetc%2fpasswd", "/examples/7.png", "/static/../answers.py"):
        assert client.get(path).status_code == 404 and "openapi" in sentence(client.get(path))
    assert client.get("/api/segment").status_code == 405 and "openapi" in sentence(client.get("/api/segment"))


def test_headers_and_strangers(client):
    for path in ("/", "/page.js", "/openapi.json", "/nothing"):
        headers = client.get(path).headers
        assert "script-src 'self'" in headers["content-security-policy"] and "unsafe" not in str(headers)
        assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
        assert "server" not in headers
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 421
    for foreign in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = client.post("/api/segment", data={"classes": "a"}, files={"image": scene()}, headers=foreign)
        assert answer.status_code == 403 and "another site" in sentence(answer)
