/** Processor, memory, disks, network, tools, override file, and this machine as a place for jobs. */
import assert from 'node:assert/strict'
import { chmodSync, closeSync, mkdirSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { accelerators, canonicalName, knownAccelerator, memoryInName } from '../../src/hardware/accelerators.ts'
import { mountOf, parseMounts, readDisks } from '../../src/hardware/inventory/disks.ts'
import { devicesOf, keepInventory, readInventory } from '../../src/hardware/inventory/index.ts'
import { readMemory } from '../../src/hardware/inventory/memory.ts'
import { lockableBytes, readNetwork } from '../../src/hardware/inventory/network.ts'
import { parseOverride, withOverride } from '../../src/hardware/inventory/override.ts'
import { instructionsOf, readProcessor } from '../../src/hardware/inventory/processor.ts'
import { localNode } from '../../src/hardware/node.ts'
import { distribution, install } from '../../src/hardware/packages.ts'
import { recorded, runTool, thisSystem } from '../../src/hardware/system.ts'
import { readGraphicsRuntimes, readTools } from '../../src/hardware/tools.ts'
import { temporaryFolder } from '../track/homes.ts'
import { system } from './machines.ts'

test('names: one for each device, whatever a driver, a cloud or a job file calls it', () => {
  const names: [string, string][] = [
    ['NVIDIA H100 80GB HBM3', 'H100'],
    ['NVIDIA H100 PCIe', 'H100'],
    ['h100', 'H100'],
    ['NVIDIA A100-SXM4-80GB', 'A100'],
    ['A100-80GB', 'A100'],
    ['NVIDIA A10G', 'A10G'],
    ['NVIDIA A10', 'A10'],
    ['Tesla V100-SXM2-16GB', 'V100'],
    ['Tesla T4', 'T4'],
    ['NVIDIA L4', 'L4'],
    ['NVIDIA GeForce RTX 4090', 'RTX 4090'],
    ['NVIDIA GeForce RTX 4090 Laptop GPU', 'RTX 4090 Laptop'],
    ['NVIDIA GeForce RTX 3080 Ti', 'RTX 3080 Ti'],
    ['NVIDIA RTX A6000', 'RTX A6000'],
    ['NVIDIA RTX 6000 Ada Generation', 'RTX 6000 Ada'],
    ['AMD Instinct MI250X/MI250', 'MI250X'],
    ['Radeon RX 7900 XTX', 'RX 7900 XTX'],
    ['Intel(R) Arc(TM) A770 Graphics', 'Arc A770'],
    ['Apple M3 Pro', 'M3 Pro'],
    ['v5litepod-8', 'TPU v5e'],
    ['HL-225', 'Gaudi 2'],
    ['Frobnicator 9', 'Frobnicator 9'],
  ]
  for (const [text, name] of names) assert.equal(canonicalName(text), name, text)
  for (const { name } of accelerators) assert.equal(canonicalName(canonicalName(name)), canonicalName(name), `${name} is its own name`)
  assert.equal(knownAccelerator('NVIDIA GeForce RTX 4090 Laptop GPU'), undefined, 'a laptop has another chip')
  assert.equal(knownAccelerator('NVIDIA H100 PCIe')!.half, 756.5)
  assert.deepEqual([memoryInName('A100-80GB'), memoryInName('NVIDIA A100-SXM4-40GB'), memoryInName('T4')], [80, 40, null])
  fc.assert(fc.property(fc.string({ maxLength: 60 }), text => typeof canonicalName(text) === 'string'))
})

test('instructions of processors are read in their order', () => {
  assert.deepEqual(instructionsOf('flags\t\t: fpu sse4_2 avx2 avx512f avx512_bf16 avx512_vnni amx_tile amx_bf16\nbugs\t: avx_vnni\n'), [
    'SSE4.2',
    'AVX2',
    'AVX-512',
    'AVX-512 VNNI',
    'AVX-512 BF16',
    'AMX',
    'AMX BF16',
  ])
  assert.deepEqual(instructionsOf('Features\t: fp asimd sve bf16\n'), ['NEON', 'SVE', 'BF16'])
  assert.deepEqual(instructionsOf(''), [])
})

test('a processor of two sockets, bound to a part and granted less', async () => {
  const block = (i: number, socket: number, core: number) =>
    `processor\t: ${i}\nmodel name\t: Xeon X\nphysical id\t: ${socket}\ncore id\t\t: ${core}\nflags\t\t: avx2\n`
  const files = {
    '/proc/cpuinfo': [block(0, 0, 0), block(1, 0, 0), block(2, 1, 0), block(3, 1, 0)].join('\n'),
    '/proc/self/status': 'Cpus_allowed_list:\t0-2\n',
    '/proc/self/cgroup': '0::/job\n',
    '/sys/fs/cgroup/job/cpu.max': '150000 100000\n',
    '/sys/devices/system/node/node0/cpulist': '0-1\n',
    '/sys/devices/system/node/node0/meminfo': 'Node 0 MemTotal:       1000 kB\n',
    '/sys/devices/system/node/node1/cpulist': '2-3\n',
  }
  const { provenance, ...found } = await readProcessor(system({ files }))
  assert.deepEqual(found, {
    model: 'Xeon X',
    sockets: 2,
    cores: 2,
    threads: 4,
    usable: 2,
    affinity: 3,
    quota: 1.5,
    instructions: ['AVX2'],
    numa: [
      { node: 0, threads: '0-1', memory: 1024000 },
      { node: 1, threads: '2-3', memory: null },
    ],
  })
  assert.ok(provenance.sources.some(({ source, raw }) => source === '/proc/cpuinfo' && raw.startsWith('processor')))
  const arm = await readProcessor(
    system({ files: { '/proc/cpuinfo': 'processor\t: 0\nFeatures\t: asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd4f\n' } }),
  )
  assert.equal(arm.model, 'Neoverse V2')
})

test('memory is the smaller of the machine and the tightest group, and what is free the smaller of both as well', async () => {
  const meminfo =
    'MemTotal: 64000000 kB\nMemAvailable: 32000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\nHugePages_Total:      10\nHugePages_Free:        4\nHugepagesize:       2048 kB\n'
  const group = {
    '/proc/self/cgroup': '0::/a/b\n',
    '/sys/fs/cgroup/a/memory.max': '8000000000\n',
    '/sys/fs/cgroup/a/b/memory.max': 'max\n',
    '/sys/fs/cgroup/a/b/memory.current': '3000000000\n',
    '/sys/fs/cgroup/a/b/memory.stat': 'anon 1\ninactive_file 1000000000\n',
  }
  const bounded = await readMemory(system({ files: { '/proc/meminfo': meminfo, ...group } }))
  assert.deepEqual([bounded.usable, bounded.limit, bounded.available], [8e9, 8e9, 6e9])
  assert.deepEqual(bounded.hugePages, { size: 2048 * 1024, total: 10, free: 4 })
  const free = await readMemory(system({ files: { '/proc/meminfo': meminfo } }))
  assert.deepEqual([free.limit, free.available], [null, 32000000 * 1024])
})

test('disks: escapes, places mounted over, network disks, what holds a folder', async () => {
  const lines = [
    '22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/nvme0n1p1 rw',
    '23 22 0:20 / /proc rw - proc proc rw',
    '24 22 0:44 / /mnt/my\\040nas rw,relatime - nfs4 server:/export rw,vers=4.2',
    '25 22 8:1 / /data ro - xfs /dev/sda1 ro',
    '26 22 0:50 / /home/x rw - tmpfs tmpfs rw',
    '27 22 8:17 / /data rw - xfs /dev/sdb1 rw',
    'not a line',
  ].join('\n')
  const mounts = parseMounts(lines)
  assert.deepEqual(
    mounts.map(({ mount, source, readOnly }) => [mount, source, readOnly]),
    [
      ['/', '/dev/nvme0n1p1', false],
      ['/proc', 'proc', false],
      ['/mnt/my nas', 'server:/export', false],
      ['/home/x', 'tmpfs', false],
      ['/data', '/dev/sdb1', false],
    ],
  )
  assert.equal(mountOf(mounts, '/data/a/b')!.mount, '/data')
  assert.equal(mountOf(mounts, '/database')!.mount, '/')
  const machine = {
    ...system({
      files: {
        '/proc/self/mountinfo': lines,
        '/sys/class/block/sdb1/queue/x': '',
        '/sys/block/sdb/queue/rotational': '1\n',
        '/sys/dev/block/254:1/queue/rotational': '0\n',
      },
      links: { '/sys/dev/block/8:17': '../../devices/pci/ata2/block/sdb/sdb1' },
      tools: { 'stat -f -c %S %b %a /mnt/my nas': { late: true, code: 1 } },
    }),
    space: async () => ({ total: 1e12, free: 5e11, type: 0 }),
  }
  const { disks } = await readDisks(machine, ['/home/x/.plinth'])
  assert.deepEqual(
    disks.map(({ mount, network, rotational, free }) => [mount, network, rotational, free]),
    [
      ['/', false, false, 5e11],
      ['/mnt/my nas', true, null, null],
      ['/home/x', false, null, 5e11],
      ['/data', false, true, 5e11],
    ],
  )
  fc.assert(fc.property(fc.string({ maxLength: 200 }), text => Array.isArray(parseMounts(text))))
  assert.ok((await readDisks(thisSystem, [process.cwd()])).disks.length > 0 || process.platform !== 'linux')
})

test('network cards and the ports of RDMA', async () => {
  const net = (name: string, speed: string) => ({
    [`/sys/class/net/${name}/speed`]: speed,
    [`/sys/class/net/${name}/operstate`]: 'up\n',
    [`/sys/class/net/${name}/mtu`]: '1500\n',
  })
  const found = await readNetwork(
    system({
      files: {
        ...net('eth0', '100000\n'),
        ...net('veth1', '-1\n'),
        '/sys/class/net/lo/operstate': 'up\n',
        '/sys/class/infiniband/mlx5_0/ports/1/state': '4: ACTIVE\n',
        '/sys/class/infiniband/mlx5_0/ports/1/rate': '400 Gb/sec (4X NDR)\n',
        '/sys/class/infiniband/mlx5_0/ports/1/link_layer': 'InfiniBand\n',
        '/proc/self/limits':
          'Limit  Soft Limit  Hard Limit  Units\nMax locked memory         8388608              8388608              bytes\n',
      },
      links: {
        '/sys/class/net/eth0/device': '../../../0000:17:00.0',
        '/sys/class/net/eth0/device/driver': '../../bus/pci/drivers/mlx5_core',
      },
    }),
  )
  assert.deepEqual(
    found.interfaces.map(({ name, speed, virtual, driver, up }) => [name, speed, virtual, driver, up]),
    [
      ['eth0', 1e11, false, 'mlx5_core', true],
      ['veth1', null, true, null, true],
    ],
  )
  assert.deepEqual(found.rdma, [{ device: 'mlx5_0', port: 1, state: 'ACTIVE', rate: '400 Gb/sec (4X NDR)', link: 'InfiniBand' }])
  assert.equal(found.lockable, 8388608)
  assert.equal(lockableBytes('Max locked memory  unlimited  unlimited  bytes\n'), null)
})

test('the command to install something is that of the distribution, or of the one it descends from', () => {
  const of = (release: string) => install('git', system({ files: { '/etc/os-release': release } }))
  assert.equal(of('ID=linuxmint\nID_LIKE="ubuntu debian"\n'), 'sudo apt install git')
  assert.equal(of('ID="rocky"\nID_LIKE="rhel centos fedora"\n'), 'sudo dnf install git')
  assert.equal(of('ID=opensuse-tumbleweed\nID_LIKE="opensuse suse"\n'), 'sudo zypper install git')
  assert.equal(of('ID=void\n'), 'Install git from git-scm.com.')
  assert.equal(
    distribution(system({ files: { '/etc/os-release': 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n' } })).title,
    'Debian GNU/Linux 12 (bookworm)',
  )
})

test('tools are told with their versions and what is missing of them', async () => {
  const { tools } = await readTools(
    system({
      tools: {
        'python3 --version': 'Python 3.11.2\n',
        'python3 -c': { code: 1, errors: "No module named 'ensurepip'" },
        'git --version': 'git version 2.39.5\n',
        'docker version': { code: 1, output: '28.2.2 ', errors: 'permission denied while trying to connect to the Docker daemon socket' },
        'uv --version': { late: true, code: 1 },
      },
    }),
  )
  assert.deepEqual([tools.python.version, tools.python.problem], ['3.11.2', 'its module venv is missing'])
  assert.deepEqual([tools.git.version, tools.conda.version], ['2.39.5', null])
  assert.deepEqual([tools.docker.version, tools.docker.problem], ['28.2.2', 'this user may not use it'])
  assert.match(tools.uv.problem!, /does not answer/)
  const runtimes = (files: Record<string, string>) => readGraphicsRuntimes(system({ files }), '/x/onnxruntime-node')
  const vulkan = { '/usr/lib/x86_64-linux-gnu/libvulkan.so.1': '', '/usr/share/vulkan/icd.d/lvp_icd.json': '' }
  assert.deepEqual((await runtimes(vulkan)).vulkan, { loader: true, drivers: ['lvp_icd.json'], software: true })
  assert.equal((await runtimes({ ...vulkan, '/usr/share/vulkan/icd.d/nvidia_icd.json': '' })).vulkan.software, false)
  assert.equal(
    (await runtimes({ [`/x/onnxruntime-node/bin/napi-v6/linux/${process.arch}/libonnxruntime_providers_cuda.so`]: '' })).cudaProvider,
    true,
  )
  assert.equal((await runtimes({})).cudaProvider, false)
})

test('a tool that hangs, and what it started, is left after its time', async t => {
  const folder = temporaryFolder(t)
  const tool = join(folder, 'nvidia-smi')
  writeFileSync(tool, '#!/bin/sh\ntrap "" TERM\necho begun\nsleep 300\n')
  chmodSync(tool, 0o755)
  const began = performance.now()
  const answer = await runTool(tool, [], 300)
  assert.deepEqual([answer!.late, answer!.output], [true, 'begun\n'])
  assert.ok(performance.now() - began < 5000)
  assert.equal(await runTool(join(folder, 'nothing'), []), null)
  assert.equal((await runTool('/bin/sh', ['-c', 'echo out; echo err >&2; exit 3']))!.code, 3)
  // it is not asked a second time by the same reader
  let asked = 0
  const { system: noting, provenance } = recorded(
    { ...system({}), run: async () => ({ code: 1, output: '', errors: '', late: ++asked > 0 }) },
    { verified: false },
  )
  await noting.run('nvidia-smi', '-L')
  await noting.run('nvidia-smi', 'topo', '-m')
  assert.equal(asked, 1)
  assert.deepEqual(provenance.sources, [{ source: 'nvidia-smi -L', raw: 'no answer in time' }])
})

test('an override file adds fake devices, leaves real ones out, and says where it is wrong', async t => {
  const folder = temporaryFolder(t)
  const path = join(folder, 'hardware.yaml')
  writeFileSync(path, 'devices:\n  - {vendor: nvidia, name: A100-80GB, count: 2, memory: 80GB}\n  - {vendor: amd, name: MI300X}\n')
  const inventory = await readInventory({ override: { path, named: true } })
  const fakes = devicesOf(inventory).filter(({ fake }) => fake)
  assert.deepEqual(
    fakes.map(({ id, name, memory, usable }) => [id, name, memory, usable]),
    [
      ['fake-nvidia-0', 'A100', 80e9, true],
      ['fake-nvidia-1', 'A100', 80e9, true],
      ['fake-amd-0', 'MI300X', 192e9, true],
    ],
  )
  const real = [
    {
      vendor: 'nvidia' as const,
      provenance: { time: '', sources: [], verified: false, fake: false },
      devices: [{ ...fakes[0]!, id: 'GPU-1', fake: false }],
      obstacles: [],
    },
  ]
  const [kept] = withOverride(real, parseOverride('exclude: [GPU-1]'), 'x')
  assert.deepEqual([kept!.devices[0]!.usable, kept!.devices[0]!.obstacles[0]!.code], [false, 'set_aside'])
  assert.deepEqual(parseOverride('{"devices": [{"name": "T4", "memory": 16}]}').devices[0]!.memory, 16)
  assert.deepEqual(parseOverride(''), { devices: [], exclude: [] })
  const bomb = `a: &a [x]\n${Array.from({ length: 30 }, (_, i) => `b${i}: [*a, *a]`).join('\n')}\n`
  for (const text of ['devices: 3', 'devices: [{name: ""}]', 'device: []', 'devices: [{name: A, name: B}]', '{', bomb, 'x'.repeat(200_000)])
    assert.throws(() => parseOverride(text), { code: 'hardware_file' }, text.slice(0, 30))
  await assert.rejects(readInventory({ override: { path: join(folder, 'gone.yaml'), named: true } }), { code: 'hardware_file' })
  assert.deepEqual(
    (await readInventory({ override: { path: join(folder, 'gone.yaml'), named: false } })).accelerators.filter(
      ({ provenance }) => provenance.fake,
    ),
    [],
  )
  fc.assert(
    fc.property(fc.string({ maxLength: 100 }), text => {
      try {
        parseOverride(text)
      } catch (error) {
        assert.equal((error as { code?: string }).code, 'hardware_file')
      }
    }),
  )
})

test('this machine is a place for jobs; a device that somebody else holds is not free', async t => {
  const folder = temporaryFolder(t)
  mkdirSync(join(folder, 'dev'))
  const file = join(folder, 'dev', 'fake0')
  writeFileSync(file, '')
  const path = join(folder, 'hardware.yaml')
  writeFileSync(path, `devices: [{name: H100, node: ${file}}, {name: H100}]`)
  const options = { override: { path, named: true } }
  const before = await localNode(options)
  assert.deepEqual(
    before.devices.map(({ id, free, why }) => [id, free, why]),
    [
      ['fake-nvidia-0', true, null],
      ['fake-nvidia-1', true, null],
    ],
  )
  assert.ok(before.cpus > 0 && before.memory > 1e8 && before.name.length > 0)
  const held = openSync(file, 'r')
  try {
    const [first] = (await localNode(options)).devices
    assert.deepEqual([first!.free, first!.why], [false, `process ${process.pid} of someone else computes on it`])
    assert.equal((await localNode({ ...options, ours: pid => pid === process.pid })).devices[0]!.free, true)
  } finally {
    closeSync(held)
  }
})

test('the inventory is read again after a new boot and on SIGHUP', async t => {
  const path = join(temporaryFolder(t), 'hardware.yaml')
  let boot = 'one'
  let looks = 0
  const machine = {
    ...system({}),
    read: (asked: string) => (asked === '/proc/sys/kernel/random/boot_id' ? boot : null),
    list: async (folder: string) => {
      if (folder === '/dev/tenstorrent') looks++
      return []
    },
  }
  const kept = keepInventory({ override: { path, named: false }, system: machine })
  t.after(kept.close)
  await kept.current()
  await kept.current()
  assert.equal(looks, 1)
  boot = 'two'
  assert.equal((await kept.current()).boot, 'two')
  assert.equal(looks, 2)
  process.emit('SIGHUP')
  await kept.current()
  assert.equal(looks, 3)
})
