"""Door to the studio."""

import webbrowser
from typing import Annotated

import typer

from stillroom.cli.app import app, emit, keeps_nothing, store_root
from stillroom.errors import UsageError


@app.command()
@keeps_nothing
def studio(
    host: Annotated[str, typer.Option(help="The address to listen at; one that is not loopback asks for a token.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
    token: Annotated[
        str | None, typer.Option(envvar="STILLROOM_TOKEN", help="What visitors must know; else one is made up.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda ...")] = "auto",
    browser: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
) -> None:
    """Serve the store as a web page: runs, figures, chat with thoughts, the oracle, and why a student failed.

    It writes nothing to the store. Needs the extra `studio` (docs/installing.md).

    Example: stillroom studio --open
    """
    try:
        from stillroom.studio.page import Page
    except ModuleNotFoundError as error:
        if error.name not in ("gradio", "fastapi"):
            raise
        raise UsageError("the studio needs its extra: pip install -e '.[studio]' in the checkout") from None
    from stillroom.devices import use
    from stillroom.progress import say
    from stillroom.store import Store
    from stillroom.studio.serving import admission, bound, gated, serve
    from stillroom.studio.speakers import Speakers

    asked = admission(token, host)
    say("starting the studio ...")
    store = Store(store_root())
    page = Page(store, Speakers(store.root, str(use(device, 2)))).app()
    at = bound(host, port)
    shown = f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{at.getsockname()[1]}/" + (f"?token={asked}" if asked else "")
    emit(f"the studio is at {address} (Ctrl-C ends it)")
    if browser:
        webbrowser.open(address)
    serve(gated(page, asked), at)
