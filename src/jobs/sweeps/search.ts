/**
 * What a sweep tries: `lr=log:1e-4..1e-1`, `dropout=0..0.5`, `layers=int:1..4`, `width=log-int:16..1024`, `optimiser=sgd,adam`. The
 * parameters of trial 7 follow from the seed and the number 7 alone, so a sweep that is taken up again tries what it would have tried.
 */
import { createHash } from 'node:crypto'
import { z } from 'zod'
import { Failure } from '../../failure.ts'

const Range = z.strictObject({
  name: z.string(),
  kind: z.enum(['uniform', 'log', 'int', 'log-int']),
  from: z.number(),
  to: z.number(),
})
const Choice = z.strictObject({ name: z.string(), kind: z.literal('choice'), values: z.array(z.string()).min(1) })
export const Parameter = z.union([Range, Choice])
export type Parameter = z.infer<typeof Parameter>

export const SweepDefinition = z.strictObject({
  parameters: z.array(Parameter).min(1),
  method: z.enum(['random', 'grid']),
  seed: z.int(),
  trials: z.int().positive(),
  /** The metric by which trials are compared; null: they are only listed. */
  metric: z.string().nullable(),
  goal: z.enum(['maximise', 'minimise']),
  earlyStop: z.strictObject({ rule: z.literal('asha'), minSteps: z.number().positive(), eta: z.number().min(2) }).nullable(),
  /** How many run at once; null: as many as there is room for. */
  parallel: z.int().positive().nullable(),
  /** Seconds that all trials together may compute; null: no limit. */
  budget: z.number().positive().nullable(),
})
export type SweepDefinition = z.infer<typeof SweepDefinition>

const number = String.raw`[+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?`
const range = new RegExp(`^(?:(log|int|log-int|uniform):)?(${number})\\.\\.(${number})$`, 'i')

/** throws sweep_search */
export function readParameter(text: string): Parameter {
  const refuse = (problem: string) => new Failure('sweep_search', { search: text.slice(0, 100), problem })
  const [, name, rest = ''] = /^([A-Za-z_]\w*)=(.+)$/s.exec(text.trim()) ?? []
  if (name === undefined) throw refuse('it has to be a name, = and what to try')
  const [, kind = 'uniform', low, high] = range.exec(rest.trim()) ?? []
  if (low === undefined) {
    if (/\.\./.test(rest)) throw refuse('a range is two numbers, such as 0..0.5, log:1e-4..1e-1 or int:1..4')
    const values = rest.split(',').map(each => each.trim())
    if (values.includes('')) throw refuse('a value is empty')
    if (new Set(values).size < values.length) throw refuse('a value is there twice')
    return { name, kind: 'choice', values }
  }
  const [from, to] = [Number(low), Number(high)]
  const how = kind.toLowerCase() as z.infer<typeof Range>['kind']
  if (!(Number.isFinite(from) && Number.isFinite(to) && from < to)) throw refuse('the first number has to be the smaller one')
  if (how.startsWith('log') && from <= 0) throw refuse('a logarithmic range starts above 0')
  if (how.endsWith('int') && !(Number.isSafeInteger(from) && Number.isSafeInteger(to))) throw refuse('a range of integers ends in integers')
  return { name, kind: how, from, to }
}

/** Values of trial `index`, as text: what the job finds in its environment. */
export function parametersOf({ parameters, method, seed }: SweepDefinition, index: number): Record<string, string> {
  if (method === 'grid') {
    let rest = index
    const place = parameters.toReversed().map(parameter => {
      const { values } = parameter as z.infer<typeof Choice>
      const value = values[rest % values.length]!
      rest = Math.floor(rest / values.length)
      return [parameter.name, value] as const
    })
    return Object.fromEntries(place.toReversed())
  }
  return Object.fromEntries(parameters.map(parameter => [parameter.name, valueAt(parameter, draw(seed, index, parameter.name))]))
}

/** How many trials a grid has. throws sweep_search where a range cannot be gone through */
export function gridSize(parameters: readonly Parameter[]): number {
  return parameters.reduce((size, parameter) => {
    if (parameter.kind !== 'choice')
      throw new Failure('sweep_search', { search: parameter.name, problem: 'a grid goes through listed values, such as 0.1,0.01,0.001' })
    return size * parameter.values.length
  }, 1)
}

/** `u` from 0 up to 1. Five digits of a real number say all that a search can use. */
function valueAt(parameter: Parameter, u: number): string {
  if (parameter.kind === 'choice') return parameter.values[Math.floor(u * parameter.values.length)]!
  const { kind, from, to } = parameter
  if (kind === 'int') return String(Math.min(to, from + Math.floor(u * (to - from + 1))))
  if (kind === 'uniform') return String(Number((from + u * (to - from)).toPrecision(5)))
  const value = Math.exp(Math.log(from) + u * (Math.log(to) - Math.log(from)))
  if (kind === 'log-int') return String(Math.min(to, Math.max(from, Math.round(value))))
  return String(Number(value.toPrecision(5)))
}

/** Uniform in [0, 1), 48 bits of a hash. */
const draw = (seed: number, index: number, name: string): number =>
  createHash('sha256').update(`${seed}\0${index}\0${name}`).digest().readUIntBE(0, 6) / 2 ** 48
