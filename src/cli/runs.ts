/** The verbs of `runs`, one export a command. */
import { serverUrl } from '../config.ts'
import { connect } from '../control-plane.ts'
import { Failure } from '../failure.ts'
import type { TrackedRun } from '../sdk/calls/runs.ts'
import type { Run } from '../sdk/index.ts'
import { defineCommand } from './command.ts'

/** Of the home of this machine its trainings; of a server what it tracks, in the same words. */
async function withRuns<T>(use: (runs: Runs) => Promise<T>): Promise<T> {
  if (serverUrl() === undefined) {
    const { deleteRun, getRun, listRuns, openHome } = await import('../server.ts')
    const home = await openHome()
    try {
      return await use({
        list: () => listRuns(home),
        get: id => getRun(home, id),
        remove: async id => {
          const { run } = await getRun(home, id)
          await deleteRun(home, run)
          return run
        },
      })
    } finally {
      await home.close()
    }
  }
  const { plinth, close } = await connect()
  const list = async () => {
    const { items } = await plinth.listExperiments({ limit: 1000 })
    const experiments = items.map(({ experiment }) => experiment)
    return experiments.length === 0
      ? []
      : (await plinth.searchRuns({ experiments, limit: 1000, orderBy: ['attributes.start_time DESC'] })).items
  }
  const find = async (id: string) => {
    if (/^[0-9a-f]{32}$/.test(id)) return await plinth.getRun({ run: id })
    const found = (await list()).filter(({ run }) => run.startsWith(id))
    if (found.length > 1) throw new Failure('run_ambiguous', { run: id, count: found.length })
    return found[0] ?? (await plinth.getRun({ run: id.padEnd(32, '0').slice(0, 32) }))
  }
  try {
    return await use({
      list: async () => (await list()).map(asTraining),
      get: async id => asTraining(await find(id)),
      remove: async id => {
        const { run } = await find(id)
        await plinth.deleteRun({ run })
        return run
      },
    })
  } finally {
    await close()
  }
}
type Listed = Omit<Run, 'recipe'>
interface Runs {
  list(): Promise<Listed[]>
  get(id: string): Promise<Listed>
  remove(id: string): Promise<string>
}

function asTraining({ run, name, status, reason, started, ended, params, metrics, tags }: TrackedRun): Listed {
  const [, model, version] = /^(.+)@(\d+)$/.exec(tags['plinth.model'] ?? '') ?? []
  const [, dataset, number] = /^(.+)@(\d+)$/.exec(tags['plinth.dataset'] ?? '') ?? []
  return {
    ...{ run, name, status, reason, params },
    started: new Date(started).toISOString(),
    ended: ended === null ? null : new Date(ended).toISOString(),
    checkpointStep: 0,
    metrics: Object.fromEntries(metrics.map(({ key, value }) => [key, value])),
    environment: tags['mlflow.source.git.commit'] ? { commit: tags['mlflow.source.git.commit'] } : {},
    dataset: dataset ? { name: dataset, version: Number(number), digest: tags['plinth.dataset.digest'] ?? '' } : null,
    device: null,
    model: model ? { name: model, version: Number(version) } : null,
  }
}

const statusText = (run: { status: string; reason: string | null }) => (run.reason ? `${run.status} (${run.reason})` : run.status)

export const list = defineCommand({
  name: 'runs list',
  where: 'server',
  summary: 'list trainings, newest first',
  async run(_, { out, table, result }) {
    await withRuns(async ({ list }) => {
      const runs = await list()
      if (runs.length === 0) out('No runs yet. Start one with plinth train ./photos')
      else
        table(
          ['run', 'name', 'status', 'started', { title: 'checkpoint', align: 'right' }],
          runs.map(run => [
            run.run.slice(0, 8),
            run.name,
            statusText(run),
            run.started.slice(0, 16).replace('T', ' '),
            run.checkpointStep ? `step ${run.checkpointStep}` : '',
          ]),
        )
      result({ runs })
    })
  },
})

export const show = defineCommand({
  name: 'runs show',
  where: 'server',
  summary: 'show one training: settings, numbers, where it is',
  arguments: { run: { summary: 'the id of the run, or its first letters' } },
  async run({ run: id }, { out, result }) {
    await withRuns(async ({ get }) => {
      const run = await get(id)
      out(`${run.run}  ${run.name}  ${statusText(run)}`)
      out(`  started   ${run.started}${run.ended ? `, ended ${run.ended}` : ''}`)
      if (run.dataset) out(`  dataset   ${run.dataset.name}@${run.dataset.version}`)
      if (run.model) out(`  model     ${run.model.name}@${run.model.version}`)
      if (run.device) out(`  device    ${run.device.name}, ${run.device.threads} threads`)
      for (const [name, value] of Object.entries(run.params)) out(`  ${name.padEnd(24)} ${JSON.stringify(value)}`)
      for (const [name, value] of Object.entries(run.metrics))
        out(`  ${name.padEnd(24)} ${typeof value === 'number' ? Number(value.toPrecision(5)) : value}`)
      if (run.status !== 'succeeded' && run.checkpointStep > 0) out(`Go on with: plinth train --resume ${run.run}`)
      result({ run })
    })
  },
})

export const remove = defineCommand({
  name: 'runs delete',
  where: 'server',
  summary: 'delete a training with its checkpoints and report; its model stays',
  arguments: { run: { summary: 'the id of the run, or its first letters' } },
  async run({ run }, { out, result }) {
    await withRuns(async ({ remove }) => {
      const deleted = await remove(run)
      out(`Deleted run ${deleted}.`)
      result({ run: deleted })
    })
  },
})
