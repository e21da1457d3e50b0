/**
 * `plinth sweep`: trials of one job with other parameters. All that there is to know about a sweep is in its jobs and their runs, so it is
 * taken up again by its name, after Ctrl-C as after a crash.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { basename, dirname, resolve } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import { connectJobs, type JobsConnection, jobs as jobParts } from '../control-plane.ts'
import { Failure } from '../failure.ts'
import { formatSeconds, hasEnded } from '../sdk/index.ts'
import { defineCommand } from './command.ts'
import { jobsOfGroup } from './job-follow.ts'
import type { Context } from './output.ts'
import { startServerBeside } from './server-beside.ts'

type Parts = Awaited<ReturnType<typeof jobParts>>
type Definition = ReturnType<Parts['SweepDefinition']['parse']>
type Trial = Parameters<Parts['ranked']>[1][number]

/** Milliseconds between two looks at how the trials stand. */
const look = 1000
const stoppedTag = 'plinth.sweep.stopped_at'

export default defineCommand({
  name: 'sweep',
  where: 'server',
  summary: 'search for good parameters by running a job many times',
  details: `Each trial finds its parameters in its environment, by the names that --search gives them, and as params of its run. A metric that
the script logs (with MLflow, --autolog or plinth/track) decides which is better.

--early-stop asha gives a trial up when its metric, at steps 1, 3, 9 …, is not among the best third of what was seen there.

Ctrl-C stops what runs; the same name with --resume goes on.`,
  arguments: {
    target: { summary: 'a job file, or a script', optional: true },
    words: { summary: 'words for the script, behind --', optional: true, many: true },
  },
  options: {
    search: {
      type: 'string',
      many: true,
      value: 'NAME=SPACE',
      summary: 'lr=log:1e-4..1e-1, dropout=0..0.5, layers=int:1..4, optimiser=sgd,adam',
    },
    trials: { type: 'integer', minimum: 1, maximum: 10_000, summary: 'how many (20; a grid has its own number)' },
    method: { type: 'string', choices: ['random', 'grid'], default: 'random', summary: 'how parameters are chosen' },
    metric: { type: 'string', value: 'NAME', summary: 'by which trials are compared' },
    goal: { type: 'string', choices: ['maximise', 'minimise'], summary: 'which is better (by its name: loss and error are minimised)' },
    'early-stop': { type: 'string', choices: ['asha'], summary: 'give up trials that fall behind' },
    'min-steps': { type: 'number', minimum: 0.001, default: 1, summary: 'the first step at which a trial can be given up' },
    eta: { type: 'number', minimum: 2, default: 3, summary: 'one of so many goes on at each rung' },
    parallel: { type: 'integer', minimum: 1, maximum: 10_000, summary: 'how many at once (as many as there is room for)' },
    budget: { type: 'duration', summary: 'what all trials together may compute' },
    name: { type: 'string', summary: 'the name of the sweep' },
    resume: { type: 'boolean', summary: 'go on with the sweep of this name' },
    seed: { type: 'integer', minimum: 0, maximum: 2 ** 31, default: 0, summary: 'the same seed tries the same' },
    env: { type: 'string', value: 'FILE', summary: 'requirements.txt or the like that the script runs in' },
    autolog: { type: 'boolean', summary: 'log what known frameworks report' },
    cpus: { type: 'number', minimum: 0.1, summary: 'cores of each trial' },
    report: { type: 'string', value: 'FILE', summary: 'write a page with the table and parallel coordinates' },
  },
  examples: [
    "plinth sweep job.yaml --search 'lr=log:1e-4..1e-1' --trials 20 --early-stop asha --metric val_accuracy",
    'plinth sweep train.py --search batch=16,32,64 --method grid --metric loss --report sweep.html',
    'plinth sweep --resume --name job-k3f9',
  ],
  async run(given, context) {
    const { out, say, table, result, signal } = context
    const parts = await jobParts()
    await startServerBeside(say)
    const connection = await connectJobs()
    try {
      const { name, spec, definition } = given.resume ? await found(connection, parts, given.name) : begun(parts, given)
      const parametersOf = (index: number) => parts.parametersOf(definition, index)
      say(`sweep ${name}: ${definition.trials} trials of ${definition.parameters.map(each => each.name).join(', ')}`)
      const trials = await runSweep(connection, parts, { name, spec, definition }, context)
      const order = parts.ranked(definition, trials)
      const metric = definition.metric ?? 'metric'
      table(
        ['trial', 'job', ...definition.parameters.map(each => each.name), metric, 'state', 'computed'],
        order.map(trial => {
          const value = parts.bestOf(trial, definition.goal)
          const parameters = parametersOf(trial.index)
          return [
            String(trial.index),
            String(trial.job),
            ...definition.parameters.map(each => parameters[each.name]!),
            value === null ? '' : String(Number(value.toPrecision(5))),
            parts.stateOf(trial),
            formatSeconds(trial.seconds),
          ]
        }),
      )
      if (given.report !== undefined) {
        writeFileSync(given.report, parts.sweepPage(name, definition, trials, parametersOf))
        out(`Wrote ${given.report}`)
      }
      const [best] = order
      result({
        sweep: name,
        best: best && parts.bestOf(best, definition.goal) !== null ? shown(best) : null,
        trials: order.map(shown),
      })
      if (signal.aborted) throw new Failure('interrupted', { next: `Go on with plinth sweep --resume --name ${name}` })
      return order.some(({ state }) => state === 'succeeded') || order.some(({ stopped }) => stopped !== null) ? 0 : 1
      function shown(trial: Trial) {
        const { index, job, state, reason, run, seconds, stopped } = trial
        return {
          index,
          job,
          state,
          reason,
          run,
          seconds,
          stopped,
          value: parts.bestOf(trial, definition.goal),
          parameters: parametersOf(index),
        }
      }
    } finally {
      await connection.close()
    }
  },
})

