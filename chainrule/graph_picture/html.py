"""A picture as a page that needs no network: it steps through the forward and then the backward pass."""

from __future__ import annotations

import json
import re
from dataclasses import asdict
from html import escape

from chainrule.graph_picture.picture import Picture, name_of, steps
from chainrule.graph_picture.svg import svg


def html(picture: Picture) -> str:
    """The page. Texts from outside are escaped: as HTML in the drawing, as \\u003c in the steps' JSON."""
    described = []
    for step in steps(picture):
        box = picture.boxes[step.box]
        described.append(asdict(step) | {"name": name_of(box), "title": box.title})
    data = json.dumps(described).replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    parts = {"title": escape(picture.title), "style": STYLE, "svg": svg(picture), "steps": data, "script": SCRIPT}
    # In one go: what was put in is not searched for placeholders.
    return re.sub(r"\{(title|style|svg|steps|script)\}", lambda match: parts[match[1]], PAGE)


PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'; \
script-src 'unsafe-inline'">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>{svg}</main>
<aside>
<p id="pass"></p>
<h1 id="name"></h1>
<p id="rule"></p>
<p id="value"></p>
<p class="buttons">
<button id="first" title="Home">start</button>
<button id="back" title="left key">← back</button>
<button id="next" title="right key">next →</button>
<button id="last" title="End">end</button>
</p>
<p class="hint">Left and right keys step; Home and End jump. First forward, from the leaves to the loss: each f from \
the f of its operands. Then backward, from the loss to the leaves: each g is the sum over the boxes that it goes into \
of their g times the local partial derivative on the edge.</p>
</aside>
<script type="application/json" id="steps">{steps}</script>
<script>{script}</script>
</body>
</html>
"""

STYLE = """
body{margin:0;display:flex;font:15px system-ui,sans-serif;color:#1d2126;height:100vh}
main{flex:1;overflow:auto}
main svg{display:block;margin:auto}
aside{width:340px;padding:20px;border-left:1px solid #d5d9de;background:#f7f8fa;overflow:auto;box-sizing:border-box}
h1{font:600 18px ui-monospace,monospace;margin:6px 0;overflow-wrap:anywhere}
#pass{margin:0;font-weight:600}
#rule{white-space:pre-line}
#rule,#value{font:14px/1.5 ui-monospace,monospace;overflow-wrap:anywhere}
body.forward #pass,body.forward #value{color:#0b6b3a}
body.backward #pass,body.backward #value{color:#8a1c8a}
button{font:inherit;padding:6px 10px;margin:2px;border:1px solid #9aa1aa;border-radius:6px}
button{background:#fff;cursor:pointer}
button:disabled{opacity:.4;cursor:default}
.hint{color:#555c66;font-size:13px}
.stepping .later{visibility:hidden}
.box.now .outline{stroke-width:4}
body.forward .box.now .outline{stroke:#0b6b3a}
body.backward .box.now .outline{stroke:#8a1c8a}
body.forward .edge.now path{stroke:#0b6b3a;stroke-width:3.5}
body.backward .edge.now path{stroke:#8a1c8a;stroke-width:3.5}
.edge.now text{font-weight:700}
@media (max-width:800px){body{display:block}aside{width:auto;position:sticky;bottom:0}}
"""

SCRIPT = """
'use strict';
const steps = JSON.parse(document.getElementById('steps').textContent);
const element = id => document.getElementById(id);
let position = Math.min(Math.max(parseInt(location.hash.slice(1), 10) || 0, 0), steps.length - 1);
function show() {
  const step = steps[position];
  document.body.className = 'stepping ' + step.direction;
  document.querySelectorAll('.now').forEach(each => each.classList.remove('now'));
  steps.forEach((each, number) => {
    const text = document.querySelector('#box-' + each.box + (each.direction === 'forward' ? ' .f' : ' .g'));
    if (text) text.classList.toggle('later', number > position);
  });
  const box = element('box-' + step.box);
  box.classList.add('now');
  step.edges.forEach(number => ['edge-', 'label-'].forEach(kind => {
    const edge = element(kind + number);
    if (edge) edge.classList.add('now');
  }));
  element('pass').textContent = step.direction + ' pass, step ' + (position + 1) + ' of ' + steps.length;
  element('name').textContent = step.name;
  element('rule').textContent = step.rule;
  element('value').textContent = step.value;
  element('first').disabled = element('back').disabled = position === 0;
  element('next').disabled = element('last').disabled = position === steps.length - 1;
  box.scrollIntoView({block: 'center', inline: 'center'});
}
function go(to) { position = Math.min(Math.max(to, 0), steps.length - 1); show(); }
element('first').onclick = () => go(0);
element('back').onclick = () => go(position - 1);
element('next').onclick = () => go(position + 1);
element('last').onclick = () => go(steps.length - 1);
document.addEventListener('keydown', event => {
  if (event.key === 'ArrowRight') go(position + 1);
  else if (event.key === 'ArrowLeft') go(position - 1);
  else if (event.key === 'Home') go(0);
  else if (event.key === 'End') go(steps.length - 1);
  else return;
  event.preventDefault();
});
show();
"""
