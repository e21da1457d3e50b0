/**
 * A price table: what machines cost an hour, written by whoever rents them. YAML or JSON:
 *
 *     currency: EUR
 *     machines:
 *       - {name: g5.xlarge, device: A10G, price: 1.01}
 *       - {name: p4d.24xlarge, device: A100, count: 8, memory: 40, price: 32.77}
 */
import { readFile } from 'node:fs/promises'
import { parse } from 'yaml'
import { z } from 'zod'
import { Failure } from '../../failure.ts'
import { acceleratorTarget, type Target } from './devices.ts'

const Table = z.strictObject({
  currency: z.string().min(1).max(10).default('USD'),
  machines: z
    .array(
      z.strictObject({
        name: z.string().min(1).max(200),
        device: z.string().min(1).max(100),
        count: z.int().min(1).max(1024).default(1),
        /** GB of one device, where it comes in several sizes. */
        memory: z.number().positive().optional(),
        /** An hour, of the whole machine. */
        price: z.number().nonnegative(),
      }),
    )
    .min(1)
    .max(1000),
})

/** The machines whose devices are known, and the names of the others. throws price_table */
export async function readPrices(path: string): Promise<{ targets: Target[]; unknown: string[] }> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    throw new Failure('price_table', { problem: `it cannot be read (${(error as NodeJS.ErrnoException).code})` }, { cause: error })
  }
  return parsePrices(text)
}

/** throws price_table */
export function parsePrices(text: string): { targets: Target[]; unknown: string[] } {
  if (text.length > 1e6) throw new Failure('price_table', { problem: 'it is longer than a million characters' })
  let value: unknown
  try {
    value = parse(text, { maxAliasCount: 20, uniqueKeys: true, logLevel: 'error' })
  } catch (error) {
    throw new Failure('price_table', { problem: (error as Error).message.split('\n')[0]! }, { cause: error })
  }
  const read = Table.safeParse(value)
  if (!read.success)
    throw new Failure('price_table', {
      problem: `${read.error.issues[0]!.path.join('.') || 'the whole'}: ${read.error.issues[0]!.message}`,
    })
  const { currency, machines } = read.data
  const found = machines.map(({ name, device, count, memory, price }) => {
    const target = acceleratorTarget(device, {
      count,
      memory: memory === undefined ? null : memory * 1e9,
      price: { amount: price, currency },
    })
    return { name, target: target && { ...target, name } }
  })
  return { targets: found.flatMap(({ target }) => target ?? []), unknown: found.flatMap(({ name, target }) => (target ? [] : [name])) }
}
