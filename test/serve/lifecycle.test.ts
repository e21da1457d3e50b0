import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { test } from 'node:test'
import { encodeModel, type OnnxNode } from '../../src/engine/onnx.ts'
import { encodePng } from '../../src/images/encode.ts'
import { readArtefact, withGolden } from '../../src/models/artefact.ts'
import { startModelHost } from '../../src/serve/model-host.ts'
import { COLOURS, finishedArtefact, plain, tinyArtefact } from '../models/tiny-model.ts'
import { bluePng, file, model, post, serve } from './serving.ts'

/** Asks again until it is as wanted; the limit is only for a test that would never end. */
async function until<T>(ask: () => Promise<T> | T, wanted: (value: T) => boolean): Promise<T> {
  const end = Date.now() + 15_000
  for (;;) {
    const value = await ask()
    if (wanted(value)) return value
    assert.ok(Date.now() < end, `never happened; last ${JSON.stringify(value)}`)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
}

// ── starting ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('a model that answers otherwise than when it was made is not served', async () => {
  const [golden, ...others] = readArtefact(await finishedArtefact()).metadata.golden
  const moved = withGolden(tinyArtefact(), [{ ...golden!, probabilities: [0.4, 0.3, 0.3] }, ...others])
  await assert.rejects(serve({ model: { name: 'moved', path: file('moved.onnx', moved) } }), { code: 'golden_mismatch', message: /moved/ })
  const unproven = file('unproven.onnx', tinyArtefact())
  await assert.rejects(serve({ model: { name: 'unproven', path: unproven } }), { code: 'golden_missing' })
})

test('files that are no model of ours are refused with their own code, and the port is free again', async () => {
  const bytes = await finishedArtefact()
  const { model: graph } = readArtefact(bytes)
  const newer = encodeModel(graph.graph, { metadata: { ...graph.metadata, 'plinth.schema': '9' } })
  const cases: [string, Uint8Array | null, string][] = [
    ['missing.onnx', null, 'artefact_missing'],
    ['cut.onnx', bytes.subarray(0, 5000), 'artefact_cut_short'],
    ['newer.onnx', newer, 'artefact_newer'],
    ['text.onnx', Buffer.from('hello, I am a model'), 'artefact_invalid'],
  ]
  const port = await freePort()
  for (const [name, content, code] of cases) {
    const path = content ? file(name, content) : '/nowhere/missing.onnx'
    await assert.rejects(serve({ model: { name, path }, port }), { code }, name)
  }
  const server = await serve({ port })
  assert.equal(server.port, port)
})

test('a port that is taken is named, with what to do', async () => {
  const other = createServer().listen(0, '127.0.0.1')
  await once(other, 'listening')
  const { port } = other.address() as { port: number }
  await assert.rejects(serve({ port }), { code: 'port_taken', message: new RegExp(String(port)), next: /--port 0/ })
  other.close()
  await assert.rejects(serve({ host: '203.0.113.7' }), { code: 'host_unknown' })
})

/** The tiny model with `nodes` between the pictures and the network; the last of them makes `tensor`. */
async function detour(name: string, expand: readonly number[], nodes: (expanded: string) => OnnxNode[], tensor: string): Promise<string> {
  const { model: read, metadata } = readArtefact(await finishedArtefact())
  const { graph } = read
  graph.initializers.push({ name: 'huge', type: 'int64', shape: [4], data: BigInt64Array.from(expand, BigInt) })
  const cast = graph.nodes.find(node => node.inputs.includes(metadata.modelSizeTensor))!
  const [value] = cast.outputs
  const inserted = [operation('Expand', [value!, 'huge'], 'expanded'), ...nodes('expanded')]
  const rest = graph.nodes.map(node => (node === cast ? node : { ...node, inputs: node.inputs.map(i => (i === value ? tensor : i)) }))
  graph.nodes = rest.flatMap(node => (node === cast ? [node, ...inserted] : [node]))
  return file(`${name}.onnx`, encodeModel(graph, { metadata: read.metadata }))
}
const operation = (operation: string, inputs: string[], output: string): OnnxNode => ({
  name: output,
  operation,
  domain: '',
  inputs,
  outputs: [output],
  attributes: {},
})

