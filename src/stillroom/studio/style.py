"""How the studio looks, and the one script of its own: a click on a thought."""

CLICK = """
element.addEventListener('click', event => {
  const thought = event.target.closest('button[data-step]');
  if (thought) trigger('click', {student: Number(thought.dataset.student), step: Number(thought.dataset.step)});
});
"""
STYLE = """
.cards { display: flex; gap: 16px; flex-wrap: wrap; align-items: flex-start; }
.cards article { flex: 1 1 340px; min-width: 0; padding: 12px 16px;
  border: 1px solid var(--border-color-primary); border-radius: 8px; }
.cards .question, .note, .legend, .numbers, .undisturbed, caption {
  color: #545b66; font-size: 13px; font-weight: 400; }
.dark :is(.cards .question, .note, .legend, .numbers, .undisturbed, caption) { color: #b4bac4; }
.answer { font-size: 17px; font-weight: 600; white-space: pre-wrap; overflow-wrap: anywhere; }
.undisturbed, .said, .cards .question, td { white-space: pre-wrap; overflow-wrap: anywhere; }
.wrong { color: #b3261e; } .dark .wrong { color: #f2877f; }
button.thought { display: block; width: 100%; text-align: left; margin: 6px 0; padding: 6px 8px; border-radius: 6px;
  border: 1px solid var(--border-color-primary); background: transparent; color: inherit; cursor: pointer; }
button.thought:hover, button.thought:focus-visible { border-color: var(--color-accent); }
button.thought[aria-pressed=true] { border: 2px solid #b3261e; }
button.thought .name { font-weight: 600; } button.thought em { font-weight: 400; font-size: 12px; opacity: .75; }
button.thought .numbers { display: block; }
img.heat { display: block; width: 100%; height: 18px; image-rendering: pixelated; margin: 3px 0 0; border-radius: 2px; }
img.thin { height: 6px; }
.scale { display: inline-block; width: 90px; height: 10px; vertical-align: middle;
  background: linear-gradient(90deg, rgb(33,92,175), rgb(200,200,200), rgb(190,24,43)); }
:is(#cards, #reply, #detail, #trials) table { width: 100%; border-collapse: collapse; margin: 8px 0; font-size: 14px; }
:is(#cards, #reply, #detail, #trials) :is(th, td) { text-align: left; vertical-align: top; padding: 3px 10px 3px 0;
  border: none; border-bottom: 1px solid var(--border-color-primary); }
:is(#cards, #reply, #detail, #trials) :is(table, tr, thead, tbody) { border: none; }
:is(#cards, #reply, #trials) th { white-space: nowrap; font-weight: 500; width: 1%; }
caption { text-align: left; }
.graph { overflow-x: auto; padding: 12px;
  border: 1px solid var(--border-color-primary); border-radius: 8px; }
.graph rect { fill: var(--block-background-fill); stroke: var(--body-text-color-subdued); }
.graph svg { width: 100%; height: auto; }
.graph text { fill: var(--body-text-color); font: 12px system-ui, sans-serif; }
.graph path { stroke: var(--body-text-color-subdued); stroke-width: 1; opacity: .6; fill: none; }
details summary { cursor: pointer; padding: 2px 0; } details pre { font-size: 12px; overflow: auto; max-height: 400px; }
"""
