/** A page to browse the API: one self-contained document, no script or style from elsewhere. */
import { createHash } from "node:crypto";

const SCRIPT = `
const doc = JSON.parse(document.getElementById("doc").textContent);
const el = (tag, text, cls) => { const e = document.createElement(tag); if (text) e.textContent = text; if (cls) e.className = cls; return e; };
const main = document.querySelector("main");
const deref = (s, depth = 0) => {
  if (!s || depth > 6) return s;
  if (s.$ref) return deref(doc.components.schemas[s.$ref.split("/").pop()], depth + 1);
  return s;
};
const sketch = (s, depth = 0) => {
  s = deref(s); if (!s || depth > 5) return "...";
  if (s.anyOf) return sketch(s.anyOf[0], depth + 1);
  if (s.enum) return s.enum.join(" | ");
  if (s.properties) return Object.fromEntries(Object.entries(s.properties).map(([k, v]) => [k + ((s.required || []).includes(k) ? "" : "?"), sketch(v, depth + 1)]));
  if (s.type === "array") return [sketch(s.items, depth + 1)];
  if (s.example !== undefined) return s.example;
  return Array.isArray(s.type) ? s.type.join(" | ") : s.type || "any";
};
const groups = {};
for (const [path, ops] of Object.entries(doc.paths)) for (const [method, op] of Object.entries(ops)) (groups[op.tags[0]] ||= []).push({ path, method, op });
for (const [tag, list] of Object.entries(groups)) {
  const h = el("h2", tag); h.id = tag; main.append(h);
  const link = el("a", tag); link.href = "#" + tag; document.querySelector("nav").append(link);
  for (const { path, method, op } of list) {
    const d = el("details"); const s = el("summary");
    s.append(el("b", method.toUpperCase(), method), el("code", path), el("span", op.summary)); d.append(s);
    if (op.description) d.append(el("p", op.description));
    for (const p of op.parameters || []) { const li = el("p"); li.append(el("code", p.name), el("span", " in " + p.in + (p.required ? ", required" : ""))); d.append(li); }
    for (const [type, c] of Object.entries(op.requestBody?.content || {})) { d.append(el("h4", "Request: " + type), el("pre", JSON.stringify(sketch(c.schema), null, 2))); }
    for (const [status, r] of Object.entries(op.responses)) {
      d.append(el("h4", status + " " + r.description));
      if (status < 300) for (const [type, c] of Object.entries(r.content || {})) d.append(el("pre", type === "application/json" ? JSON.stringify(sketch(c.schema), null, 2) : type));
    }
    main.append(d);
  }
}
document.getElementById("q").addEventListener("input", (e) => {
  const q = e.target.value.toLowerCase();
  for (const d of document.querySelectorAll("details")) d.hidden = !d.querySelector("summary").textContent.toLowerCase().includes(q);
});
`;

const STYLE = `
:root { color-scheme: light dark; --line: color-mix(in srgb, currentColor 18%, transparent); }
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; max-width: 60rem; padding: 1.5rem; }
nav { display: flex; gap: 1rem; flex-wrap: wrap; margin: 1rem 0; }
input { font: inherit; width: 100%; padding: .5rem; box-sizing: border-box; }
details { border-bottom: 1px solid var(--line); padding: .35rem 0; }
summary { cursor: pointer; display: flex; gap: .75rem; align-items: baseline; flex-wrap: wrap; }
summary b { min-width: 4.5rem; font-size: .8rem; }
b.get { color: #1a7f37; } b.post { color: #0969da; } b.put, b.patch { color: #9a6700; } b.delete { color: #cf222e; }
pre { background: var(--line); padding: .75rem; border-radius: .35rem; overflow: auto; }
h4 { margin: .75rem 0 .25rem; }
`;

const hash = (text: string): string => `'sha256-${createHash("sha256").update(text).digest("base64")}'`;

/** Nothing may be loaded or sent anywhere; only the two inline blocks run. */
export const DOCS_CSP = `default-src 'none'; script-src ${hash(SCRIPT)}; style-src ${hash(STYLE)}; base-uri 'none'; form-action 'none'`;

/** @param document the OpenAPI document as JSON text */
export function docsPage(document: string): string {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>StacyVM API</title>
<style>${STYLE}</style></head>
<body><h1>StacyVM API</h1><p>The OpenAPI 3.1 document: <a href="/api/v1/openapi.json">/api/v1/openapi.json</a></p>
<input id="q" type="search" placeholder="Filter" aria-label="Filter endpoints"><nav aria-label="Groups"></nav><main></main>
<script id="doc" type="application/json">${document.replaceAll("<", "\\u003c")}</script>
<script>${SCRIPT}</script></body></html>
`;
}
