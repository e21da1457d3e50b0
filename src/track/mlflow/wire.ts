/**
 * MLflow's REST on the wire (protobuf's JSON form): how requests are read, answers written and errors told. Pure translation; what things
 * mean is decided in src/track and src/models. Source: MLflow's REST documentation and protocol files, checked with its own client.
 */
import type { Context, ForeignRequest, ForeignRoute } from '../../api/route.ts'
import { Failure, type FailureCode, forOthers } from '../../failure.ts'
import type { Right } from '../../sdk/contract.ts'

/** Each is served under /api for clients and under /ajax-api for MLflow's own pages. `path`: `/mlflow/runs/get`, with `:name` for segments. */
export function mlflowRoute(
  method: ForeignRoute['method'],
  path: string,
  right: Right,
  answer: (message: Message, context: Context, request: ForeignRequest) => unknown,
  version: '2.0' | '3.0' = '2.0',
): ForeignRoute[] {
  return ['/api', '/ajax-api'].map(prefix => ({
    method,
    path: `${prefix}/${version}${path}`,
    right,
    body: method === 'GET' ? 'none' : 'text',
    answer: (request, context) => answer(readMessage(method, request), context, request),
    failed: asMlflowError,
  }))
}

// ── requests ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** The fields of a request, each read with the type it must have. Unknown fields are ignored, null counts as not given. */
export interface Message {
  text(name: string): string | undefined
  /** throws mlflow_parameter */
  required(name: string): string
  /** Exact: beyond 2⁵³ it is refused, not rounded. */
  integer(name: string): number | undefined
  /** A double; also as text: "NaN", "Infinity", "1e3". */
  number(name: string): number | undefined
  boolean(name: string): boolean | undefined
  texts(name: string): string[]
  messages(name: string): Message[]
  /** throws mlflow_parameter */
  message(name: string): Message
  /** A word of an enumeration, or its number there. */
  word<T>(name: string, table: Enumeration<T>): T | undefined
  has(name: string): boolean
  /** throws always: for what only the caller can find wrong */
  wrong(name: string, reason: string): never
  /** throws always */
  missing(name: string): never
}
/** Words of protobuf's enumeration in the order of their numbers, and what they mean here; null where a number has no word. */
export type Enumeration<T> = ReadonlyMap<string, { number: number; means: T }>
export const enumeration = <T>(words: readonly (readonly [string, number, T])[]): Enumeration<T> =>
  new Map(words.map(([word, number, means]) => [word, { number, means }]))

/** A name that is repeated is a list. */
export function readQuery({ params, query }: ForeignRequest): Message {
  const fields: [string, unknown][] = []
  for (const name of new Set(query.keys())) fields.push([name, query.getAll(name).length > 1 ? query.getAll(name) : query.get(name)])
  return new Fields(Object.fromEntries([...fields, ...Object.entries(params)]), '')
}

function readMessage(method: string, request: ForeignRequest): Message {
  if (method === 'GET') return readQuery(request)
  const { params, body, raw } = request
  const text = typeof body === 'string' ? body : ''
  if (text !== '' && !/^application\/json\s*(;|$)/i.test(raw.headers['content-type'] ?? ''))
    throw wrongParameter("Bad Request. Content-Type must be one of ['application/json'].")
  let parsed = parseJson(text)
  if (typeof parsed === 'string') parsed = parseJson(parsed) // old clients encode twice
  const fields = isObject(parsed) ? parsed : {}
  return new Fields(Object.keys(params).length === 0 ? fields : Object.fromEntries([fields, params].flatMap(Object.entries)), '')
}

/** What cannot be parsed is an empty message: the answer then names what is missing. */
function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return {}
  }
}

const isObject = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null && !Array.isArray(value)
export const wrongParameter = (problem: string) => new Failure('mlflow_parameter', { problem })

/** Our names of fields are few, and each is asked for a thousand times a batch. */
const camelNames = new Map<string, string>()
function camel(name: string): string {
  const known = camelNames.get(name)
  if (known !== undefined) return known
  const made = name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())
  camelNames.set(name, made)
  return made
}

class Fields implements Message {
  readonly #fields: Readonly<Record<string, unknown>>
  readonly #path: string
  constructor(fields: Readonly<Record<string, unknown>>, path: string) {
    this.#fields = fields
    this.#path = path
  }

