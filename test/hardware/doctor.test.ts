import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { groups } from '../../src/hardware/check.ts'
import { disk, examine, memory, network, node, processor, tools } from '../../src/hardware/doctor.ts'
import { acceleratorChecks } from '../../src/hardware/doctor-devices.ts'
import { readAccelerators } from '../../src/hardware/inventory/accelerators.ts'
import { onSmallDisk } from '../storage/small-disk.ts'
import { temporaryFolder } from '../track/homes.ts'
import { system } from './machines.ts'

const provenance = { time: '', sources: [], verified: true, fake: false }

test('this machine gets one sentence a part, and a next step wherever something is wrong', async t => {
  const folder = temporaryFolder(t)
  const home = join(folder, 'not', 'there', 'yet')
  const override = { path: join(folder, 'hardware.yaml'), named: true }
  writeFileSync(override.path, 'devices: [{name: H100, count: 2}, {vendor: amd, name: MI300X}]\n')
  const { checks, inventory } = await examine({ home, cache: home, runtime: { version: '1.2.3', folder: null }, override })
  assert.deepEqual([...new Set(checks.map(({ group }) => group))].toSorted(), [...groups].toSorted())
  for (const { name, status, found, next } of checks) {
    assert.ok(found.length > 0, name)
    assert.ok(status === 'ok' || next, `${name} says what to do`)
  }
  const found = (name: string) => checks.find(check => check.name === name)!.found
  assert.match(found('processor'), /\d cores/)
  assert.match(found('runtime'), /1\.2\.3/)
  assert.match(found('NVIDIA'), /2 × H100 \(fake\), 80\.0 GB: usable \[fake, from the override file\]/)
  assert.match(found('AMD'), /\[fake/)
  // every part says where it was read
  const parts = [inventory.processor, inventory.memory, inventory.network, inventory.disks, inventory.tools, inventory.system]
  for (const part of parts) assert.ok(part.provenance.sources.length > 0 && part.provenance.time)
})

test('a card that nobody tried this on is marked so', async () => {
  const checks = acceleratorChecks({
    accelerators: await readAccelerators(system({ pci: { '0000:01:00.0': { vendor: '0x10de', driver: null } } })),
  })
  assert.match(checks[0]!.found, /not usable, because no driver is loaded for it \[not verified on hardware\]$/)
  assert.equal(acceleratorChecks({ accelerators: [] })[0]!.status, 'ok')
})

test('an old Node is a problem', () => {
  assert.equal(node('24.0.0').status, 'ok')
  assert.equal(node('26.1.0').status, 'ok')
  assert.equal(node('22.20.0').status, 'problem')
})

test('the sentence about cores says why some are not used', () => {
  const some = {
    model: 'X',
    sockets: 1,
    cores: 8,
    threads: 8,
    usable: 2,
    affinity: 4,
    quota: 1.5,
    instructions: ['AVX2', 'AVX-512', 'AVX-512 BF16'],
    numa: [],
    provenance,
  }
  assert.equal(
    processor(some).found,
    'X, 2 of 8 cores usable (this process is bound to 4; the container grants the time of 1.5), AVX2, AVX-512 BF16',
  )
  assert.equal(processor({ ...some, usable: 8, affinity: null, quota: null }).found, 'X, 8 cores, AVX2, AVX-512 BF16')
})

test('little memory is a warning, with the limit of the container', () => {
  const some = { total: 64e9, limit: 2e9, usable: 2e9, available: 5e8, swap: null, hugePages: null, shared: null, provenance }
  assert.deepEqual(
    [memory(some).status, memory(some).found],
    ['warning', "0.5 GB of 2.0 GB free (the container's limit; the machine has 64.0 GB)"],
  )
  assert.equal(memory({ ...some, limit: null, usable: 64e9, available: 5e10 }).status, 'ok')
})

test('RDMA without memory to lock is a problem; a port without a cable a warning', () => {
  const port = { device: 'mlx5_0', port: 1, state: 'ACTIVE', rate: '400 Gb/sec (4X NDR)', link: 'InfiniBand' }
  const some = { interfaces: [], rdma: [port], lockable: 8388608, provenance }
  assert.deepEqual(
    network(some, null).map(({ name, status }) => [name, status]),
    [
      ['cards', 'ok'],
      ['RDMA', 'ok'],
      ['RDMA memory', 'problem'],
    ],
  )
  assert.equal(network({ ...some, rdma: [{ ...port, state: 'DOWN' }], lockable: null }, 2e10)[1]!.status, 'warning')
  assert.match(network(some, 2.5e10)[0]!.found, /within this machine 25 Gbit\/s \(measured\)/)
})

test('what jobs need is told with the command that brings it', () => {
  const none = { version: null, problem: null }
  const nothing = { python: none, uv: none, conda: none, mamba: none, git: none, docker: none, podman: none, apptainer: none }
  const named = Object.fromEntries(Object.entries(nothing).map(([name, tool]) => [name, { name, ...tool }])) as Parameters<typeof tools>[0]
  const debian = system({ files: { '/etc/os-release': 'ID=debian\n' } })
  const checks = tools(named, debian)
  assert.equal(checks.find(({ name }) => name === 'Python')!.next, 'sudo apt install python3 python3-venv')
  assert.equal(checks.find(({ name }) => name === 'git')!.next, 'sudo apt install git')
  const half = tools({ ...named, python: { name: 'python', version: '3.11.2', problem: 'its module venv is missing' } }, debian)[0]!
  assert.deepEqual([half.status, half.next], ['warning', 'sudo apt install python3-venv'])
})

test('a folder is judged by the disk it is or will be on', async t => {
  const folder = temporaryFolder(t)
  mkdirSync(join(folder, 'there'))
  const elsewhere = 'Set X.'
  const there = await disk('home', join(folder, 'there'), elsewhere)
  const later = await disk('home', join(folder, 'there', 'a', 'b'), elsewhere)
  assert.match(later.found, /a.b, \d+\.\d GB free/)
  assert.equal(later.status, there.status)
})

test('a small disk is worth a warning; one without room for a file, or only for reading, is a problem', async t => {
  const seen = await onSmallDisk(t, new URL('./small-disk-doctor.ts', import.meta.url))
  if (seen) assert.deepEqual(seen, { small: 'warning', crowded: 'problem', readOnly: 'problem' })
})
