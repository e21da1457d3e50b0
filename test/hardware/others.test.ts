/**
 * AMD, Intel, Apple, TPU, Gaudi, Neuron, Tenstorrent from documented outputs. Forms: amd-smi as array and as {gpu_data} (dstack,
 * runner/internal/shim/host; ROCm/rocm-systems#2987), rocm-smi (marimo-team/marimo#9237), KFD's topology (kernel, kfd_topology.c), xpu-smi
 * (intel/xpumanager#127), system_profiler (timmo001/system-bridge#3408, exelban/stats#394), hl-smi (docs.habana.ai), neuron-ls (AWS Neuron
 * documentation). The values are ours. Nothing here was seen on a device.
 */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { readAccelerators } from '../../src/hardware/inventory/accelerators.ts'
import { parseAmdSmi, parseRocmSmi } from '../../src/hardware/inventory/amd.ts'
import { parseProfile } from '../../src/hardware/inventory/apple.ts'
import { parseXpuSmi } from '../../src/hardware/inventory/intel.ts'
import { parseHlSmi, parseNeuronLs } from '../../src/hardware/inventory/others.ts'
import { busAddress } from '../../src/hardware/inventory/pci.ts'
import { type Machine, system } from './machines.ts'

const found = async (machine: Machine) => (await readAccelerators(system(machine))).flatMap(({ devices }) => devices)

const kfd = (node: string, properties: string, bank = 'heap_type 1\nsize_in_bytes 206141652992\n') => ({
  [`/sys/class/kfd/kfd/topology/nodes/${node}/properties`]: properties,
  [`/sys/class/kfd/kfd/topology/nodes/${node}/mem_banks/0/properties`]: bank,
})
// 1280 = 05:00.0
const mi300 = kfd('2', 'cpu_cores_count 0\nsimd_count 1216\ngfx_target_version 90402\nlocation_id 1280\ndomain 0\ndrm_render_minor 128\n')

test('AMD: the array of amd-smi 6 and the object of 7, with fields where either version has them', async () => {
  const one =
    '{"gpu": 0, "asic": {"market_name": "AMD Instinct MI300X", "target_graphics_version": "gfx942"}, "vram": {"size": {"value": 196592, "unit": "MB"}}, "bus": {"bdf": "0000:05:00.0"}, "driver": {"name": "amdgpu", "version": "6.10.5"}}'
  const seven = `WARNING: User is missing the following required groups: render\n{"gpu_data": [${one.replace('"name"', '"NAME"').replace('"version"', '"VERSION"')}]}`
  for (const output of [`[${one}]`, seven]) {
    const machine: Machine = {
      pci: { '0000:05:00.0': { vendor: '0x1002', class: '0x120000', driver: 'amdgpu', numa: '0' } },
      nodes: { '/dev/kfd': 'granted', '/dev/dri/renderD128': 'granted' },
      files: mi300,
      tools: { 'amd-smi static --json --asic --vram --bus --driver': output },
    }
    const [card, ...more] = await found(machine)
    assert.deepEqual(more, [])
    assert.deepEqual(
      [card!.id, card!.name, card!.memory, card!.driver, card!.usable],
      ['amd-0', 'MI300X', 196592 * 2 ** 20, 'amdgpu 6.10.5', true],
    )
    assert.deepEqual(
      [card!.nodes, card!.details['target'], card!.numa, card!.integrated],
      [['/dev/kfd', '/dev/dri/renderD128'], 'gfx942', 0, false],
    )
  }
  // a version without --driver refuses everything; it is asked again without
  const older: Machine = {
    pci: { '0000:05:00.0': { vendor: '0x1002', class: '0x120000', driver: 'amdgpu' } },
    nodes: { '/dev/kfd': 'granted' },
    tools: {
      'amd-smi static --json --asic --vram --bus --driver': { code: 2, errors: 'unrecognized arguments' },
      'amd-smi static --json --asic --vram --bus':
        '[{"asic": {"market_name": "AMD Instinct MI210"}, "bus": {"bdf": "0000:05:00.0"}, "vram": {"size": "65520 MB"}}]',
    },
  }
  const [card] = await found(older)
  assert.deepEqual([card!.name, card!.memory, card!.driver], ['MI210', 65520 * 2 ** 20, 'amdgpu'])
})

test('AMD: rocm-smi where there is no amd-smi, the kernel where there is neither', async () => {
  const cards = parseRocmSmi(
    '{"card0": {"VRAM Total Memory (B)": "21458059264", "VRAM Total Used Memory (B)": "27856896", "Card Series": "Radeon RX 7900 XT", "Card Model": "0x744c", "PCI Bus": "0000:03:00.0", "GFX Version": "gfx1100"}, "system": {"Driver version": "6.7.0"}}',
  )
  assert.deepEqual(cards, [
    { address: '0000:03:00.0', model: 'Radeon RX 7900 XT', memory: 21458059264, used: 27856896, driver: 'amdgpu 6.7.0', target: 'gfx1100' },
  ])
  const [card] = await found({
    pci: { '0000:05:00.0': { vendor: '0x1002', class: '0x120000', driver: 'amdgpu' } },
    nodes: { '/dev/kfd': 'granted', '/dev/dri/renderD128': 'granted' },
    files: mi300,
  })
  assert.deepEqual(
    [card!.memory, card!.details['target'], card!.address, card!.nodes[1], card!.usable],
    [206141652992, 'gfx942', '0000:05:00.0', '/dev/dri/renderD128', true],
  )
})

