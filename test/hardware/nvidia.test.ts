/**
 * NVIDIA from what its tools are documented to print. The forms are those of nvidia-smi's man page and of outputs that people published:
 * `-L` with slices (NVIDIA/go-nvml#57, influxdata/telegraf#5812), `topo -m` (Project-HAMi/HAMi#99, kubernetes/kubernetes#53497), memory [N/A]
 * of GB10, refusals (NVIDIA's forums). The values are ours. Nothing here was seen on a card.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { readAccelerators } from '../../src/hardware/inventory/accelerators.ts'
import type { Device } from '../../src/hardware/inventory/device.ts'
import { cudaVersion, driverVersion, parseApps, parseListing, parseTable, parseTopology } from '../../src/hardware/inventory/nvidia.ts'
import { type Machine, system } from './machines.ts'

const gpu = (i: number) => `GPU-0000000${i}-1111-2222-3333-444444444444`
const query = (fields: string) => `nvidia-smi --query-gpu=uuid,${fields} --format=csv,noheader,nounits`
const rows = (...values: string[]) => values.map((value, i) => `${gpu(i)}, ${value}\n`).join('')

/** Two H100 in good order. */
const healthy: Machine & { tools: NonNullable<Machine['tools']>; nodes: NonNullable<Machine['nodes']> } = {
  pci: {
    '0000:18:00.0': { vendor: '0x10de', driver: 'nvidia', numa: '0' },
    '0000:9a:00.0': { vendor: '0x10de', driver: 'nvidia', numa: '1' },
    '0000:00:1f.0': { vendor: '0x8086', class: '0x060100' },
  },
  nodes: { '/dev/nvidiactl': 'granted', '/dev/nvidia0': 'granted', '/dev/nvidia1': 'granted', '/dev/nvidia-uvm': 'granted' },
  tools: {
    'nvidia-smi': '| NVIDIA-SMI 550.54.15   Driver Version: 550.54.15   CUDA Version: 12.4     |\n',
    'nvidia-smi -L': `GPU 0: NVIDIA H100 80GB HBM3 (UUID: ${gpu(0)})\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: ${gpu(1)})\n`,
    'nvidia-smi topo -m':
      '\t\x1b[4mGPU0\tGPU1\tNIC0\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID\x1b[0m\nGPU0\t X \tNV18\tPIX\t0-55\t0\t\tN/A\nGPU1\tNV18\t X \tSYS\t56-111\t1\t\tN/A\nNIC0\tPIX\tSYS\t X \t\t\t\t\n\nLegend:\n\n  X    = Self\n',
    [query('index,pci.bus_id,name')]: rows('0, 00000000:18:00.0, NVIDIA H100 80GB HBM3', '1, 00000000:9A:00.0, NVIDIA H100 80GB HBM3'),
    [query('memory.total,memory.used')]: rows('81559, 4', '81559, 40000'),
    [query('utilization.gpu,temperature.gpu')]: rows('0, 31', '97, 66'),
    [query('driver_version')]: rows('550.54.15', '550.54.15'),
    [query('compute_cap')]: rows('9.0', '9.0'),
    [query('mig.mode.current')]: rows('Disabled', 'Disabled'),
    [query('pcie.link.gen.max,pcie.link.width.max')]: rows('5, 16', '5, 16'),
    [query('power.limit')]: rows('700.00', '700.00'),
    [query('ecc.errors.uncorrected.volatile.total')]: rows('0', '0'),
    [query('compute_mode,persistence_mode')]: rows('Default, Enabled', 'Default, Enabled'),
    'nvidia-smi --query-compute-apps=gpu_uuid,pid,used_memory --format=csv,noheader,nounits': `${gpu(1)}, 4711, 39990\n`,
  },
}
const changed = (tools: Machine['tools'], rest: Machine = {}): Machine => ({ ...healthy, ...rest, tools: { ...healthy.tools, ...tools } })
const found = async (machine: Machine): Promise<Device[]> => (await readAccelerators(system(machine))).flatMap(({ devices }) => devices)
const problems = ({ obstacles }: Device) => obstacles.map(({ code, effect }) => `${code} ${effect}`)

