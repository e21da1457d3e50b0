/** The verbs of `runs`, one export a command. */
import { deleteRun, getRun, listRuns, openHome } from '../server.ts'
import { defineCommand } from './command.ts'

const statusText = (run: { status: string; reason: string | null }) => (run.reason ? `${run.status} (${run.reason})` : run.status)

export const list = defineCommand({
  name: 'runs list',
  summary: 'list trainings, newest first',
  async run(_, { out, table, result }) {
    const home = await openHome()
    try {
      const runs = await listRuns(home)
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
    } finally {
      await home.close()
    }
  },
})

export const show = defineCommand({
  name: 'runs show',
  summary: 'show one training: settings, numbers, where it is',
  arguments: { run: { summary: 'the id of the run, or its first letters' } },
  async run({ run: id }, { out, result }) {
    const home = await openHome()
    try {
      const run = await getRun(home, id)
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
    } finally {
      await home.close()
    }
  },
})

export const remove = defineCommand({
  name: 'runs delete',
  summary: 'delete a training with its checkpoints and report; its model stays',
  arguments: { run: { summary: 'the id of the run, or its first letters' } },
  async run({ run }, { out, result }) {
    const home = await openHome()
    try {
      const { run: deleted } = await getRun(home, run)
      await deleteRun(home, deleted)
      out(`Deleted run ${deleted}.`)
      result({ run: deleted })
    } finally {
      await home.close()
    }
  },
})
