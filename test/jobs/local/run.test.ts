/** From the start of an attempt to its end, on real processes. */
import assert from 'node:assert/strict'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { after, describe, test } from 'node:test'
import type { Exit } from '../../../src/jobs/attempt.ts'
import { plainSpec } from '../../../src/jobs/spec.ts'
import { makeEngine } from './engine.ts'

const engine = makeEngine()
after(engine.close)

const how = ({ exitCode, signal, reason, phase }: Omit<Exit, 'message'>) => ({ exitCode, signal, reason, phase })
const devices = (...ids: string[]) => ids.map(id => ({ id, vendor: 'nvidia', name: 'H100', share: 1 }))

describe('attempts', { concurrency: 4 }, () => {
  test('a script runs, its log has what it said on both streams, and its folder is tidy', async () => {
    const { job, log, ...exit } = await engine.run('echo hello; echo oops >&2; pwd')
    assert.deepEqual(how(exit), { exitCode: 0, signal: null, reason: null, phase: 'run' })
    assert.equal(exit.message, null)
    assert.deepEqual(log.toSorted(), ['e oops', `o ${join(engine.folder(job), 'work')}`, 'o hello'])
    const left = readdirSync(engine.folder(job))
    assert.deepEqual(
      left.filter(name => /^(control|secrets|\d+\.|run\.|.*reserved)/.test(name)),
      [],
    )
    assert.equal(readFileSync(join(engine.folder(job), 'shim.log'), 'utf8'), '', 'the shim has nothing to complain of')
  })

  test('setup comes first and once; its failure is told with its last words, and nothing runs', async () => {
    const fine = await engine.run('echo run $NODE_RANK', { setup: 'echo setting up', nodes: 2 })
    assert.equal(fine.reason, null)
    assert.equal(fine.log.filter(line => line === 'o setting up').length, 1)
    assert.ok(fine.log.includes('o [node 0] run 0') && fine.log.includes('o [node 1] run 1'), fine.text)
    assert.ok(
      fine.log.some(line => line.startsWith('p ') && line.includes('a topology for tests')),
      fine.text,
    )
    const { message, text, ...exit } = await engine.run('echo never', { setup: 'echo no space for it >&2; exit 9' })
    assert.deepEqual(how(exit), { exitCode: 9, signal: null, reason: 'setup_failed', phase: 'setup' })
    assert.match(message!, /no space for it/)
    assert.doesNotMatch(text, /never/)
  })

  test('an environment that cannot be made is told in its own words, and nothing of the job runs', async () => {
    const python = { kind: 'python', requirements: 'missing.txt', lock: null, project: null, conda: null, python: null } as const
    const { message, text, ...exit } = await engine.run('echo never', { runtime: python, setup: 'echo never' })
    assert.deepEqual(how(exit), { exitCode: 126, signal: null, reason: 'environment_failed', phase: 'environment' })
    assert.match(message!, /There is no file missing\.txt/)
    assert.doesNotMatch(text, /never| {4}at /)
  })

  test('what the environment phase prepares is what the script runs in', async () => {
    const { text, reason, job } = await engine.run('echo $PATH; echo $OMP_SCHEDULE', {
      runtime: { kind: 'node' },
      envs: { OMP_SCHEDULE: 'guided' },
    })
    assert.equal(reason, null, text)
    const observed = await engine.backend.observe(job, 1)
    assert.ok(observed.status === 'ended' && observed.environment?.kind === 'node')
    const [first] = text.split('\n').slice(-2)
    for (const path of observed.environment.path) assert.ok(first!.split(':').includes(path))
  })

  test('each way to end has its code, its reason and words that say more', async () => {
    const work = join(engine.home, 'work')
    mkdirSync(work)
    writeFileSync(join(work, 'script.sh'), '#!/no/such/interpreter\n')
    chmodSync(join(work, 'script.sh'), 0o755)
    writeFileSync(join(work, 'data.txt'), 'no program')
    const cases: [string | string[], Partial<Exit>, RegExp | null][] = [
      ['exit 3', { exitCode: 3, reason: 'user_error' }, null],
      [['no-such-command'], { exitCode: 127, reason: 'command_not_found' }, /There is no command no-such-command/],
      ['no-such-command --now', { exitCode: 127, reason: 'command_not_found' }, /no-such-command: command not found/],
      [['./script.sh'], { exitCode: 127, reason: 'command_not_found' }, /\.\/script\.sh, or its interpreter/],
      [['./data.txt'], { exitCode: 126, reason: 'user_error' }, /cannot be run/],
      ['kill -SEGV $$', { exitCode: 139, signal: 'SIGSEGV', reason: 'user_error' }, /SIGSEGV/],
      ['kill -9 $$', { exitCode: 137, signal: 'SIGKILL' }, /killed|SIGKILL/],
      ['echo RuntimeError: CUDA out of memory. Tried to allocate 2 GiB >&2; exit 1', { exitCode: 1, reason: 'oom_gpu' }, /smaller batch/],
      ['echo CUDA out of memory; echo a smaller batch fits', { exitCode: 0, reason: null }, null],
    ]
    for (const [run, expected, message] of cases) {
      const exit = await engine.run(run, { workdir: work })
      assert.deepEqual({ ...exit, ...expected }, exit, `${run}: ${JSON.stringify(exit)}`)
      if (message) assert.match(exit.message ?? '', message)
    }
  })

  test('words are words: nothing in them is read by a shell, or as an option', async () => {
    const words = ['$(touch touched)', '`touch touched`', '; touch touched', '*', '-n', '--', '', ' a  b ', 'two\nlines', '"\'\\', 'é€']
    const share = (cpus: number) => ({ share: { cpus } })
    for (const cpus of [0.5, 4096]) {
      const { job, text } = await engine.run(['printf', '<%s>\\n', ...words], {
        ...share(cpus),
        envs: { NAME: '$(touch touched)\n; touch touched' },
      })
      assert.equal(text, words.map(word => `<${word}>`).join('\n'))
      assert.deepEqual(readdirSync(join(engine.folder(job), 'work')), [])
      for (const option of ['-p', '--version', '-c'])
        assert.equal((await engine.run([option, '1'], share(cpus))).reason, 'command_not_found')
    }
    const nul = await engine.run('true', { envs: { NAME: 'a\0b' } })
    assert.equal(nul.reason, 'start_failed')
  })

  test('what cannot be started says why', async () => {
    const noFolder = await engine.run('true', { workdir: join(engine.home, 'nowhere') })
    assert.deepEqual(how(noFolder), { exitCode: 125, signal: null, reason: 'start_failed', phase: 'run' })
    assert.match(noFolder.message!, /nowhere is not there/)
    const gang = await engine.run('true', { workdir: join(engine.home, 'nowhere'), nodes: 3 })
    assert.equal(gang.reason, 'start_failed')
    const tooLong = await engine.run(['echo', 'x'.repeat(3 << 20)])
    assert.equal(tooLong.reason, 'start_failed')
    assert.match(tooLong.message!, /E2BIG/)
    const longText = await engine.run(`# ${'x'.repeat(300_000)}\necho from a file; exit 4`)
    assert.deepEqual([longText.exitCode, longText.text], [4, 'from a file'])
  })

  test('every process gets the environment that SkyPilot, torchrun, TensorFlow, JAX and Plinth promise', async () => {
    const { job, log } = await engine.run('env -0 | sort -z | tr "\\0" "\\1" | tr "\\n" "|" | tr "\\1" "\\n"', {
      nodes: 2,
      launcher: 'per-accelerator',
      share: { cpus: 4, devices: devices('GPU-aa', 'GPU-bb') },
      envs: { EPOCHS: '3', OMP_SCHEDULE: 'static' },
      checkpoint: { dir: 'kept', keep: null },
    })
    const of = (who: string) =>
      Object.fromEntries(
        log.flatMap(line => {
          const [, name, value] = new RegExp(`^o \\[${who}\\] (\\w+)=(.*)$`).exec(line) ?? []
          return name === undefined ? [] : [[name, value]]
        }),
      ) as Record<string, string>
    const last = of('node 1, process 1')
    const port = Number(last['MASTER_PORT'])
    const { SKYPILOT_TASK_ID, TF_CONFIG, PATH, ...rest } = last
    const expected = {
      ...{ EPOCHS: '3', OMP_SCHEDULE: 'static', PYTHONUNBUFFERED: '1', OMP_NUM_THREADS: '2' },
      ...{ SKYPILOT_NODE_RANK: '1', SKYPILOT_NUM_NODES: '2', SKYPILOT_NODE_IPS: '127.0.0.1|127.0.0.1', SKYPILOT_NUM_GPUS_PER_NODE: '2' },
      ...{ MASTER_ADDR: '127.0.0.1', NODE_RANK: '1', NNODES: '2', PET_NNODES: '2', PET_NPROC_PER_NODE: '2', PET_NODE_RANK: '1' },
      ...{ PET_MASTER_ADDR: '127.0.0.1', PET_MASTER_PORT: String(port) },
      ...{ JAX_NUM_PROCESSES: '4', JAX_PROCESS_ID: '3', JAX_COORDINATOR_ADDRESS: `127.0.0.1:${port + 1}` },
      ...{ RANK: '3', LOCAL_RANK: '1', WORLD_SIZE: '4', LOCAL_WORLD_SIZE: '2' },
      ...{ CUDA_VISIBLE_DEVICES: 'GPU-aa,GPU-bb', CUDA_DEVICE_ORDER: 'PCI_BUS_ID', HIP_VISIBLE_DEVICES: '' },
      ...{ PLINTH_ATTEMPT: '1', PLINTH_JOB: String(job) },
      PLINTH_OUTPUT_DIR: join(engine.folder(job), 'outputs'),
      PLINTH_CHECKPOINT_DIR: join(engine.folder(job), '../kept'),
    }
    assert.deepEqual({ ...rest, ...expected }, rest)
    assert.ok(SKYPILOT_TASK_ID && PATH)
    const tensorflow = JSON.parse(TF_CONFIG!)
    assert.deepEqual(tensorflow.task, { type: 'worker', index: 3 })
    assert.equal(new Set(tensorflow.cluster.worker).size, 4)
    assert.ok(existsSync(last['PLINTH_CHECKPOINT_DIR']!) && existsSync(last['PLINTH_OUTPUT_DIR']!))
    assert.equal(of('node 0, process 0')['RANK'], '0')
  })

  test('a job without accelerators sees none, two jobs meet at different ports, and nothing of the server comes along', async () => {
    process.env['HF_TOKEN'] = 'of the server'
    process.env['PLINTH_DATABASE'] = 'postgres://of the server'
    process.env['LANG_OF_TEST'] = 'comes along'
    const text = 'echo $MASTER_PORT; echo "[$CUDA_VISIBLE_DEVICES]"; env'
    const [a, b] = await Promise.all([engine.run(text), engine.run(text)])
    delete process.env['HF_TOKEN']
    delete process.env['PLINTH_DATABASE']
    assert.equal(a.log[1], 'o []')
    assert.notEqual(a.log[0], b.log[0])
    assert.doesNotMatch(a.text, /of the server|NODE_OPTIONS|NODE_COMPILE_CACHE/)
    assert.match(a.text, /LANG_OF_TEST=comes along/)
  })

  test('starting the same attempt again starts nothing new, also from another backend', async () => {
    const job = await engine.start('echo once; while [ ! -e go ]; do sleep 0.02; done')
    await engine.said(job, 'once')
    const other = makeEngine({ home: engine.home })
    const [known] = (await other.backend.known()).filter(each => each.job === job)
    assert.equal(known?.attempt, 1)
    const { attempt } = JSON.parse(`{"attempt":${readFileSync(join(engine.folder(job), 'attempt.json'), 'utf8')}}`)
    await Promise.all([engine.backend.start(attempt, {}), other.backend.start(attempt, {}), other.backend.start(attempt, {})])
    assert.equal((await other.backend.observe(job, 1)).status, 'running')
    writeFileSync(join(engine.folder(job), 'work', 'go'), '')
    assert.equal((await other.ended(job)).exitCode, 0)
    assert.deepEqual(await engine.log(job), ['o once'])
    assert.deepEqual(
      readdirSync(engine.folder(job)).filter(name => name.startsWith('supervisor')),
      ['supervisor.1.json'],
    )
  })

  test('outputs are the regular files in its folder: no link, no pipe, nothing outside', async () => {
    const { job } = await engine.run(
      'cd $PLINTH_OUTPUT_DIR; mkdir -p a/b; echo model > a/b/model.bin; echo top > top; ln -s /etc/passwd link; ln -s /etc folder; mkfifo pipe',
    )
    const outputs = await engine.backend.outputs(job, 1)
    assert.deepEqual(
      outputs.map(({ path, bytes }) => [path, bytes]),
      [
        ['a/b/model.bin', 6],
        ['top', 4],
      ],
    )
    const chunks: Buffer[] = []
    for await (const chunk of await outputs[0]!.open()) chunks.push(chunk as Buffer)
    assert.equal(Buffer.concat(chunks).toString(), 'model\n')
  })

  test('a file that became a link after it was listed is not opened', async () => {
    const { job } = await engine.run('cd $PLINTH_OUTPUT_DIR; mkdir a; echo x > a/passwd; echo y > passwd')
    const [below, top] = await engine.backend.outputs(job, 1)
    const { rmSync, symlinkSync } = await import('node:fs')
    const outputs = join(engine.folder(job), 'outputs')
    rmSync(join(outputs, 'a'), { recursive: true })
    rmSync(join(outputs, 'passwd'))
    symlinkSync('/etc', join(outputs, 'a'))
    symlinkSync('/etc/passwd', join(outputs, 'passwd'))
    await assert.rejects(below!.open(), /elsewhere/)
    await assert.rejects(top!.open(), /ELOOP/)
  })

  test('an ended attempt can be forgotten, one that runs cannot', async () => {
    const job = await engine.start('while [ ! -e go ]; do sleep 0.02; done')
    await assert.rejects(engine.backend.forget(job, 1), { code: 'job_active' })
    writeFileSync(join(engine.folder(job), 'work', 'go'), '')
    await engine.ended(job)
    await engine.backend.forget(job, 1)
    assert.ok(!existsSync(join(engine.home, 'jobs', String(job))))
    assert.equal((await engine.backend.observe(job, 1)).status, 'lost')
  })

  test('a job that asked for checkpoints and ends with 0 without any is told so', async () => {
    const empty = await engine.run('true', { checkpoint: { dir: 'none-of-it', keep: null } })
    assert.deepEqual([empty.reason, empty.message], [null, 'It ended with 0, and its checkpoint folder is empty.'])
    const gone = await engine.run('rm -r "$PLINTH_OUTPUT_DIR"')
    assert.match(gone.message!, /output folder is gone/)
    const kept = await engine.run('echo 1 > $PLINTH_CHECKPOINT_DIR/step', { checkpoint: { dir: 'some', keep: null } })
    assert.equal(kept.message, null)
  })
})

test('a job with fewer cores than the machine is bound to some of them, and jobs beside it to others', async t => {
  if (availableParallelism() < 2) return t.skip('one core')
  const text = 'grep Cpus_allowed_list /proc/self/status; while [ ! -e go ]; do sleep 0.02; done'
  const one = { resources: { ...plainSpec('', { shell: '' }).resources, cpus: { amount: 1, exact: true } } }
  // the third did not say how many it needs: it may use what is idle
  const jobs = [await engine.start(text, one), await engine.start(text, one), await engine.start(`echo threads $OMP_NUM_THREADS; ${text}`)]
  for (const job of jobs) await engine.said(job, 'Cpus_allowed_list')
  const lists = await Promise.all(
    jobs.map(
      async job =>
        (await engine.log(job))
          .find(line => line.includes('Cpus'))!
          .split(/\s+/)
          .at(-1)!,
    ),
  )
  for (const job of jobs) writeFileSync(join(engine.folder(job), 'work', 'go'), '')
  await Promise.all(jobs.map(engine.ended))
  assert.match(lists[0]!, /^\d+$/)
  assert.notEqual(lists[0], lists[1])
  assert.equal((await engine.log(jobs[2]!))[0]!.trim(), 'o threads')
})
