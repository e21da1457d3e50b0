import { evaluate, openHome, renderText } from '../server.ts'
import { common, defineCommand } from './command.ts'

export default defineCommand({
  name: 'evaluate',
  summary: 'test a model on labelled pictures',
  details: `SOURCE has one subfolder per class, named like the model's labels. The score is honest only if the model has not been trained on
these pictures, and only once: a set that is looked at again and again to choose between models becomes a second training set.`,
  arguments: { model: { summary: 'a model: name, name@version or file' }, source: { summary: 'a folder, a zip or the name of a dataset' } },
  options: { threads: common.threads },
  examples: ['plinth evaluate clothes ./new-photos', 'plinth evaluate clothes@2 ./new-photos --json'],
  async run({ model, source, threads }, { out, progress, result, signal }) {
    const home = await openHome()
    try {
      let bar: ReturnType<typeof progress> | undefined
      const report = await evaluate(home, model, source, {
        ...(threads && { threads }),
        signal,
        onProgress: (done, total) => {
          bar ??= progress('evaluating', total, { unit: 'pictures' })
          bar.update(done)
        },
      })
      bar?.end()
      out(renderText(report.evaluation))
      result({
        model: { name: report.model.name, version: report.model.version },
        images: report.manifest.rows.length,
        unreadable: report.manifest.unreadable,
        test: report.evaluation,
      })
    } finally {
      await home.close()
    }
  },
})
