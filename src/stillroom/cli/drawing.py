"""Turns as Rich draws them: thoughts are heat maps, in colour or in signs, as wide as the terminal then is.

Whatever comes from a model or a user stands in a `Text`, which knows no markup, its control characters spelled out.
"""

from collections.abc import Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from stillroom.cli.talking import Asked, Compared, Result, Spoken
from stillroom.conversation import Contrast, Shown, Turn
from stillroom.conversation.heat import colour, folded, scale
from stillroom.conversation.visible import shortened, visible
from stillroom.oracle.asking import Reply

LABEL = 11
"""Columns before a heat map."""
NARROWEST = 8
SIGNS = "Mm-·+pP"
"""Without colour: strongly negative … zero … strongly positive."""
COARSE = (
    (0, 95, 175), (95, 135, 215), (135, 175, 215), (175, 175, 215), (198, 198, 198), (215, 175, 175), (215, 135, 135),
    (215, 95, 95), (175, 0, 0),
)  # fmt: skip
"""Blue, grey and red as a terminal of 256 colours has them: what is nearest to a mixture would be green or violet."""
TOP = 3


def drawn(result: Result, console: Console) -> RenderableType:
    """What one command or answer looks like in this terminal."""
    match result:
        case Spoken(turn, oracle):
            return Group(*_turn(turn, console), *(_reply(oracle) if oracle else ()))
        case Compared(turns, contrast):
            return _compared(turns, contrast)
        case Asked(_, reply):
            return Group(*_reply(reply))
        case _:
            return Text(visible(result.sentence))


def _turn(turn: Turn, console: Console) -> Iterator[RenderableType]:
    yield Text(visible(turn.answer) or "(it ended its answer at once)", style="bold")
    if not turn.stopped:
        yield Text("… cut off by the length limit (--new-tokens)", style="dim")
    if turn.undisturbed is not None:
        fate = "as without the change" if turn.undisturbed == turn.answer else "undisturbed"
        yield Text(f"{fate}: {visible(turn.undisturbed)}", style="dim")
    if turn.thoughts:
        yield _thoughts(turn, console)
        yield _early(turn.early)


def _thoughts(turn: Turn, console: Console) -> RenderableType:
    full = scale(shown.values for shown in turn.thoughts)
    turned = scale(shown.change for shown in turn.thoughts)
    cells = max(NARROWEST, console.width - LABEL)
    colours = console.color_system is not None and not console.no_color
    coarse = console.color_system == "256"
    grid = Table.grid()
    grid.add_column(width=LABEL)
    grid.add_column(overflow="fold")
    for shown in turn.thoughts:
        name = f"thought {shown.step}"
        if shown.values:
            grid.add_row(Text(name, style="bold"), heat(shown.values, cells, full, colours, coarse=coarse))
        if shown.change:
            grid.add_row(
                Text("  change", style="dim"), heat(shown.change, cells, turned, colours, thin=True, coarse=coarse)
            )
        grid.add_row(Text("" if shown.values else name, style="bold"), Text(told(shown), style="dim"))
    grid.add_row("", legend(full, turned, colours, coarse))
    return grid


def heat(
    values: Sequence[float], cells: int, full: float, colours: bool, thin: bool = False, coarse: bool = False
) -> Text:
    """One line. In colour a character holds two neighbours, one above the other; where it is thin, the stronger."""
    columns = min(cells, -(-len(values) // 2))
    if not colours:
        middle = len(SIGNS) // 2
        levels = [round(middle * max(-1.0, min(1.0, value / full))) for value in folded(values, cells)]
        return Text("".join(SIGNS[middle + level] for level in levels))
    if thin:
        return Text().join(Text("▄", style=_ink(value, full, coarse)) for value in folded(values, columns))
    two = [*folded(values, 2 * columns), 0.0][: 2 * columns]
    return Text().join(
        Text("▀", style=f"{_ink(above, full, coarse)} on {_ink(below, full, coarse)}")
        for above, below in zip(two[::2], two[1::2], strict=True)
    )


def _ink(value: float, full: float, coarse: bool) -> str:
    half = len(COARSE) // 2
    red, green, blue = COARSE[half + round(half * max(-1.0, min(1.0, value / full)))] if coarse else colour(value, full)
    return f"rgb({red},{green},{blue})"


def legend(full: float, turned: float, colours: bool, coarse: bool) -> Text:
    told_ = Text(style="dim")
    if colours:
        for share in (-1.0, -0.5, 0.0, 0.5, 1.0):
            told_.append("  ", style=f"on {_ink(share, 1.0, coarse)}")
    else:
        told_.append(SIGNS)
    return told_.append(f" −{full:.2g} … +{full:.2g}; changes −{turned:.2g} … +{turned:.2g}")


def told(shown: Shown) -> str:
    """A thought in numbers and in the tokens that the vocabulary reads in it."""
    if not shown.values:
        return "skipped: no position was taken"
    turned = "" if shown.cosine_to_previous is None else f"cosine {shown.cosine_to_previous:+.2f} · "
    tokens = ", ".join(f"{token(word)} ({100 * share:.0f} %)" for word, share in shown.top[:TOP])
    replaced = f"replaced by {shown.replaced} · " if shown.replaced else ""
    return f"{replaced}norm {shown.norm:.3g} · {turned}{100 * shown.sparsity:.0f} % near 0 · reads {tokens}"


def token(word: str) -> str:
    return shortened(word.replace("\n", "↵"), 16) or "blank"


def _early(early: Sequence[str]) -> RenderableType:
    """After how many thoughts what is said, those that say the same together."""
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=LABEL - 1)
    grid.add_column(overflow="fold")
    begin = 0
    for end in range(1, len(early) + 1):
        if end == len(early) or early[end] != early[begin]:
            steps = str(begin) if end == begin + 1 else f"{begin}–{end - 1}"
            grid.add_row(Text(f"after {steps}", style="dim"), Text(shortened(early[begin], 200)))
            begin = end
    return grid


def _reply(reply: Reply) -> Iterator[RenderableType]:
    yield Text(f"the reader  {visible(reply.said) or '(nothing: it ended its answer at once)'}", style="magenta")
    yield Text(f"the trace   {visible(reply.told)}", style="dim")


def _compared(turns: tuple[Turn, Turn], contrast: Contrast) -> RenderableType:
    grid = Table.grid(padding=(0, 2))
    for _ in turns:
        grid.add_column(ratio=1, overflow="fold")
    grid.add_row(*(Text(visible(turn.student), style="dim") for turn in turns))
    grid.add_row(*(Text(visible(turn.answer), style="bold") for turn in turns))
    grid.add_row(*(_early(turn.early) if turn.early else Text("no thoughts", style="dim") for turn in turns))
    lines: list[RenderableType] = [
        grid,
        Text("the same answer" if contrast.alike else "different answers", style="dim"),
    ]
    if contrast.cosines:
        listed = "  ".join(f"{step}: {cosine:+.2f}" for step, cosine in enumerate(contrast.cosines))
        lines.append(Text(f"cosine of their thoughts  {listed}", style="dim"))
    return Group(*lines)
