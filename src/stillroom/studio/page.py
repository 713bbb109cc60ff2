"""The page: tabs, and which function answers which event. What these do and how it looks is in the other modules."""

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

# Before it is imported: nothing is sent anywhere, and no table of all events so far is made anew at each of them, which
# would take more memory with every answer.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["GRADIO_ANALYTICS_MAX_EVENTS"] = "100"
os.environ["GRADIO_ANALYTICS_CACHE_FREQUENCY"] = str(sys.maxsize)

import gradio as gr
import plotly.io
from fastapi import FastAPI

from stillroom.conversation import KINDS
from stillroom.conversation.visible import shortened
from stillroom.errors import StillroomError, UsageError
from stillroom.oracle.questions import STRATEGIES
from stillroom.store import Store
from stillroom.studio import failing, holdings, origins, pictures
from stillroom.studio.figures import figures
from stillroom.studio.serving import App
from stillroom.studio.speakers import Speakers
from stillroom.studio.style import CLICK, STYLE
from stillroom.studio.talking import MOST, Visit

QUERIES = [strategy.phrasings[0].replace("{i}", "0") for strategy in STRATEGIES.values()]
COLUMNS = ["problem", "question", "answer", "it said", "verdict"]
WRONG, RIGHT, ALL = "wrong", "right", "all"
FONTS = ["system-ui", "sans-serif"]
MONO = ["ui-monospace", "monospace"]


def told(function: Callable[..., Any]) -> Callable[..., Any]:
    """What cannot be done is a sentence on the page."""

    @wraps(function)
    def called(*args: Any) -> Any:
        try:
            return function(*args)
        except StillroomError as error:
            raise gr.Error(pictures.escaped(str(error)), title="This cannot be done", print_exception=False) from None

    return called


