/** Pictures to look at: the worst mistakes, with what spoke for the wrong answer, and labels that look wrong. */
import { type Html, html } from '../../data/html.ts'
import { shareBar, shareText } from '../charts.ts'
import type { ReportInput } from '../report.ts'
import { counted, folded, how, thumbnail } from './parts.ts'

const mistakesShown = 12

/** Anchor of the first picture of class `truth` that was taken for class `answer`, by number. */
export const mixUp = (truth: number, answer: number): string => `mix-up-${truth}-${answer}`

export async function worstMistakesSection({
  evaluation: { worstMistakes, n, accuracy },
  classes,
  pictures,
  activation,
}: ReportInput): Promise<Html> {
  const wrong = n - Math.round(accuracy * n)
  if (worstMistakes.length === 0)
    return html`<section aria-labelledby="worst"><h2 id="worst">Worst mistakes</h2><p class="lead">None: every test picture was answered right.</p></section>`
  let maps = 0
  const cards: Html[] = []
  const begun = new Set<string>()
  for (const { path, label, predicted, probability, probabilityOfLabel } of worstMistakes) {
    const picture = await thumbnail(pictures, path, `${path}: labelled ${label}, answered ${predicted}`)
    const map = (await activation?.(path).catch(() => null)) ?? null
    if (map !== null) maps++
    const beside =
      map === null
        ? picture
        : html`<div class="two">${picture}${await thumbnail(async () => map, path, `what spoke for ${predicted}`)}</div>`
    const id = mixUp(classes.indexOf(label), classes.indexOf(predicted))
    const first = !begun.has(id)
    begun.add(id)
    cards.push(
      html`<li${first && html` id="${id}"`}>${beside}<p class="answer"><b><bdi>${predicted}</bdi></b> ${how('probability', shareText(probability, 0))}</p>${shareBar(probability, null)}<p class="answer small">labelled <bdi>${label}</bdi> <span class="quiet">${shareText(probabilityOfLabel, 0)}</span></p><p class="path"><bdi>${path}</bdi></p></li>`,
    )
  }
  const all =
    worstMistakes.length < wrong
      ? `The ${worstMistakes.length} surest of ${wrong} wrong answers`
      : wrong === 1
        ? 'The one wrong answer'
        : `All ${wrong} wrong answers`
  return html`<section class="worst" aria-labelledby="worst"><h2 id="worst">Worst mistakes</h2>
<p class="lead">${all}, the surest first. Look twice: some may be right and the label wrong.${maps > 0 && html` Beside each, orange where the picture ${how('maps', 'spoke for the answer')} that was given, blue where it spoke against it.`}</p>
${folded(cards, mistakesShown, items => html`<ol class="cards${maps > 0 && ' pairs'}">${items}</ol>`)}</section>`
}

const strangersShown = 12
const mostStrangers = 48

/** Whoever doubts that these are of another kind looks at them. */
export async function strangersSection({ strangers = [], pictures }: ReportInput): Promise<Html> {
  if (strangers.length === 0) return html``
  const cards = await Promise.all(
    strangers
      .slice(0, mostStrangers)
      .map(async path => html`<li>${await thumbnail(pictures, path, path)}<p class="path"><bdi>${path}</bdi></p></li>`),
  )
  return html`<section class="worst" aria-labelledby="strangers"><h2 id="strangers">Pictures it calls unknown</h2>
<p class="lead">A classifier always names one of its classes, even for a picture of something else. So this one also measures how far a picture lies from everything it has learned, and says <i>unknown</i> beyond a ${how('strangers', 'limit')}. The farthest first.</p>
${folded(cards, strangersShown, items => html`<ol class="cards">${items}</ol>`)}</section>`
}

const suspectsShown = 8
const mostSuspects = 40
const neighboursShown = 3

const piles = {
  another: 'surely another class',
  none: 'none of the classes',
  two: 'two at once',
} as const

export async function mislabelsSection({ result, pictures, mislabels = result?.mislabels }: ReportInput): Promise<Html> {
  if (!mislabels) return html``
  const { n, estimate, exchanged, listed, notes } = mislabels
  const suspects = listed.slice(0, mostSuspects)
  const cards = await Promise.all(
    suspects.map(async ({ path, label, pile, suggestion, probabilityOfLabel, probabilityOfSuggestion, neighbours }, i) => {
      const near =
        i < suspectsShown
          ? await Promise.all(
              neighbours
                .slice(0, neighboursShown)
                .map(
                  async each =>
                    html`<li>${await thumbnail(pictures, each.path, each.path)}<p class="path"><bdi>${each.label}</bdi></p></li>`,
                ),
            )
          : []
      const verdict =
        suggestion === null || pile === 'none'
          ? piles[pile]
          : pile === 'two'
            ? html`also <bdi>${suggestion}</bdi>`
            : html`<bdi>${suggestion}</bdi>`
      return html`<li>${await thumbnail(pictures, path, `${path}: labelled ${label}`)}<p class="answer"><b>${verdict}</b>${suggestion !== null && pile !== 'none' && html` ${how('probability', shareText(probabilityOfSuggestion, 0))}`}</p><p class="answer small">labelled <bdi>${label}</bdi> <span class="quiet">${shareText(probabilityOfLabel, 0)}</span></p><p class="path"><bdi>${path}</bdi></p>${near.length > 0 && html`<p class="path">most alike:</p><ul class="near">${near}</ul>`}</li>`
    }),
  )
  const range = `${estimate.low.toFixed(0)} to ${estimate.high.toFixed(0)}`
  return html`<section class="worst" aria-labelledby="mislabels"><h2 id="mislabels">Labels that look wrong</h2>
<p class="lead">${
    listed.length === 0
      ? html`None of ${counted(n, 'label')} does.`
      : html`About ${how('mislabels', html`<b>${estimate.count.toFixed(0)}</b> (${range})`)} of ${counted(n, 'label')} look wrong. Nothing was changed. Below, the most suspicious first, with the pictures most like each and their labels: decide yourself, with <code>plinth data review${result && ` ${result.run.slice(0, 8)}`}</code>.`
  }</p>
${exchanged.length > 0 && html`<p>Most often exchanged: ${exchanged.slice(0, 5).map(({ label, suggestion, count }, i) => html`${i > 0 && ', '}<bdi>${label}</bdi> ↔ <bdi>${suggestion}</bdi> (${count})`)}.</p>`}
${cards.length > 0 && folded(cards, suspectsShown, items => html`<ol class="cards wide">${items}</ol>`)}
${listed.length > suspects.length && html`<p class="quiet small">And ${counted(listed.length - suspects.length, 'picture')} more.</p>`}
${notes.map(note => html`<p class="quiet small">${note}</p>`)}</section>`
}