test('the graphics inside of an AMD processor do not hide an NVIDIA card, and are no card', async () => {
  const devices = await found({
    pci: {
      '0000:65:00.0': { vendor: '0x1002', class: '0x030000', driver: 'amdgpu' },
      '0000:01:00.0': { vendor: '0x10de', driver: 'nvidia' },
    },
    nodes: { '/dev/kfd': 'granted', '/dev/nvidiactl': 'granted', '/dev/dri/renderD128': 'granted' },
    files: {
      ...kfd(
        '1',
        'cpu_cores_count 0\nsimd_count 24\ngfx_target_version 110003\nlocation_id 25856\ndomain 0\ndrm_render_minor 128\n',
        'heap_type 0\nsize_in_bytes 0\n',
      ),
      '/proc/driver/nvidia/gpus/0000:01:00.0/information':
        'Model: \t NVIDIA L4\nGPU UUID: \t GPU-11111111-2222-3333-4444-555555555555\nBus Location: \t 0000:01:00.0\nDevice Minor: \t 0\n',
    },
    tools: {
      'amd-smi static':
        '[{"asic": {"market_name": "Phoenix3"}, "vram": {"size": {"value": 512, "unit": "MB"}}, "bus": {"bdf": "0000:65:00.0"}}]',
    },
  })
  assert.deepEqual(
    devices.map(({ vendor, name, integrated, memory }) => [vendor, name, integrated, memory]),
    [
      ['nvidia', 'L4', false, 24e9],
      ['amd', 'Phoenix3', true, null],
    ],
  )
})

test('AMD and Intel: why a card cannot be used', async () => {
  const card = (vendor: string, driver: string | null) => ({ '0000:03:00.0': { vendor, class: '0x030000', driver } })
  const cases: [Machine, string, RegExp][] = [
    [{ pci: card('0x1002', null), files: { '/etc/os-release': 'ID=debian\n' } }, 'driver_missing', /firmware-amd-graphics/],
    [{ pci: card('0x1002', 'radeon') }, 'driver_other', /another card/],
    [{ pci: card('0x1002', 'amdgpu'), nodes: { '/dev/kfd': 'refused' } }, 'node_refused', /usermod -aG render,video/],
    [{ pci: card('0x1002', 'amdgpu'), files: { '/run/.containerenv': '' } }, 'node_missing', /--device \/dev\/kfd/],
    [
      { pci: card('0x8086', null), files: { '/etc/os-release': 'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n' } },
      'driver_missing',
      /zypper/,
    ],
    [{ pci: card('0x8086', 'xe') }, 'node_missing', /\/dev\/dri/],
    [{ pci: card('0x8086', 'vfio-pci') }, 'set_aside', /virtual machine/],
  ]
  for (const [machine, code, next] of cases) {
    const [device, ...more] = await found(machine)
    assert.deepEqual(more, [], code)
    assert.deepEqual([device!.usable, device!.obstacles[0]!.code], [false, code])
    assert.match(device!.obstacles[0]!.next, next)
  }
})

test('Intel: xpu-smi names cards and their memory; graphics of the processor have none of their own', async () => {
  const devices = await found({
    pci: {
      '0000:00:02.0': { vendor: '0x8086', class: '0x030000', driver: 'i915' },
      '0000:03:00.0': { vendor: '0x8086', class: '0x030000', driver: 'xe' },
    },
    files: {
      '/sys/bus/pci/devices/0000:00:02.0/drm/renderD128/dev': '',
      '/sys/bus/pci/devices/0000:03:00.0/drm/renderD129/dev': '',
      '/sys/bus/pci/devices/0000:03:00.0/drm/card1/dev': '',
    },
    nodes: { '/dev/dri/renderD128': 'granted', '/dev/dri/renderD129': 'granted' },
    tools: {
      'xpu-smi discovery -j':
        '{"device_list": [{"device_id": 0, "device_name": "Intel(R) Arc(TM) Pro B60 Graphics", "pci_bdf_address": "0000:03:00.0", "memory_physical_size_byte": "25669140480"}]}',
    },
  })
  assert.deepEqual(
    devices.map(({ name, memory, integrated, nodes, usable }) => [name, memory, integrated, nodes, usable]),
    [
      ['Intel graphics', null, true, ['/dev/dri/renderD128'], true],
      ['Arc Pro B60', 25669140480, false, ['/dev/dri/renderD129'], true],
    ],
  )
})

