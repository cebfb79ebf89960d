"""The page of `fastzss serve`, driven in a headless Chromium as a visitor would; its screenshots are kept.

They lie in .screenshots/ beside the tests' folder, or where FASTZSS_SCREENSHOTS says.
"""

import base64
import os
from pathlib import Path

import pytest
from helpers.chromium import Browser, needs_chromium
from helpers.serving import opened, scene

pytestmark = needs_chromium
SHOTS = Path(os.environ.get("FASTZSS_SCREENSHOTS", Path(__file__).parents[2] / ".screenshots"))

READY = "document.documentElement.dataset.ready !== undefined && [...document.images].every(i => i.complete)"
IDLE = "document.querySelector('#busy').hidden"
FOUND = f"!document.querySelector('#result').hidden && {IDLE}"
LEGEND = "[...document.querySelectorAll('#legend button')].map(b => b.getAttribute('aria-label'))"
MASK = """(() => { const c = document.querySelector('#mask'), o = new OffscreenCanvas(c.width, c.height);
    const context = o.getContext('2d', { willReadFrequently: true });
    context.drawImage(c, 0, 0);
    return context.getImageData(0, 0, c.width, c.height).data.filter((v, i) => i % 4 === 3 && v).length })()"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture
def visit(browser, server):
    pages = []

    def visit(**how):
        pages.append(browser.page(server.address, **how))
        pages[-1].until(READY)
        return pages[-1]

    yield visit
    for page in pages:
        page.open.close()


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "a photo.png"
    path.write_bytes(scene(5))
    return path


def ask(page, words):
    page.js("document.querySelector('#words').select()")
    page.js("document.querySelector('#words').focus()")
    page.type(words)
    page.key("Enter")
    page.until(FOUND)


def set_slider(page, name, value):
    page.js(f"(e => {{ e.value = {value}; e.dispatchEvent(new Event('input')) }})(document.querySelector('#{name}'))")


def told(page):
    """{word: its share} of the legend."""
    rows = (label.removesuffix(" of the picture").rsplit(", ", 1) for label in page.js(LEGEND))
    return {word: float(share.removesuffix(" %").replace("<", "")) for word, share in rows}


def test_an_example_is_one_click(visit):
    page = visit()
    page.shot(SHOTS / "first.png")
    page.click("#examples li:nth-child(2) button")
    page.until(FOUND)
    assert set(told(page)) == {"bird", "grass", "brick", "road"}
    assert page.js("document.querySelector('#words').value") == "bird, grass, brick, road"
    assert "masks" in page.js("document.querySelector('#times').textContent")
    page.shot(SHOTS / "found.png")
    assert not page.complaints


def test_drop_type_threshold_and_one_word_more(visit, photo):
    page = visit()
    page.drop("#drop", photo)
    page.until(f"!document.querySelector('#view').hidden && {IDLE}")
    ask(page, "chair, flower, wood, sky")
    before = told(page)
    assert set(before) == {"chair", "flower", "wood", "sky"} and sum(before.values()) == pytest.approx(100, abs=2)
    assert "mask: " in page.js("document.querySelector('#mask').getAttribute('aria-label')")

    painted, asked = page.js(MASK), len(page.requests)
    set_slider(page, "threshold", 60)
    assert page.js(MASK) < 0.99 * painted and sum(told(page).values()) < sum(before.values()) - 1
    assert "nothing of these" in page.js("document.querySelector('#legend').textContent")
    set_slider(page, "threshold", 0)
    set_slider(page, "opacity", 80)
    assert page.js(MASK) == painted and told(page) == before
    assert len(page.requests) == asked, "a slider asked for something"

    page.js("document.querySelector('#words').focus()")
    page.key("End")
    page.type(", snail")
    began = len(page.requests)
    page.key("Enter")
    page.until("document.querySelectorAll('#legend button').length === 5")
    assert set(told(page)) == {*before, "snail"}
    assert [url.rpartition("/")[2] for url in page.requests[began:]] == ["segment"], "looked again"
    assert "look " not in page.js("document.querySelector('#times').textContent")
    assert not page.complaints


PASTE = """
(async (bytes, type) => {{
  const data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob(bytes), c => c.charCodeAt(0))], "pasted.png", {{type}}));
  document.dispatchEvent(new ClipboardEvent("paste", {{clipboardData: data, bubbles: true, cancelable: true}}));
}})("{}", "{}")
"""


def test_a_picture_is_pasted_and_a_text_is_not(visit, photo):
    page = visit()
    picture = base64.b64encode(photo.read_bytes()).decode()
    page.js(PASTE.format(picture, "text/plain"))  # whoever pastes words into the field means words
    assert page.js("document.querySelector('#view').hidden") and page.js(IDLE)
    page.js(PASTE.format(picture, "image/png"))
    page.until(f"!document.querySelector('#view').hidden && {IDLE}")
    ask(page, "chair, flower, wood, sky")
    assert sum(told(page).values()) == pytest.approx(100, abs=2)
    assert not page.complaints


@pytest.mark.slow
def test_a_word_more_is_there_at_once(visit):
    """From Enter to the legend; the best of five, as the machine may be busy."""
    page = visit()
    page.click("#examples button")
    page.until(FOUND)
    took = []
    for word in ("cup", "tree", "sky", "sand", "cat"):
        took.append(
            page.js(f"""new Promise(done => {{
            const began = performance.now(), words = document.querySelector('#words');
            words.value += ', {word}';
            new MutationObserver((_, o) => {{ o.disconnect(); done(performance.now() - began) }})
                .observe(document.querySelector('#legend'), {{ childList: true }});
            document.querySelector('#go').click() }})""")
        )
        page.until(IDLE)
    print(f"a word more: {', '.join(f'{ms:.0f} ms' for ms in took)}")
    assert min(took) < 300 and not page.complaints


def test_heat_while_hovering(visit):
    page = visit()
    page.click("#examples button")
    page.until(FOUND)
    page.hover("#legend button")
    page.until("!document.querySelector('#heat').hidden")
    assert "resembles" in page.js("document.querySelector('#heat').alt")
    page.shot(SHOTS / "heat.png")
    set_slider(page, "threshold", 30)  # the list is made anew under the pointer
    page.hover("h1")
    page.until("document.querySelector('#heat').hidden")
    assert not page.complaints


def test_what_is_in_it(visit):
    page = visit()
    page.click("#examples button")
    page.until(FOUND)
    page.click("#name")
    page.until(f"document.querySelector('#heading').textContent === 'What is in it' && {IDLE}")
    assert page.js("document.querySelector('#words').value").split(", ") == list(told(page))
    assert "or " in page.js("document.querySelector('#legend small').textContent")
    assert not page.complaints


def test_a_text_is_no_image(visit, tmp_path):
    page, text = visit(), tmp_path / "notes.png"
    text.write_text("hello, I am no image")
    page.choose("#file", text)
    page.until("!document.querySelector('#error').hidden")
    said = page.js("document.querySelector('#error').textContent")
    assert said.startswith("This is no picture (it begins with 'hello") and "expected a JPEG" in said
    assert page.js(IDLE) and not page.js("document.querySelector('#drop').hidden")
    page.shot(SHOTS / "error.png")
    assert all("400" in complaint for complaint in page.complaints)  # the browser's own line about the answer
    page.click("#examples button")
    page.until(FOUND)
    assert page.js("document.querySelector('#error').hidden")


def test_by_keyboard_alone(visit):
    page = visit()
    page.key("Tab")
    focused = "document.activeElement"
    assert page.js(f"{focused}.getAttribute('aria-label')").startswith("Example: ")
    page.key("Enter")
    page.until(FOUND)
    for _ in range(40):
        page.key("Tab")
        if page.js(f"{focused}.id") == "words":
            break
    page.type(", snow")
    page.key("Enter")
    page.until(f"{LEGEND}.some(row => row.startsWith('snow')) && {IDLE}")
    for _ in range(40):
        page.key("Tab")
        if page.js(f"!!{focused}.dataset.k"):
            break
    page.until("!document.querySelector('#heat').hidden")  # a word in focus shows its heat
    page.key("Escape")
    assert page.js("document.querySelector('#heat').hidden")
    for _ in range(40):
        page.key("Tab")
        if page.js(f"{focused}.id") == "threshold":
            break
    for _ in range(40):
        page.key("ArrowRight")
    assert page.js("document.querySelector('output[for=threshold]').textContent") == "40 %"
    unlabelled = page.js(
        "[...document.querySelectorAll('button, input, textarea')].filter(e => !(e.getAttribute('aria-label') || "
        "e.textContent.trim() || e.labels?.length)).length"
    )
    assert unlabelled == 0 and not page.complaints


@pytest.mark.parametrize("how", [dict(width=390, height=844), dict(dark=True)], ids=["phone", "dark"])
def test_readable_on_a_phone_and_in_the_dark(visit, how):
    page = visit(**how)
    page.click("#examples button")
    page.until(FOUND)
    assert page.js("document.documentElement.scrollWidth <= innerWidth"), "wider than the screen"
    small = page.js("""[...document.querySelectorAll('button, textarea')].filter(e => e.offsetParent)
        .filter(e => e.getBoundingClientRect().height < (innerWidth < 500 ? 43 : 24)).length""")
    assert small == 0, "too small for a finger"
    least = page.js("""(() => { const light = (c) => { const v = c.match(/[\\d.]+/g).slice(0, 3).map(Number).map(
        x => x / 255 <= .03928 ? x / 255 / 12.92 : ((x / 255 + .055) / 1.055) ** 2.4);
        return .2126 * v[0] + .7152 * v[1] + .0722 * v[2] };
        const of = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
            if (!/, 0\\)$/.test(c)) return c } };
        return Math.min(...[...document.querySelectorAll('p, label, button, small, b, h1, h2, output')]
            .filter(e => e.offsetParent && e.textContent.trim() && !e.matches('#tip'))
            .map(e => [light(getComputedStyle(e).color), light(of(e))].sort((a, b) => b - a))
            .map(([a, b]) => (a + .05) / (b + .05))) })()""")
    assert least >= 4.5, f"contrast {least:.1f}"
    page.shot(SHOTS / f"{'phone' if 'width' in how else 'dark'}.png", whole=True)
    assert not page.complaints


def test_downloads(visit, browser, tmp_path):
    page = visit()
    page.do("Page.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    page.click("#examples button")
    page.until(FOUND)
    for answer, name in (("overlay", "0.segmented.png"), ("mask", "0.mask.png"), ("json", "0.json")):
        page.click(f"[data-answer={answer}]")
        page.until(IDLE)
        for _ in range(200):
            if (tmp_path / name).is_file():
                break
            page.js("new Promise(done => setTimeout(done, 50))")
        assert (tmp_path / name).stat().st_size > 100
    assert opened((tmp_path / "0.mask.png").read_bytes()).mode == "P"
    assert not page.complaints