class Page:
    """One page over one store, for as many visitors as there are."""

    def __init__(self, store: Store, speakers: Speakers) -> None:
        self.store, self.speakers = store, speakers

    def app(self) -> App:
        """Raises `UsageError` for a store without a run."""
        blocks = self._blocks()
        blocks.queue(default_concurrency_limit=8, max_size=256)
        mounted: App = gr.mount_gradio_app(
            FastAPI(docs_url=None, redoc_url=None, openapi_url=None), blocks, path="/", footer_links=[],
            app_kwargs={"docs_url": None, "redoc_url": None, "openapi_url": None},
            run_history=False, ssr_mode=False, max_file_size="1kb", enable_monitoring=False, mcp_server=False,
            theme=gr.themes.Base(font=FONTS, font_mono=MONO), css=STYLE,
        )  # fmt: skip
        return mounted

    def _blocks(self) -> gr.Blocks:
        known = holdings.runs(self.store)
        if not known:
            raise UsageError(f"the store {self.store.root} holds no run: make one with `stillroom run abacus`")
        with gr.Blocks(title="Stillroom studio", analytics_enabled=False, fill_width=True) as blocks:
            gr.HTML(
                f"<h1>Stillroom studio</h1><p>Store <code>{pictures.escaped(str(self.store.root.resolve()))}</code>. "
                "This page reads it and writes nothing to it; what is said in the chat is kept nowhere.</p>"
            )
            run = gr.Dropdown(list(known.items()), value=next(iter(known.values())), label="Run", elem_id="run")
            with gr.Tabs() as tabs:
                with gr.Tab("Run", id="run-tab"):
                    self._run(blocks, run)
                with gr.Tab("Figures", id="figures-tab"):
                    self._figures(blocks, run)
                with gr.Tab("Chat", id="chat-tab"):
                    question = self._chat(blocks, run)
                with gr.Tab("Problems", id="problems-tab"):
                    self._problems(blocks, run, question, tabs)
            blocks.load(lambda: gr.Dropdown(choices=list(holdings.runs(self.store).items())), outputs=run)
        return blocks

    def _run(self, blocks: gr.Blocks, run: gr.Dropdown) -> None:
        graph = gr.HTML(elem_id="lineage")
        show = told(lambda name: origins.lineage(self.store, holdings.lineage(self.store, name)))
        gr.on([blocks.load, run.change], show, run, graph)

    def _figures(self, blocks: gr.Blocks, run: gr.Dropdown) -> None:
        choice = gr.Dropdown(label="Figure", elem_id="figure")
        plot = gr.Plot(show_label=False, elem_id="plot")
        caption = gr.HTML(elem_id="caption")
        table = gr.Dataframe(label="Its data", interactive=False, wrap=True)

        def titles(name: str) -> Any:
            known = list(figures(self.store, name))
            return gr.Dropdown(choices=known, value=known[0] if known else None)

        def draw(name: str, title: str | None) -> Any:
            figure = figures(self.store, name).get(title or "")
            if figure is None:
                return None, pictures.sentence("this run has no figure yet"), None
            rows = [[_cell(cell) for cell in row] for row in figure.rows]
            drawn = plotly.io.from_json(figure.plot) if figure.plot else None
            return drawn, pictures.caption(figure.caption), gr.Dataframe(value=rows, headers=list(figure.columns))

        gr.on([blocks.load, run.change], told(titles), run, choice)
        choice.change(told(draw), [run, choice], [plot, caption, table])

    def _chat(self, blocks: gr.Blocks, run: gr.Dropdown) -> gr.Textbox:
        visit = gr.State(None)
        with gr.Row():
            names = gr.Dropdown(multiselect=True, max_choices=MOST, label="Students, side by side", elem_id="students")
            thoughts = gr.Textbox(label="Thoughts: a number, off, or empty for their own", elem_id="thoughts")
            kind = gr.Radio([*KINDS], value="zero", label="A click on a thought replaces it by", elem_id="kind")
        with gr.Row(equal_height=True):
            question = gr.Textbox(label="Question", lines=2, scale=5, elem_id="question")
            ask = gr.Button("Ask", variant="primary", elem_id="ask")
            restore = gr.Button("Give all thoughts back", elem_id="restore")
        cards = gr.HTML(pictures.sentence("Nothing was asked yet."), elem_id="cards", js_on_load=CLICK)
        with gr.Row(equal_height=True):
            query = gr.Dropdown(
                QUERIES, value="Summarize the thinking.", allow_custom_value=True, scale=5, elem_id="query",
                label="A question to the oracle about the thoughts, which are then left alone",
            )  # fmt: skip
            oracle = gr.Button("Ask the oracle", elem_id="oracle")
        said = gr.HTML(elem_id="reply")

        def chosen(name: str) -> Any:
            known = list(holdings.students(self.store, name))
            return gr.Dropdown(choices=known, value=known[-2:])

        def asked(now: Visit | None, name: str, students: list[str], text: str, count: str) -> Any:
            here = now or Visit(self.store, self.speakers)
            here.choose(name, students)
            return here, pictures.turns(here.ask(text, count.strip()))

        def clicked(now: Visit | None, how: str, event: gr.EventData) -> Any:
            place, step = getattr(event, "student", None), getattr(event, "step", None)
            if now is None or not isinstance(place, int) or not 0 <= place < len(now.conversations):
                raise UsageError("this click belongs to no student: ask again")
            return pictures.turns(now.replace(place, step if isinstance(step, int) else -1, how))

        def heard(now: Visit | None, text: str) -> Any:
            replies = _visiting(now).ask_oracle(text)
            parts = [
                pictures.sentence(f"{n}: {r}", "wrong") if isinstance(r, str) else pictures.reply(n, text, r)
                for n, r in replies
            ]
            return "".join(parts)

        gr.on([blocks.load, run.change], told(chosen), run, names, api_name="students")
        gr.on(
            [ask.click, question.submit],
            told(asked),
            [visit, run, names, question, thoughts],
            [visit, cards],
            api_name="ask",
        )
        cards.click(_with_event(told(clicked)), [visit, kind], cards)
        restore.click(told(lambda now: pictures.turns(_visiting(now).restore())), visit, cards)
        oracle.click(told(heard), [visit, query], said)
        return question

    def _problems(self, blocks: gr.Blocks, run: gr.Dropdown, question: gr.Textbox, tabs: gr.Tabs) -> None:
        chosen = gr.State("")
        with gr.Row():
            split = gr.Dropdown(label="Split", elem_id="split")
            student = gr.Dropdown(label="Student", elem_id="failing")
            which = gr.Radio([WRONG, RIGHT, ALL], value=WRONG, label="Its answer is", elem_id="which")
        table = gr.Dataframe(
            headers=COLUMNS,
            interactive=False,
            wrap=True,
            max_height=320,
            elem_id="problems",
            column_widths=["12%", "46%", "10%", "22%", "10%"],
            label="Choose a problem",
        )
        detail = gr.HTML(elem_id="detail")
        with gr.Row():
            again = gr.Button("Why? Ask it again, each thought replaced in turn", elem_id="why")
            take = gr.Button("Take the question to the chat", elem_id="take")
        tried = gr.HTML(elem_id="trials")

        def offered(name: str) -> Any:
            graded = holdings.splits(self.store, name)
            roles = [role for manifest in graded.values() for role in manifest.config["students"]]
            first = "test" if "test" in graded else next(iter(graded), None)
            return (
                gr.Dropdown(choices=list(graded), value=first),
                gr.Dropdown(choices=list(dict.fromkeys(roles)), value=roles[-1] if roles else None),
            )

        def listed(name: str, part: str | None, role: str | None, wanted: str) -> Any:
            if not part or not role:
                return []
            return [
                [case.problem.id, shortened(case.problem.question, 200), shortened(case.problem.answer, 40),
                 shortened(case.said[role].text, 80), RIGHT if case.verdicts[role].correct else WRONG]
                for case in holdings.cases(self.store, name, part)
                if wanted in (ALL, RIGHT if case.verdicts[role].correct else WRONG)
            ]  # fmt: skip

        def shown(name: str, part: str, role: str, event: gr.SelectData) -> Any:
            case = self._case(name, part, event.row_value[0])
            return case.problem.id, pictures.case(case, role), ""

        def why(name: str, part: str, role: str, problem: str) -> str:
            speaker = self.speakers.of(holdings.students(self.store, name)[role])
            return pictures.trials(role, list(failing.trials(speaker, self._case(name, part, problem).problem)))

        def taken(name: str, part: str, problem: str) -> Any:
            return self._case(name, part, problem).problem.question, gr.Tabs(selected="chat-tab")

        asked = [run, split, student, which]
        # Only once both are offered, and then when a visitor chooses: each alone would list before the other is there.
        gr.on([blocks.load, run.change], told(offered), run, [split, student]).then(told(listed), asked, table)
        gr.on([split.input, student.input, which.input], told(listed), asked, table)
        table.select(_with_selection(told(shown)), [run, split, student], [chosen, detail, tried])
        again.click(told(why), [run, split, student, chosen], tried)
        take.click(told(taken), [run, split, chosen], [question, tabs])

    def _case(self, run: str, split: str, problem: str) -> holdings.Case:
        found = [case for case in holdings.cases(self.store, run, split) if case.problem.id == problem]
        if not found:
            raise UsageError("no problem is chosen: click on one in the table")
        return found[0]


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _visiting(visit: Visit | None) -> Visit:
    if visit is None:
        raise UsageError("nothing was asked yet: ask a question first")
    return visit


def _with_event(function: Callable[..., Any]) -> Callable[..., Any]:
    """Gradio looks for the event among the annotations of what it calls."""

    def called(visit: Any, kind: str, event: gr.EventData) -> Any:
        return function(visit, kind, event)

    return called


def _with_selection(function: Callable[..., Any]) -> Callable[..., Any]:
    def called(run: str, split: str, student: str, event: gr.SelectData) -> Any:
        return function(run, split, student, event)

    return called