  has(name: string) {
    return this.#get(name) !== undefined
  }
  wrong(name: string, reason: string): never {
    throw this.#wrong(name, this.#get(name) ?? null, reason)
  }
  missing(name: string): never {
    throw wrongParameter(`Missing value for required parameter '${this.#path}${name}'.`)
  }
  text(name: string) {
    const value = this.#get(name)
    if (value === undefined) return undefined
    if (typeof value !== 'string') throw this.#ofType(name, value)
    return this.#plain(name, value)
  }
  required(name: string) {
    const value = this.text(name)
    if (value === undefined || value === '') return this.missing(name)
    return value
  }
  integer(name: string) {
    const value = this.#get(name)
    if (value === undefined) return undefined
    const number = typeof value === 'string' && /^[+-]?\d{1,20}$/.test(value) ? Number(value) : value
    if (typeof number !== 'number' || !Number.isInteger(number)) throw this.#ofType(name, value)
    if (!Number.isSafeInteger(number)) throw this.#wrong(name, value, 'it must lie between -2^53 and 2^53.')
    return number
  }
  number(name: string) {
    const value = this.#get(name)
    if (value === undefined) return undefined
    const number = typeof value === 'string' && value.trim() !== '' ? (value === 'NaN' ? Number.NaN : Number(value)) : value
    if (typeof number !== 'number' || (Number.isNaN(number) && value !== 'NaN')) throw this.#ofType(name, value)
    return number
  }
  boolean(name: string) {
    const value = this.#get(name)
    if (value === undefined || typeof value === 'boolean') return value
    if (typeof value === 'string' && /^(true|false)$/i.test(value)) return value.toLowerCase() === 'true'
    throw this.#ofType(name, value)
  }
  texts(name: string) {
    const value = this.#get(name)
    if (value === undefined) return []
    const list = Array.isArray(value) ? value : [value]
    if (list.some(each => typeof each !== 'string')) throw this.#ofType(name, value)
    return (list as string[]).map(each => this.#plain(name, each))
  }
  message(name: string) {
    const value = this.#get(name)
    if (value === undefined) return this.missing(name)
    if (!isObject(value)) throw this.#ofType(name, value)
    return new Fields(value, `${this.#path}${name}.`)
  }
  messages(name: string) {
    const value = this.#get(name)
    if (value === undefined) return []
    if (!Array.isArray(value) || !value.every(isObject)) throw this.#ofType(name, value)
    return value.map((each, i) => new Fields(each, `${this.#path}${name}[${i}].`))
  }
  word<T>(name: string, table: Enumeration<T>) {
    const value = this.#get(name)
    if (value === undefined) return undefined
    const number = typeof value === 'number' ? value : typeof value === 'string' && /^\d{1,3}$/.test(value) ? Number(value) : null
    const found =
      typeof value === 'string' && table.has(value) ? table.get(value) : [...table.values()].find(each => each.number === number)
    if (!found) throw this.#wrong(name, value, `there are ${[...table.keys()].join(', ')}.`)
    return found.means
  }

  /** In either spelling; null counts as not given. */
  #get(name: string): unknown {
    const other = camel(name)
    const one = this.#own(name)
    const two = other === name ? undefined : this.#own(other)
    if (one !== undefined && two !== undefined)
      throw wrongParameter(`Request specifies both '${this.#path}${name}' and '${this.#path}${other}'; provide only one of them.`)
    return one ?? two
  }
  #own(name: string): unknown {
    return Object.hasOwn(this.#fields, name) ? (this.#fields[name] ?? undefined) : undefined
  }
  #plain(name: string, value: string): string {
    // no database keeps it, and no name or value needs it
    if (value.includes('\0')) throw this.#wrong(name, value, 'it must not contain the character NUL.')
    return value.toWellFormed()
  }
  #ofType(name: string, value: unknown) {
    return this.#wrong(name, value, `Hint: Value was of type '${typeName(value)}'.`)
  }
  #wrong(name: string, value: unknown, reason: string) {
    return wrongParameter(`Invalid value ${shown(value)} for parameter '${this.#path}${name}' supplied: ${reason}`)
  }
}

function shown(value: unknown): string {
  try {
    return JSON.stringify(value).slice(0, 500)
  } catch {
    return '…' // nested deeper than a stack
  }
}