interface Sweep {
  name: string
  spec: Record<string, unknown>
  definition: Definition
}

interface Given {
  target: string | undefined
  words: string[] | undefined
  search: string[]
  trials: number | undefined
  method: 'random' | 'grid'
  metric: string | undefined
  goal: 'maximise' | 'minimise' | undefined
  earlyStop: 'asha' | undefined
  minSteps: number
  eta: number
  parallel: number | undefined
  budget: number | undefined
  name: string | undefined
  seed: number
  env: string | undefined
  autolog: boolean
  cpus: number | undefined
}

function begun(parts: Parts, given: Given): Sweep {
  const usage = (problem: string) => new Failure('usage', { problem, command: 'sweep' })
  const { target } = given
  if (target === undefined) throw usage('sweep needs a job file or a script.')
  if (given.search.length === 0) throw usage('sweep needs at least one --search.')
  if (given.earlyStop && given.metric === undefined) throw usage('--early-stop needs --metric.')
  const parameters = given.search.map(parts.readParameter)
  const twice = parameters.find((each, i) => parameters.findIndex(({ name }) => name === each.name) < i)
  if (twice) throw usage(`--search says ${twice.name} twice.`)
  const trials = given.method === 'grid' ? parts.gridSize(parameters) : (given.trials ?? 20)
  const file = /\.ya?ml$/i.test(target)
    ? parts.readJobFile(readFileSync(target, 'utf8'), {
        file: target,
        folder: dirname(resolve(target)),
        envs: parts.parametersOf({ ...plain, parameters, method: given.method, seed: given.seed, trials }, 0),
      })
    : null
  if (file && file.array.length > 0) throw usage('A job file with an array is its own search; take ext.array out.')
  if (file && (file.missingSecrets.length > 0 || Object.keys(file.secrets).length > 0))
    throw usage('A sweep takes no secrets yet; give them to the script another way.')
  const spec = file?.spec ?? parts.specOfCommand([target, ...(given.words ?? [])], { workdir: process.cwd(), env: given.env })
  if (given.autolog) spec.autolog = true
  if (given.cpus !== undefined) spec.resources.cpus = { amount: given.cpus, exact: true }
  const name = given.name ?? `${basename(spec.name).replace(/\.\w+$/, '')}-${Date.now().toString(36)}`
  return {
    name,
    spec,
    definition: parts.SweepDefinition.parse({
      ...plain,
      ...{ parameters, trials, method: given.method, seed: given.seed, metric: given.metric ?? null },
      goal: given.goal ?? (/loss|error|mse|mae|rmse|perplexity/i.test(given.metric ?? '') ? 'minimise' : 'maximise'),
      earlyStop: given.earlyStop ? { rule: given.earlyStop, minSteps: given.minSteps, eta: given.eta } : null,
      parallel: given.parallel ?? null,
      budget: given.budget ?? null,
    }),
  }
}

const plain = {
  method: 'random',
  seed: 0,
  trials: 1,
  metric: null,
  goal: 'maximise',
  earlyStop: null,
  parallel: null,
  budget: null,
} as const