test('a model that takes all memory is ended before the machine suffers', async () => {
  const path = await detour('memory', [250_000, 3, 32, 32], expanded => [operation('ReduceMax', [expanded], 'reduced')], 'reduced')
  const started = performance.now()
  await assert.rejects(startModelHost({ path, model: 'bomb', threads: 1, memoryLimit: 600 * 2 ** 20 }), {
    code: 'model_not_started',
    message: /600 are allowed/,
  })
  assert.ok(performance.now() - started < 10_000)
})

test('a model that computes for ever is ended, while another one answers', async () => {
  const steps = Array.from({ length: 500 }, (_, i) => operation('MatMul', [i ? `step${i - 1}` : 'expanded', 'expanded'], `step${i}`))
  const path = await detour('time', [300, 3, 32, 32], () => [...steps, operation('ReduceMax', ['step499'], 'reduced')], 'reduced')
  const answering = await serve()
  const started = performance.now()
  const refusal = assert.rejects(startModelHost({ path, model: 'slow', threads: 1, startLimit: 1000 }), {
    code: 'model_not_started',
    message: /within 1 s/,
  })
  const answers: number[] = []
  while (performance.now() - started < 800) answers.push((await post(answering, bluePng)).status)
  await refusal
  assert.ok(answers.length > 5 && answers.every(status => status === 200))
  assert.ok(performance.now() - started < 3000)
})

test('the host gets no secrets of the process that starts it', async t => {
  if (process.platform !== 'linux') return t.skip('the environment is read from /proc')
  process.env['A_SECRET_OF_OURS'] = 'x'
  process.env['PLINTH_TOKEN'] = 'y'
  const host = await startModelHost({ ...model, model: 'colours', threads: 1 })
  const names = readFileSync(`/proc/${host.state().pid}/environ`, 'utf8')
    .split('\0')
    .map(line => line.split('=')[0])
  assert.ok(names.includes('PATH'))
  assert.ok(!names.includes('A_SECRET_OF_OURS') && !names.includes('PLINTH_TOKEN'))
  delete process.env['A_SECRET_OF_OURS']
  delete process.env['PLINTH_TOKEN']
  await host.close()
})

// ── going wrong while serving ───────────────────────────────────────────────────────────────────────────────────────────────

const hostOf = (pid: number | undefined) => pid ?? assert.fail('no host')

test('a host that is killed is started again, and the request it had is answered by the next', async () => {
  const notices: string[] = []
  const host = await startModelHost({ ...model, model: 'colours', threads: 1, onNotice: text => notices.push(text) })
  const first = hostOf(host.state().pid)
  process.kill(first, 'SIGSTOP') // so that the request is surely with it
  const answer = host.predict(bluePng)
  await until(
    () => host.state().running,
    running => running === 1,
  )
  process.kill(first, 'SIGKILL')
  assert.equal((await answer).prediction.label, 'blue')
  assert.notEqual(host.state().pid, first)
  assert.equal(host.state().restarts, 1)
  assert.match(notices[0]!, /ended \(SIGKILL\)/)
  await host.close()
})

test('a host that hangs is killed and replaced, and whoever waited too long is told', async () => {
  const host = await startModelHost({ ...model, model: 'colours', threads: 1, deadline: 700, patience: 300 })
  const first = hostOf(host.state().pid)
  process.kill(first, 'SIGSTOP')
  const [one, two] = await Promise.allSettled([host.predict(bluePng), host.predict(bluePng)])
  for (const outcome of [one, two])
    assert.ok(outcome.status === 'fulfilled' || outcome.reason.code === 'prediction_timeout', JSON.stringify(outcome))
  await until(
    () => host.state(),
    state => state.ready && state.pid !== first,
  )
  assert.equal((await host.predict(bluePng)).prediction.label, 'blue')
  await host.close()
})

