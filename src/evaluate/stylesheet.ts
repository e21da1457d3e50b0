/** What the evaluation's page has beyond every page: the headline's figure, charts, the confusion matrix. */
import { baseStylesheet } from '../data/stylesheet.ts'

/**
 * Heat in ten steps: `right-n` on the diagonal, `wrong-n` beside it, n tenths of the row. A number needs 4.5 : 1 against its cell, which no
 * text colour has on the middle tones: the steps jump over them, and the text turns there.
 */
const heat = (shares: readonly number[], turn: number) =>
  shares
    .flatMap((share, i) => {
      const text = i + 1 >= turn ? ' color: var(--paper);' : ''
      return [
        `.confusion .right-${i + 1} { background: color-mix(in srgb, var(--accent) ${share}%, var(--paper));${text} }`,
        `.confusion .wrong-${i + 1} { background: color-mix(in srgb, var(--warm) ${share}%, var(--paper));${text} }`,
      ]
    })
    .join('\n')
const lightHeat = heat([12, 20, 28, 36, 44, 52, 60, 70, 94, 100], 9)
const darkHeat = heat([14, 20, 26, 33, 40, 72, 79, 86, 93, 100], 6)

export const stylesheet = `${baseStylesheet}
.how { color: inherit; text-decoration: underline dotted color-mix(in srgb, currentColor 45%, transparent); text-decoration-thickness: 1px; text-underline-offset: 0.25em; }
.how:hover, .how:focus-visible { color: var(--accent); text-decoration-color: currentColor; }
.findings .how { color: var(--quiet); font-size: 0.82rem; white-space: nowrap; }
.figure .how { text-decoration: none; }
.findings .warning::before { background: var(--warm); }
dt:target, dt:target + dd { background: var(--raised); color: var(--ink); }
.sheet { margin-top: 1.6rem; }
.sheets { display: grid; grid-template-columns: repeat(auto-fill, minmax(13rem, 1fr)); gap: 0 1.5rem; align-items: end; }
.sheets .strip { grid-template-columns: repeat(3, minmax(0, 5.5rem)); }
.sheet p { margin-bottom: 0.6rem; }
.two { display: grid; grid-template-columns: 1fr 1fr; gap: 0.3rem; }
@media (min-width: 44.01rem) {
  .cards.pairs { grid-template-columns: repeat(auto-fill, minmax(13.5rem, 1fr)); }
  .cards.wide { grid-template-columns: repeat(auto-fill, minmax(11rem, 1fr)); }
}
.near { display: grid; grid-template-columns: repeat(3, 1fr); gap: 0.35rem; list-style: none; margin: 0.25rem 0 0; padding: 0; }
.near .picture { border-radius: 3px; margin-bottom: 0.15rem; }
.cards .near .path { margin: 0; font-size: 0.7rem; }
details + p { margin-top: 0.9rem; }
.scores .remark { display: block; font-weight: 400; }
.scores .verdict { white-space: nowrap; }
.worse td, .worse th { color: var(--warm); }
.worse .fill { fill: var(--warm); }
.worse .interval { fill: var(--warm-soft); }
.cards .answer.right b { color: var(--accent); }
.headline { display: grid; grid-template-columns: minmax(15rem, 5fr) 7fr; gap: 2.5rem; align-items: center; margin-top: 2.6rem; }
.figure { font-size: clamp(3.6rem, 11vw, 5.4rem); line-height: 1; letter-spacing: -0.035em; margin: 0 0 0.7rem; font-variant-numeric: lining-nums; }
.figure small { font-size: 0.45em; letter-spacing: 0; color: var(--quiet); }
.headline p { margin: 0; }

.bars { margin: 0; }
.bars > div { display: grid; grid-template-columns: 1fr auto; gap: 0.3rem 1rem; align-items: baseline; margin-bottom: 1rem; font-size: 0.92rem; }
.bars dt span { color: var(--quiet); font-size: 0.82rem; font-weight: 400; margin-left: 0.3rem; }
.bars dd { margin: 0; }
.bars .drawing { grid-column: 1 / -1; }
.bars svg { display: block; width: 100%; height: 0.8rem; overflow: visible; }
.bars .us { font-weight: 600; }
.bars .us svg { height: 1.5rem; }
.bars + .axis { margin-top: -0.5rem; }
.axis + p { margin-top: 0.7rem; }
.axis { display: flex; justify-content: space-between; color: var(--quiet); font-size: 0.75rem; font-variant-numeric: tabular-nums; }

.chart { display: block; width: 100%; max-width: 27rem; height: auto; overflow: visible; }
.chart text { fill: var(--quiet); font: 11px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; font-variant-numeric: tabular-nums; }
.square { max-width: 22rem; }
.chart .grid { stroke: var(--rule); stroke-width: 1; }
.chart .ideal { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 3 4; }
.chart .line { fill: none; stroke: var(--accent); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.chart .line-warm { fill: none; stroke: var(--warm); stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; stroke-dasharray: 6 4; }
.chart .dot { fill: var(--accent); }
.chart .dot-warm { fill: var(--warm); }
.chart .best { fill: var(--paper); stroke: var(--accent); stroke-width: 2; }
.chart .gap { fill: var(--warm); opacity: 0.28; }
.chart .bin { fill: var(--accent); opacity: 0.85; }
.chart .whisker { stroke: var(--ink); stroke-width: 1.2; }

.confusion { border-collapse: separate; border-spacing: 2px; font-size: 0.82rem; }
.confusion td { min-width: 2.15rem; height: 2.15rem; text-align: center; padding: 0 0.25rem; border-radius: 3px; font-variant-numeric: tabular-nums; background: var(--raised); }
.confusion td.none { color: transparent; }
.confusion thead th { height: 7.5rem; vertical-align: bottom; padding: 0 0 0.35rem; font-weight: 500; }
.confusion thead th span { display: block; writing-mode: vertical-rl; transform: rotate(180deg); max-height: 7rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; margin: 0 auto; }
.confusion tbody th { font-weight: 500; text-align: right; padding: 0 0.6rem 0 0; max-width: 11rem; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; position: sticky; left: 0; background: var(--paper); }
.mixed { display: grid; grid-template-columns: minmax(0, max-content) minmax(15rem, 1fr); gap: 2.2rem; align-items: end; }
${lightHeat}
@media screen and (prefers-color-scheme: dark) {
${darkHeat}
}

.worst details { margin-top: 1.8rem; }
.worst details .cards { margin-top: 1.2rem; padding: 0; }

@media (max-width: 44rem) {
  .mixed { grid-template-columns: minmax(0, 1fr); }
  .sheets { grid-template-columns: 1fr 1fr; gap: 0 1rem; }
  .sheet .strip { grid-template-columns: repeat(6, minmax(0, 1fr)); gap: 0.4rem; }
  .sheets .strip { grid-template-columns: repeat(3, minmax(0, 1fr)); }
  .scores .roomy { display: none; }
  .headline { grid-template-columns: 1fr; gap: 1.8rem; margin-top: 1.8rem; }
  .confusion tbody th { max-width: 6.5rem; }
}
@media print {
  .worst, .per-class, .data { break-inside: auto; }
  .confusion td { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`
