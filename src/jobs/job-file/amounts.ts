/** Amounts as SkyPilot writes them, in our units: `4`, `4+`, `16`, `16GB+`, `90s`, `12h`, `H100:8`, `{A100: 4}`. */
import { Failure } from '../../failure.ts'
import type { DeviceRequest, Resources } from '../spec.ts'

const refuse = (field: string, problem: string) => new Failure('job_file_field', { field, problem })

/** `4`, `0.5`, `4+`. */
export function cores(field: string, value: unknown): Resources['cpus'] {
  const [, number, plus] = /^(\d+(?:\.\d+)?)(\+?)$/.exec(String(value).trim()) ?? []
  if (number === undefined || Number(number) <= 0) throw refuse(field, `${shown(value)} is no number of cores such as 4 or 4+`)
  return { amount: Number(number), exact: plus === '' }
}

const unit: Record<string, number> = { '': 1e9, k: 1e3, kb: 1e3, m: 1e6, mb: 1e6, g: 1e9, gb: 1e9, t: 1e12, tb: 1e12 }
const binary: Record<string, number> = {
  kib: 2 ** 10,
  ki: 2 ** 10,
  mib: 2 ** 20,
  mi: 2 ** 20,
  gib: 2 ** 30,
  gi: 2 ** 30,
  tib: 2 ** 40,
  ti: 2 ** 40,
}

/** Bytes; without a unit gigabytes, as in SkyPilot. */
export function bytes(field: string, value: unknown): { amount: number; exact: boolean } {
  const [, number, name = '', plus] = /^(\d+(?:\.\d+)?)\s*([a-z]*)(\+?)$/i.exec(String(value).trim()) ?? []
  const factor = unit[name.toLowerCase()] ?? binary[name.toLowerCase()]
  if (number === undefined || factor === undefined || Number(number) <= 0)
    throw refuse(field, `${shown(value)} is no amount of memory such as 16 (gigabytes), 512MB or 16GB+`)
  return { amount: Math.round(Number(number) * factor), exact: plus === '' }
}

/** Seconds: 90, 90s, 10m, 12h, 2d. */
export function seconds(field: string, value: unknown): number {
  const text = String(value).trim()
  const parts = /^(?:(\d+(?:\.\d+)?)d)?(?:(\d+(?:\.\d+)?)h)?(?:(\d+(?:\.\d+)?)m)?(?:(\d+(?:\.\d+)?)s)?$/.exec(text)
  const plain = /^\d+(\.\d+)?$/.test(text) ? Number(text) : null
  const [d = 0, h = 0, m = 0, s = 0] = (parts ?? []).slice(1).map(each => Number(each ?? 0))
  const total = plain ?? (parts ? d * 86_400 + h * 3600 + m * 60 + s : 0)
  if (!(total > 0)) throw refuse(field, `${shown(value)} is no time such as 90s, 10m, 12h or 2d`)
  return total
}

const vendors = {
  nvidia: 'nvidia',
  amd: 'amd',
  intel: 'intel',
  apple: 'apple',
  google: 'google',
  tpu: 'google',
  habana: 'habana',
  gaudi: 'habana',
  aws: 'aws',
  neuron: 'aws',
} as const

/**
 * `H100`, `H100:8`, `nvidia:A100,H100:2` is dstack's and not read here; `{H100: 8}`, `[H100:8, A100:8]` are alternatives, and
 * `{vendor, name, count, memory}` says it in full. `gpu` stands for any.
 */
export function devices(field: string, value: unknown): DeviceRequest[] {
  if (value === null || value === undefined) return []
  if (typeof value === 'string') return [oneDevice(field, value)]
  if (Array.isArray(value)) return value.flatMap(each => devices(field, each))
  if (typeof value !== 'object') throw refuse(field, `${shown(value)} names no accelerator such as H100:8`)
  const entries = Object.entries(value)
  if (!entries.some(([key]) => ['vendor', 'name', 'count', 'memory'].includes(key)))
    return entries.map(([name, count]) => oneDevice(field, count === null ? name : `${name}:${count}`))
  const { vendor = null, name = null, count = 1, memory = null } = value as Record<string, unknown>
  const names = name === null ? [null] : [name].flat().map(String)
  if (vendor !== null && !Object.hasOwn(vendors, String(vendor).toLowerCase()))
    throw refuse(field, `the vendor ${shown(vendor)} is none of ${Object.keys(vendors).join(', ')}`)
  if (!(Number(count) > 0)) throw refuse(field, `the count ${shown(count)} is not above 0`)
  return names.map(each => ({
    vendor: vendor === null ? null : vendors[String(vendor).toLowerCase() as keyof typeof vendors],
    name: each,
    count: Number(count),
    memory: memory === null ? null : bytes(`${field}.memory`, memory).amount,
  }))
}

function oneDevice(field: string, text: string): DeviceRequest {
  const [, name = '', count = '1'] = /^([A-Za-z][\w .-]*?)\s*(?::\s*(\d+(?:\.\d+)?))?$/.exec(text.trim()) ?? []
  if (name === '' || !(Number(count) > 0)) throw refuse(field, `${shown(text)} names no accelerator such as H100 or H100:8`)
  if (/^gpus?$/i.test(name)) return { vendor: null, name: null, count: Number(count), memory: null }
  const vendor = vendors[name.toLowerCase() as keyof typeof vendors]
  return vendor ? { vendor, name: null, count: Number(count), memory: null } : { vendor: null, name, count: Number(count), memory: null }
}

export const shown = (value: unknown): string => JSON.stringify(value)?.slice(0, 100) ?? String(value)