test('a picture that brings the host down twice is given up, and takes nobody with it the second time', async () => {
  const host = await startModelHost({ ...model, model: 'colours', threads: 1 })
  const kill = async (count: number) => {
    const pid = hostOf(host.state().pid)
    process.kill(pid, 'SIGSTOP')
    return async () => {
      await until(
        () => host.state().running,
        running => running === count,
      )
      process.kill(pid, 'SIGKILL')
    }
  }
  const down = await kill(3)
  const all = Promise.allSettled([1, 2, 3].map(() => host.predict(bluePng)))
  await down()
  // started again, the three go one by one; the first is with the host when that goes down as well
  const next = await until(
    () => host.state(),
    state => state.ready && state.restarts === 1,
  )
  process.kill(hostOf(next.pid), 'SIGSTOP')
  const { running } = host.state()
  process.kill(hostOf(next.pid), 'SIGKILL')
  const outcomes = await all
  const failed = outcomes.filter(outcome => outcome.status === 'rejected')
  assert.ok(running <= 1, `${running} at once after a crash`)
  assert.ok(failed.length <= 1 + 2)
  for (const outcome of failed) assert.match((outcome as PromiseRejectedResult).reason.code, /^model_(crashed|restarting)$/)
  await until(() => host.state().ready, Boolean)
  assert.equal((await host.predict(bluePng)).prediction.label, 'blue')
  await host.close()
})

test('while the model comes back the server says so and when to ask again', async () => {
  const server = await serve()
  const pid = () => hostPid(server.port)
  for (let i = 0; i < 2; i++) {
    const before = await pid()
    process.kill(before, 'SIGKILL')
    // the second crash in a row without an answer in between is followed by a pause
    if (i === 0) await until(pid, now => now > 0 && now !== before)
  }
  const health = await until(
    () => fetch(`${server.url}/healthz`),
    response => response.status === 503,
  )
  assert.equal(health.status, 503)
  const refused = await post(server, bluePng)
  if (refused.status !== 200) {
    assert.equal(refused.status, 503)
    assert.equal(refused.body.error.code, 'model_restarting')
    assert.ok(Number(refused.headers.get('retry-after')) >= 1)
  }
  await until(
    () => fetch(`${server.url}/healthz`),
    response => response.status === 200,
  )
  assert.equal((await post(server, bluePng)).status, 200)
})

test('more requests than may wait are refused at once, and the others answered', async () => {
  const host = await startModelHost({ ...model, model: 'colours', threads: 1, maxWaiting: 4 })
  const pid = hostOf(host.state().pid)
  process.kill(pid, 'SIGSTOP')
  const asked = Array.from({ length: 30 }, () => host.predict(bluePng))
  const outcomes = Promise.allSettled(asked)
  assert.deepEqual([host.state().running, host.state().waiting], [16, 4])
  process.kill(pid, 'SIGCONT')
  const codes = (await outcomes).map(outcome => (outcome.status === 'fulfilled' ? 'answered' : outcome.reason.code))
  assert.equal(codes.filter(code => code === 'answered').length, 20)
  assert.equal(codes.filter(code => code === 'overloaded').length, 10)
  await host.close()
})

test('over HTTP an overload is a 503 with a time to come back, and health checks still answer', async () => {
  const server = await serve({ limits: { maxWaiting: 2 } })
  const pid = await hostPid(server.port)
  process.kill(pid, 'SIGSTOP')
  let refused = 0
  const answers = Array.from({ length: 40 }, async () => {
    const answer = await post(server, bluePng)
    if (answer.status === 503) refused++
    return answer
  })
  const first = await Promise.race(answers)
  assert.equal(first.status, 503)
  assert.equal(first.body.error.code, 'overloaded')
  assert.ok(Number(first.headers.get('retry-after')) >= 1)
  assert.equal((await fetch(`${server.url}/healthz`)).status, 200)
  await until(
    () => refused,
    n => n === 22,
  )
  process.kill(pid, 'SIGCONT')
  const statuses = (await Promise.all(answers)).map(answer => answer.status)
  assert.equal(statuses.filter(status => status === 200).length, 18)
})

test('a client that goes away frees its place in the queue', async () => {
  const host = await startModelHost({ ...model, model: 'colours', threads: 1 })
  const pid = hostOf(host.state().pid)
  process.kill(pid, 'SIGSTOP')
  const gone = new AbortController()
  const asked = Array.from({ length: 20 }, () => host.predict(bluePng, { signal: gone.signal }))
  const outcomes = Promise.allSettled(asked)
  assert.equal(host.state().waiting, 4)
  gone.abort()
  assert.equal(host.state().waiting, 0)
  process.kill(pid, 'SIGCONT')
  await outcomes
  assert.equal((await host.predict(bluePng)).prediction.label, 'blue')
  await host.close()
})