test('healthy cards are named, measured and connected', async () => {
  const [first, second, ...more] = await found(healthy)
  assert.deepEqual(more, [])
  assert.deepEqual(
    [first!.id, first!.name, first!.memory, first!.index, first!.address],
    [gpu(0), 'H100', 81559 * 2 ** 20, 0, '0000:18:00.0'],
  )
  assert.deepEqual([first!.usable, problems(first!), first!.holders, first!.numa], [true, [], [], 0])
  assert.deepEqual([first!.details['capability'], first!.details['cuda'], first!.details['links']], ['9.0', '12.4', 'X NV18'])
  assert.deepEqual([first!.driver, first!.utilisation, second!.utilisation, second!.numa], ['nvidia 550.54.15', 0, 0.97, 1])
  assert.deepEqual(
    [second!.usable, problems(second!), second!.holders],
    [true, ['memory_held warns'], [{ pid: 4711, memory: 39990 * 2 ** 20 }]],
  )
  assert.equal(first!.verified, false)
})

test('fields that a card or an older nvidia-smi does not have are missing, nothing else is', async () => {
  const [first] = await found(
    changed({
      [query('memory.total,memory.used')]: rows('[N/A], [N/A]', '[Not Supported], [N/A]'),
      [query('compute_cap')]: { code: 2, output: 'Field "compute_cap" is not a valid field to query.\n' },
      [query('mig.mode.current')]: rows('[N/A]', '[N/A]'),
      [query('ecc.errors.uncorrected.volatile.total')]: rows('[N/A]', '[N/A]'),
      [query('power.limit')]: rows('[Unknown Error]', 'ERR!'),
    }),
  )
  assert.deepEqual([first!.name, first!.memory, first!.usable, first!.driver], ['H100', null, true, 'nvidia 550.54.15'])
  for (const missing of ['capability', 'mig', 'memory errors', 'power limit (W)'])
    assert.equal(Object.hasOwn(first!.details, missing), false, missing)
})

test('for each way a card cannot be used, it is said which, with the next command for this distribution', async () => {
  const refusing = (output: string, code = 9) => Object.fromEntries(Object.keys(healthy.tools).map(tool => [tool, { code, output }]))
  const osRelease = { '/etc/os-release': 'ID=ubuntu\nID_LIKE=debian\nPRETTY_NAME="Ubuntu 24.04"\n' }
  const one = { '0000:18:00.0': { vendor: '0x10de', driver: 'nvidia' as string | null } }
  const cases: [string, Machine, string, RegExp, RegExp][] = [
    [
      'no driver',
      { pci: { a: { vendor: '0x10de', driver: null } }, files: osRelease },
      'driver_missing',
      /no driver/,
      /ubuntu-drivers install/,
    ],
    [
      'no driver',
      { pci: { a: { vendor: '0x10de', driver: null } }, files: { '/etc/os-release': 'ID=fedora\n' } },
      'driver_missing',
      /no driver/,
      /dnf install akmod-nvidia/,
    ],
    [
      'nouveau',
      { pci: { a: { vendor: '0x10de', driver: 'nouveau' } }, files: { '/etc/os-release': 'ID=arch\n' } },
      'driver_other',
      /nouveau/,
      /pacman -S nvidia/,
    ],
    ['set aside', { pci: { a: { vendor: '0x10de', driver: 'vfio-pci' } } }, 'set_aside', /virtual machines/, /virtual machine/],
    [
      'a container without devices',
      { pci: one, files: { '/.dockerenv': '' } },
      'node_missing',
      /no \/dev\/nvidiactl in this container/,
      /--gpus all/,
    ],
    [
      'no right to the file',
      { pci: one, nodes: { '/dev/nvidiactl': 'refused' } },
      'node_refused',
      /may not open \/dev\/nvidiactl/,
      /usermod -aG video,render/,
    ],
    [
      'driver updated',
      changed(refusing('Failed to initialize NVML: Driver/library version mismatch\nNVML library version: 535.54\n', 18), { pci: one }),
      'driver_mismatch',
      /version mismatch/,
      /reboot/,
    ],
    [
      'driver not running',
      changed(
        refusing(
          "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. Make sure that the latest NVIDIA driver is installed and running.\n",
        ),
        { pci: one, files: osRelease },
      ),
      'driver_not_running',
      /no running driver/,
      /modprobe nvidia/,
    ],
    [
      'NVML refuses',
      changed(refusing('Failed to initialize NVML: Insufficient Permissions\n', 4), { pci: one }),
      'tool_refused',
      /Insufficient/,
      /usermod/,
    ],
    [
      'fallen off the bus',
      changed(
        refusing('Unable to determine the device handle for GPU0000:18:00.0: GPU is lost.  Reboot the system to recover this GPU\n', 15),
        { pci: one },
      ),
      'device_lost',
      /does not answer any more/,
      /reboot/,
    ],
    [
      'a container that lost it',
      changed(refusing('Failed to initialize NVML: Unknown Error\n', 255), { pci: one, files: { '/.dockerenv': '' } }),
      'node_refused',
      /lost its access/,
      /Restart the container/,
    ],
    [
      'a tool that hangs',
      changed(Object.fromEntries(Object.keys(healthy.tools).map(tool => [tool, { late: true, code: 1 }])), { pci: one }),
      'tool_late',
      /does not answer in time/,
      /dmesg/,
    ],
  ]
  for (const [name, machine, code, says, next] of cases) {
    const devices = await found(machine)
    assert.equal(devices.length, 1, name)
    assert.equal(devices[0]!.usable, false, name)
    const obstacle = devices[0]!.obstacles.find(each => each.code === code)
    assert.ok(obstacle, `${name}: ${JSON.stringify(devices[0]!.obstacles)}`)
    assert.match(obstacle.says, says, name)
    assert.match(obstacle.next, next, name)
  }
})

