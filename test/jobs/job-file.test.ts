/** Job files: SkyPilot's words and ours, what becomes of each field, and what is refused with a reason. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { stringify } from 'yaml'
import { Failure } from '../../src/failure.ts'
import { bytes, cores, devices, seconds } from '../../src/jobs/job-file/amounts.ts'
import { type JobFile, readJobFile } from '../../src/jobs/job-file/read.ts'
import { JobSpec } from '../../src/jobs/spec.ts'

const read = (text: string, envs: Record<string, string> = {}): JobFile =>
  readJobFile(text, { file: '/code/jobs/train.yaml', folder: '/code/jobs', envs })

/** Why a file is refused, as `code: message`. */
function refusal(text: string, envs: Record<string, string> = {}): string {
  try {
    read(text, envs)
  } catch (error) {
    if (error instanceof Failure) return `${error.code}: ${error.message}`
    throw error
  }
  return 'read'
}

test('a task of SkyPilot is read by the meaning of its keys', () => {
  const { spec, verdicts } = read(`
name: train-mnist
workdir: code
num_nodes: 2
resources:
  cpus: 4+
  memory: 16GB+
  accelerators: {H100: 8}
  use_spot: true
  priority: 500
  region: us-east-1
  job_recovery: {strategy: FAILOVER, max_restarts_on_errors: 2, recover_on_exit_codes: [33]}
envs: {EPOCHS: 3, NAME: a b}
setup: |
  pip install torch
run: |
  python train.py --epochs $EPOCHS
`)
  assert.equal(spec.name, 'train-mnist')
  assert.equal(spec.workdir, '/code/jobs/code')
  assert.equal(spec.nodes, 2)
  assert.deepEqual(spec.resources.cpus, { amount: 4, exact: false })
  assert.deepEqual(spec.resources.memory, { amount: 16e9, exact: false })
  assert.deepEqual(spec.resources.devices, [{ vendor: null, name: 'H100', count: 8, memory: null }])
  assert.deepEqual(spec.envs, { EPOCHS: '3', NAME: 'a b' })
  assert.deepEqual(spec.run, { shell: 'python train.py --epochs $EPOCHS\n' })
  assert.equal(spec.setup, 'pip install torch\n')
  assert.equal(spec.preemptible, true)
  assert.equal(spec.priority, 500)
  assert.equal(spec.retry.max, 2)
  assert.deepEqual(spec.retry.exitCodes, [33])
  assert.ok(spec.retry.on.includes('user_error'))
  const verdict = Object.fromEntries(verdicts.map(each => [each.field, each.verdict]))
  assert.equal(verdict['resources.cpus'], 'honoured')
  assert.equal(verdict['resources.use_spot'], 'translated')
  assert.equal(verdict['resources.region'], 'ignored')
})

test('each field of a file has exactly one verdict', () => {
  const { verdicts } = read(`
name: a
resources: {cpus: 1, disk_tier: best, job_recovery: {strategy: none}}
run: echo
ext:
  runtime: {kind: python, env: {requirements: r.txt, python: "3.11"}}
  timeouts: {run: 12h}
  checkpoint: {dir: ckpt, every: 10m}
`)
  const fields = verdicts.map(({ field }) => field)
  assert.deepEqual(fields.toSorted(), [
    'ext.checkpoint.dir',
    'ext.checkpoint.every',
    'ext.runtime.env.python',
    'ext.runtime.env.requirements',
    'ext.runtime.kind',
    'ext.timeouts.run',
    'name',
    'resources.cpus',
    'resources.disk_tier',
    'resources.job_recovery.strategy',
    'run',
  ])
  assert.ok(
    verdicts.every(({ verdict, note }) => verdict === 'honoured' || note !== null),
    'what is not honoured says why',
  )
})

test('a dot is the folder and not nothing, numbers become text, and yes stays yes', () => {
  const { spec } = read('workdir: .\nrun: echo\nenvs: {A: yes, B: 1e3, C: 0x10, D: 010, E: true}\n')
  assert.equal(spec.workdir, '/code/jobs')
  assert.deepEqual(spec.envs, { A: 'yes', B: '1000', C: '16', D: '10', E: 'true' })
})

test('a variable without a value has to be given, and given ones stand over the file', () => {
  assert.match(refusal('envs: {LR: null, EPOCHS: 1}\nrun: echo\n'), /^job_envs_missing: .*LR/)
  assert.deepEqual(read('envs: {LR: null, EPOCHS: 1}\nrun: echo\n', { LR: '0.1', EPOCHS: '7' }).spec.envs, { LR: '0.1', EPOCHS: '7' })
})

test('variables are filled into paths, never into commands', () => {
  const { spec } = read('envs: {WHERE: /data, X: "$(rm -rf /)"}\nworkdir: $WHERE/code\nrun: echo $WHERE $X\n')
  assert.equal(spec.workdir, '/data/code')
  assert.deepEqual(spec.run, { shell: 'echo $WHERE $X' })
})

test('the value of a secret never reaches the spec', () => {
  const file = read('secrets: {TOKEN: null}\nrun: echo\n')
  assert.deepEqual(file.missingSecrets, ['TOKEN'])
  const given = read('secrets: {TOKEN: hunter2}\nrun: echo\n')
  assert.ok(!JSON.stringify(given.spec).includes('hunter2'))
  assert.deepEqual(given.secrets, { TOKEN: 'hunter2' })
  assert.deepEqual(given.missingSecrets, [])
})

