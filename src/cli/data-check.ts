import { checkData } from '../server.ts'
import { common, defineCommand } from './command.ts'

export default defineCommand({
  name: 'data check',
  summary: 'find what is wrong with labelled pictures before anything is trained on them',
  arguments: { source: { summary: 'a folder, a zip or a list of pictures, or the name of a dataset' } },
  options: {
    report: { type: 'string', value: 'FILE', summary: 'write one HTML page that shows the pictures side by side' },
    deep: { type: 'boolean', summary: 'look closer, which takes minutes: cropped and turned copies, likely mislabels' },
    alike: { type: 'boolean', summary: 'list pictures that are merely alike, too' },
    seed: common.seed,
    threads: common.threads,
  },
  examples: ['plinth data check ./photos', 'plinth data check ./photos --report report.html --deep', 'plinth data check birds@2 --json'],
  async run({ source, deep, alike, seed, threads }, { progress, result, signal }) {
    let phase: { what: string; bar: ReturnType<typeof progress> } | null = null
    await checkData(
      source,
      {
        deep,
        alike,
        seed,
        ...(threads && { threads }),
        signal,
        onProgress(what, done, total) {
          if (phase?.what !== what) {
            phase?.bar.end()
            phase = { what, bar: progress(what, total, { unit: 'pictures' }) }
          }
          phase.bar.update(done)
        },
      },
      async ({ check }) => {
        phase?.bar.end()
        result({ dataset: check })
      },
    )
  },
})
