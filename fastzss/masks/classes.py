"""Classes as a user writes them -> classes: a name, and the prompts that say what it is.

    "dog, red car|automobile, sky"            names with commas between, aliases with | between
    ["dog", "red car|automobile"]             the same as a list
    [["red car", "automobile"], "dog"]        a list of aliases for a class
    {"dog": ["a photo of a {}.", "a puppy"]}  whole prompts; {} stands for the name
    Path("classes.txt")                       a class a line

An alias is read in the templates of the run, a prompt as it is; a class is the mean of all of them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fastzss.base.errors import UserError

LARGEST = 65_535  # classes: an index is uint16 at most, and its largest value says "nothing"
TAKEN = (
    'expected names with commas between ("dog, red car|automobile, sky"), a list of names or of lists of aliases, '
    "a dict of a name's prompts, or a pathlib.Path of a file with a class a line"
)


@dataclass(frozen=True)
class Class:
    name: str
    aliases: tuple  # names that are read in the templates of the run
    prompts: tuple = ()  # whole prompts, read as they are; {} is the name


def classes_of(given):
    """A tuple of Class; those of one name become one."""
    if isinstance(given, str):
        classes = [of_aliases(name.split("|")) for name in asked(given).split(",")]
    elif isinstance(given, Path):
        classes = [of_aliases(line.split("|")) for line in lines_of(given)]
    elif isinstance(given, Mapping):
        classes = [of_prompts(name, prompts) for name, prompts in given.items()]
    elif isinstance(given, Iterable) and not isinstance(given, bytes | set | frozenset):
        classes = [of_aliases(item.split("|") if isinstance(item, str) else item) for item in given]
    else:
        raise TypeError(f"classes are given as {type(given).__name__}; {TAKEN}")
    merged = {}
    for found in filter(None, classes):
        same = merged.get(found.name, Class(found.name, ()))
        aliases, prompts = dict.fromkeys(same.aliases + found.aliases), dict.fromkeys(same.prompts + found.prompts)
        merged[found.name] = Class(found.name, tuple(aliases), tuple(prompts))
    if not merged:
        raise UserError(
            'the class list is empty; expected names with commas between, such as "dog, red car, sky"', code=2
        )
    if len(merged) > LARGEST:
        raise UserError(f"{len(merged)} classes; a mask holds at most {LARGEST}", code=2)
    return tuple(merged.values())


def of_aliases(aliases):
    """A Class of its aliases, the first of which is its name; None of nothing; one that is made stays."""
    if isinstance(aliases, Class):
        return aliases
    if isinstance(aliases, str | bytes | Mapping) or not isinstance(aliases, Iterable):
        raise TypeError(f"a class is given as {type(aliases).__name__}; {TAKEN}")
    aliases = tuple(filter(None, map(text, aliases)))
    return Class(aliases[0], aliases) if aliases else None


def of_prompts(name, prompts):
    prompts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(prompts, list | tuple):
        raise TypeError(f"the prompts of a class are given as {type(prompts).__name__}; {TAKEN}")
    name, prompts = text(name), tuple(filter(None, map(text, prompts)))
    if not name or not prompts:
        what = f'the class "{name}" has no prompts' if name else "a class has no name"
        raise UserError(f'{what}; expected a dict such as {{"dog": ["a photo of a {{}}."]}}', code=2)
    return Class(name, (), prompts)


def text(name):
    if not isinstance(name, str):
        raise TypeError(f"a name of a class is given as {type(name).__name__}; {TAKEN}")
    return " ".join(name.split())


def asked(names):
    """Names as typed; where another thing was meant, a question."""
    if ";" in names:
        commas = ", ".join(part.strip() for part in names.split(";"))
        raise UserError(f'the class list "{names}" has ";" in it; did you mean "{commas}"?', code=2)
    if "," not in names and Path(names.strip()).suffix in (".txt", ".csv", ".json", ".yaml", ".names"):
        raise UserError(
            f'the class list "{names}" looks like a file; did you mean --classes-file {names.strip()} '
            f"(in Python: pathlib.Path)? A comma behind it makes it a name",
            code=2,
        )
    return names


def lines_of(path):
    """The lines of a file of classes."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise UserError(f"{path}: cannot be read as text ({problem}); expected a class a line", code=2) from None
    if not any(map(str.strip, lines)):
        raise UserError(f"{path}: is empty; expected a class a line", code=2)
    return lines
