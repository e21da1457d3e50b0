/**
 * `plinth run`: a script, a command, a notebook or a job file becomes a job; its log is streamed, and the command ends with its exit code.
 * Without a server on the home the command is the server itself until the job has ended.
 */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { basename, dirname, resolve } from 'node:path'
import { serverUrl } from '../config.ts'
import { connectJobs, type JobsConnection, jobs } from '../control-plane.ts'
import { Failure } from '../failure.ts'
import type { Job } from '../sdk/calls/jobs.ts'
import { formatSeconds, hasEnded } from '../sdk/index.ts'
import { common, defineCommand } from './command.ts'
import { exitCodeOf, followJob, jobsOfGroup } from './job-follow.ts'
import type { Context } from './output.ts'
import { startServerBeside } from './server-beside.ts'

export default defineCommand({
  name: 'run',
  where: 'server',
  failure: 125,
  summary: 'run a script, a command, a notebook or a job file as a tracked job',
  details: `The log is shown as it is written, and the command ends with the job's own exit code; 125 says that it could not be started, 126 that
its environment could not be made, 127 that there is no such command. Words for the script stand behind --.

Ctrl-C stops the job: it gets SIGTERM and the grace period to write a checkpoint. With --detach it goes on when this command has ended.

A job file is YAML in SkyPilot's words; docs/jobs.md lists every key.`,
  arguments: {
    target: { summary: 'a script (.py, .ipynb, .js, .sh), a job file (.yaml), or a command' },
    words: { summary: 'words for the script or the command, behind --', optional: true, many: true },
  },
  options: {
    name: { ...common.name, value: 'NAME' },
    cpus: { type: 'number', minimum: 0.1, summary: 'cores it may use' },
    memory: { type: 'string', value: 'GB', summary: 'memory it may use, in gigabytes or as 512MB' },
    gpus: { type: 'string', value: 'N|NAME:N', summary: 'accelerators it needs: 1, H100:8' },
    nodes: { type: 'integer', minimum: 1, maximum: 10_000, summary: 'how many nodes start together' },
    env: { type: 'string', value: 'FILE', summary: 'requirements.txt, pyproject.toml, uv.lock or environment.yml to run in' },
    python: { type: 'string', value: 'VERSION', summary: 'version of Python that is wanted, such as 3.11' },
    envs: { type: 'string', many: true, value: 'NAME=VALUE', summary: 'a variable of its environment; may be given several times' },
    secret: { type: 'string', many: true, value: 'NAME', summary: 'a variable taken from your environment, stored and shown nowhere' },
    autolog: { type: 'boolean', summary: 'log what known frameworks report, without touching the script' },
    experiment: { type: 'string', value: 'NAME', summary: 'the experiment that its run belongs to' },
    track: { type: 'boolean', default: true, summary: 'make no run of it' },
    timeout: { type: 'duration', summary: 'stop it after this time' },
    grace: { type: 'duration', summary: 'from SIGTERM to SIGKILL when it is stopped (60s)' },
    retries: { type: 'integer', minimum: 0, maximum: 1000, summary: 'how often it is tried again when it fails' },
    priority: { type: 'integer', minimum: -1000, maximum: 1000, summary: 'jobs of higher priority start first' },
    'require-device': { type: 'boolean', summary: 'stop it when it computes without the accelerator it asked for' },
    detach: { type: 'boolean', summary: 'do not wait; plinth jobs logs -f shows the log' },
    'dry-run': { type: 'boolean', summary: 'only show what would run, and what became of each field of a job file' },
  },
  examples: [
    'plinth run train.py --cpus 2 --memory 4 --env requirements.txt --autolog',
    'plinth run train.py -- --epochs 3',
    'plinth run job.yaml --envs EPOCHS=3',
    'plinth run notebook.ipynb --detach',
  ],
  async run(given, context) {
    const { out, say, table, result } = context
    // `--env` names a file and takes one value: a variable is a mistake of habit
    if (given.env !== undefined && /^\w+=/.test(given.env) && !existsSync(given.env))
      throw new Failure('usage', {
        problem: `--env is the file of the environment; a variable is given with --envs ${given.env}.`,
        command: 'run',
      })
    const envs = Object.fromEntries(given.envs.map(each => assignment(each)))
    const words = [given.target, ...(given.words ?? [])]
    const { readJobFile, specOfCommand, environmentOf, pythonOf, amounts, JobSpec } = await jobs()
    const isJobFile = /\.ya?ml$/i.test(given.target) && existsSync(given.target) && statSync(given.target).isFile()
    if (isJobFile && words.length > 1) throw new Failure('usage', { problem: 'A job file takes no words; use --envs.', command: 'run' })
    const file = isJobFile
      ? readJobFile(readFileSync(given.target, 'utf8'), { file: given.target, folder: dirname(resolve(given.target)), envs })
      : {
          spec: specOfCommand(words, { workdir: process.cwd(), env: given.env }),
          verdicts: [],
          array: [],
          parallel: null,
          secrets: {},
          missingSecrets: [],
        }
    const { spec } = file
    spec.envs = { ...spec.envs, ...envs }
    if (given.name !== undefined) spec.name = given.name
    if (given.cpus !== undefined) spec.resources.cpus = { amount: given.cpus, exact: true }
    if (given.memory !== undefined) spec.resources.memory = amounts.bytes('--memory', given.memory)
    if (given.gpus !== undefined)
      spec.resources.devices = amounts.devices('--gpus', /^\d+(\.\d+)?$/.test(given.gpus) ? `gpu:${given.gpus}` : given.gpus)
    if (given.nodes !== undefined) spec.nodes = given.nodes
    if (isJobFile && given.env !== undefined) spec.runtime = { ...pythonOf(spec.runtime), ...environmentOf(resolve(given.env)) }
    if (given.python !== undefined) spec.runtime = { ...pythonOf(spec.runtime), python: given.python }
    if (given.autolog) spec.autolog = true
    if (given.experiment !== undefined) spec.experiment = given.experiment
    if (!given.track) spec.track = false
    if (given.timeout !== undefined) spec.timeouts.run = given.timeout
    if (given.grace !== undefined) spec.timeouts.stop = given.grace
    if (given.retries !== undefined)
      spec.retry = { ...spec.retry, on: [...new Set([...spec.retry.on, 'user_error' as const])], max: given.retries }
    if (given.priority !== undefined) spec.priority = given.priority
    if (given.requireDevice) spec.requireDevice = true
    const names = [...new Set([...given.secret, ...file.missingSecrets])]
    const secrets = { ...file.secrets, ...Object.fromEntries(names.map(name => [name, process.env[name] ?? missing(name)])) }
    spec.secrets = [...new Set([...spec.secrets, ...names])]
    JobSpec.parse(spec)

    const told = file.verdicts.filter(({ verdict }) => verdict !== 'honoured')
    if (given.dryRun) {
      if (file.verdicts.length > 0)
        table(
          ['field', 'verdict', 'note'],
          file.verdicts.map(({ field, verdict, note }) => [field, verdict, note ?? '']),
        )
      else out(`${spec.name}: ${'argv' in spec.run ? spec.run.argv.join(' ') : spec.run.shell}`)
      return result({ spec, verdicts: file.verdicts, jobs: Math.max(1, file.array.length) })
    }
    for (const { field, verdict, note } of told) say(`${field} is ${verdict}${note ? `: ${note}` : ''}`)

    if (given.detach) await startServerBeside(say)
    const connection = await connectJobs()
    try {
      if (file.array.length > 0) return await runArray(connection, file, spec, secrets, given.detach, context)
      const submitted = await connection.plinth.submitJob({ spec, secrets })
      if (given.detach) {
        out(`Job ${submitted.job} is queued. Its log: plinth jobs logs ${submitted.job} -f`)
        return result(summary(submitted))
      }
      say(`job ${submitted.job}${serverUrl() === undefined ? '' : ` on ${connection.url}`}`)
      const ended = await followJob(connection, submitted.job, context, { stopOnInterrupt: true })
      tellEnd(ended, context)
      result(summary(ended))
      return exitCodeOf(ended)
    } finally {
      await connection.close()
    }
    function missing(name: string): never {
      throw new Failure('job_secret_missing', { name })
    }
  },
})

