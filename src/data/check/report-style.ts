/** What the check's page has beyond every page: the list of findings on top, groups of pictures, class bars. */
import { baseStylesheet } from '../stylesheet.ts'

export const stylesheet = `${baseStylesheet}
.verdict { font-family: "Iowan Old Style", Charter, "Source Serif 4", "Noto Serif", "DejaVu Serif", Georgia, serif; font-size: clamp(1.25rem, 3vw, 1.6rem); line-height: 1.3; margin: 1.8rem 0 1.2rem; max-width: 46rem; text-wrap: balance; }
.contents { list-style: none; margin: 0; padding: 0; border-top: 1px solid var(--rule); max-width: 52rem; }
.contents li { border-bottom: 1px solid var(--rule); }
.contents a { display: grid; grid-template-columns: 6.6rem 1fr; gap: 0.2rem 1rem; padding: 0.6rem 0; color: inherit; text-decoration: none; overflow-wrap: anywhere; }
.contents a:hover .what, .contents a:focus-visible .what { text-decoration: underline; }
.contents a:focus-visible { outline: 2px solid var(--accent); outline-offset: 3px; border-radius: 3px; }
.level { font-size: 0.8rem; letter-spacing: 0.02em; padding-top: 0.16rem; }
.level-wrong { color: var(--warm); font-weight: 600; }
.level-look { color: var(--accent); font-weight: 600; }
.level-known { color: var(--quiet); }
section .level { margin: 0 0 0.35rem; padding: 0; }
.todo { border-left: 3px solid var(--accent); padding: 0.1rem 0 0.1rem 0.9rem; margin: 0 0 0.5rem; max-width: 42rem; }
.todo b { font-weight: 600; }
.level-wrong ~ .todo { border-left-color: var(--warm); }
.how { font-size: 0.82rem; margin: 0 0 1.3rem; }
h2 { overflow-wrap: anywhere; }

.groups { list-style: none; margin: 0; padding: 0; display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 100%), 1fr)); gap: 1.1rem; align-items: start; }
.groups.singles { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
.group { background: var(--raised); border-radius: 10px; padding: 0.8rem; min-width: 0; }
.group .together { list-style: none; margin: 0; padding: 0; display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 0.8rem; }
.singles .together, .group .alone { grid-template-columns: minmax(0, 1fr); }
.group .picture { background: var(--paper); margin-bottom: 0.4rem; }
.group .picture img.small { image-rendering: pixelated; }
.group .caption { margin: 0 0 0.6rem; font-size: 0.85rem; line-height: 1.35; overflow-wrap: anywhere; }
.group .label { margin: 0; font-size: 0.85rem; font-weight: 600; line-height: 1.3; overflow-wrap: anywhere; }
.group .side { font-weight: 400; color: var(--quiet); }
.group .path { margin: 0.1rem 0 0; color: var(--quiet); font-size: 0.75rem; line-height: 1.35; overflow-wrap: anywhere; }
.group .rest { margin: 0.6rem 0 0; color: var(--quiet); font-size: 0.8rem; }
.group .near { display: grid; gap: 0.4rem; list-style: none; margin: 0.5rem 0 0; padding: 0; }
.group .near .picture { margin-bottom: 0.2rem; border-radius: 4px; font-size: 0.65rem; }
.group .near .path { text-align: center; font-size: 0.68rem; }
.doubted { display: grid; grid-template-columns: minmax(0, 2fr) minmax(0, 3fr); gap: 0.9rem; }
.doubted .near { grid-template-columns: repeat(3, minmax(0, 1fr)); }
.doubted .rest { margin-top: 0; }
.groups + details { margin-top: 1.1rem; }
.shares { display: grid; grid-template-columns: max-content minmax(8rem, 22rem); gap: 0.35rem 1rem; margin: 0 0 1rem; font-size: 0.92rem; align-items: center; }
.shares dt { color: var(--quiet); }
.shares dd { margin: 0; display: grid; grid-template-columns: 1fr 3.6rem; gap: 0.7rem; align-items: center; font-variant-numeric: tabular-nums; }
.shares svg { display: block; width: 100%; height: 0.8rem; }
.list { margin: 0; padding-left: 1.2rem; font-size: 0.9rem; max-width: 46rem; }
.list li { overflow-wrap: anywhere; margin: 0.2rem 0; }
.balance { width: 100%; max-width: 46rem; }
.balance .bar { width: 45%; }
.recall { max-width: 34rem; }
.facts dt { scroll-margin-top: 1rem; }
.facts dt:target, .facts dt:target + dd { color: var(--ink); background: var(--raised); }

@media (max-width: 44rem) {
  .contents a { grid-template-columns: minmax(0, 1fr); }
  .groups.singles { grid-template-columns: repeat(2, minmax(0, 1fr)); }
  .group { padding: 0.65rem; }
  .shares { grid-template-columns: minmax(0, 1fr); gap: 0.15rem; }
  .shares dd { margin-bottom: 0.4rem; }
}
@media print {
  .group { break-inside: avoid; border: 1px solid var(--rule); }
  .group .picture { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
}
`
