"""Settings: from flags, files and recipes to one checked value, and the sentence for each that is wrong."""

import argparse
from dataclasses import dataclass, fields
from pathlib import Path

import pytest
import yaml
from helpers.flags import train_config

from fastzss.base.config import add_config, build, configured, option, plain, read_yaml
from fastzss.base.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Sample:
    """A setting of every kind."""

    source: str = option("where from", positional=True)
    out: Path = option("where to")
    steps: int = option("how many, 100 % of them", 7)
    rate: float = option("how fast", 0.5)
    quick: bool = option("sooner", False)
    kind: str = option("which", "none", choices=("none", "round", "square"))
    recipe: str = option("recipe", "plain")
    limit: int | None = option("at most", 9)
    share: float | None = option("part", None)
    where: Path | None = option("a file", None)
    note: str | None = option("words", None)
    check_every: int = option("dashes", 3)

    def __post_init__(self):
        if self.steps < 1:
            raise ValueError(f"--steps must be positive, got {self.steps}")


RECIPES_OF_SAMPLE = {"plain": {}, "slow": {"steps": 100, "rate": 0.1, "check_every": 11}}
BASE = {"source": "here", "out": "there"}


def parsed(*argv, recipes=None):
    parser = argparse.ArgumentParser()
    add_config(parser, Sample)
    return configured(Sample, parser.parse_args(argv), recipes)


def given(**values):
    return build(Sample, ("x.yaml", BASE | values))


def refused(work, *args, **named):
    with pytest.raises(UserError) as problem:
        work(*args, **named)
    assert problem.value.code == 2
    return str(problem.value)


def test_flags_become_values_of_their_types():
    found = parsed(
        "here", "--out", "a/b", "--steps", "12", "--rate", "1e-3", "--quick", "--kind", "round",
        "--limit", "none", "--share", ".25", "--where", "w.pt", "--note", "5", "--check-every", "1e3",
    )  # fmt: skip
    expected = Sample(
        source="here", out=Path("a/b"), steps=12, rate=1e-3, quick=True, kind="round",
        limit=None, share=0.25, where=Path("w.pt"), note="5", check_every=1000,
    )  # fmt: skip
    assert found == expected
    for f in fields(Sample):
        assert type(getattr(found, f.name)) is type(getattr(expected, f.name)), f.name


def test_yaml_becomes_the_same_values(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text(
        "source: here\nout: a/b\nsteps: 12\nrate: 1e-3\nquick: true\nkind: round\nlimit: null\nshare: 1\n"
        "where: ~\nnote: 5\ncheck-every: 1000.0\n"
    )
    found = build(Sample, ("x.yaml", read_yaml(path)))
    assert found == Sample(
        source="here", out=Path("a/b"), steps=12, rate=1e-3, quick=True, kind="round",
        limit=None, share=1.0, note="5", check_every=1000,
    )  # fmt: skip
    assert isinstance(found.share, float) and isinstance(found.note, str) and isinstance(found.check_every, int)


def test_a_config_goes_through_yaml_and_back(tmp_path):
    config = given(where="w.pt", rate=0.1 + 0.2, quick=True)
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(plain(config)))
    assert build(Sample, ("x.yaml", read_yaml(tmp_path / "x.yaml"))) == config


def test_large_whole_numbers_keep_every_digit():
    for value in (2**53 + 1, str(2**53 + 1), -(10**20) - 1):
        assert given(limit=value).limit == int(value)


def test_none_is_no_value_only_where_there_may_be_none():
    for empty in ("none", "None", None):
        assert given(limit=empty).limit is None and given(note=empty).note is None
    assert given(kind="none").kind == "none"
    assert given(source="none").source == "none"
    assert "steps is empty; expected int" in refused(given, steps=None)
    assert "steps is 'none'; expected int" in refused(given, steps="none")


@pytest.mark.parametrize(
    "key, value, expected",
    [
        ("steps", "many", "int"),
        ("steps", 2.5, "int"),
        ("steps", "2.5", "int"),
        ("steps", True, "int"),
        ("steps", [1], "int"),
        ("steps", "nan", "int"),
        ("steps", float("inf"), "int"),
        ("limit", "x", "int"),
        ("rate", "fast", "float"),
        ("rate", True, "float"),
        ("rate", "nan", "float"),
        ("rate", float("inf"), "float"),
        ("share", {}, "float"),
        ("quick", "true", "bool"),
        ("quick", 1, "bool"),
        ("out", 5, "Path"),
        ("out", ["a"], "Path"),
        ("source", ["a", "b"], "str"),
        ("source", {"a": 1}, "str"),
        ("source", False, "str"),
        ("note", [], "str"),
    ],
)
def test_a_value_of_the_wrong_type_is_refused_with_place_name_and_type(key, value, expected):
    assert refused(given, **{key: value}) == f"x.yaml: {key} is {value!r}; expected {expected}"


