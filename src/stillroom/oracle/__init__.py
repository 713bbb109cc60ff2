"""The oracle: what the thoughts of a latent student are doing, asked in words.

    problems ▶ traces ▶ questions ▶ readers ▶ answers, beside what could be had without reading

Traces hold a student's thoughts and what every disturbance of them does; questions have answers that the traces
decide; readers are small language models that answer them. `docs/oracle.md` tells what each question means.
"""

from stillroom.oracle.evaluating import (
    READER_VERSION,
    VERSION,
    ArmConfig,
    OracleConfig,
    QuestionsConfig,
    make_oracle,
    make_reader,
)
from stillroom.oracle.prompts import ARMS, TEXT
from stillroom.oracle.readers import ReaderConfig
from stillroom.oracle.traces import VERSION as TRACES_VERSION
from stillroom.oracle.traces import TraceConfig, make_traces

__all__ = [
    "ARMS", "READER_VERSION", "TEXT", "TRACES_VERSION", "VERSION", "ArmConfig", "OracleConfig", "QuestionsConfig",
    "ReaderConfig", "TraceConfig", "make_oracle", "make_reader", "make_traces",
]  # fmt: skip
