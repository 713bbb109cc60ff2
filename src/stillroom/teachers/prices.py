"""What a request costs: US dollars a million tokens, taken down by hand as of `DATE` from the pages in `SOURCES`.

A model that the table does not know has an unknown cost, never a cost of nothing.
"""

from typing import NamedTuple

DATE = "2026-01-31"
"""Prices change: look at the provider's page before a large run, and give yours with `--price`."""
SOURCES = {
    "openai": "https://developers.openai.com/api/docs/pricing",
    "anthropic": "https://platform.claude.com/docs/en/about-claude/pricing",
}
BATCH = 0.5
"""What both providers' batch interfaces charge of the price."""


class Price(NamedTuple):
    input: float
    output: float

    def usd(self, input_tokens: float, output_tokens: float, batch: bool = False) -> float:
        return (input_tokens * self.input + output_tokens * self.output) / 1e6 * (BATCH if batch else 1.0)


HOSTS = {"openai": "https://api.openai.com/v1", "anthropic": "https://api.anthropic.com"}
"""Prices are those of the providers themselves: the same name behind another address costs who knows what."""

PRICES: dict[str, dict[str, Price]] = {
    "openai": {
        "gpt-4o": Price(2.5, 10.0),
        "gpt-4o-mini": Price(0.15, 0.6),
        "gpt-4.1": Price(2.0, 8.0),
        "gpt-4.1-mini": Price(0.4, 1.6),
        "gpt-4.1-nano": Price(0.1, 0.4),
    },
    "anthropic": {
        "claude-3-haiku": Price(0.25, 1.25),
        "claude-3-5-haiku": Price(0.8, 4.0),
        "claude-haiku-4-5": Price(1.0, 5.0),
        "claude-sonnet-4": Price(3.0, 15.0),
        "claude-sonnet-4-5": Price(3.0, 15.0),
        "claude-opus-4-1": Price(15.0, 75.0),
        "claude-opus-4-5": Price(5.0, 25.0),
    },
}


def price_of(teacher: str, model: str, endpoint: str) -> Price | None:
    """The price of a model, dated versions (`gpt-4o-2024-08-06`, `claude-sonnet-4-20250514`) included."""
    if teacher == "local":
        return Price(0.0, 0.0)
    if endpoint != HOSTS.get(teacher):
        return None
    for name, price in PRICES.get(teacher, {}).items():
        rest = model.removeprefix(name)
        if model.startswith(name) and (not rest or (rest.replace("-", "").isdigit() and len(rest) >= 9)):
            return price
    return None