/** As Python calls it, where most clients live. */
const typeName = (value: unknown): string =>
  typeof value === 'string'
    ? 'str'
    : typeof value === 'boolean'
      ? 'bool'
      : typeof value === 'number'
        ? Number.isInteger(value)
          ? 'int'
          : 'float'
        : Array.isArray(value)
          ? 'list'
          : 'dict'

// ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** NaN is text there; infinities are the largest double, as MLflow's own server keeps them. */
export const wireNumber = (value: number): number | 'NaN' =>
  Number.isNaN(value) ? 'NaN' : Math.min(Math.max(value, -Number.MAX_VALUE), Number.MAX_VALUE)

/** Unset and empty fields are left out. */
export const compact = <T extends object>(fields: T): T =>
  Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null && !(Array.isArray(value) && value.length === 0)),
  ) as T

export const pairs = (record: Readonly<Record<string, string>>) => Object.entries(record).map(([key, value]) => ({ key, value }))

const views = enumeration<'active' | 'deleted' | 'all'>([
  ['ACTIVE_ONLY', 1, 'active'],
  ['DELETED_ONLY', 2, 'deleted'],
  ['ALL', 3, 'all'],
])
/** throws mlflow_parameter */
export const viewIn = (message: Message, name: string) => message.word(name, views) ?? 'active'

/** Experiments are numbered; `usual` is taken where none is named. throws mlflow_parameter */
export function experimentIn(message: Message, usual?: string): string {
  const id = message.text('experiment_id') || usual || message.required('experiment_id')
  if (!/^\d{1,15}$/.test(id))
    throw wrongParameter(`Invalid experiment ID ${JSON.stringify(id.slice(0, 200))}. Experiment ID must be a valid integer.`)
  return id
}

/** throws mlflow_parameter */
export function versionIn(message: Message): number {
  const version = message.required('version')
  if (!/^\d{1,9}$/.test(version)) throw wrongParameter(`Parameter 'version' must be an integer, got '${version.slice(0, 200)}'.`)
  return Number(version)
}

/** `usual`: where none is given; without one it has to be given. throws mlflow_parameter */
export function limitIn(message: Message, { usual, most }: { usual?: number; most: number }): number {
  const limit = message.integer('max_results') ?? usual ?? 0
  if (limit < 1 || limit > most)
    throw wrongParameter(`Invalid value ${limit} for parameter 'max_results' supplied: It must be a positive integer, at most ${most}.`)
  return limit
}

/** How our codes are called there; clients branch on these words. */
const words: Partial<Record<FailureCode, string>> = {
  experiment_exists: 'RESOURCE_ALREADY_EXISTS',
  registered_model_exists: 'RESOURCE_ALREADY_EXISTS',
  mlflow_route_not_found: 'ENDPOINT_NOT_FOUND',
  token_required: 'UNAUTHENTICATED',
  token_wrong: 'UNAUTHENTICATED',
  job_over: 'UNAUTHENTICATED',
  forbidden: 'PERMISSION_DENIED',
  job_run_only: 'PERMISSION_DENIED',
}
const wordOf = ({ code, status }: Failure): string =>
  words[code] ??
  (status === 404
    ? 'RESOURCE_DOES_NOT_EXIST'
    : status === 409
      ? 'RESOURCE_CONFLICT'
      : status === 429
        ? 'REQUEST_LIMIT_EXCEEDED'
        : status === 501
          ? 'NOT_IMPLEMENTED'
          : status === 503
            ? 'TEMPORARILY_UNAVAILABLE'
            : status < 500
              ? 'INVALID_PARAMETER_VALUE'
              : 'INTERNAL_ERROR')

/** A deterministic failure is never a 5xx: clients repeat those for minutes. */
export function asMlflowError(error: unknown): { status: number; body: { error_code: string; message: string } } {
  const failure = error instanceof Failure ? forOthers(error) : null
  if (failure)
    return { status: failure.status, body: { error_code: wordOf(failure), message: `${failure.message} ${failure.next}`.trim() } }
  const status = (error as { statusCode?: number }).statusCode ?? 500
  const message = status === 413 ? 'The request is larger than this server takes; send it in parts.' : 'The request cannot be read.'
  if (status < 500) return { status, body: { error_code: 'BAD_REQUEST', message } }
  return { status: 500, body: { error_code: 'INTERNAL_ERROR', message: 'Something in Plinth broke; see the log of the server.' } }
}