/** throws sweep_not_found */
async function found(connection: JobsConnection, parts: Parts, name: string | undefined): Promise<Sweep> {
  if (name === undefined) throw new Failure('usage', { problem: '--resume needs --name.', command: 'sweep' })
  const [first] = await jobsOfGroup(connection, name)
  const trial = first && parts.JobSpec.parse(first.spec).trial
  if (!trial) throw new Failure('sweep_not_found', { name })
  const { trial: _, envs, name: jobName, ...spec } = parts.JobSpec.parse(first.spec)
  const own = Object.keys(trial.parameters)
  return {
    name,
    spec: {
      ...spec,
      name: jobName.replace(/-\d+$/, ''),
      trial: null,
      envs: Object.fromEntries(Object.entries(envs).filter(([key]) => !own.includes(key))),
    },
    definition: trial.sweep,
  }
}

/** Until every trial has ended, the budget is spent, or Ctrl-C. */
async function runSweep(
  connection: JobsConnection,
  parts: Parts,
  { name, spec, definition }: Sweep,
  { progress, say, signal }: Context,
): Promise<Trial[]> {
  const told = new Set<string>()
  const points = new Map<string, Trial['points']>()
  const line = progress('trials', definition.trials)
  for (;;) {
    const trials = await trialsOf(connection, parts, { name, definition }, { told, points })
    const ended = trials.filter(({ state }) => hasEnded(state)).length
    const [best] = parts.ranked(definition, trials)
    const value = best && parts.bestOf(best, definition.goal)
    line.update(ended, typeof value === 'number' ? `best ${definition.metric} ${Number(value.toPrecision(4))} (job ${best!.job})` : '')
    const { submit, stop, done, spent } = parts.nextSteps(definition, trials)
    if (done || signal.aborted) {
      if (signal.aborted) for (const { job, state } of trials) if (!hasEnded(state)) await connection.plinth.stopJob({ job })
      line.end(spent ? `The budget of ${formatSeconds(definition.budget!)} is spent.` : undefined)
      return trials
    }
    for (const { job, index, rung } of stop) {
      const run = trials.find(trial => trial.index === index)?.run
      if (rung !== null && run) await connection.plinth.logToRun({ run, tags: { [stoppedTag]: String(rung) } })
      await connection.plinth.stopJob({ job })
      if (rung !== null) say(`job ${job} is given up at step ${rung}`)
    }
    for (const index of submit) {
      const parameters = parts.parametersOf(definition, index)
      await connection.plinth.submitJob({
        spec: {
          ...spec,
          name: `${String(spec['name'])}-${index}`,
          envs: { ...(spec['envs'] as Record<string, string>), ...parameters },
          trial: { index, parameters, sweep: definition },
        },
        key: `sweep/${name}/${index}`,
        group: name,
        index,
      })
    }
    await wait(look, null, { signal }).catch(() => {}) // Ctrl-C ends the waiting
  }
}

/** `told`: runs that have their params; `points`: of runs that have ended, which will not change. */
async function trialsOf(
  connection: JobsConnection,
  parts: Parts,
  { name, definition }: Pick<Sweep, 'name' | 'definition'>,
  { told, points }: { told: Set<string>; points: Map<string, Trial['points']> },
): Promise<Trial[]> {
  const { plinth } = connection
  return Promise.all(
    (await jobsOfGroup(connection, name)).map(async job => {
      const index = job.index ?? 0
      let stopped: number | null = null
      let own = job.run === null ? [] : points.get(job.run)
      if (job.run !== null) {
        if (!told.has(job.run)) {
          await plinth.logToRun({ run: job.run, params: parts.parametersOf(definition, index), tags: { 'plinth.sweep': name } })
          told.add(job.run)
        }
        const { tags, metrics } = await plinth.getRun({ run: job.run })
        stopped = tags[stoppedTag] === undefined ? null : Number(tags[stoppedTag])
        if (own === undefined) {
          const metric = definition.metric
          own = metric !== null && metrics.some(({ key }) => key === metric) ? await historyOf(connection, job.run, metric) : []
          if (hasEnded(job.state)) points.set(job.run, own)
        }
      }
      const seconds = job.started === null ? 0 : ((job.ended ?? Date.now()) - job.started) / 1000
      return { index, job: job.job, state: job.state, reason: job.reason, run: job.run, seconds, points: own ?? [], stopped }
    }),
  )
}

async function historyOf({ plinth }: JobsConnection, run: string, key: string): Promise<Trial['points']> {
  const { points } = await plinth.getMetricHistory({ run, key })
  return points.map(({ step, value }) => ({ step, value: Number(value) }))
}