test('Apple: both ways in which system_profiler writes the name', async () => {
  const early =
    '{"SPHardwareDataType": [{"chip_type": "Apple M1"}], "SPDisplaysDataType": [{"_name": "kHW_AppleM1Item", "spdisplays_vendor": "sppci_vendor_Apple", "sppci_cores": "8"}]}'
  const later =
    '{"SPDisplaysDataType": [{"_name": "Apple M3 Pro", "sppci_model": "Apple M3 Pro", "sppci_cores": "18"}, {"_name": "Radeon Pro 560X", "sppci_model": "Radeon Pro 560X"}]}'
  assert.deepEqual(
    parseProfile(early).map(({ name, integrated, details }) => [name, integrated, details['cores']]),
    [['M1', true, 8]],
  )
  assert.deepEqual(
    parseProfile(later).map(({ name }) => name),
    ['M3 Pro'],
  )
  const [device] = await found({ platform: 'darwin', tools: { system_profiler: later } })
  assert.deepEqual([device!.vendor, device!.usable, device!.memory], ['apple', true, null])
})

test('TPU, Gaudi, Neuron, Tenstorrent by presence; /dev/accel of a laptop is none of them', async () => {
  const google = { '/sys/class/dmi/id/product_name': 'Google Compute Engine\n' }
  const tpu = await found({
    files: google,
    nodes: { '/dev/vfio/0': 'granted', '/dev/vfio/1': 'granted', '/dev/vfio/vfio': 'granted' },
    pages: { 'http://metadata.google.internal/computeMetadata/v1/instance/attributes/accelerator-type': 'v5litepod-8' },
  })
  assert.deepEqual(
    tpu.map(({ id, name, memory, nodes }) => [id, name, memory, nodes]),
    [
      ['google-0', 'TPU v5e', 16e9, ['/dev/vfio/0']],
      ['google-1', 'TPU v5e', 16e9, ['/dev/vfio/1']],
    ],
  )
  assert.deepEqual(await found({ nodes: { '/dev/vfio/0': 'granted' } }), [], 'VFIO is used for other things')
  const gke = await found({ variables: { TPU_ACCELERATOR_TYPE: 'v4-8' }, nodes: { '/dev/accel0': 'refused' } })
  assert.deepEqual([gke[0]!.name, gke[0]!.usable, gke[0]!.obstacles[0]!.code], ['TPU v4', false, 'node_refused'])

  const gaudi = await found({
    pci: { '0000:19:00.0': { vendor: '0x1da3', class: '0x120000', driver: 'habanalabs' } },
    nodes: { '/dev/accel/accel0': 'granted' },
    links: { '/sys/class/accel/accel0/device/driver': '../../../../bus/pci/drivers/habanalabs' },
    tools: { 'hl-smi -Q index,uuid,name,memory.total -f csv,noheader': '0, 01P0-HL2080A0-15-TNPS14-20-07-07, HL-225, 98304 MiB\n' },
  })
  assert.deepEqual(
    gaudi.map(({ id, name, memory, usable }) => [id, name, memory, usable]),
    [['habana-0', 'Gaudi 2', 98304 * 2 ** 20, true]],
  )

  const neuron = await found({
    nodes: { '/dev/neuron0': 'granted' },
    files: { '/sys/class/dmi/id/product_name': 'trn1.2xlarge\n' },
    tools: {
      'neuron-ls --json-output':
        '[{"neuron_device": 0, "bdf": "00:1e.0", "connected_to": null, "nc_count": 2, "memory_size": 34359738368, "neuron_processes": []}]',
    },
  })
  assert.deepEqual(
    neuron.map(({ name, memory, details, usable }) => [name, memory, details, usable]),
    [['Trainium', 34359738368, { cores: 2 }, true]],
  )

  assert.deepEqual(
    (await found({ nodes: { '/dev/tenstorrent/0': 'granted' }, files: { '/sys/module/tenstorrent/version': '2.0.0\n' } })).map(
      ({ id, driver }) => [id, driver],
    ),
    [['tenstorrent-0', '2.0.0']],
  )
  assert.deepEqual(
    await found({
      nodes: { '/dev/accel/accel0': 'granted' },
      links: { '/sys/class/accel/accel0/device/driver': '../../../bus/pci/drivers/intel_vpu' },
    }),
    [],
  )
})

test('addresses of the bus are one, however they are written', () => {
  for (const text of ['00000000:9A:00.0', '0000:9a:00.0', '9a:00.0']) assert.equal(busAddress(text), '0000:9a:00.0')
  assert.equal(busAddress('00010000:01:00.0'), '10000:01:00.0')
})

test('no bytes of a tool make a reader fall', () => {
  const readers = [parseAmdSmi, parseRocmSmi, parseXpuSmi, parseProfile, parseHlSmi, parseNeuronLs]
  const numRuns = process.env['PLINTH_TEST'] === 'long' ? 5000 : 300
  for (const read of readers) {
    fc.assert(
      fc.property(fc.oneof(fc.string({ maxLength: 200 }), fc.json({ maxDepth: 4 })), text => void read(text)),
      { numRuns },
    )
    fc.assert(
      fc.property(fc.jsonValue({ maxDepth: 3 }), value => {
        for (const shape of [
          [value],
          { gpu_data: [value] },
          { device_list: [value] },
          { card0: value },
          { SPDisplaysDataType: [value], SPHardwareDataType: value },
        ])
          read(JSON.stringify(shape))
      }),
      { numRuns },
    )
  }
})
