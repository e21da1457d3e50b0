import { evaluate, findingsBeside, openHome, renderText, verdicts, writeEvaluationReport } from '../server.ts'
import { common, defineCommand } from './command.ts'

export default defineCommand({
  name: 'evaluate',
  summary: 'test a model on labelled pictures',
  details: `SOURCE has one subfolder per class, named like the model's labels, or is a list, a dataset or a test set. The score is honest only
if the model has not been trained on these pictures (those that it knows are counted, and the score is given without them), and only once: a
set that is looked at again and again to choose between models becomes a second training set.`,
  arguments: {
    model: { summary: 'a model: name, name@version or file' },
    source: { summary: 'a folder, a zip, a list, or the name of a dataset or test set' },
  },
  options: { report: { type: 'string', value: 'FILE', summary: 'write the result as a page too' }, threads: common.threads },
  examples: [
    'plinth evaluate clothes ./new-photos',
    'plinth evaluate clothes@2 ./new-photos --report new.html',
    'plinth evaluate clothes site-b --json',
  ],
  async run({ model, source, report, threads }, { out, say, progress, result, signal }) {
    const home = await openHome()
    try {
      let bar: ReturnType<typeof progress> | undefined
      let second: typeof bar
      const answer = await evaluate(home, model, source, {
        ...(threads && { threads }),
        signal,
        onProgress: (done, total) => {
          bar ??= progress('evaluating', total, { unit: 'pictures' })
          bar.update(done)
        },
        onLookingAtLabels: (label, done, total) => {
          if (!second) bar?.end()
          second ??= progress(label, total, { unit: 'pictures' })
          second.update(done)
        },
      })
      ;(second ?? bar)?.end()
      const { warnings, further } = findingsBeside(answer)
      const said = (findings: typeof further) => findings.map(({ sentence }) => sentence)
      out(renderText(answer.evaluation, [...said(warnings), ...verdicts(answer.evaluation), ...said(further)]))
      if (report) {
        await writeEvaluationReport(home, answer, report)
        say(`\nReport: ${report}`)
      }
      result({
        model: { name: answer.model.name, version: answer.model.version },
        images: answer.manifest.rows.length,
        unreadable: answer.manifest.unreadable,
        test: answer.evaluation,
        seen: answer.seen,
        unknown: answer.unknown,
        mislabels: answer.mislabels,
        testSet: answer.testSet,
        report: report ?? null,
      })
    } finally {
      await home.close()
    }
  },
})
