/** The verbs of `jobs`, one export a command: on this home or on a server, with one running or without. */
import { connect, connectJobs } from '../control-plane.ts'
import type { Job } from '../sdk/calls/jobs.ts'
import { formatSeconds } from '../sdk/index.ts'
import { defineCommand } from './command.ts'
import { exitCodeOf, followJob } from './job-follow.ts'
import { summary } from './run.ts'

const job = { summary: 'the number of the job' } as const
const numberOf = (text: string): number => (/^\d{1,15}$/.test(text) ? Number(text) : 0)
const stateText = ({ state, reason }: Job) => (reason ? `${state} (${reason.replaceAll('_', ' ')})` : state)
const clock = (time: number | null) => (time === null ? '' : new Date(time).toISOString().slice(0, 16).replace('T', ' '))
const took = ({ started, ended }: Job) => (started === null ? '' : formatSeconds(((ended ?? Date.now()) - started) / 1000))

export const list = defineCommand({
  name: 'jobs list',
  where: 'server',
  summary: 'list jobs, newest first',
  options: {
    all: { type: 'boolean', summary: 'those that have ended too' },
    group: { type: 'string', value: 'NAME', summary: 'only of this array or sweep' },
    last: { type: 'integer', minimum: 1, maximum: 1000, default: 50, summary: 'how many to show' },
  },
  examples: ['plinth jobs list', 'plinth jobs list --all --last 10'],
  async run({ all, group, last }, { out, table, result }) {
    const connection = await connect()
    try {
      const { items } = await connection.plinth.listJobs({
        limit: last,
        ...(!all && group === undefined && { state: 'active' as const }),
        ...(group !== undefined && { group }),
      })
      if (items.length === 0)
        out(all ? 'No jobs yet. Start one with plinth run train.py' : 'No job is queued or running; --all shows those that have ended.')
      else
        table(
          ['job', 'name', 'state', 'device', 'submitted', 'took', 'run'],
          items.map(each => [
            String(each.job),
            each.name,
            stateText(each),
            each.device?.name ?? '',
            clock(each.submitted),
            took(each),
            each.run?.slice(0, 8) ?? '',
          ]),
        )
      for (const each of items) if (each.state === 'queued' && each.message) out(`${each.job} ${each.message}`)
      result({ jobs: items })
    } finally {
      await connection.close()
    }
  },
})

export const show = defineCommand({
  name: 'jobs show',
  where: 'server',
  summary: 'show one job: how it stands, its attempts, what it runs on',
  arguments: { job },
  examples: ['plinth jobs show 12'],
  async run(given, { out, table, result, style }) {
    const connection = await connect()
    try {
      const found = await connection.plinth.getJob({ job: numberOf(given.job) })
      out(`job ${found.job}  ${found.name}  ${stateText(found)}`)
      if (found.message) out(found.message)
      for (const warning of found.warnings) out(style('yellow', warning))
      out(`submitted  ${clock(found.submitted)} by ${found.user}, priority ${found.priority}`)
      if (found.device) out(`device     ${found.device.name}, ${found.device.threads} threads`)
      if (found.run) out(`run        ${found.run}`)
      if (found.attempts.length > 0)
        table(
          ['attempt', 'engine', 'state', 'exit', 'nodes', 'devices', 'started', 'ended'],
          found.attempts.map(each => [
            String(each.attempt),
            each.engine,
            each.reason ? `${each.status} (${each.reason.replaceAll('_', ' ')})` : each.status,
            each.exitCode === null ? (each.signal ?? '') : String(each.exitCode),
            each.nodes.join(' '),
            each.devices.join(' '),
            clock(each.started),
            clock(each.ended),
          ]),
        )
      result(found)
    } finally {
      await connection.close()
    }
  },
})

export const logs = defineCommand({
  name: 'jobs logs',
  where: 'server',
  summary: 'show what a job printed',
  arguments: { job },
  options: {
    follow: { type: 'boolean', short: 'f', summary: 'go on until the job has ended' },
    attempt: { type: 'integer', minimum: 1, summary: 'of an earlier attempt' },
    timestamps: { type: 'boolean', summary: 'with the time of each line' },
  },
  examples: ['plinth jobs logs 12', 'plinth jobs logs 12 -f'],
  async run(given, context) {
    const { out, result, style, signal } = context
    const connection = await connectJobs({ host: false })
    try {
      const number = numberOf(given.job)
      if (given.follow && given.attempt === undefined) {
        const ended = await followJob(connection, number, context, { stopOnInterrupt: false })
        return result(summary(ended))
      }
      const found = await connection.plinth.getJob({ job: number })
      const attempt = given.attempt ?? found.attempts.at(-1)?.attempt
      let lines = 0
      if (attempt !== undefined)
        for await (const line of connection.log({ job: number, attempt, offset: 0, follow: given.follow, signal })) {
          const text = given.timestamps ? `${new Date(line.time).toISOString()} ${line.text}` : line.text
          out(line.stream === 'p' ? style('dim', text) : text)
          lines++
        }
      result({ job: number, attempt: attempt ?? null, lines })
    } finally {
      await connection.close()
    }
  },
})

export const stop = defineCommand({
  name: 'jobs stop',
  where: 'server',
  summary: 'stop a job: SIGTERM, then SIGKILL after the grace period',
  arguments: { job: { ...job, many: true } },
  options: { grace: { type: 'duration', summary: 'how long it may take to end' } },
  examples: ['plinth jobs stop 12', 'plinth jobs stop 12 13 --grace 5m'],
  async run(given, { out, result }) {
    const connection = await connectJobs({ host: false })
    try {
      const stopped = []
      for (const each of given.job) {
        const now = await connection.plinth.stopJob({ job: numberOf(each), ...(given.grace !== undefined && { grace: given.grace }) })
        out(`job ${now.job} is ${stateText(now)}`)
        stopped.push(summary(now))
      }
      result({ jobs: stopped })
    } finally {
      await connection.close()
    }
  },
})

export const retry = defineCommand({
  name: 'jobs retry',
  where: 'server',
  summary: 'run a job that has ended once more, as a new attempt',
  arguments: { job },
  options: { detach: { type: 'boolean', summary: 'do not wait for it' } },
  examples: ['plinth jobs retry 12'],
  async run(given, context) {
    const connection = await connectJobs()
    try {
      const again = await connection.plinth.retryJob({ job: numberOf(given.job) })
      if (given.detach) {
        context.out(`Job ${again.job} is queued again.`)
        return context.result(summary(again))
      }
      const ended = await followJob(connection, again.job, context, { stopOnInterrupt: true })
      context.result(summary(ended))
      return exitCodeOf(ended)
    } finally {
      await connection.close()
    }
  },
})

export const remove = defineCommand({
  name: 'jobs delete',
  where: 'server',
  summary: 'delete a job that has ended, with its log',
  arguments: { job },
  examples: ['plinth jobs delete 12'],
  async run(given, { out, result }) {
    const connection = await connect()
    try {
      await connection.plinth.deleteJob({ job: numberOf(given.job) })
      out(`Deleted job ${given.job}.`)
      result({ deleted: numberOf(given.job) })
    } finally {
      await connection.close()
    }
  },
})
