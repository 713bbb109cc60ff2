"""A grid's tables for other programs: CSV, LaTeX and one spreadsheet. The same records give the same bytes."""

import csv
import io
import zipfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from openpyxl import Workbook
from openpyxl.styles import Font
from openpyxl.xml.functions import tostring

from stillroom.files import write_atomic
from stillroom.records import Comparison, Effect, GridRow
from stillroom.report.grids import grid_cells, grid_columns
from stillroom.stats import p_value

NEVER = datetime(2000, 1, 1)
"""When every spreadsheet was made, for all that its bytes tell."""
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
        "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "−": "$-$", "–": "--",
    }
)  # fmt: skip


class Table(NamedTuple):
    name: str
    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def tables(grid: Sequence[GridRow], comparisons: Sequence[Comparison], effects: Sequence[Effect]) -> list[Table]:
    paired = tuple(name for name in Comparison.model_fields if name not in ("split", "group"))
    fields = tuple(Effect.model_fields)
    return [
        Table("grid", grid_columns(grid), grid_cells(grid)),
        Table("comparisons", paired, [tuple(getattr(c, name) for name in paired) for c in comparisons]),
        Table("effects", fields, [tuple(getattr(e, name) for name in fields) for e in effects]),
    ]


def export(found: Sequence[Table], folder: Path) -> None:
    """`NAME.csv` and `NAME.tex` for every table, and `grid.xlsx` with a sheet for each."""
    for table in found:
        write_atomic(folder / f"{table.name}.csv", csv_text(table))
        write_atomic(folder / f"{table.name}.tex", latex(table))
    write_atomic(folder / "grid.xlsx", spreadsheet(found))


def csv_text(table: Table) -> str:
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table.columns)
    writer.writerows(table.rows)
    return file.getvalue()


def latex(table: Table) -> str:
    """A `tabular` in plain LaTeX; numbers to the right, shares and their differences in percent to one digit."""
    numbers = [all(isinstance(row[i], int | float) for row in table.rows) for i in range(len(table.columns))]
    lines = [
        r"\begin{tabular}{" + "".join("r" if number else "l" for number in numbers) + "}",
        r"\hline",
        _line([column.translate(LATEX) for column in table.columns]),
        r"\hline",
        *(_line([_cell(value, name) for value, name in zip(row, table.columns, strict=True)]) for row in table.rows),
        r"\hline",
        r"\end{tabular}",
    ]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _cell(value: Any, column: str) -> str:
    if isinstance(value, float):
        return p_value(value).replace("<", "$<$") if column in ("p", "holm") else f"{100 * value:.1f}"
    return str(value).translate(LATEX)


def spreadsheet(found: Sequence[Table]) -> bytes:
    """An Excel workbook. Text that begins like a formula stays text."""
    book = Workbook()
    book.remove(book.worksheets[0])
    for table in found:
        sheet = book.create_sheet(table.name)
        sheet.append(table.columns)
        for cell in sheet[1]:
            cell.font = Font(bold=True)
        for number, row in enumerate(table.rows, 2):
            for column, value in enumerate(row, 1):
                cell = sheet.cell(number, column, value)
                if isinstance(value, str):
                    cell.data_type = "s"
        sheet.freeze_panes = "A2"
    file = io.BytesIO()
    book.save(file)
    book.properties.created = book.properties.modified = NEVER
    return _without_times(file.getvalue(), {"docProps/core.xml": tostring(book.properties.to_tree())})


def _without_times(archive: bytes, replaced: dict[str, bytes]) -> bytes:
    """The zip file anew, every entry of one date: openpyxl writes the moment of saving into several places."""
    result = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(result, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            entry = zipfile.ZipInfo(name, NEVER.timetuple()[:6])
            entry.compress_type = zipfile.ZIP_DEFLATED
            new.writestr(entry, replaced.get(name, old.read(name)))
    return result.getvalue()
