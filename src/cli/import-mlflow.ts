import { importFromMlflow, openHome } from '../control-plane.ts'
import { Failure } from '../failure.ts'
import { defineCommand } from './command.ts'

export default defineCommand({
  name: 'import mlflow',
  summary: 'take over what an MLflow server, its database or its folder holds',
  details: `Runs keep their ids; experiments and models are found by their names. Nothing that is here is overwritten, so the same command
again adds what is new since, and goes on where it was stopped. At the end everything is counted, there and here.

The source is only read. Files that its server serves, or that lie beside its database, are copied; others (s3://…) stay where they
are and are named. A server that asks who you are is told MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and
MLFLOW_TRACKING_PASSWORD.`,
  options: {
    from: {
      type: 'string',
      value: 'SOURCE',
      summary: 'the address of a server (http://…), an SQLite file (sqlite:///mlflow.db or its path) or a folder mlruns',
    },
    artifacts: { type: 'string', value: 'FOLDER', summary: "where the source's files are on this machine (its --artifacts-destination)" },
    project: { type: 'string', default: 'default', summary: 'the project that gets it' },
  },
  examples: [
    'plinth import mlflow --from http://mlflow.example:5000',
    'plinth import mlflow --from sqlite:///mlflow.db --artifacts ./mlartifacts',
    'plinth import mlflow --from ./mlruns',
  ],
  async run({ from, artifacts, project }, { out, table, progress, result, signal }) {
    if (!from) throw new Failure('usage', { command: 'import mlflow', problem: 'Say where to take it from: --from SOURCE.' })
    const home = await openHome()
    try {
      let bar: ReturnType<typeof progress> | null = null
      const imported = await importFromMlflow(home, from, {
        artifacts: artifacts ?? null,
        project,
        signal,
        onProgress: (done, total, note) => {
          bar ??= progress('taking over', total, { unit: 'runs' })
          bar.update(done, note)
        },
      })
      ;(bar as ReturnType<typeof progress> | null)?.end()
      const counts = Object.entries(imported.counts)
      table(
        ['what', ...['there', 'here', 'new'].map(title => ({ title, align: 'right' as const }))],
        counts.map(([kind, { source, here, added }]) => [kind, source, here, added].map(String)),
      )
      for (const note of imported.notes) out(`Note: ${note}`)
      if (imported.moreNotes > 0) out(`and ${imported.moreNotes} more notes`)
      const left = Object.entries(imported.left).map(([what, count]) => `${count} ${what}`)
      if (left.length > 0) out(`Plinth has no place for: ${left.join(', ')}.`)
      result(imported)
      const missing = counts
        .filter(([, { source, here }]) => here < source)
        .map(([kind, { source, here }]) => `${source - here} of ${source} ${kind}`)
      if (missing.length > 0) throw new Failure('import_incomplete', { missing: missing.join(', ') })
      out('All of it is here.')
    } finally {
      await home.close()
    }
  },
})
