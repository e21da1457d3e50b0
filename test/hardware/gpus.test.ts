import assert from 'node:assert/strict'
import { test } from 'node:test'
import { examineGpus, parseNvidia, type System } from '../../src/hardware/gpus.ts'

interface Machine {
  /** vendor, class and driver of each device on the PCI bus. */
  pci?: [vendor: string, kind: string, driver: string | null][]
  granted?: string[]
  refused?: string[]
  nvidiaSmi?: { code: number; output: string }
  platform?: NodeJS.Platform
}
function system({ pci = [], granted = [], refused = [], nvidiaSmi, platform = 'linux' }: Machine): System {
  const device = (path: string) => pci[Number(/devices\/(\d+)\//.exec(path)?.[1])]
  return {
    platform,
    read: path => (path.endsWith('/vendor') ? device(path)?.[0] : device(path)?.[1])?.concat('\n') ?? null,
    list: async () => pci.map((_, i) => String(i)),
    link: async path => device(path)?.[2] ?? null,
    access: async path => (granted.includes(path) ? 'granted' : refused.includes(path) ? 'refused' : 'missing'),
    run: async () => nvidiaSmi ?? null,
  }
}
const seen = async (machine: Machine) => (await examineGpus(system(machine))).map(({ status, found }) => [status, found] as const)
const [NVIDIA, AMD, INTEL, DISPLAY, ACCELERATOR] = ['0x10de', '0x1002', '0x8086', '0x030000', '0x120000']

test('lines of nvidia-smi become sentences; messages in their place do not', () => {
  assert.deepEqual(parseNvidia('NVIDIA H100 80GB HBM3, 81559, 550.54.15\nTesla T4, 15360, 535.104.05\n'), [
    'NVIDIA H100 80GB HBM3, 85.5 GB, driver 550.54.15',
    'Tesla T4, 16.1 GB, driver 535.104.05',
  ])
  assert.deepEqual(parseNvidia('NVIDIA GB10, [N/A], 580.82.07\n'), ['NVIDIA GB10, driver 580.82.07'])
  for (const text of [
    '',
    '\n',
    'No devices were found\n',
    'NVIDIA-SMI has failed because it could not communicate, with the driver, sorry',
    'a,b,c,d',
  ])
    assert.deepEqual(parseNvidia(text), [], text)
})

test('a machine without graphics needs none; network cards are no graphics', async () => {
  assert.deepEqual(await seen({}), [['ok', 'none found; not needed']])
  assert.deepEqual(
    await seen({
      pci: [
        [INTEL, '0x020000', 'e1000e'],
        ['0x1234', DISPLAY, 'bochs-drm'],
      ],
    }),
    [['ok', 'none found; not needed']],
  )
  assert.match((await seen({ platform: 'darwin', pci: [[NVIDIA, DISPLAY, null]] }))[0]![1], /not looked for on darwin/)
})

test('for each card that cannot be used it is said why', async () => {
  const cases: [Machine, RegExp][] = [
    [{ pci: [[NVIDIA, DISPLAY, null]] }, /NVIDIA.*no driver is loaded/],
    [{ pci: [[NVIDIA, DISPLAY, 'nouveau']] }, /nouveau/],
    [{ pci: [[NVIDIA, DISPLAY, 'vfio-pci']] }, /virtual machines/],
    [{ pci: [[NVIDIA, DISPLAY, 'nvidia']] }, /there is no \/dev\/nvidiactl/],
    [{ pci: [[NVIDIA, DISPLAY, 'nvidia']], refused: ['/dev/nvidiactl'] }, /may not open \/dev\/nvidiactl/],
    [{ pci: [[NVIDIA, DISPLAY, 'nvidia']], granted: ['/dev/nvidiactl', '/dev/nvidia0'] }, /nvidia-smi is not/],
    [
      {
        pci: [[NVIDIA, DISPLAY, 'nvidia']],
        granted: ['/dev/nvidiactl', '/dev/nvidia0'],
        nvidiaSmi: { code: 18, output: '\nFailed to initialize NVML: Driver/library version mismatch\n' },
      },
      /says "Failed to initialize NVML: Driver\/library version mismatch"/,
    ],
    [{ nvidiaSmi: { code: 6, output: 'No devices were found\n' } }, /driver without a card.*No devices were found/],
    [{ nvidiaSmi: { code: 1, output: '' } }, /does not answer/],
    [{ pci: [[AMD, ACCELERATOR, 'amdgpu']], refused: ['/dev/kfd'] }, /AMD.*may not open \/dev\/kfd/],
    [{ pci: [[INTEL, DISPLAY, 'i915']] }, /Intel.*there is no \/dev\/dri\/renderD128/],
  ]
  for (const [machine, sentence] of cases) {
    const [check, ...more] = await seen(machine)
    assert.deepEqual(more, [])
    assert.equal(check![0], 'warning')
    assert.match(check![1], sentence)
  }
})

test('cards that could be used are named, one line each, next to those that could not', async () => {
  const nvidiaSmi = { code: 0, output: 'Tesla T4, 15360, 535.104.05\n' }
  const found = await seen({
    pci: [
      [NVIDIA, DISPLAY, 'nvidia'],
      [AMD, DISPLAY, 'amdgpu'],
      [INTEL, DISPLAY, null],
    ],
    granted: ['/dev/kfd'],
    nvidiaSmi,
  })
  assert.deepEqual(
    found.map(([status]) => status),
    ['ok', 'ok', 'warning'],
  )
  assert.match(found[0]![1], /^Tesla T4, 16.1 GB, driver 535.104.05 \(idle/)
  assert.match(found[1]![1], /^AMD graphics with amdgpu/)
  assert.match(found[2]![1], /^Intel graphics, not usable/)
  assert.match((await seen({ granted: ['/dev/dxg'] }))[0]![1], /Windows below/)
})

test('this machine can be examined, whatever it is', async () => {
  const checks = await examineGpus()
  assert.ok(checks.length >= 1)
  for (const { name, found } of checks) assert.ok(name === 'GPU' && found.length > 0)
})