// ── stopping ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

test('SIGTERM while serving: what was asked is answered, nothing new is taken, nothing is left behind', async () => {
  const program = `
    import { startServer } from ${JSON.stringify(new URL('../../src/serve/gateway.ts', import.meta.url).href)}
    const server = await startServer({ model: ${JSON.stringify(model)}, port: 0, threads: 1 })
    process.once('SIGTERM', async () => console.log(JSON.stringify(await server.close())))
    console.log(server.port)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] })
  const lines = linesOf(child)
  const port = Number(await lines.next())
  const host = await hostPid(port)
  process.kill(host, 'SIGSTOP')
  const answers = Array.from({ length: 5 }, () =>
    fetch(`http://127.0.0.1:${port}/predict`, { method: 'POST', body: new Uint8Array(bluePng) }),
  )
  const running = () => fetch(`http://127.0.0.1:${port}/metrics`).then(async r => /plinth_running\{[^}]*\} (\d+)/.exec(await r.text())![1])
  await until(running, n => n === '5')
  child.kill('SIGTERM')
  await until(
    () =>
      new Promise<string>(resolve =>
        connect(port, '127.0.0.1')
          .on('connect', () => resolve('open'))
          .on('error', () => resolve('closed')),
      ),
    state => state === 'closed',
  )
  process.kill(host, 'SIGCONT')
  for (const answer of await Promise.all(answers)) assert.equal(answer.status, 200)
  const stats = JSON.parse(await lines.next()) as { predictions: number; p50: number }
  assert.equal(stats.predictions, 5)
  if (child.exitCode === null) await once(child, 'exit')
  assert.equal(child.exitCode, 0)
  assert.throws(() => process.kill(host, 0), { code: 'ESRCH' })
})

test('a gateway that is killed takes its host with it', async () => {
  const program = `
    import { startServer } from ${JSON.stringify(new URL('../../src/serve/gateway.ts', import.meta.url).href)}
    const server = await startServer({ model: ${JSON.stringify(model)}, port: 0, threads: 1 })
    console.log(server.port)`
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: ['ignore', 'pipe', 'inherit'] })
  const host = await hostPid(Number(await linesOf(child).next()))
  child.kill('SIGKILL')
  await until(
    () => {
      try {
        return process.kill(host, 0)
      } catch {
        return false
      }
    },
    alive => !alive,
  )
})

test('closing twice, or while nobody asks, is quiet', async () => {
  const server = await serve()
  const [one, two] = await Promise.all([server.close(), server.close()])
  assert.equal(one.predictions, 0)
  assert.equal(one.p50, null)
  assert.equal(two.predictions, 0)
  await assert.rejects(fetch(server.url))
})

test('labels that are not plain words survive the whole way', async () => {
  const labels = ['__proto__', 'a "b"\n', '日本']
  assert.equal(labels.length, COLOURS.length)
  const server = await serve({ model: { name: 'odd', path: file('odd.onnx', await finishedArtefact({ labels })) } })
  assert.equal((await post(server, await encodePng(plain(9, 9, [255, 0, 0])))).body.label, '__proto__')
})

// ── helpers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function freePort(): Promise<number> {
  const probe = createServer().listen(0, '127.0.0.1')
  await once(probe, 'listening')
  const { port } = probe.address() as { port: number }
  await new Promise(resolve => probe.close(resolve))
  return port
}
/** The process of the model host, as /metrics tells it; 0 while there is none. */
async function hostPid(port: number): Promise<number> {
  const text = await (await fetch(`http://127.0.0.1:${port}/metrics`)).text()
  return Number(/plinth_host_pid\{[^}]*\} (\d+)/.exec(text)?.[1] ?? 0)
}
function linesOf(child: ChildProcess) {
  let text = ''
  const waiting: ((line: string) => void)[] = []
  const lines: string[] = []
  child.stdout!.setEncoding('utf8').on('data', (part: string) => {
    text += part
    const whole = text.split('\n')
    text = whole.pop()!
    for (const line of whole) (waiting.shift() ?? ((l: string) => void lines.push(l)))(line)
  })
  return { next: () => new Promise<string>(resolve => (lines.length ? resolve(lines.shift()!) : void waiting.push(resolve))) }
}
