import assert from 'node:assert/strict'
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import fc from 'fast-check'
import { device } from '../../src/hardware/inventory/device.ts'
import { followNvidia, parseReading } from '../../src/hardware/nvidia-feed.ts'
import { gaugesOfSample, parseDisks, parseNetwork, parsePressure, startTelemetry, takeSample } from '../../src/hardware/telemetry.ts'
import { createServerMetrics } from '../../src/monitoring/metrics.ts'
import { isProcessAlive } from '../../src/storage/process.ts'
import { temporaryFolder } from '../track/homes.ts'
import { system } from './machines.ts'

test('a sample of /proc becomes gauges, counters in whole units', async () => {
  const machine = system({
    files: {
      '/proc/stat': 'cpu  1000 200 300 5000 50 10 20 5 0 0\ncpu0 1 2 3 4\n',
      '/proc/meminfo': 'MemTotal: 1000 kB\nMemAvailable: 400 kB\n',
      '/proc/pressure/cpu': 'some avg10=0.00 avg60=0.00 avg300=0.00 total=2500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n',
      '/proc/diskstats':
        '   8       0 sda 10 0 200 1 20 0 400 2 0 0 0\n   8       1 sda1 10 0 200 1 20 0 400 2 0 0 0\n 259 0 nvme0n1 1 0 8 0 0 0 16 0 0 0 0\n   7 0 loop0 1 1 1 1 1 1 1 1 1 1 1\n',
      '/proc/net/dev':
        'Inter-|   Receive\n face |bytes\n    lo: 9 0 0 0 0 0 0 0 9 0 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 200 2 0 0 0 0 0 0\n',
      '/sys/bus/pci/devices/0000:05:00.0/gpu_busy_percent': '42\n',
      '/sys/bus/pci/devices/0000:05:00.0/mem_info_vram_used': '1048576\n',
      '/sys/bus/pci/devices/0000:05:00.0/hwmon/hwmon3/temp1_input': '55000\n',
      '/sys/bus/pci/devices/0000:05:00.0/hwmon/hwmon3/power1_average': '250000000\n',
    },
  })
  const card = device({ id: 'amd-0', vendor: 'amd', name: 'MI300X', model: 'MI300X', address: '0000:05:00.0' })
  const sample = await takeSample(machine, [card])
  assert.deepEqual(sample.processor, { user: 12, system: 3.3, idle: 50, iowait: 0.5, steal: 0.05 })
  assert.deepEqual(sample.memory, { total: 1024000, available: 409600, limit: null })
  assert.deepEqual(sample.pressure, [
    { resource: 'cpu', kind: 'some', seconds: 2.5 },
    { resource: 'cpu', kind: 'full', seconds: 0 },
  ])
  assert.deepEqual(sample.disks, [
    { disk: 'sda', read: 102400, written: 204800 },
    { disk: 'nvme0n1', read: 4096, written: 8192 },
  ])
  assert.deepEqual(sample.network, [{ name: 'eth0', received: 100, sent: 200 }])
  assert.deepEqual(sample.devices, [{ id: 'amd-0', utilisation: 0.42, used: 1048576, celsius: 55, watts: 250, errors: null }])
  const text = createServerMetrics().text(gaugesOfSample(sample, [card]))
  assert.match(text, /^plinth_node_cpu_seconds_total\{mode="user"\} 12$/m)
  assert.match(text, /^plinth_node_disk_bytes_total\{disk="sda",direction="written"\} 204800$/m)
  assert.match(text, /^plinth_device_utilisation_ratio\{device="amd-0",vendor="amd",name="MI300X"\} 0\.42$/m)
  assert.match(text, /^plinth_device_usable\{device="amd-0",vendor="amd",name="MI300X"\} 1$/m)
  assert.doesNotMatch(text, /memory_errors/)
})

test('this machine is sampled at once and then by the clock', async t => {
  const telemetry = startTelemetry({ devices: async () => [], onError: error => assert.fail(String(error)), every: 50 })
  t.after(telemetry.close)
  const until = async (holds: () => boolean) => {
    for (const end = performance.now() + 5000; !holds() && performance.now() < end; ) await new Promise(resolve => setTimeout(resolve, 5))
    assert.ok(holds())
  }
  await until(() => telemetry.latest() !== null)
  const first = telemetry.latest()!.time
  await until(() => telemetry.latest()!.time > first)
  assert.ok(telemetry.gauges().length > 0)
})

const row = (id: string, rest: string) => `GPU-${id}, ${rest}\n`

test('rows of nvidia-smi may lack fields; anything else is no row', () => {
  assert.deepEqual(parseReading('GPU-1-2, 97, 40000, 66, 650.12, 0'), {
    id: 'GPU-1-2',
    utilisation: 0.97,
    used: 40000 * 2 ** 20,
    celsius: 66,
    watts: 650.12,
    errors: 0,
  })
  assert.deepEqual(parseReading('GPU-1, [N/A], [N/A], 40, [Not Supported], [N/A]'), {
    id: 'GPU-1',
    utilisation: null,
    used: null,
    celsius: 40,
    watts: null,
    errors: null,
  })
  for (const line of ['', 'No devices were found', 'GPU-1, 2, 3', '1, 2, 3, 4, 5, 6']) assert.equal(parseReading(line), null, line)
  fc.assert(fc.property(fc.string(), line => void parseReading(line)))
  fc.assert(fc.property(fc.string(), text => void [parseDisks(text), parseNetwork(text), parsePressure('cpu', text)]))
})

test('one child of nvidia-smi is read for as long as it lives, started again when it ends, and gone when it is not wanted', async t => {
  const folder = temporaryFolder(t)
  const tool = join(folder, 'nvidia-smi')
  // the first says one row and ends; the second says two, one of them in two pieces, and stays
  writeFileSync(
    tool,
    `#!/bin/sh\ncd "${folder}"\necho "$$ $*" >> calls\nif [ -e once ]; then printf 'GPU-2-2, 5'; sleep 0.05; printf '0, 100, 40, 80, 0\\n'; echo $$ > pid; exec sleep 100; fi\ntouch once\nprintf '${row('1-1', '10, 100, 40, 80, 0').replace('\n', '\\n')}'\n`,
  )
  chmodSync(tool, 0o755)
  const feed = followNvidia({ every: 20, onError: error => assert.fail(String(error)), command: tool })
  const seen = new Set<string>()
  for (const end = performance.now() + 8000; seen.size < 2 && performance.now() < end; ) {
    for (const { id } of feed.latest()) seen.add(id)
    await new Promise(resolve => setTimeout(resolve, 5))
  }
  assert.deepEqual([...seen].toSorted(), ['GPU-1-1', 'GPU-2-2'])
  const calls = readFileSync(join(folder, 'calls'), 'utf8').trim().split('\n')
  assert.match(calls[0]!, /--query-gpu=uuid,utilization\.gpu,.* --loop=1$/)
  for (const end = performance.now() + 5000; !existsSync(join(folder, 'pid')) && performance.now() < end; )
    await new Promise(resolve => setTimeout(resolve, 5))
  const pid = Number(readFileSync(join(folder, 'pid'), 'utf8'))
  feed.close()
  for (const end = performance.now() + 5000; isProcessAlive(pid) && performance.now() < end; )
    await new Promise(resolve => setTimeout(resolve, 5))
  assert.equal(isProcessAlive(pid), false)
})
