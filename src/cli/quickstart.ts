import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { openDataset, openHome, prepareTraining, selfTest, writeSample } from '../server.ts'
import { common, defineCommand } from './command.ts'
import { serveUntilStopped } from './serve.ts'
import { followTraining, tellResult } from './training.ts'

export default defineCommand({
  name: 'quickstart',
  summary: 'the whole way once: sample pictures, a trained model, an honest test, an endpoint',
  details: 'Uses 2,000 product photos that come with Plinth (Fashion-MNIST, MIT licence). Nothing is downloaded.',
  options: {
    serve: { type: 'boolean', default: true, summary: 'keep serving until Ctrl-C (--no-serve: one request to itself, then the end)' },
    port: { ...common.port, default: 8080 },
    seed: common.seed,
    threads: common.threads,
  },
  examples: ['npx plinth quickstart', 'npx plinth quickstart --no-serve --json'],
  async run({ serve, port, seed, threads }, context) {
    const { out, say, result: print, signal } = context
    say(`Quickstart: 2,000 product photos in 10 classes → fine-tune EfficientNet-Lite0 → test → serve on this machine.
About a minute on two cores; nothing leaves this machine, nothing is downloaded.\n`)
    const home = await openHome()
    try {
      const began = performance.now()
      const folder = await mkdtemp(join(tmpdir(), 'plinth-quickstart-'))
      const bar = context.progress('reading', 2000, { unit: 'pictures' })
      const dataset = await (async () => {
        try {
          await writeSample('fashion', folder)
          return await openDataset(home, folder, { name: 'fashion', onProgress: ({ done }) => bar.update(done), signal })
        } finally {
          await rm(folder, { recursive: true, force: true })
        }
      })()
      bar.end()
      const { run, plan } = await prepareTraining(
        home,
        dataset,
        { name: 'quickstart', seed, ...(threads && { threads }) },
        (performance.now() - began) / 1000,
      )
      say(plan.lines.join('\n'))
      const result = await followTraining(run.run.run, context)
      tellResult(result, context)
      const model = `${result.model.name}@${result.model.version}`
      if (serve) {
        print(result)
        await serveUntilStopped(home, model, { port, threads }, context)
        return
      }
      const answer = await selfTest(home, model)
      out(
        `\nSelf-test: the endpoint answered "${answer.label}" (${(answer.probability * 100).toFixed(0)} %) in ${answer.milliseconds.toFixed(1)} ms.`,
      )
      out(`Serve it with: plinth serve ${result.model.name}`)
      print(result)
    } finally {
      await home.close()
    }
  },
})
