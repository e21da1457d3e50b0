/** `plinth doctor` and `plinth advise` as they are called, and the numbers of this machine in /metrics. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startControlPlane } from '../../src/control-plane.ts'
import { examine } from '../../src/hardware/doctor.ts'
import { runTool, thisSystem } from '../../src/hardware/system.ts'
import { temporaryFolder, temporaryHome } from '../track/homes.ts'

const main = fileURLToPath(new URL('../../src/main.ts', import.meta.url))

function plinth(
  folder: string,
  args: readonly string[],
  variables: NodeJS.ProcessEnv = {},
): Promise<{ code: number | null; out: string; errors: string }> {
  const child = spawn(process.execPath, [main, ...args], {
    env: { ...process.env, PLINTH_HOME: join(folder, 'home'), PLINTH_CACHE: join(folder, 'cache'), NO_COLOR: '1', ...variables },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let [out, errors] = ['', '']
  child.stdout.setEncoding('utf8').on('data', text => (out += text))
  child.stderr.setEncoding('utf8').on('data', text => (errors += text))
  return new Promise(resolve => child.on('close', code => resolve({ code, out, errors })))
}
const lastLine = (out: string) => JSON.parse(out.trim().split('\n').at(-1)!)

test('doctor --json holds the inventory with its sources; fake devices are marked, a wrong override file is refused', async t => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'machine.json')
  writeFileSync(file, '{"devices": [{"name": "H100", "count": 8}]}')
  const { code, out } = await plinth(folder, ['doctor', '--json', '--quiet'], { PLINTH_HARDWARE: file })
  const { checks, device, inventory } = lastLine(out)
  assert.equal(code, 0)
  assert.equal(device.kind, 'cpu')
  assert.match(checks.find(({ name }: { name: string }) => name === 'NVIDIA').found, /^8 × H100 \(fake\).*\[fake/)
  assert.ok(inventory.processor.provenance.sources.length > 0 && inventory.memory.usable > 0 && inventory.host)
  assert.equal(inventory.accelerators.at(-1).provenance.fake, true)
  writeFileSync(file, 'devices: 8')
  const wrong = await plinth(folder, ['doctor', '--json'], { PLINTH_HARDWARE: file })
  assert.deepEqual([wrong.code, lastLine(wrong.out).error.code], [1, 'hardware_file'])
})

test('a hanging nvidia-smi does not hang the doctor: the card is told as one that does not answer', async t => {
  const folder = temporaryFolder(t)
  const tool = join(folder, 'nvidia-smi')
  writeFileSync(tool, '#!/bin/sh\ntrap "" TERM INT\nsleep 300\n')
  chmodSync(tool, 0o755)
  const began = performance.now()
  const { checks } = await examine({
    home: folder,
    cache: folder,
    runtime: { version: '1', folder: null },
    override: { path: join(folder, 'none'), named: false },
    system: {
      ...thisSystem,
      run: (command, ...args) => (command === 'nvidia-smi' ? runTool(tool, args, 400) : thisSystem.run(command, ...args)),
    },
  })
  assert.match(checks.find(({ name }) => name === 'NVIDIA')!.found, /does not answer in time/)
  assert.ok(performance.now() - began < 20_000)
})

test('advise reads a script, measures this machine, and keeps the forecast for the run that follows', async t => {
  const folder = temporaryFolder(t)
  const script = join(folder, 'train.py')
  writeFileSync(script, 'import torch\nbatch_size = 16\noptimizer = torch.optim.Adam(model.parameters())\n')
  const args = ['advise', script, '--params', '2M', '--image-size', '64', '--samples', '1000', '--devices', 'H100,L4', '--json']
  const { code, out, errors } = await plinth(folder, args)
  assert.equal(code, 0, errors)
  const advice = lastLine(out)
  assert.deepEqual(
    [advice.framework, advice.workload.batch, advice.workload.optimiser, advice.workload.samples],
    ['pytorch', 16, 'adam', 1000],
  )
  assert.deepEqual(advice.choices.map(({ target }: { target: { name: string } }) => target.name).toSorted(), [
    'H100',
    'L4',
    'this processor',
  ])
  for (const { memory, time } of advice.choices) {
    assert.ok(memory.terms.length >= 5 && memory.low <= memory.likely && memory.likely <= memory.high)
    assert.deepEqual([time.steps, time.run.basis], [63, 'estimated'])
  }
  assert.ok(advice.measured.operations > 0 && advice.measured.bandwidth > 0)
  assert.match(errors, /estimated/)
  assert.match(errors, /GFLOP\/s \(measured/)
  assert.equal(readdirSync(join(folder, 'home', 'hardware', 'forecasts')).length, 1)
  const nothing = await plinth(folder, ['advise', '--json'])
  assert.deepEqual([nothing.code, lastLine(nothing.out).error.code], [1, 'advice_incomplete'])
})

test('advise on a folder of pictures sets the own trainer beside the processor and accelerators', async t => {
  const folder = temporaryFolder(t)
  for (const label of ['cat', 'dog']) {
    mkdirSync(join(folder, 'photos', label), { recursive: true })
    for (let i = 0; i < 20; i++) writeFileSync(join(folder, 'photos', label, `${i}.jpg`), Buffer.alloc(5000))
  }
  const { code, out, errors } = await plinth(folder, [
    'advise',
    join(folder, 'photos'),
    '--backbone',
    'resnet18',
    '--devices',
    'L4',
    '--json',
  ])
  assert.equal(code, 0, errors)
  const advice = lastLine(out)
  assert.equal(advice.choices[0].target.name, 'plinth train, on this processor')
  assert.deepEqual([advice.workload.samples, advice.choices.length], [28, 3])
  assert.match(advice.notes[0], /40 pictures in 2 folders/)
})

test('a server answers Prometheus with what this machine does', async t => {
  const home = await temporaryHome(t)
  const server = await startControlPlane(home, { host: '127.0.0.1', port: 0 })
  let text = ''
  for (const end = performance.now() + 5000; !text.includes('plinth_node_memory_bytes') && performance.now() < end; )
    text = await (await fetch(`${server.url}/metrics`, { headers: { authorization: `Bearer ${server.token}` } })).text()
  await server.close()
  assert.match(text, /^plinth_node_memory_bytes\{kind="available"\} \d+$/m)
  if (process.platform === 'linux') assert.match(text, /^plinth_node_cpu_seconds_total\{mode="user"\} [\d.]+$/m)
})
