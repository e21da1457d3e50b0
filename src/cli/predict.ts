import { openHome, predict } from '../server.ts'
import { common, defineCommand } from './command.ts'

export default defineCommand({
  name: 'predict',
  summary: 'label pictures with a model',
  details: `FILES are pictures or folders (every picture below them). With --out, rows are written as they come and rows that are there already
are not computed again: stop it and run it again at any time. A picture that cannot be read gets an error in its row and stops nothing.`,
  arguments: { model: { summary: 'a model: name, name@version or file' }, files: { summary: 'pictures and folders', many: true } },
  options: {
    out: { type: 'string', value: 'FILE', summary: 'a CSV file to write to, or to go on with' },
    threads: common.threads,
  },
  examples: ['plinth predict clothes photo.jpg', 'plinth predict clothes ./inbox --out predictions.csv'],
  async run({ model, files, out: file, threads }, { out, say, progress, result, signal }) {
    const home = await openHome()
    try {
      let bar: ReturnType<typeof progress> | undefined
      const { predictions, skipped } = await predict(home, model, files, {
        ...(threads && { threads }),
        ...(file && { out: file }),
        signal,
        onProgress: (done, total) => {
          bar ??= progress('predicting', total, { unit: 'pictures' })
          bar.update(done)
        },
      })
      bar?.end()
      if (file) {
        const unknown = predictions.filter(row => 'unknown' in row && row.unknown).length
        const unread = predictions.filter(row => 'error' in row).length
        const rows = `${predictions.length} ${predictions.length === 1 ? 'row' : 'rows'} written to ${file}${skipped ? `, ${skipped} were there already` : ''}`
        say(
          `${rows}${unknown ? `; ${unknown} called unknown: none of the model's classes` : ''}${unread ? `; ${unread} could not be read` : ''}.`,
        )
      } else
        for (const row of predictions)
          out(
            'error' in row
              ? `${row.path}: ${row.error.message}`
              : `${row.path}: ${row.unknown ? 'unknown, perhaps ' : ''}${row.label} (${(row.probability * 100).toFixed(1)} %)`,
          )
      result({ predictions, skipped })
    } finally {
      await home.close()
    }
  },
})