/** What `--json` answers of a job. */
export const summary = (job: Job) => ({
  job: job.job,
  state: job.state,
  exitCode: job.exitCode,
  reason: job.reason,
  device: job.device,
  run: job.run,
  seconds: job.started === null ? 0 : Math.round((job.ended ?? Date.now()) - job.started) / 1000,
  environment: job.environment,
})

function assignment(text: string): [string, string] {
  const [, name, value] = /^([A-Za-z_]\w*)=(.*)$/s.exec(text) ?? []
  if (name === undefined) throw new Failure('usage', { problem: `--envs must be NAME=VALUE, not "${text}".`, command: 'run' })
  return [name, value!]
}

function tellEnd(job: Job, { say, style }: Context): void {
  const how = job.state === 'succeeded' ? style('green', 'succeeded') : style('red', job.state)
  const why = job.reason === null ? '' : ` (${job.reason.replaceAll('_', ' ')}${job.message ? `: ${job.message}` : ''})`
  const where = job.device ? ` on ${job.device.name}` : ''
  say(`job ${job.job} ${how}${why}${where} after ${formatSeconds(summary(job).seconds)}${job.run ? `, run ${job.run.slice(0, 8)}` : ''}`)
  for (const warning of job.warnings) say(style('yellow', warning))
}

async function runArray(
  connection: JobsConnection,
  file: { array: readonly Record<string, string>[]; parallel: number | null },
  spec: { name: string; envs: Record<string, string> },
  secrets: Record<string, string>,
  detach: boolean,
  context: Context,
): Promise<number> {
  const { out, table, result, progress } = context
  const group = `${basename(spec.name)}-${Date.now().toString(36)}`
  const submitted: Job[] = []
  for (const [index, envs] of file.array.entries())
    submitted.push(
      await connection.plinth.submitJob({
        spec: {
          ...spec,
          name: `${spec.name}-${index}`,
          envs: { ...spec.envs, ...envs },
          ...(file.parallel && { parallel: file.parallel }),
        },
        secrets,
        group,
        index,
      }),
    )
  if (detach) {
    out(`${submitted.length} jobs are queued. They are listed by: plinth jobs list --group ${group}`)
    result({ group, jobs: submitted.map(summary) })
    return 0
  }
  const line = progress('array', submitted.length, { unit: 'jobs' })
  let ended: Job[] = []
  while (ended.length < submitted.length) {
    context.signal.throwIfAborted()
    await new Promise(done => setTimeout(done, 500))
    ended = (await jobsOfGroup(connection, group)).filter(({ state }) => hasEnded(state))
    line.update(ended.length)
  }
  line.end()
  table(
    ['job', 'state', 'variables'],
    ended.map(job => [
      String(job.job),
      job.state,
      Object.entries(file.array[job.index ?? 0] ?? {})
        .map(([k, v]) => `${k}=${v}`)
        .join(' '),
    ]),
  )
  result({ group, jobs: ended.map(summary) })
  return Math.max(...ended.map(exitCodeOf))
}
