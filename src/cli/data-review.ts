import { spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { Failure } from '../failure.ts'
import {
  estimateSentence,
  type Home,
  openHome,
  parseVerdicts,
  prepareReview,
  type Review,
  type ReviewKind,
  reviewKinds,
  startReviewServer,
} from '../server.ts'
import { common, defineCommand } from './command.ts'
import type { Context } from './output.ts'

const kindNames: Record<ReviewKind, [one: string, many: string]> = {
  conflict: ['with two labels', 'with two labels'],
  mislabel: ['likely mislabel', 'likely mislabels'],
  copy: ['group of copies', 'groups of copies'],
}

export default defineCommand({
  name: 'data review',
  summary: 'look at conflicts, likely mislabels and copies, and make a better version of the dataset',
  details: `Opens a page on this machine that shows one question after the other, worst first, with the evidence beside it: keep, relabel or drop, by
keyboard or mouse. Every answer is kept at once; the verdicts together make a new version, with what was decided and why. Your folder and
the version that is reviewed stay as they are.
SOURCE is a run (its dataset, with what the training found), a dataset, or a folder, which is imported first.`,
  arguments: { source: { summary: 'the id of a run or its first letters, the name of a dataset, or a folder' } },
  options: {
    only: { type: 'string', choices: reviewKinds, summary: 'ask only this kind of question' },
    again: { type: 'boolean', summary: 'ask also what was answered in an earlier review' },
    list: { type: 'boolean', summary: 'print the questions and open no page' },
    verdicts: { type: 'string', value: 'FILE', summary: 'take verdicts from a file of JSON lines and make the new version' },
    apply: { type: 'boolean', summary: 'make the new version from the verdicts given so far' },
    open: { type: 'boolean', summary: 'open the page in the browser' },
    port: { ...common.port, default: 0 },
    threads: common.threads,
  },
  examples: [
    'plinth data review birds',
    'plinth data review 3f2a91c0 --open',
    'plinth data review birds --list --json',
    'plinth data review birds --apply',
  ],
  async run({ source, only, again, list, verdicts, apply, open, port, threads }, context) {
    if ([list, verdicts !== undefined, apply].filter(Boolean).length > 1)
      throw new Failure('usage', { problem: 'Only one of --list, --verdicts and --apply can be given.', command: 'data review' })
    const { signal, progress } = context
    const home = await openHome()
    try {
      let phase: { what: string; bar: ReturnType<typeof progress> } | null = null
      const onProgress = (what: string, done: number, total: number) => {
        if (phase?.what !== what) {
          phase?.bar.end()
          phase = { what, bar: progress(what, total, { unit: 'pictures' }) }
        }
        phase.bar.update(done)
      }
      const request = {
        again,
        ...(only && { only }),
        searchNothing: apply || verdicts !== undefined,
        signal,
        onProgress,
        ...(threads && { threads }),
      }
      const review = await prepareReview(home, source, request)
      ;(phase as { bar: ReturnType<typeof progress> } | null)?.bar.end()
      try {
        if (list) return await printQuestions(review, context)
        if (verdicts !== undefined) await review.record(parseVerdicts(await textOf(verdicts), review.manifest))
        if (apply || verdicts !== undefined) return await makeVersion(review, context)
        await reviewOnPage(home, review, { port, open, again }, context)
      } finally {
        await review.close()
      }
    } finally {
      await home.close()
    }
  },
})

async function textOf(path: string): Promise<string> {
  return await readFile(path, 'utf8').catch(error => {
    throw new Failure('verdicts_unreadable', { path, problem: (error as NodeJS.ErrnoException).code ?? String(error) }, { cause: error })
  })
}

const nameOf = ({ name, version }: { name: string; version: number }) => `${name}@${version}`
const number = (count: number, one: string, many = `${one}s`) => `${count.toLocaleString('en-US')} ${count === 1 ? one : many}`

async function printQuestions(review: Review, { out, table, result }: Context): Promise<void> {
  const items = await review.list()
  out(summaryOf(review, items.length))
  if (items.length > 0)
    table(
      ['kind', 'question', 'pictures'],
      items.map(({ kind, question, pictures }) => [kind, question, pictures.map(({ path }) => path).join(', ')]),
    )
  result({ review: { dataset: review.reference, earlier: review.earlier, items } })
}

function summaryOf({ reference, kinds, earlier, estimate }: Review, items: number): string {
  const parts = reviewKinds.filter(kind => kinds[kind] > 0).map(kind => number(kinds[kind], ...kindNames[kind]))
  const before =
    earlier > 0
      ? ` ${number(earlier, 'question')} answered in earlier reviews ${earlier === 1 ? 'does' : 'do'} not come back (--again shows them).`
      : ''
  return `${nameOf(reference)}: ${items === 0 ? 'nothing to review.' : `${number(items, 'question')} (${parts.join(', ')}).`}${before}${estimate && kinds.mislabel > 0 ? `\n${estimateSentence(estimate)}` : ''}`
}

async function makeVersion(review: Review, { out, result }: Context): Promise<void> {
  const { made, dataset, manifest, changes, tested } = await review.makeVersion()
  const { relabelled, dropped, kept, outdated, newClasses, goneClasses } = changes
  if (made) {
    out(
      `${nameOf(dataset)}: ${number(manifest.rows.length, 'picture')} (${relabelled.length} relabelled, ${dropped.length} dropped), made from ${nameOf(review.reference)}`,
    )
    if (newClasses.length > 0) out(`new classes: ${newClasses.join(', ')}`)
    if (goneClasses.length > 0) out(`gone altogether: ${goneClasses.join(', ')}`)
    if (tested > 0)
      out(
        `${number(tested, 'change')} ${tested === 1 ? 'is' : 'are'} about test pictures of the run: its accuracy was measured with the old labels, and only disputed pictures were looked at.`,
      )
  } else out(`The verdicts change nothing about ${nameOf(review.reference)}; no version was made.`)
  if (outdated.length > 0) out(`${number(outdated.length, 'verdict')} left alone: those pictures have other labels by now`)
  result({
    dataset: { ...dataset, images: manifest.rows.length, classes: manifest.classes.length },
    parent: review.reference,
    made,
    relabelled: relabelled.length,
    dropped: dropped.length,
    kept,
    outdated: outdated.length,
  })
}

async function reviewOnPage(
  home: Home,
  review: Review,
  { port, open, again }: { port: number; open: boolean; again: boolean },
  { out, say, result, signal }: Context,
): Promise<void> {
  const before = await review.tally()
  out(summaryOf(review, before.items))
  const reference = nameOf(review.reference)
  const apply = `Make the new version: plinth data review ${reference} --apply`
  if (before.items === 0) {
    if (before.relabelled + before.dropped > 0) out(`${before.relabelled} relabelled and ${before.dropped} dropped so far. ${apply}`)
    result({ review: { dataset: review.reference, ...before, earlier: review.earlier, url: null } })
    return
  }
  let newest: { name: string; relabelled: number; dropped: number } | null = null
  const server = await startReviewServer({
    review,
    blobs: home.blobs,
    port,
    onVersion({ dataset, changes }) {
      newest = { name: nameOf(dataset), relabelled: changes.relabelled.length, dropped: changes.dropped.length }
      say(`Made ${newest.name}.`)
    },
    onNotice: say,
  })
  result({ review: { dataset: review.reference, ...before, earlier: review.earlier, url: server.url } })
  out(`\nReview on ${server.url}`)
  out('Every answer is kept at once. Ctrl-C stops.')
  if (open) openBrowser(server.ticketUrl(), () => say('There is no program here that opens a browser: open the address above yourself.'))
  if (!signal.aborted) await new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }))
  await server.close()
  const { items, answered, relabelled, dropped } = await review.tally()
  out(
    `Stopped after ${answered} of ${number(items, 'question')}; ${relabelled} relabelled and ${dropped} dropped so far. All of it is kept.`,
  )
  if (answered < items) out(`Go on: plinth data review ${reference}${again ? ' --again' : ''}`)
  const made = newest as { name: string; relabelled: number; dropped: number } | null
  if (made?.relabelled === relabelled && made.dropped === dropped)
    out(`All of it is in ${made.name}. Train on it: plinth train ${made.name}`)
  else if (relabelled + dropped > 0) out(apply)
}

/** Never through a shell. What is told to other programs can be read by others on this machine, so it is an address that is good once. */
function openBrowser(url: string, failed: () => void): void {
  const [command, ...rest] =
    process.platform === 'darwin' ? ['open'] : process.platform === 'win32' ? ['rundll32', 'url.dll,FileProtocolHandler'] : ['xdg-open']
  const child = spawn(command!, [...rest, url], { stdio: 'ignore', detached: true })
  child.on('error', failed)
  child.on('exit', code => code !== 0 && failed())
  child.unref()
}
