import { compare, openHome, renderComparison, wear, writeComparisonReport } from '../server.ts'
import { common, defineCommand } from './command.ts'

export default defineCommand({
  name: 'compare',
  summary: 'say whether one model is better than another, on the same pictures',
  details: `Both models answer the same labelled pictures, and only those that exactly one of them gets right count. That is much sharper than two
scores side by side. "Better" is said when luck would give such a difference in fewer than one case of twenty. Classes that only one of the
two knows are left out and named.`,
  arguments: {
    a: { summary: 'a model: name, name@version or file' },
    b: { summary: 'the other one' },
    source: { summary: 'a folder, a zip, a list, or the name of a dataset or test set' },
  },
  options: {
    report: { type: 'string', value: 'FILE', summary: 'write a page with the pictures where they differ' },
    threads: common.threads,
  },
  examples: ['plinth compare clothes@2 clothes@1 ./new-photos', 'plinth compare clothes clothes@1 site-b --report compare.html'],
  async run({ a, b, source, report, threads }, { out, say, progress, result, signal }) {
    const home = await openHome()
    try {
      let bar: ReturnType<typeof progress> | undefined
      const { comparison, manifest, testSet } = await compare(home, a, b, source, {
        ...(threads && { threads }),
        signal,
        onProgress: (done, total) => {
          bar ??= progress('comparing', total, { unit: 'pictures' })
          bar.update(done)
        },
      })
      bar?.end()
      const worn = testSet && wear(testSet, null)
      out(renderComparison(comparison, worn ? [worn] : []))
      if (report) {
        await writeComparisonReport(home, { comparison, manifest, notes: worn ? [worn] : [] }, report)
        say(`\nReport: ${report}`)
      }
      result(comparison)
    } finally {
      await home.close()
    }
  },
})
