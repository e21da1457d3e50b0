/** Whether a job computes on its devices: the verdict over samples, and samples of real processes with a fake device. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  type DeviceSample,
  type DeviceUse,
  judgeDeviceUse,
  patience,
  sampleDeviceUse,
  type UseSample,
  watchDeviceUse,
  withDescendants,
} from '../../src/hardware/device-use.ts'
import { device } from '../../src/hardware/inventory/device.ts'
import { temporaryFolder } from '../track/homes.ts'
import { system } from './machines.ts'

const minute = 60_000
const on = (id: string, utilisation: number | null = 0.9): DeviceSample => ({
  id,
  utilisation,
  ours: [{ pid: 10, memory: 1e9 }],
  seen: 'listed',
})
const off = (id: string): DeviceSample => ({ id, utilisation: 0, ours: [], seen: 'listed' })
const unseen = (id: string): DeviceSample => ({ id, utilisation: null, ours: null, seen: 'unseen' })
/** A sample a minute, beginning with the start. */
const verdict = (...samples: DeviceSample[][]) =>
  judgeDeviceUse({ started: 0, samples: samples.map((devices, i): UseSample => ({ time: i * minute, devices })) })

test('a process on the device and something running there is used', () => {
  const use = verdict([off('a')], [on('a')])
  assert.deepEqual([use.verdict, use.devices], ['used', [{ id: 'a', used: true, utilisation: 0.9, memory: 1e9 }]])
  assert.match(verdict([on('a'), off('b')]).reason, /1 of 2 devices are used; no process is on b/)
  assert.equal(verdict([on('a', null)]).verdict, 'used', 'utilisation that is not told does not count against it')
})

test('nothing on the device is waited for, and then is not used', () => {
  assert.equal(verdict([off('a')]).verdict, 'waiting')
  const use = verdict([off('a')], [off('a')])
  assert.equal(use.verdict, 'not_used')
  assert.match(use.reason, /computes on the processor/)
  assert.match(verdict([on('a')], [off('a')]).reason, /any more/)
})

test('a device that is held and does nothing is idle, once it lasts', () => {
  const minutes = (n: number, sample: DeviceSample[]) => Array.from({ length: n }, () => sample)
  assert.equal(verdict(...minutes(9, [on('a', 0)])).verdict, 'used')
  assert.equal(verdict(...minutes(11, [on('a', 0)])).verdict, 'idle')
  assert.equal(verdict(...minutes(8, [on('a', 0)]), [on('a')], ...minutes(8, [on('a', 0)])).verdict, 'used')
})

test('what cannot be seen is not concluded from', () => {
  assert.equal(verdict([unseen('a')], [unseen('a')]).verdict, 'unknown')
  assert.equal(verdict([on('a'), unseen('b')]).verdict, 'used')
  assert.equal(judgeDeviceUse({ started: 0, samples: [] }).verdict, 'unknown')
})

test('whatever the samples, "not used" is never said while a process of the job is on a device, nor before its time', () => {
  const sample = fc.record({
    id: fc.constantFrom('a', 'b'),
    utilisation: fc.option(fc.double({ min: 0, max: 1, noNaN: true })),
    ours: fc.option(fc.array(fc.record({ pid: fc.nat(), memory: fc.option(fc.nat()) }), { maxLength: 2 })),
    seen: fc.constant('listed' as const),
  })
  fc.assert(
    fc.property(fc.array(fc.array(sample, { maxLength: 3 }), { maxLength: 15 }), lists => {
      const use = verdict(...lists)
      const last = lists.at(-1) ?? []
      if (last.some(({ ours }) => ours?.length)) assert.ok(['used', 'idle'].includes(use.verdict))
      if (use.verdict === 'not_used')
        assert.ok((lists.length - 1) * minute >= patience.start && last.every(({ ours }) => ours?.length === 0))
      assert.ok(use.reason.length > 0)
    }),
  )
})

test('NVIDIA: the list of nvidia-smi counts; where it shows other numbers, what the job has open', async () => {
  const card = device({
    id: 'GPU-1-2',
    vendor: 'nvidia',
    name: 'H100',
    model: 'H100',
    driver: 'nvidia 550',
    nodes: ['/dev/nvidiactl', '/dev/nvidia0', '/dev/nvidia-uvm'],
  })
  const tools = (apps: string) => ({
    'nvidia-smi --query-gpu=uuid,memory.used,utilization.gpu': 'GPU-1-2, 4000, 35\n',
    'nvidia-smi --query-compute-apps=gpu_uuid,pid,used_memory': apps,
  })
  const sample = async (machine: Parameters<typeof system>[0], pids: number[]) =>
    (await sampleDeviceUse([card], pids, { system: system(machine), now: () => 0 })).devices[0]!
  assert.deepEqual(await sample({ tools: tools('GPU-1-2, 42, 3900\nGPU-1-2, 7, 100\n') }, [41, 42]), {
    id: 'GPU-1-2',
    utilisation: 0.35,
    ours: [{ pid: 42, memory: 3900 * 2 ** 20 }],
    seen: 'listed',
  })
  const links = {
    '/proc/42/fd/7': '/dev/nvidia0',
    '/proc/42/fd/8': '/dev/nvidia-uvm',
    '/proc/43/fd/3': '/dev/nvidia0',
    '/proc/43/fd/4': '/dev/nvidiactl',
  }
  const inside = await sample({ tools: tools('GPU-1-2, 99042, 3900\n'), links }, [42, 43])
  assert.deepEqual([inside.ours, inside.seen], [[{ pid: 42, memory: null }], 'opened'], 'looking at a card (43) is not computing on it')
  const processor = await sample({ tools: tools(''), links: { '/proc/44/fd/0': '/dev/null' } }, [44])
  assert.deepEqual([processor.ours, processor.utilisation], [[], 0.35])
})

test('a real process that opens its device is seen, with its children; one that does not is reported once its time is up', async t => {
  const folder = temporaryFolder(t)
  const file = join(folder, 'fake0')
  writeFileSync(file, '')
  const fake = device({ id: 'fake-nvidia-0', vendor: 'nvidia', name: 'H100', model: 'H100 (fake)', nodes: [file], fake: true })
  // the shell only waits for the child that has it open
  const job = spawn('/bin/sh', ['-c', `tail -f "${file}" & wait`], { stdio: 'ignore', detached: true })
  t.after(() => process.kill(-job.pid!, 'SIGKILL'))
  await once(job, 'spawn')
  const told: DeviceUse[] = []
  const watch = watchDeviceUse({ devices: [fake], pids: () => withDescendants([job.pid!]), onVerdict: use => told.push(use) })
  t.after(watch.stop)
  let use = await watch.look()
  for (const end = performance.now() + 5000; use.verdict !== 'used' && performance.now() < end; ) use = await watch.look()
  assert.equal(use.verdict, 'used', use.reason)
  assert.equal(told.at(-1)!.verdict, 'used')
  const [sample] = (await sampleDeviceUse([fake], [process.pid])).devices
  assert.deepEqual([sample!.ours, sample!.seen], [[], 'opened'])
})
