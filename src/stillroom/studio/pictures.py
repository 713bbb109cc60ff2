"""What the studio shows, as HTML. All text passes through `escaped`: nothing that a model writes is markup here."""

import base64
import html
import re
import struct
import zlib
from collections.abc import Iterator, Sequence

from stillroom.conversation import Shown, Turn
from stillroom.conversation.heat import colour, folded, scale
from stillroom.conversation.visible import shortened, visible
from stillroom.oracle.asking import Reply
from stillroom.studio.failing import Trial
from stillroom.studio.holdings import Case, reasons

CELLS = 128
"""The widest heat map."""
LONGEST = 4000
"""Characters of a text that are shown."""
TEMPLATE = str.maketrans({letter: f"&#{ord(letter)};" for letter in "${}`"})
"""The page's library reads these as a template of its own."""


def escaped(text: str, longest: int = LONGEST) -> str:
    shown = visible(text[:longest])
    more = f" … ({len(text)} characters)" if len(text) > longest else ""
    return html.escape(shown + more).translate(TEMPLATE)


def sentence(text: str, kind: str = "note") -> str:
    return f'<p class="{kind}">{escaped(text)}</p>'


def caption(text: str) -> str:
    """A figure's caption, what stands between backticks as code."""
    return re.sub("&#96;(.*?)&#96;", r"<code>\1</code>", sentence(text))


def turns(asked: Sequence[tuple[str, Turn | str]]) -> str:
    """Students side by side: each with its last turn, or with what went wrong."""
    cards = [_card(place, name, turn) for place, (name, turn) in enumerate(asked)]
    return f'<div class="cards">{"".join(cards)}</div>'


def _card(place: int, name: str, turn: Turn | str) -> str:
    if isinstance(turn, str):
        return f"<article><h3>{escaped(name)}</h3>{sentence(turn, 'wrong')}</article>"
    lines = [f"<h3>{escaped(name)}</h3>", f'<p class="question">{escaped(turn.question, 300)}</p>']
    lines.append(f'<p class="answer">{escaped(turn.answer) or "(it ended its answer at once)"}</p>')
    if not turn.stopped:
        lines.append(sentence("cut off by the length limit"))
    if turn.undisturbed is not None:
        fate = "same as undisturbed" if turn.undisturbed == turn.answer else "changed; undisturbed it says"
        lines.append(f'<p class="undisturbed">{fate}: {escaped(turn.undisturbed)}</p>')
    lines += [*_thoughts(place, turn.thoughts), *_early(turn.early)]
    lines.append(sentence(f"{turn.tokens} tokens, {turn.seconds:.2f} s"))
    return f"<article>{''.join(lines)}</article>"


def _thoughts(place: int, thoughts: Sequence[Shown]) -> Iterator[str]:
    full, turned = scale(t.values for t in thoughts), scale(t.change for t in thoughts)
    for shown in thoughts:
        pressed = "true" if shown.replaced else "false"
        told = f"replaced by {shown.replaced}" if shown.replaced else "click to replace"
        yield (
            f'<button type="button" class="thought" data-student="{place}" data-step="{shown.step}" '
            f'aria-pressed="{pressed}"><span class="name">thought {shown.step} <em>{told}</em></span>'
        )
        if shown.values:
            yield _strip(shown.values, full, "heat", f"thought {shown.step} as a heat map")
        if shown.change:
            yield _strip(shown.change, turned, "heat thin", "change from the thought before")
        yield f'<span class="numbers">{_numbers(shown)}</span></button>'
    if thoughts:
        yield (
            f'<p class="legend"><span class="scale"></span> −{full:.2g} … 0 … +{full:.2g}; the thin strip is the '
            f"change from the thought before, −{turned:.2g} … +{turned:.2g}</p>"
        )


def _numbers(shown: Shown) -> str:
    if not shown.values:
        return "no position was taken"
    cosine = "" if shown.cosine_to_previous is None else f"cosine {shown.cosine_to_previous:+.2f} · "
    tokens = ", ".join(f"<b>{escaped(_token(word))}</b> {100 * share:.0f}\u00a0%" for word, share in shown.top[:4])
    sizes = f"norm {shown.norm:.3g} · {cosine}{100 * shown.sparsity:.0f}\u00a0% near 0"
    return f"{sizes} · {shown.entropy:.1f} nats · reads {tokens}"


def _token(word: str) -> str:
    return shortened(word.replace("\n", "↵"), 20) or "blank"


def _early(early: Sequence[str]) -> Iterator[str]:
    if early:
        rows = "".join(
            f"<tr><th scope='row'>after {k}</th><td>{escaped(said, 200)}</td></tr>" for k, said in enumerate(early)
        )
        yield f'<table class="early"><caption>Early decodes: what is said when thinking ends</caption>{rows}</table>'


def _strip(values: Sequence[float], full: float, kind: str, label: str) -> str:
    """One row of pixels, which the page stretches."""
    pixels = b"".join(bytes(colour(value, full)) for value in folded(values, CELLS))
    coded = base64.b64encode(_png(len(pixels) // 3, pixels)).decode()
    return f'<img class="{kind}" alt="{label}" src="data:image/png;base64,{coded}">'


def _png(width: int, pixels: bytes) -> bytes:
    """A picture one pixel high (PNG specification, third edition: signature, IHDR, IDAT, IEND)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, 1, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(b"\0" + pixels))
        + chunk(b"IEND", b"")
    )


def reply(name: str, query: str, said: Reply) -> str:
    """What a reader said of one student's thoughts, and what the trace itself shows, as a table in HTML."""
    rows = (
        ("asked", query),
        ("the student", said.answer),
        ("the reader", said.said or "(nothing)"),
        ("the trace", said.told),
    )
    cells = "".join(f"<tr><th scope='row'>{what}</th><td>{escaped(text)}</td></tr>" for what, text in rows)
    return f'<table class="reply"><caption>{escaped(name)}, its thoughts undisturbed</caption>{cells}</table>'


def case(shown: Case, role: str) -> str:
    """One problem: its steps, why the student failed, and what everybody said."""
    problem = shown.problem
    steps = "".join(f"<li>{escaped(step.expression)} = {escaped(step.value)}</li>" for step in problem.steps)
    why = "".join(f"<li>{escaped(reason)}</li>" for reason in reasons(shown, role))
    rows = "".join(
        f"<tr><th scope='row'>{escaped(name)}</th><td>{'right' if v.correct else 'wrong'}</td>"
        f"<td>{escaped(v.extracted or '—')}</td><td class='said'>{escaped(shown.said[name].text, 600)}</td></tr>"
        for name, v in shown.verdicts.items()
    )
    return (
        f'<p class="question">{escaped(problem.question)}</p><p>The answer is <b>{escaped(problem.answer)}</b>.</p>'
        f"<ol>{steps}</ol><h3>Why {escaped(role)} failed, by the record</h3><ul>{why}</ul>"
        f"<table><thead><tr><th>student</th><th>verdict</th><th>read</th><th>said</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def trials(name: str, tried: Sequence[Trial]) -> str:
    rows = "".join(
        f"<tr class={'right' if t.correct else 'wrong'}><th scope='row'>{t.done}</th>"
        f"<td>{'right' if t.correct else 'wrong'}</td><td>{escaped(t.answer, 200)}</td></tr>"
        for t in tried
    )
    mended = [t.done for t in tried[1:] if t.correct]
    told = f"Right when: {'; '.join(mended)}." if mended else "Nothing that was tried makes it right."
    return f"<h3>{escaped(name)}, asked again</h3><p>{told}</p><table><tbody>{rows}</tbody></table>"
