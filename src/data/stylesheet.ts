/**
 * What all pages that are written to disk have in common: paper and ink, type, lists of findings, cards with pictures, tables, folds; light and
 * dark, on a phone and in print. It is hashed into the page's content security policy, so there are no style attributes anywhere.
 */

const light = `
  --paper: #fbfaf7; --raised: #f3f0ea; --ink: #1f1d1a; --quiet: #676158; --rule: #e2ddd3;
  --accent: #19695f; --accent-soft: #a9cfc8; --warm: #a8481d; --warm-soft: #e9c3ae;`
const dark = `
  --paper: #171613; --raised: #211f1b; --ink: #ebe7df; --quiet: #a8a195; --rule: #37332c;
  --accent: #74c7bb; --accent-soft: #2c5a54; --warm: #ea9a6e; --warm-soft: #6b3a22;`

export const baseStylesheet = `
:root { color-scheme: light dark; ${light} }
@media (prefers-color-scheme: dark) { :root { ${dark} } }
@media print { :root { color-scheme: light; ${light} } }

* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
}
main { max-width: 60rem; margin: 0 auto; padding: 3.5rem 1.5rem 5rem; }
h1, h2, .figure { font-family: "Iowan Old Style", Charter, "Source Serif 4", "Noto Serif", "DejaVu Serif", Georgia, serif; font-weight: 500; }
h1 { font-size: clamp(1.7rem, 4.5vw, 2.5rem); line-height: 1.15; letter-spacing: -0.015em; margin: 0.2rem 0 0.6rem; overflow-wrap: anywhere; text-wrap: balance; }
h2 { font-size: 1.4rem; line-height: 1.25; letter-spacing: -0.005em; margin: 0 0 0.3rem; }
h2 + .pair, h2 + .facts, h2 + .findings { margin-top: 1rem; }
h3 { font-size: 0.95rem; font-weight: 600; margin: 0 0 0.35rem; }
p { margin: 0 0 0.8rem; max-width: 42rem; }
a { color: var(--accent); text-underline-offset: 0.2em; }
code, pre { font: 0.86em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
section { margin-top: 3.5rem; padding-top: 1.6rem; border-top: 1px solid var(--rule); }
.quiet { color: var(--quiet); }
.small { font-size: 0.875rem; }
.eyebrow { color: var(--quiet); font-size: 0.8rem; letter-spacing: 0.09em; text-transform: uppercase; margin: 0; }
.lead { color: var(--quiet); margin-bottom: 1.3rem; }
.name { overflow-wrap: anywhere; }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); white-space: nowrap; }

.findings { list-style: none; margin: 0; padding: 0; max-width: 46rem; }
.findings li { padding: 0.5rem 0 0.5rem 1.4rem; position: relative; overflow-wrap: anywhere; }
.findings li::before { content: ""; position: absolute; left: 0; top: 1.12rem; width: 0.45rem; height: 0.45rem; border-radius: 50%; background: var(--accent); }

.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(18rem, 100%), 1fr)); gap: 2rem; align-items: start; }
figure { margin: 0; }
figcaption { font-size: 0.875rem; color: var(--quiet); margin-top: 0.5rem; }
.scroll { overflow-x: auto; margin: 0 -0.25rem; padding: 0.25rem; }
.scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 3px; }
table { border-collapse: collapse; font-size: 0.92rem; }
th { font-weight: 600; text-align: left; }
.scores { width: 100%; }
.scores th, .scores td { padding: 0.42rem 0.7rem 0.42rem 0; border-bottom: 1px solid var(--rule); vertical-align: middle; }
.scores thead th { color: var(--quiet); font-weight: 500; font-size: 0.82rem; vertical-align: bottom; }
.scores tbody th { font-weight: 500; overflow-wrap: anywhere; min-width: 7rem; }
.scores td:last-child, .scores th:last-child { padding-right: 0; }
.scores .bar { padding-left: 0.6rem; }
.scores .bar { width: 34%; min-width: 7rem; }
.scores svg { display: block; width: 100%; height: 0.7rem; }

.track { fill: var(--raised); }
.fill { fill: var(--accent); }
.fill-quiet { fill: var(--quiet); opacity: 0.55; }
.interval { fill: var(--accent-soft); }
.mark { fill: var(--ink); }

.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.4rem, 1fr)); gap: 1.7rem 1.2rem; list-style: none; margin: 0; padding: 0; }
.cards li { min-width: 0; }
.picture { display: flex; align-items: center; justify-content: center; aspect-ratio: 1; background: var(--raised); border-radius: 6px; overflow: hidden; color: var(--quiet); font-size: 0.8rem; text-align: center; margin-bottom: 0.6rem; }
.picture img { width: 100%; height: 100%; object-fit: contain; }
.cards .answer { margin: 0; line-height: 1.35; overflow-wrap: anywhere; }
.cards .answer b { font-weight: 600; color: var(--warm); }
.cards .path { margin: 0.35rem 0 0; color: var(--quiet); font-size: 0.78rem; line-height: 1.35; overflow-wrap: anywhere; }
.cards svg { display: block; width: 100%; height: 0.3rem; margin: 0.35rem 0 0.4rem; }
.cards .fill { fill: var(--warm); }
.strip { grid-template-columns: repeat(auto-fill, minmax(5.5rem, 1fr)); gap: 1rem; }
.strip .path { text-align: center; margin-top: 0; }
.strip .picture { margin-bottom: 0.35rem; }

.facts { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: 0.35rem 1.5rem; margin: 0 0 1.2rem; font-size: 0.92rem; }
.facts dt { color: var(--quiet); }
.facts dd { margin: 0; overflow-wrap: anywhere; min-width: 0; }
details { border-top: 1px solid var(--rule); padding: 0.65rem 0; font-size: 0.92rem; }
details:last-of-type { border-bottom: 1px solid var(--rule); }
summary { cursor: pointer; font-weight: 500; }
details > :not(summary) { margin-top: 0.7rem; }
details ul { padding-left: 1.2rem; margin-bottom: 0.4rem; }
details li { overflow-wrap: anywhere; margin: 0.15rem 0; }
pre { background: var(--raised); padding: 0.8rem 1rem; border-radius: 6px; overflow-x: auto; margin: 0 0 1rem; white-space: pre-wrap; overflow-wrap: anywhere; }
footer { margin-top: 3.5rem; color: var(--quiet); font-size: 0.82rem; }

@media (max-width: 44rem) {
  main { padding: 2rem 1.1rem 3rem; }
  section { margin-top: 2.6rem; }
  .scores .bar { min-width: 4.5rem; }
  .scores th, .scores td { padding-right: 0.6rem; }
  .scores tbody th { min-width: 5.5rem; }
  .scores .wide { display: none; }
  .scores .bar { padding-right: 0; }
  .cards { grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1.4rem 1rem; }
  .strip { grid-template-columns: repeat(4, minmax(0, 1fr)); gap: 0.7rem; }
  .facts { grid-template-columns: 1fr; gap: 0; }
  .facts dd { margin-bottom: 0.6rem; }
}
@media print {
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  section { margin-top: 1.6rem; padding-top: 1rem; }
  section, .cards li, figure, tr { break-inside: avoid; }
  .cards { grid-template-columns: repeat(5, 1fr); }
  .track, .fill, .fill-quiet, .interval, .picture { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  details::details-content { content-visibility: visible; block-size: auto; }
}
`