test('an array is a count or every combination of a matrix, up to ten thousand', () => {
  const matrix = read('run: echo\next: {array: {matrix: {LR: [0.1, 0.01], SEED: [1, 2, 3]}, parallel: 2}}\n')
  assert.equal(matrix.array.length, 6)
  assert.equal(new Set(matrix.array.map(({ LR, SEED }) => `${LR} ${SEED}`)).size, 6)
  assert.equal(matrix.parallel, 2)
  assert.deepEqual(
    read('run: echo\next: {array: {count: 2}}\n').array.map(each => each['PLINTH_ARRAY_INDEX']),
    ['0', '1'],
  )
  assert.match(refusal('run: echo\next: {array: {count: 10001}}\n'), /^job_file_field: .*ext.array.count/)
  const wide = Object.fromEntries(Array.from({ length: 30 }, (_, i) => [`V${i}`, [0, 1]]))
  assert.match(refusal(stringify({ run: 'echo', ext: { array: { matrix: wide } } })), /more than 10000 jobs/)
})

test('what is misspelt is named with what was probably meant', () => {
  assert.match(refusal('run: echo\nresorces: {cpus: 1}\n'), /resorces.*did you mean resources\?/)
  assert.match(refusal('run: echo\nresources: {cpu: 1}\n'), /resources\.cpu .*did you mean cpus\?/)
  assert.match(refusal('run: echo\next: {timeout: {run: 1h}}\n'), /ext\.timeout .*did you mean timeouts\?/)
})

test('what would change the job if it were left out is refused', () => {
  for (const text of [
    'service: {replicas: 2}',
    'volumes: {/a: b}',
    'resources: {image_id: "docker:ubuntu"}',
    'workdir: {url: "https://x/y"}',
  ])
    assert.match(refusal(`run: echo\n${text}\n`), /^job_file_(unsupported|field): /, text)
  assert.match(refusal('run: a\n---\nrun: b\n'), /^job_file_unsupported: .*pipeline/)
})

test('a file that is no sound YAML, or a bomb, is refused within a moment', () => {
  const bomb = `a: &a [x,x,x,x,x,x,x,x,x]\n${'bcdefghi'
    .split('')
    .map((name, i) => `${name}: &${name} [${Array(9).fill(`*${'abcdefgh'[i]}`).join(',')}]`)
    .join('\n')}\nrun: echo\n`
  for (const [text, why] of [
    ['', /empty/],
    ['run: echo\nrun: again\n', /unique/],
    ['- a\n- b\n', /no list of keys/],
    ['run: [', /job_file_malformed/],
    [bomb, /100 copies/],
    [`run: echo # ${'x'.repeat(1_000_000)}`, /1 MB/],
    ['run: echo\nenvs: {A: [1]}\n', /not a text/],
  ] as const) {
    const started = performance.now()
    assert.match(refusal(text), why)
    assert.ok(performance.now() - started < 2000)
  }
})

test('keys of the language do not reach the objects of the program', () => {
  const file = read('run: echo\nenvs: {__proto__: x, constructor: y, toString: z}\n')
  assert.equal(Object.getPrototypeOf(file.spec.envs), Object.prototype)
  assert.equal(({} as Record<string, unknown>)['x'], undefined)
  assert.match(refusal('run: echo\n__proto__: {polluted: 1}\n'), /job_file_field/)
  assert.equal(({} as Record<string, unknown>)['polluted'], undefined)
})

test('amounts are read in the units that people write', () => {
  assert.equal(bytes('m', '16').amount, 16e9)
  assert.equal(bytes('m', '512MiB').amount, 512 * 2 ** 20)
  assert.deepEqual(cores('c', '0.5'), { amount: 0.5, exact: true })
  assert.equal(seconds('t', '1h30m'), 5400)
  assert.equal(seconds('t', 90), 90)
  assert.deepEqual(
    devices('a', ['H100:8', 'A100:8']).map(({ name, count }) => `${name}:${count}`),
    ['H100:8', 'A100:8'],
  )
  assert.deepEqual(devices('a', { vendor: 'nvidia', name: ['H100', 'A100'], count: 2, memory: '40GB' }), [
    { vendor: 'nvidia', name: 'H100', count: 2, memory: 40e9 },
    { vendor: 'nvidia', name: 'A100', count: 2, memory: 40e9 },
  ])
  for (const bad of ['', '-1', '0', 'many', '4++', '1e9', 'NaN']) assert.throws(() => cores('c', bad), Failure)
  for (const bad of ['', '-1GB', '0', '16 parsecs']) assert.throws(() => bytes('m', bad), Failure)
  for (const bad of ['', 'soon', '-5s', '0']) assert.throws(() => seconds('t', bad), Failure)
})

test('any text and any tree is a job or a refusal with a code, and what is a job is a sound spec', () => {
  const key = fc.constantFrom(
    ...['name', 'workdir', 'num_nodes', 'resources', 'envs', 'secrets', 'setup', 'run', 'ext', 'cpus', 'memory', 'accelerators', 'any_of'],
    ...[
      'runtime',
      'env',
      'array',
      'count',
      'matrix',
      'timeouts',
      'retry',
      'depends_on',
      'log_policies',
      'job_recovery',
      'checkpoint',
      'kind',
    ],
  )
  const tree = fc.letrec(tie => ({
    node: fc.oneof(
      { depthSize: 'small' },
      fc.jsonValue(),
      fc.dictionary(key, tie('node'), { maxKeys: 5 }),
      fc.array(tie('node'), { maxLength: 3 }),
    ),
  })).node
  const sound = (text: string) => {
    try {
      JobSpec.parse(read(text).spec)
    } catch (error) {
      if (!(error instanceof Failure && error.code.startsWith('job_'))) throw error
    }
  }
  fc.assert(
    fc.property(fc.dictionary(key, tree, { maxKeys: 6 }), root => sound(stringify({ run: 'echo', ...root }))),
    { numRuns: 500 },
  )
  fc.assert(fc.property(fc.string({ unit: 'binary', maxLength: 200 }), sound), { numRuns: 300 })
})
