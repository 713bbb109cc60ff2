"""The list of licences names what the installed packages bring, and each with what it says of itself."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_dependency_is_listed_with_a_licence() -> None:
    spec = importlib.util.spec_from_file_location("licences", ROOT / "tools" / "licences.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    listed = re.findall(
        r"^\| ([\w.-]+) \| \S+ \| (.+) \| [\w, ]+ \|$", (ROOT / "docs" / "licences.md").read_text(), re.M
    )
    asked = ["a>=1", "B.c; python_version >= '3'", "d; sys_platform == 'nowhere'", "e; extra == 'x'"]
    assert made.needed(asked) == ["a", "b-c"]
    licences = dict(listed)
    core = {name for name, _, _, where in made.table() if "core" in where}
    needed = {name for name, *_ in made.table()}
    assert needed <= licences.keys(), needed - licences.keys()
    assert {"torch", "transformers", "pydantic"} <= core
    assert all(licence.strip() for licence in licences.values())
    assert made.licence("numpy").startswith("BSD")
