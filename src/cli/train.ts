import { Failure } from '../failure.ts'
import { nameFrom, openDataset, openHome, prepareTraining, resumableRun } from '../server.ts'
import { common, defineCommand } from './command.ts'
import { serveUntilStopped } from './serve.ts'
import { printable } from './text.ts'
import { followTraining, tellResult } from './training.ts'

export default defineCommand({
  name: 'train',
  summary: 'train a classifier on labelled pictures, and test it honestly',
  details: `SOURCE is a folder with one subfolder of pictures per class, a list (CSV, JSON lines) with path and label, a zip of either, or the
name of an imported dataset.
The folder is copied into Plinth's home first, so later changes to it change nothing. Ctrl-C stops at the next step; --resume goes on.`,
  arguments: { source: { summary: 'a folder, a list, a zip or the name of a dataset', optional: true } },
  options: {
    name: { ...common.name, summary: 'the name of the model (otherwise the name of the folder)' },
    budget: { type: 'duration', summary: 'how long the whole may take, for example 2m' },
    epochs: { type: 'integer', minimum: 0, maximum: 1000, summary: 'how often to go through the pictures; 0 trains the head only' },
    'image-size': { type: 'integer', minimum: 32, maximum: 512, summary: 'the side, in pixels, at which the network sees pictures' },
    'group-by': {
      type: 'string',
      value: 'PATTERN',
      summary: 'pictures whose paths have the same text where this regular expression finds it stay on one side of the split',
    },
    'class-weights': {
      type: 'string',
      choices: ['auto', 'none', 'balanced'],
      summary: 'whether rare classes weigh as much as common ones (auto: where it pays)',
    },
    seed: common.seed,
    threads: common.threads,
    backbone: { type: 'string', summary: 'the pretrained network to start from (otherwise efficientnet-lite0)' },
    from: { type: 'string', value: 'MODEL', summary: 'go on from an earlier model instead of the published weights' },
    weights: { type: 'string', value: 'FILE', summary: 'pretrained weights of the backbone from a file, .safetensors or .pth' },
    resume: { type: 'string', value: 'RUN', summary: 'go on with a stopped or killed training' },
    deploy: { type: 'boolean', summary: 'serve the model when it is done' },
    port: common.port,
  },
  examples: [
    'plinth train ./photos --deploy',
    'plinth train photos.zip --name birds --budget 5m',
    "plinth train birds --group-by '^(.*)__'",
    'plinth train --resume 3f2a…',
  ],
  async run(values, context) {
    const { say, result: print, signal } = context
    const home = await openHome()
    try {
      let run = values.resume && (await resumableRun(home, values.resume))
      if (!run) {
        if (!values.source) throw new Failure('usage', { problem: 'train needs a folder, a zip or a dataset.', command: 'train' })
        const began = performance.now()
        let understood: string | undefined
        const bar = context.progress('reading', null, { unit: 'pictures' })
        const dataset = await openDataset(home, values.source, {
          ...(values.name && { name: values.name }),
          onUnderstood: text => {
            understood = text
          },
          onProgress: ({ done, total }) => bar.update(done, `of ${total}`),
          signal,
        })
        bar.end()
        const {
          name = nameFrom(values.source.replace(/@\d+$/, '')),
          backbone,
          from,
          weights,
          epochs,
          imageSize,
          groupBy,
          classWeights,
          budget,
          seed,
          threads,
        } = values
        const prepared = await prepareTraining(
          home,
          dataset,
          { name, seed, ...defined({ backbone, from, weights, epochs, imageSize, groupBy, classWeights, budgetSeconds: budget, threads }) },
          (performance.now() - began) / 1000,
        )
        run = prepared.run.run.run
        if (understood) say(`Source       ${printable(values.source)}: ${understood}`)
        say(prepared.plan.lines.join('\n'))
        say(`Run          ${run}  (everything is kept in ${prepared.run.directory})`)
      }
      const result = await followTraining(run, context)
      tellResult(result, context)
      print(result)
      if (!values.deploy) {
        say(`\nServe it with: plinth serve ${result.model.name}`)
        return
      }
      await serveUntilStopped(home, `${result.model.name}@${result.model.version}`, { port: values.port ?? 8080 }, context)
    } finally {
      await home.close()
    }
  },
})

/** Without the keys that hold nothing. */
export function defined<T extends object>(values: T): { [K in keyof T]?: NonNullable<T[K]> } {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as { [K in keyof T]?: NonNullable<T[K]> }
}