def test_choices_hold_in_files_too_with_the_nearest_one():
    message = refused(given, kind="sqare")
    assert "x.yaml: kind is 'sqare' (did you mean \"square\"?" in message and "round" in message
    with pytest.raises(SystemExit) as end:
        parsed("here", "--out", "x", "--kind", "sqare")
    assert end.value.code == 2


def test_an_unknown_key_is_refused_with_the_nearest_name():
    message = refused(given, stepps=3)
    assert "x.yaml: unknown setting 'stepps' (did you mean \"steps\"?" in message and "check_every" in message
    assert 'did you mean "check_every"?' in refused(given, **{"check-evry": 3})
    assert "unknown setting 5" in refused(build, Sample, ("x.yaml", {5: 1}))


def test_what_is_missing_is_named_as_it_is_typed():
    assert "missing: SOURCE, --out;" in refused(parsed)
    assert "missing: --out;" in refused(parsed, "here")
    assert "missing: SOURCE;" in refused(parsed, "--out", "x")
    assert "missing: --store, --out;" in refused(train_config, [])


def test_a_check_of_the_settings_themselves_is_a_sentence():
    assert refused(given, steps=0) == "--steps must be positive, got 0"


def test_flags_win_over_the_file_and_the_file_over_the_recipe(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("recipe: slow\nrate: 0.2\ncheck_every: 5\nout: from-file\n")
    found = parsed("here", "--config", str(path), "--check-every", "6", recipes=RECIPES_OF_SAMPLE)
    assert (found.steps, found.rate, found.check_every) == (100, 0.2, 6)
    assert (found.recipe, found.out) == ("slow", Path("from-file"))
    assert parsed("here", "--config", str(path), "--recipe", "plain", recipes=RECIPES_OF_SAMPLE).steps == 7
    assert parsed("here", "--out", "x", recipes=RECIPES_OF_SAMPLE).steps == 7  # the first recipe is the default


def test_a_flag_can_be_taken_back(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("quick: true\nlimit: 4\n")
    found = parsed("here", "--out", "x", "--config", str(path), "--no-quick", "--limit", "none")
    assert found.quick is False and found.limit is None


@pytest.mark.parametrize("recipe", ["slo", "[slow]", "5", "null"])
def test_an_unknown_recipe_is_refused_with_those_there_are(tmp_path, recipe):
    path = tmp_path / "x.yaml"
    path.write_text(f"recipe: {recipe}\n")
    message = refused(parsed, "here", "--out", "x", "--config", str(path), recipes=RECIPES_OF_SAMPLE)
    assert "unknown recipe" in message and "expected plain, slow" in message


@pytest.mark.parametrize(
    "content, message",
    [
        (b"- a\n- b\n", "holds a list; expected lines of `key: value`"),
        (b"[]\n", "holds a list"),
        (b"just words\n", "holds a str"),
        (b"0\n", "holds a int"),
        (b"a: [1\n", "not valid YAML"),
        (b"a: b: c\n", "not valid YAML"),
        (b"\xff\xfe\x00\x01", "not valid YAML"),
        (b"a: \x00\n", "not valid YAML"),
        (b"!!python/object:os.system {}", "not valid YAML"),
    ],
)
def test_a_file_that_holds_no_settings_is_refused_by_name(tmp_path, content, message):
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    found = refused(read_yaml, path)
    assert found.startswith(f"{path}: ") and message in found


def test_a_missing_file_and_a_folder_are_refused_and_an_empty_file_is_no_settings(tmp_path):
    for path in (tmp_path / "missing.yaml", tmp_path):
        assert f"{path}: cannot be read" in refused(read_yaml, path)
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert read_yaml(tmp_path / "empty.yaml") == {}


def test_help_has_a_line_for_every_setting(capsys):
    parser = argparse.ArgumentParser()
    add_config(parser, Sample)
    text = " ".join(parser.format_help().split())
    for f in fields(Sample):
        assert f.metadata["help"] in text, f.name
    assert "--check-every" in text and "--no-quick" in text and "(default: 7)" in text and "--source" not in text
