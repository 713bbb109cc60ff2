"""Recipes: unknown keys, wrong types and ranges are named with file and field; overrides reach any field."""

import sys
from pathlib import Path

import pytest
from pydantic import Field

from stillroom.config import Config
from stillroom.errors import ConfigError
from stillroom.recipe_files import override, read_recipe, read_yaml
from stillroom.recipes import load_recipe


class Inner(Config):
    thoughts: int = Field(3, ge=0)
    rate: float = Field(1e-3, gt=0)
    loud: bool = False


class Outer(Config):
    inner: Inner = Inner()
    people: dict[str, Inner] = {}
    maybe: Inner | None = None
    seeds: tuple[int, ...] = (0,)


def fails(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Outer.parse(read_yaml(text, "r.yaml"), "r.yaml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("iner: {}", "r.yaml: unknown key 'iner': did you mean 'inner'? known are inner, "),
        ("inner: {thougts: 1}", "r.yaml: unknown key 'inner.thougts': did you mean 'inner.thoughts'?"),
        ("people: {ann: {rat: 1}}", "r.yaml: unknown key 'people.ann.rat': did you mean 'people.ann.rate'?"),
        ("maybe: {rat: 1}", "r.yaml: unknown key 'maybe.rat': did you mean 'maybe.rate'?"),
        ("inner: {thoughts: -1}", "r.yaml: inner.thoughts: Input should be greater than or equal to 0, given -1"),
        ("inner: {thoughts: '3'}", 'r.yaml: inner.thoughts: Input should be a valid integer, given "3"'),
        ("inner: {thoughts: true}", "r.yaml: inner.thoughts: Input should be a valid integer, given true"),
        ("inner: {loud: 1}", "r.yaml: inner.loud: Input should be a valid boolean, given 1"),
        ("inner: {rate: .inf}", "r.yaml: inner.rate: "),
        ("inner: {rate: .nan}", "r.yaml: inner.rate: "),
        ("seeds: [0, x]", 'r.yaml: seeds.1: Input should be a valid integer, given "x"'),
        ("[1, 2]", "r.yaml: (the whole file): "),
        ("2020-01-01: 1", "r.yaml: unknown key '2020-01-01'"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_field(text: str, told: str) -> None:
    assert fails(text).startswith(told)


def test_all_faults_are_told_at_once() -> None:
    assert len(fails("{inner: {thoughts: x, rate: 0}, seds: []}").splitlines()) == 3


def test_good_data_is_taken_as_it_stands_and_frozen() -> None:
    config = Outer.parse(read_yaml("{inner: {rate: 1e-3}, seeds: [1, 2], people: {ann: {thoughts: 6}}}", "f"), "f")
    assert (config.inner.rate, config.seeds, config.people["ann"].thoughts) == (0.001, (1, 2), 6)
    assert Inner.parse({"rate": 2}, "f").rate == 2.0
    with pytest.raises(ValueError, match="frozen"):
        config.seeds = (3,)  # type: ignore[misc]


@pytest.mark.parametrize(
    ("text", "value"), [("1e-3", 0.001), ("2E5", 2e5), ("-1.5e+2", -150.0), ("1e3x", "1e3x"), ("12", 12)]
)
def test_numbers_are_read_as_people_write_them(text: str, value: object) -> None:
    read = read_yaml(text, "f")
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize("text", ["{a: 1, b: 2, a: 3}", "x: {y: 1, y: 1}", "1: a\n1: b"])
def test_a_key_that_stands_twice_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"f: not valid YAML: .*stands twice"):
        read_yaml(text, "f")


@pytest.mark.parametrize(
    "text", ["a: 0x" + "f" * 5000, "? 0b" + "1" * 20000 + "\n: a", "a: " + ":".join(["59"] * 3000)]
)
def test_a_number_that_no_json_could_hold_is_an_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"f: not valid YAML: Exceeds the limit"):
        read_yaml(text, "f")


def test_a_recipe_file_is_a_mapping_in_utf8(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    for content, told in ((b"- 1\n", "this is a list"), (b"", "this is a NoneType"), (b"a: \xff", "UTF-8")):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=told) as caught:
            read_recipe(path)
        assert str(path) in str(caught.value)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recipe(tmp_path / "missing.yaml")
    path.write_text("naïve: {ok: [1]}", encoding="utf-8")
    assert read_recipe(path) == {"naïve": {"ok": [1]}}


def test_overrides_reach_any_field_and_leave_the_original_alone() -> None:
    data = {"a": {"b": 1}, "n": None, "t": 5}
    changed = override(data, ["a.b=2", "a.c.d=[1, 2]", "n.x=y", "t={u: 1e-3}", "empty="])
    assert changed == {"a": {"b": 2, "c": {"d": [1, 2]}}, "n": {"x": "y"}, "t": {"u": 0.001}, "empty": None}
    assert data == {"a": {"b": 1}, "n": None, "t": 5}


def test_of_many_faulty_fields_the_first_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        Outer.parse({f"key{i}": 1 for i in range(20)}, "f")
    told = str(caught.value).splitlines()
    assert len(told) == 9
    assert told[-1].startswith("f: and ")
    assert told[-1].endswith(" more")


def test_overrides_reach_a_recipe_whose_keys_are_no_texts() -> None:
    data = read_yaml("{!!binary aGk=: 1, 2001-01-01: {5: 2}}", "f")
    assert override(data, ["a=3"]) == {"b'hi'": 1, "2001-01-01": {"5": 2}, "a": 3}


@pytest.mark.parametrize(
    ("assignment", "told"),
    [("a.b", "expected key=value"), ("=1", "expected key=value"), ("a..b=1", "expected key=value"),
     ("t.x=1", "'t' is a value, it has no field 'x'"), ("a={", "override 'a={': not valid YAML"),
     ("m=x", "m has fields: set one, as m.b=…"), ("n=x", "n has fields: set one, as n.name=…")],
)  # fmt: skip
def test_a_malformed_override_is_named(assignment: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override({"t": 5, "m": {"b": 1}, "n": {"b": 1, "name": "c"}}, [assignment])
    assert told in str(caught.value)


def test_an_override_of_a_student_that_is_misspelt_is_told_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"unknown student 'latnet': did you mean 'latent'.*a new one needs a `variant`"
    ):
        load_recipe("abacus", ["students.latnet.codi.thoughts=3"])
    with pytest.raises(ConfigError, match=r"did you mean 'students\.latnet\.variant'"):  # a slip in its own field
        load_recipe("abacus", ["students.latnet.varient=latent"])
    with pytest.raises(ConfigError, match=r"students\.other\.variant: Field required"):  # like no other's name
        load_recipe("abacus", ["students.other.pauses=3"])
    assert load_recipe("abacus", ["students.latnet.variant=latent", "students.latnet.codi.thoughts=3"])


def test_a_tracker_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)  # as if it were not installed
    with pytest.raises(ConfigError, match=r"settings\.trackers: not installed: pip install wandb"):
        load_recipe("abacus-small", ["settings.trackers=[tensorboard, wandb]"])


