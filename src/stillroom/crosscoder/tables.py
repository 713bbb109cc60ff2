"""The tables of a stage: one row a latent, and the texts at which the most one-sided latents are strongest."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from stillroom.crosscoder.data import Tokens
from stillroom.crosscoder.features import top_contexts
from stillroom.crosscoder.measuring import Described
from stillroom.files import write_json
from stillroom.students import Student


def write_latents(out: Path, real: Described, nulls: Mapping[str, Described], stable: Sequence[float]) -> None:
    """One row a latent of the pair's dictionary, and of every null's; how often it fires at each category's tokens."""
    rows = []
    for name, told in {"": real, **nulls}.items():
        columns = {
            "latent": range(told.crosscoder.latents),
            "nrn": told.nrn_F.tolist(),
            "delta_norm": told.delta_F.tolist(),
            "nu_error": told.error_F.tolist(),
            "nu_reconstruction": told.reconstruction_F.tolist(),
            "frequency": told.fires.frequency.tolist(),
            "mass": told.fires.mass_F.tolist(),
            "stability": stable if not name else [float("nan")] * told.crosscoder.latents,
        }
        for category in real.categories:
            columns[f"fires at {category}"] = told.at(category).tolist()
        rows.append(pa.table({"of": [name or "pair"] * told.crosscoder.latents, **columns}))
    pq.write_table(pa.concat_tables(rows), out / "latents.parquet")


def write_contexts(path: Path, real: Described, tokens: Tokens, student: Student, ids: Sequence[Sequence[int]]) -> None:
    """For the ten live latents at each end of NRN, the words before the tokens at which they are strongest."""
    live = real.fires.live.nonzero().squeeze(1)
    order = live[real.nrn_F[live].argsort()].tolist()
    told = {}
    ends = list(dict.fromkeys([*order[:10], *order[-10:]]))
    for latent, contexts in top_contexts(real.crosscoder, tokens, ends).items():
        told[str(latent)] = [
            {
                "text": student.tokenizer.decode(list(ids[c.document][max(0, c.position - 9) : c.position + 1])),
                "document": c.document,
                "position": c.position,
                "value": c.value,
            }
            for c in contexts
        ]
    write_json(path, told)
