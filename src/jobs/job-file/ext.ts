/** The key `ext` of a job file: everything that SkyPilot has no word for. Without it the file is SkyPilot's again. */
import { Failure } from '../../failure.ts'
import { type JobReason, type JobSpec, jobReasons, plainSpec } from '../spec.ts'
import { seconds } from './amounts.ts'
import type { Fields } from './fields.ts'
import type { FieldVerdict } from './read.ts'

export interface Ext {
  spec: Partial<JobSpec>
  notebook: string | null
  array: Record<string, string>[]
  parallel: number | null
  verdicts: FieldVerdict[]
}

const largestArray = 10_000

export function readExt(ext: Fields): Ext {
  const plain = plainSpec('', { shell: '' })
  const runtime = ext.section('runtime')
  const kind = runtime.text('kind') ?? 'none'
  const env = runtime.section('env')
  const environment = {
    requirements: env.text('requirements'),
    lock: env.text('lock'),
    project: env.text('project'),
    conda: env.text('conda'),
    python: env.text('python'),
  }
  env.unknown()
  const notebook = runtime.text('notebook')
  runtime.unknown()
  if (!['none', 'python', 'node'].includes(kind)) runtime.refuse('kind', `${kind} is none of none, python, node`)

  const timeouts = ext.section('timeouts')
  const time = (field: string) => timeouts.taken(field, value => (value === null ? null : seconds(`ext.timeouts.${field}`, value)))
  const limits = { pending: time('pending'), run: time('run'), stop: time('stop') ?? plain.timeouts.stop }
  timeouts.unknown()

  const retry = ext.section('retry')
  const on = retry.taken('on', value => (value === null ? null : ([value].flat() as unknown[]).map(each => reason('ext.retry.on', each))))
  const max = retry.number('max')
  const backoff = retry.section('backoff')
  const pause = (field: 'min' | 'max') =>
    backoff.taken(field, value => (value === null ? plain.retry.backoff[field] : seconds(`ext.retry.backoff.${field}`, value)))
  const between = { min: pause('min'), max: pause('max') }
  backoff.unknown()
  retry.unknown()

  const array = ext.section('array')
  const jobs = arrayOf(array)
  const parallel = array.number('parallel')
  array.unknown()

  const checkpoint = ext.section('checkpoint')
  const dir = checkpoint.text('dir')
  const keep = checkpoint.number('keep')
  checkpoint.ignore('every', 'the script says when it writes one')
  checkpoint.ignore('resume', 'the folder is given to every attempt')
  checkpoint.unknown()

  const dependsOn = ext.taken('depends_on', value =>
    value === null
      ? []
      : ([value].flat() as unknown[]).map(each => {
          const entry = typeof each === 'object' && each !== null ? (each as Record<string, unknown>) : { job: each }
          const when = String(entry['when'] ?? 'succeeded')
          if (when !== 'succeeded' && when !== 'ended' && when !== 'failed')
            throw new Failure('job_file_field', { field: 'ext.depends_on', problem: `${when} is none of succeeded, ended, failed` })
          const job = entry['job']
          if (typeof job !== 'string' && typeof job !== 'number')
            throw new Failure('job_file_field', { field: 'ext.depends_on', problem: 'each needs the number or the name of a job' })
          return { job, when: when as 'succeeded' | 'ended' | 'failed' }
        }),
  )
  const policies = ext.taken('log_policies', value =>
    value === null
      ? []
      : ([value].flat() as unknown[]).map(each => {
          const { pattern, reason: why = null, action = 'none' } = (each ?? {}) as Record<string, unknown>
          if (typeof pattern !== 'string')
            throw new Failure('job_file_field', { field: 'ext.log_policies', problem: 'each needs a pattern' })
          if (action !== 'none' && action !== 'cancel_retries' && action !== 'stop')
            throw new Failure('job_file_field', {
              field: 'ext.log_policies.action',
              problem: `${action} is none of none, cancel_retries, stop`,
            })
          return {
            pattern,
            reason: why === null ? null : reason('ext.log_policies.reason', why),
            action: action as 'none' | 'cancel_retries' | 'stop',
          }
        }),
  )
  const launcher = ext.text('launcher') ?? 'none'
  if (launcher !== 'none' && launcher !== 'torchrun' && launcher !== 'per-accelerator')
    ext.refuse('launcher', `${launcher} is none of none, torchrun, per-accelerator`)
  const autolog = ext.take('autolog') === true
  const requireDevice = ext.take('require_device') === true
  const experiment = ext.text('experiment')
  const track = ext.take('track') !== false
  ext.ignore('queue', 'a project has one queue')
  ext.ignore('idle', 'an idle accelerator is told, and stops nothing')
  ext.unknown()
  const verdicts = [ext, runtime, env, timeouts, retry, backoff, array, checkpoint].flatMap(each => each.verdicts)
  return {
    spec: {
      runtime:
        kind === 'python' || notebook !== null ? { kind: 'python', ...environment } : kind === 'node' ? { kind: 'node' } : { kind: 'none' },
      timeouts: limits,
      retry: { on: on ?? plain.retry.on, max: max ?? plain.retry.max, backoff: between, exitCodes: [] },
      checkpoint: dir === null ? null : { dir, keep },
      dependsOn,
      logPolicies: policies,
      launcher,
      autolog,
      requireDevice,
      experiment,
      track,
    },
    notebook,
    array: jobs,
    parallel,
    verdicts,
  }
}

function reason(field: string, value: unknown): JobReason {
  const found = jobReasons.find(each => each === value)
  if (!found) throw new Failure('job_file_field', { field, problem: `${String(value)} is none of ${jobReasons.join(', ')}` })
  return found
}

/** `count: 16` numbers them in PLINTH_ARRAY_INDEX; `matrix: {LR: [1, 2], SEED: [0, 1]}` is every combination. */
function arrayOf(array: Fields): Record<string, string>[] {
  const count = array.number('count')
  const matrix = array.take('matrix')
  if (count !== null && matrix !== null) array.refuse('count', 'an array has a count or a matrix, not both')
  if (count !== null) {
    if (!Number.isInteger(count) || count < 1 || count > largestArray) array.refuse('count', `it has to be from 1 to ${largestArray}`)
    return Array.from({ length: count }, (_, i) => ({ PLINTH_ARRAY_INDEX: String(i), PLINTH_ARRAY_COUNT: String(count) }))
  }
  if (matrix === null) return []
  if (typeof matrix !== 'object' || Array.isArray(matrix)) array.refuse('matrix', 'it has to be names with lists of values')
  let jobs: Record<string, string>[] = [{}]
  for (const [name, values] of Object.entries(matrix as Record<string, unknown>)) {
    if (!Array.isArray(values) || values.length === 0) array.refuse('matrix', `${name} needs a list of values`)
    if (jobs.length * (values as unknown[]).length > largestArray) array.refuse('matrix', `it makes more than ${largestArray} jobs`)
    jobs = jobs.flatMap(job => (values as unknown[]).map(value => ({ ...job, [name]: String(value) })))
  }
  return jobs.map((job, i) => ({ ...job, PLINTH_ARRAY_INDEX: String(i), PLINTH_ARRAY_COUNT: String(jobs.length) }))
}
