"""The page's looks: one style sheet for light and dark, screens and paper. Loads nothing."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --card: #f7f8fa; --ink: #1c2430; --muted: #5b6577; --faint: #dfe3ea; --accent: #0b6bcb;
  --mark: #e7f1fc;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #12161c; --card: #1a2029; --ink: #e8ebf0; --muted: #9aa5b5; --faint: #2d3541; --accent: #6cb2ff;
    --mark: #1c3350;
  }
}
* { box-sizing: border-box; }
html { background: var(--paper); }
body {
  margin: 0 auto; padding: 56px 28px 96px; max-width: 1020px; color: var(--ink); background: var(--paper);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
  font-variant-numeric: tabular-nums; text-wrap: pretty;
}
header { margin-bottom: 40px; }
h1 { font-size: 34px; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 12px; text-wrap: balance; }
h2 { font-size: 22px; letter-spacing: -0.01em; margin: 64px 0 14px; }
h3 { font-size: 16px; margin: 32px 0 8px; }
p { margin: 0 0 14px; max-width: 68ch; }
.lead { font-size: 18px; color: var(--muted); }
.quiet { color: var(--muted); }
nav {
  display: flex; flex-wrap: wrap; gap: 4px 22px; margin-top: 22px; padding-top: 14px;
  border-top: 1px solid var(--faint); font-size: 14.5px;
}
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; border-radius: 3px; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 14px; margin: 30px 0 0; }
.tile { background: var(--card); border-radius: 10px; padding: 16px 18px; }
.tile b { display: block; font-size: 28px; line-height: 1.2; letter-spacing: -0.02em; font-weight: 650; }
.tile span { display: block; color: var(--muted); font-size: 13.5px; line-height: 1.4; }
figure { margin: 18px 0 30px; overflow-x: auto; }
.pictures { display: flex; flex-wrap: wrap; gap: 0 20px; }
.pictures figure { flex: 1 1 100%; min-width: 0; }
.pictures .narrow { flex: 1 1 260px; }
figure .frame {
  display: block; overflow-x: auto; background: #ffffff; border: 1px solid var(--faint); border-radius: 10px;
  padding: 10px;
}
figure img { display: block; max-width: 100%; height: auto; margin: 0 auto; image-rendering: auto; }
figure svg { display: block; width: 100%; min-width: 600px; height: auto; }
figcaption { margin-top: 10px; font-size: 14px; color: var(--muted); max-width: 80ch; }
figcaption b { color: var(--ink); font-weight: 600; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14.5px; }
th { text-align: left; font-weight: 600; }
.scores { width: 100%; }
.scores th, .scores td, .schedules th, .schedules td { padding: 6px 12px; white-space: nowrap; }
.scores th:first-child, .scores td:first-child { padding-left: 0; font-weight: 600; }
thead th { color: var(--muted); font-size: 13px; border-bottom: 1px solid var(--faint); vertical-align: bottom; }
.scores tr.first td { border-top: 1px solid var(--faint); }
.scores tbody tr:last-child td { border-bottom: 1px solid var(--faint); }
.n { text-align: right; }
td.best { font-weight: 700; background: var(--mark); }
.legend { font-size: 13.5px; color: var(--muted); margin: 10px 0 0; max-width: none; }
.notes { font-size: 13.5px; color: var(--muted); margin: 10px 0 0; padding-left: 18px; }
details { margin: 12px 0 22px; background: var(--card); border-radius: 10px; padding: 10px 16px; font-size: 14px; }
summary { cursor: pointer; color: var(--muted); }
details[open] summary { margin-bottom: 10px; }
.facts th, .facts td { padding: 3px 18px 3px 0; vertical-align: top; }
.facts th { font-weight: 500; color: var(--muted); white-space: nowrap; }
.facts td { overflow-wrap: anywhere; }
.config { display: block; columns: 2 340px; column-gap: 40px; }
.config tbody { display: table; width: 100%; break-inside: avoid; margin-bottom: 14px; }
.config tbody th { width: 45%; }
.group th { color: var(--ink); font-weight: 650; padding-top: 4px; }
.schedules { margin-top: 14px; }
.schedules th:first-child, .schedules td:first-child { padding-left: 0; }
.schedules td:nth-child(3), .schedules td:nth-child(4) { white-space: normal; }
code, pre { font: 13px/1.6 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
pre { background: var(--card); border-radius: 10px; padding: 14px 18px; overflow-x: auto; margin: 10px 0 24px; }
footer {
  margin-top: 72px; padding-top: 16px; border-top: 1px solid var(--faint); font-size: 13.5px;
  color: var(--muted);
}
@media (max-width: 640px) { body { padding: 32px 18px 64px; } h1 { font-size: 27px; } }
@media print {
  body { max-width: none; padding: 0; }
  details { break-inside: avoid; }
  figure { break-inside: avoid; }
  nav { display: none; }
}
"""