def test_the_example_of_a_malformed_override_is_a_field_of_a_recipe() -> None:
    with pytest.raises(ConfigError, match="as in ") as caught:
        override({}, ["justaword"])
    example = str(caught.value).rpartition(" as in ")[2]
    assert load_recipe("abacus-small", [example])[""].students["latent"].thoughts == 6


class Middle(Config):
    inner: Inner = Inner(thoughts=6, rate=0.5)


class Nested(Config):
    middle: Middle | None = None
    many: dict[str, Middle] = {}
    row: tuple[Middle, ...] = ()
    set: Middle = Middle(inner=Inner(thoughts=9))


@pytest.mark.parametrize("text", ["middle: {inner: {loud: true}}", "many: {a: {inner: {loud: true}}}"])
def test_a_part_of_a_mapping_leaves_what_the_default_sets(text: str) -> None:
    nested = Nested.parse(read_yaml(text, "f"), "f")
    middle = nested.middle or nested.many["a"]
    assert middle == Middle(inner=Inner(thoughts=6, rate=0.5, loud=True))


def test_the_outer_default_stands_over_the_inner_one_and_under_what_is_given() -> None:
    nested = Nested.parse(read_yaml("{set: {inner: {rate: 2.0}}, row: [{}, {inner: {rate: 1.0}}]}", "f"), "f")
    assert nested.set.inner == Inner(thoughts=9, rate=2.0)
    assert [one.inner for one in nested.row] == [Inner(thoughts=6, rate=0.5), Inner(thoughts=6, rate=1.0)]
    assert Nested.parse(nested.model_dump(), "f") == nested
