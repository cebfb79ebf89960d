"""README and docs: short enough to be read, links that lead somewhere, and commands that work as they stand."""

import re
import shutil

import pytest
from helpers.documents import DOCUMENTS, EXCUSES, ROOT, SUBSTITUTIONS, blocks, prepare, run

README, *PAGES = DOCUMENTS
LINK = re.compile(r"\]\(([^)#\s]*)(#[^)\s]*)?\)")


@pytest.fixture(scope="module")
def after_readme(tmp_path_factory):
    """A folder in which all commands of the README were run, in their order."""
    folder = tmp_path_factory.mktemp("reader") / "a user"
    prepare(folder)
    for block in blocks(README):
        run(block, folder)
    return folder


@pytest.mark.slow
def test_commands_of_the_readme(after_readme):
    assert (after_readme / "runs" / "demo" / "report.html").is_file()
    assert (after_readme / "masks" / "dog.segmented.png").is_file() and (after_readme / "dog.png").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_commands_of_a_page(page, after_readme, tmp_path):
    """Each page goes on where the README stopped."""
    folder = tmp_path / "a user"
    shutil.copytree(after_readme, folder, symlinks=True)
    for block in blocks(page):
        if not block.excuse:
            run(block, folder)


def test_every_block_is_run_or_excused():
    found = [block for path in DOCUMENTS for block in blocks(path)]
    assert {block.kind for block in found} == {"shell", "python"}, "a block of another kind is fenced as text"
    assert not [block for block in blocks(README) if block.excuse]
    excused = [block for block in found if block.excuse]
    assert {block.excuse for block in excused} <= set(EXCUSES)
    assert len(excused) == 8, "more are excused than were; count them here"
    commands = "\n".join(block.text for block in found)
    for program in ("fastzss-cache extract", "fastzss segment", "fastzss/train.py", "fastzss bank near"):
        assert program in commands, "blocks are not found"


def test_every_substitution_is_needed():
    texts = [block.text for path in DOCUMENTS for block in blocks(path)]
    for found, instead in SUBSTITUTIONS.items():
        assert any(found in text for text in texts), f"nothing says {found}"
        texts = [text.replace(found, instead) for text in texts]


@pytest.mark.parametrize("path", [*DOCUMENTS, ROOT / "CHANGELOG.md", ROOT / "benchmarks" / "README.md"], ids=str)
def test_links_lead_somewhere(path):
    for target, heading in LINK.findall(path.read_text(encoding="utf-8")):
        if target.startswith("http"):
            continue
        found = (path.parent / target) if target else path
        assert found.exists(), f"{path.name}: nothing at {target}"
        if heading:
            headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}
            assert heading[1:] in anchors, f"{path.name}: {target} has no heading {heading}"


def test_the_readme_is_read_to_its_end():
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130
    top = "\n".join(lines[:15])
    assert "no model for photographs is shipped" in top and "docs/demo.png" in top
    for page in PAGES:
        assert f"(docs/{page.name})" in "\n".join(lines), f"nothing leads to {page.name}"


def test_documents_name_every_command():
    """The commands of both programs, from what they were built of."""
    from fastzss.cli import PROGRAMS
    from fastzss.cli import program as program_of

    text = "\n".join(path.read_text(encoding="utf-8") for path in DOCUMENTS)
    for program in map(program_of, PROGRAMS):
        for parser in program.parser.below:
            for line in [parser, *getattr(parser, "below", [])]:
                *_, name = line.prog.split()
                assert re.search(rf"`{name}`|{re.escape(line.prog)}\b", text), f"{line.prog} is in no document"
