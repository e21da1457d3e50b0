/** Takes a section of a job file apart and remembers what became of each field. */
import { Failure } from '../../failure.ts'
import { nearest } from '../../sdk/nearest.ts'
import type { FieldVerdict } from './read.ts'

type Verdict = Pick<FieldVerdict, 'verdict' | 'note'>
const honoured: Verdict = { verdict: 'honoured', note: null }

export class Fields {
  readonly verdicts: FieldVerdict[] = []
  readonly #values: Record<string, unknown>
  readonly #path: string
  readonly #seen = new Set<string>()

  constructor(values: Record<string, unknown>, path: string) {
    this.#values = values
    this.#path = path
  }

  /** Null where it is not there or null. */
  take(field: string, verdict: Verdict = honoured): unknown {
    this.#seen.add(field)
    if (!Object.hasOwn(this.#values, field)) return null
    this.verdicts.push({ field: this.#path + field, ...verdict })
    return this.#values[field] ?? null
  }

  taken<T>(field: string, read: (value: unknown) => T): T {
    return read(this.take(field))
  }

  text(field: string, verdict?: Verdict): string | null {
    const value = this.take(field, verdict)
    if (value === null) return null
    if (typeof value === 'object') this.refuse(field, 'it has to be a text')
    return String(value)
  }

  number(field: string, verdict?: Verdict): number | null {
    const value = this.take(field, verdict)
    if (value === null) return null
    if (!Number.isFinite(Number(value)) || typeof value === 'boolean' || value === '') this.refuse(field, 'it has to be a number')
    return Number(value)
  }

  section(field: string): Fields {
    const value = this.#values[field] ?? {}
    this.#seen.add(field)
    if (typeof value !== 'object' || Array.isArray(value)) this.refuse(field, 'it has to be a section of keys')
    return new Fields(value as Record<string, unknown>, `${this.#path}${field}.`)
  }

  ignore(field: string, note: string): void {
    this.take(field, { verdict: 'ignored', note })
  }

  unsupported(field: string, note: string): void {
    this.take(field, { verdict: 'unsupported', note })
  }

  imageOf(field: string): void {
    this.unsupported(field, 'no container is started here: say ext.runtime instead')
  }

  /** Whatever nobody asked for is a mistake in the spelling. */
  unknown(known: readonly string[] = []): void {
    const names = [...this.#seen, ...known]
    for (const field of Object.keys(this.#values))
      if (!names.includes(field)) {
        const near = nearest(field, names)
        throw new Failure('job_file_field', {
          field: this.#path + field,
          problem: `no such key${near ? `: did you mean ${near}?` : ''}`,
        })
      }
  }

  refuse(field: string, problem: string): never {
    throw new Failure('job_file_field', { field: this.#path + field, problem })
  }
}
