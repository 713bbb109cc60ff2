"""The reference of all modules, made from their docstrings by pdoc.

python tools/reference.py build/api
"""

import pkgutil
import sys
import warnings
from pathlib import Path

import pdoc

import stillroom


def modules() -> list[str]:
    """All of them: pdoc by itself stops at a room whose door names what it exports."""
    found = pkgutil.walk_packages(stillroom.__path__, "stillroom.")
    return ["stillroom", *(one.name for one in found if not one.name.endswith("__main__"))]  # which runs the command


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "The module specification")  # a room's brings its modules, which are named too
    pdoc.pdoc(*modules(), output_directory=Path(sys.argv[1]))