test('a driver without a card is told although there is no device to tell it of', async () => {
  const [reading] = await readAccelerators(
    system({ nodes: { '/dev/nvidiactl': 'granted' }, tools: { 'nvidia-smi': { code: 6, output: 'No devices were found\n' } } }),
  )
  assert.deepEqual(reading!.devices, [])
  assert.match(reading!.obstacles[0]!.says, /finds no card/)
})

test('a card cut into slices is used by its slices', async () => {
  const slices = `GPU 0: NVIDIA A100-SXM4-80GB (UUID: ${gpu(0)})\n  MIG 3g.40gb     Device  0: (UUID: MIG-0929581a-2be6-5dec-bf34-0954c6c529a6)\n  MIG 1g.10gb+me  Device  1: (UUID: MIG-3adbed3a-d03d-549f-a016-ba1fd7359f23)\nGPU 1: NVIDIA H100 80GB HBM3 (UUID: ${gpu(1)})\n`
  const mig = { [query('mig.mode.current')]: rows('Enabled', 'Disabled') }
  const devices = await found(changed({ ...mig, 'nvidia-smi -L': slices }))
  assert.deepEqual(
    devices.map(({ id, usable, memory }) => [id.slice(0, 8), usable, memory && Math.round(memory / 1e9)]),
    [
      ['GPU-0000', false, 86],
      ['MIG-0929', true, 40],
      ['MIG-3adb', true, 10],
      ['GPU-0000', true, 86],
    ],
  )
  assert.match(devices[0]!.obstacles[0]!.says, /cut into 2 slices/)
  const [whole] = await found(changed(mig))
  assert.deepEqual([whole!.usable, whole!.obstacles[0]!.code], [false, 'mig_without_instances'])
})

test('memory that failed, a card that wants a reset, a mode that forbids: each stops; memory that somebody unseen holds warns', async () => {
  const first = async (tools: Machine['tools']) => problems((await found(changed(tools)))[0]!)
  assert.deepEqual(await first({ [query('ecc.errors.uncorrected.volatile.total')]: rows('3', '0') }), ['memory_errors stops'])
  assert.deepEqual(await first({ [query('utilization.gpu,temperature.gpu')]: rows('[GPU requires reset], 30', '0, 30') }), [
    'device_lost stops',
  ])
  assert.deepEqual(await first({ [query('compute_mode,persistence_mode')]: rows('Prohibited, Enabled', 'Default, Enabled') }), [
    'not_supported stops',
  ])
  assert.deepEqual(await first({ [query('memory.total,memory.used')]: rows('81559, 60000', '81559, 40000') }), ['memory_held warns'])
})

