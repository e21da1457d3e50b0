import { basename, resolve } from 'node:path'
import { checkData, checkText, findingsOf, isPath, isTrainable, measuredSide, nameFrom, writeCheckReport } from '../server.ts'
import { common, defineCommand } from './command.ts'
import { shellWord } from './text.ts'

export default defineCommand({
  name: 'data check',
  summary: 'find what is wrong with labelled pictures before anything is trained on them',
  details: `Finds copies (edited ones too), copies across your own train and test folders, one picture under two labels, files that cannot be read, classes that
are too small, blurred, dark and empty pictures, and shortcuts: a format, size, camera or light that gives the class away. The pictures are only
read, nothing leaves this machine and nothing is kept but a cache, which makes the second check fast.`,
  arguments: { source: { summary: 'a folder, a zip or a list of pictures, or the name of a dataset' } },
  options: {
    report: { type: 'string', value: 'FILE', summary: 'write one HTML page that shows the pictures side by side' },
    deep: { type: 'boolean', summary: 'look closer, which takes minutes: cropped and turned copies, likely wrong labels' },
    alike: { type: 'boolean', summary: 'list pictures that are merely alike, too' },
    'group-by': { type: 'string', value: 'PATTERN', summary: 'pictures in whose path this finds the same text belong together' },
    seed: common.seed,
    threads: common.threads,
  },
  examples: ['plinth data check ./photos', 'plinth data check ./photos --report report.html --deep', 'plinth data check birds@2 --json'],
  async run({ source, report, deep, alike, groupBy, seed, threads }, context) {
    const { out, say, progress, result, signal, style } = context
    let phase: { what: string; bar: ReturnType<typeof progress> } | null = null
    const onProgress = (what: string, done: number, total: number) => {
      if (phase?.what !== what) {
        phase?.bar.end()
        phase = { what, bar: progress(what, total, countsPictures.test(what) ? { unit: 'pictures' } : {}) }
      }
      phase.bar.update(done)
    }
    await checkData(
      source,
      { deep, alike, seed, signal, onProgress, ...(groupBy !== undefined && { groupBy }), ...(threads && { threads }) },
      async ({ check, shortcutExamples, understood, manifest, bytes }) => {
        phase?.bar.end()
        const findings = findingsOf(check, { source: shellWord(source), deep, measured: measuredSide(manifest.rows), shortcutExamples })
        const next = nextCommand(findings, { source, report, deep, trainable: isTrainable(check) })
        if (report !== undefined)
          await writeCheckReport(report, { title: basename(resolve(source)), understood, check, findings, next, manifest, bytes })
        out(checkText(check, findings, { understood, width: Math.min(110, process.stdout.columns || 100), style }))
        if (report !== undefined) say(`\nThe page with the pictures: ${report}`)
        say(`\nNext: ${next}`)
        result({ dataset: { ...check, report: report ?? null } })
      },
    )
  },
})

const countsPictures = /reading|looking/

/** Where a test is none, what it is worth without; with pictures to look at, the page that shows them; with labels to decide, the review; else the training, where there is enough to train on. */
function nextCommand(
  findings: ReturnType<typeof findingsOf>,
  { source, report, deep, trainable }: { source: string; report: string | undefined; deep: boolean; trainable: boolean },
): string {
  const found = (...keys: string[]) => findings.some(({ key }) => keys.includes(key))
  const word = shellWord(source)
  if (found('across-split') && !deep) return `plinth data check ${word} --deep --report report.html`
  if (report === undefined && findings.some(({ level }) => level !== 'known'))
    return `plinth data check ${word}${deep ? ' --deep' : ''} --report report.html`
  if (!trainable) return `plinth data check ${word}`
  if (found('conflicts', 'mislabels'))
    return isPath(source) ? `plinth data import ${word} && plinth data review ${nameFrom(source)}` : `plinth data review ${word}`
  return `plinth train ${word}`
}
