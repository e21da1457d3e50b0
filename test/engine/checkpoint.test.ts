import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { type TestContext, test } from 'node:test'
import { readCheckpoint, writeCheckpoint } from '../../src/engine/checkpoint.ts'
import { writeSafetensors } from '../../src/engine/safetensors.ts'

function place(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'plinth-checkpoint-'))
  t.after(() => rmSync(folder, { recursive: true }))
  return join(folder, 'checkpoint.safetensors')
}
const state = (step: number, size = 4) => ({
  step,
  tensors: new Map([
    ['w', { shape: [size], data: new Float32Array(size).fill(step) }],
    ['optimizer.m.w', { shape: [size], data: new Float32Array(size).fill(-step) }],
  ]),
})

test('a checkpoint is read as it was written, with its manifest; where there is none there is null', async t => {
  const path = place(t)
  assert.equal(await readCheckpoint(path), null)
  const manifest = { seed: 7, order: [2, 0, 1], deep: { text: 'é\u0000"' }, none: null }
  await writeCheckpoint(path, state(3), manifest)
  const read = await readCheckpoint(path)
  assert.deepEqual(read!.manifest, manifest)
  assert.equal(read!.state.step, 3)
  assert.deepEqual(
    [...read!.state.tensors].map(([name, { shape, data }]) => [name, { shape, data }]),
    [...state(3).tensors],
  )
  if (process.platform !== 'win32') assert.equal(statSync(path).mode & 0o077, 0, 'nobody else reads it')
})

test('a damaged checkpoint says so by its code: cut short anywhere, another format, a step that is none', async t => {
  const path = place(t)
  await writeCheckpoint(path, state(1), {})
  const whole = readFileSync(path)
  const tensors = state(1).tensors
  const damaged: [string, Uint8Array][] = [
    ...[0, 7, 8, 60, whole.length - 1].map((length): [string, Uint8Array] => [`the first ${length} bytes`, whole.subarray(0, length)]),
    ['zeros', Buffer.alloc(whole.length)],
    ['no step', writeSafetensors(tensors, { manifest: '{}' })],
    ['half a step', writeSafetensors(tensors, { step: '1.5', manifest: '{}' })],
    ['a step below zero', writeSafetensors(tensors, { step: '-1', manifest: '{}' })],
    ['no manifest', writeSafetensors(tensors, { step: '1' })],
    ['half a manifest', writeSafetensors(tensors, { step: '1', manifest: '{"a":' })],
  ]
  for (const [what, bytes] of damaged) {
    writeFileSync(path, bytes)
    await assert.rejects(readCheckpoint(path), { code: 'checkpoint_damaged' }, what)
  }
})

test('a writer that is killed leaves the old checkpoint or the new one, whole, whenever it dies', async t => {
  const path = place(t)
  const size = 400_000 // 3.2 MB: a kill falls into the write itself
  // the child says what is on disk after each write; every value of checkpoint n is n
  const program = `
    import { writeCheckpoint } from ${JSON.stringify(new URL('../../src/engine/checkpoint.ts', import.meta.url).href)}
    const size = ${size}
    for (let step = Number(process.argv[1]); ; step++) {
      const tensor = value => ({ shape: [size], data: new Float32Array(size).fill(value) })
      await writeCheckpoint(${JSON.stringify(path)}, { step, tensors: new Map([['w', tensor(step)], ['optimizer.m.w', tensor(-step)]]) }, { step })
      process.stdout.write(step + '\\n')
    }`
  let first = 1
  for (const acknowledgements of [1, 2, 3, 4, 5]) {
    const child = spawn(process.execPath, ['--input-type=module', '--eval', program, String(first)], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const ended = once(child, 'exit')
    let acknowledged = 0
    let count = 0
    for await (const line of createInterface({ input: child.stdout })) {
      acknowledged = Number(line)
      // the next write has begun by now, or begins while the signal is on its way
      if (++count >= acknowledgements) child.kill('SIGKILL')
    }
    assert.deepEqual(await ended, [null, 'SIGKILL'])
    const read = await readCheckpoint<{ step: number }>(path)
    assert.ok(read, 'there is one')
    const { step, tensors } = read.state
    assert.ok(step === acknowledged || step === acknowledged + 1, `step ${step} on disk, ${acknowledged} acknowledged`)
    assert.equal(read.manifest.step, step)
    assert.ok(tensors.get('w')!.data.every(v => v === step))
    assert.ok(tensors.get('optimizer.m.w')!.data.every(v => v === -step))
    first = step + 1
  }
  // halves of killed writers are told apart by their name, for gc
  for (const name of readdirSync(join(path, '..'))) assert.match(name, /^checkpoint\.safetensors(\.plinth-part-[0-9a-f]+)?$/)
})

test('a checkpoint that cannot be written is a storage failure, and the old one stays', async t => {
  const path = place(t)
  await writeCheckpoint(path, state(1), {})
  const folder = join(path, '..')
  if (process.getuid?.() === 0 || process.platform === 'win32') {
    // root may write anywhere: a folder in the way is refused to everyone
    await assert.rejects(writeCheckpoint(folder, state(2), {}), { code: 'path_in_the_way' })
  } else {
    chmodSync(folder, 0o500)
    t.after(() => chmodSync(folder, 0o700))
    await assert.rejects(writeCheckpoint(path, state(2), {}), { code: 'not_permitted' })
  }
  assert.equal((await readCheckpoint(path))!.state.step, 1)
  await assert.rejects(readCheckpoint(folder), { code: 'path_in_the_way' })
})
