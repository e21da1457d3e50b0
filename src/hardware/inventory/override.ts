/**
 * What an operator says about a machine beyond what can be read: fake devices, to try how jobs are placed without having any, and devices to
 * leave alone. `hardware.yaml` in the home, or the file that PLINTH_HARDWARE names; JSON is YAML too.
 *
 *     devices:
 *       - {vendor: nvidia, name: H100, count: 2, memory: 80GB}
 *     exclude: [GPU-5b7c…]
 */
import { readFile } from 'node:fs/promises'
import { parse } from 'yaml'
import { z } from 'zod'
import { Failure } from '../../failure.ts'
import { canonicalName, knownAccelerator } from '../accelerators.ts'
import { type Device, device, type Reading, type Vendor, vendors } from './device.ts'

const gigabytes = z.union([
  z.number().positive(),
  z
    .string()
    .regex(/^\d+(\.\d+)?\s*(GB|GiB|G|MB|MiB)$/i)
    .transform(text => {
      const number = Number.parseFloat(text)
      return /m/i.test(text) ? number / 1000 : number
    }),
])

const Override = z.strictObject({
  devices: z
    .array(
      z.strictObject({
        vendor: z.enum(vendors).default('nvidia'),
        name: z.string().min(1).max(100),
        count: z.int().min(1).max(1024).default(1),
        /** GB. */
        memory: gigabytes.optional(),
        /** A file that stands for its device file: who has it open computes on it. */
        node: z.string().max(1000).optional(),
        /** 0…1, as it would be measured. */
        utilisation: z.number().min(0).max(1).optional(),
      }),
    )
    .max(1000)
    .default([]),
  exclude: z.array(z.string().max(200)).max(1000).default([]),
})
export type Override = z.infer<typeof Override>

const largest = 100_000

/** The one in the file, empty where there is no file. `required`: somebody named it. throws hardware_file */
export async function readOverride(path: string, { required }: { required: boolean }): Promise<Override> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' && !required) return { devices: [], exclude: [] }
    throw new Failure('hardware_file', { problem: code === 'ENOENT' ? 'it is not there' : `it cannot be read (${code})` }, { cause: error })
  }
  return parseOverride(text)
}

/** throws hardware_file */
export function parseOverride(text: string): Override {
  if (text.length > largest) throw new Failure('hardware_file', { problem: `it is longer than ${largest} characters` })
  let value: unknown
  try {
    value = parse(text, { maxAliasCount: 20, uniqueKeys: true, logLevel: 'error' })
  } catch (error) {
    throw new Failure('hardware_file', { problem: (error as Error).message.split('\n')[0]! }, { cause: error })
  }
  const read = Override.safeParse(value ?? {})
  if (read.success) return read.data
  const [issue] = read.error.issues
  throw new Failure('hardware_file', { problem: `${issue!.path.join('.') || 'the whole'}: ${issue!.message}` })
}

/** The readings with what the operator says. Fake devices are a reading of their own, so that they never pass for one that was read. */
export function withOverride(readings: readonly Reading[], { devices, exclude }: Override, source: string): Reading[] {
  const kept = readings.map(reading => ({
    ...reading,
    devices: reading.devices.map(each => (exclude.includes(each.id) ? excluded(each) : each)),
  }))
  const fakes = Map.groupBy(devices.flatMap(fakesOf), ({ vendor }) => vendor)
  return [
    ...kept,
    ...[...fakes].map(([vendor, list]): Reading => {
      const next = (each: Device, i: number): Device => ({ ...each, id: `${each.id}-${i}`, index: i })
      return {
        vendor,
        provenance: { time: new Date().toISOString(), sources: [{ source, raw: '' }], verified: false, fake: true },
        devices: list.map(next),
        obstacles: [],
      }
    }),
  ]
}

const excluded = (each: Device): Device => ({
  ...each,
  usable: false,
  obstacles: [
    ...each.obstacles,
    {
      code: 'set_aside',
      says: 'the operator keeps it out (exclude in hardware.yaml)',
      next: 'Take its id out of that list.',
      effect: 'stops',
    },
  ],
})

function fakesOf({ vendor, name, count, memory, node, utilisation }: Override['devices'][number]): Device[] {
  const canonical = canonicalName(name)
  const known = knownAccelerator(name)?.memory[0]
  const size = memory ?? known
  return Array.from({ length: count }, () =>
    device({
      id: `fake-${vendor}`,
      vendor: vendor satisfies Vendor,
      name: canonical,
      model: `${name} (fake)`,
      memory: size === undefined ? null : size * 1e9,
      nodes: node === undefined ? [] : [node],
      utilisation: utilisation ?? null,
      fake: true,
    }),
  )
}