test('without nvidia-smi the driver still names its cards', async () => {
  const files = {
    '/proc/driver/nvidia/version':
      'NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build  (dvs@host)  Fri Aug 16\nGCC version: 12\n',
    '/proc/driver/nvidia/gpus/0000:01:00.0/information': `Model: \t\t NVIDIA GeForce RTX 4090\nIRQ:   \t\t 120\nGPU UUID: \t ${gpu(0)}\nBus Type: \t PCIe\nBus Location: \t 0000:01:00.0\nDevice Minor: \t 0\n`,
  }
  const [card, ...more] = await found({
    files,
    nodes: { '/dev/nvidiactl': 'granted' },
    pci: { '0000:01:00.0': { vendor: '0x10de', driver: 'nvidia' } },
  })
  assert.deepEqual(more, [])
  assert.deepEqual([card!.id, card!.name, card!.memory, card!.driver, card!.usable], [gpu(0), 'RTX 4090', 24e9, 'nvidia 560.35.03', true])
  assert.deepEqual(problems(card!), ['tool_missing warns'])
  const onBus: Machine = { pci: { '0000:01:00.0': { vendor: '0x10de', driver: 'nvidia' } }, nodes: { '/dev/nvidiactl': 'granted' } }
  const [without] = await found(onBus)
  assert.deepEqual([without!.usable, problems(without!)], [false, ['tool_missing stops']])
  const [withLibrary] = await found({ ...onBus, files: { '/usr/lib/x86_64-linux-gnu/libcuda.so.1': '' } })
  assert.deepEqual([withLibrary!.usable, problems(withLibrary!)], [true, ['tool_missing warns']])
  const [bare] = await found({ nodes: { '/dev/nvidiactl': 'granted', '/dev/nvidia3': 'granted' } })
  assert.deepEqual([bare!.id, bare!.nodes[1]], ['nvidia-3', '/dev/nvidia3'])
})

test('below Windows, where there is no bus to look at, its own nvidia-smi answers', async () => {
  const tools = Object.fromEntries(
    Object.entries(healthy.tools).map(([tool, said]) => [tool.replace('nvidia-smi', '/usr/lib/wsl/lib/nvidia-smi'), said]),
  )
  const [card] = await found({ nodes: { '/dev/dxg': 'granted' }, tools })
  assert.deepEqual([card!.name, card!.usable], ['H100', true])
})

test('what tools print in pieces or instead of a table is no card', () => {
  for (const text of ['', 'No devices were found\n', 'a,b\n', 'GPU-1, 2, 3\n', 'NVIDIA-SMI has failed, because, sorry\n'])
    assert.deepEqual(parseTable(text, ['uuid', 'memory']), [], text)
  assert.deepEqual(parseTopology('GPU0\tGPU1\n'), [])
  assert.deepEqual(parseTopology('\tGPU0\tCPU Affinity\tNUMA Affinity\nGPU0\t X \t0-7\t\tN/A\t\tN/A\n'), [
    { index: 0, links: ['X'], cores: '0-7', numa: null },
  ])
  assert.deepEqual(parseApps(`No running processes found\n${gpu(0)}, 12, [N/A]\n`), [{ gpu: gpu(0), pid: 12, memory: null }])
  assert.deepEqual(parseListing('  MIG 1g.5gb Device 0: (UUID: MIG-1)\n'), [])
  assert.equal(cudaVersion('| NVIDIA-SMI 580.82  Driver Version: 580.82  CUDA UMD Version: 13.0 |'), '13.0')
  assert.equal(driverVersion('NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19\n'), '535.104.05')
})

test('no bytes of a tool make a reader fall', async () => {
  await fc.assert(
    fc.asyncProperty(fc.string({ maxLength: 300 }), fc.integer({ min: 0, max: 3 }), async (output, code) => {
      const tools = Object.fromEntries(Object.keys(healthy.tools).map(tool => [tool, { output, code }]))
      const devices = await found({ ...healthy, tools })
      assert.equal(devices.length, 2, 'the bus knows them')
    }),
    { numRuns: process.env['PLINTH_TEST'] === 'long' ? 2000 : 100 },
  )
})
