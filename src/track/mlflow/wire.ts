/**
 * MLflow's REST on the wire (protobuf's JSON form): how requests are read, answers written and errors told. Pure translation; what things
 * mean is decided in src/track and src/models. Source: MLflow's REST documentation and protocol files, checked with its own client.
 */
import type { Context, ForeignRequest, ForeignRoute } from '../../api/route.ts'
import { Failure, type FailureCode } from '../../failure.ts'
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
  integer(name: string): number | undefined
  /** A double; also as text: "NaN", "Infinity", "1e3". */
  number(name: string): number | undefined
  boolean(name: string): boolean | undefined
  texts(name: string): string[]
  messages(name: string): Message[]
  /** throws mlflow_parameter */
  message(name: string): Message
  has(name: string): boolean
  /** As it came, for what is kept as it is. */
  raw(name: string): unknown
}

function readMessage(method: string, { params, query, body, raw }: ForeignRequest): Message {
  if (method === 'GET') {
    const fields = new Map<string, unknown>()
    for (const name of new Set(query.keys())) fields.set(name, query.getAll(name).length > 1 ? query.getAll(name) : query.get(name))
    for (const [name, value] of Object.entries(params)) fields.set(name, value)
    return message(fields, '')
  }
  const text = typeof body === 'string' ? body : ''
  if (text !== '' && !/^application\/json\b/i.test(raw.headers['content-type'] ?? ''))
    throw new Failure('mlflow_parameter', { problem: "Bad Request. Content-Type must be 'application/json'." })
  let parsed = parseJson(text)
  if (typeof parsed === 'string') parsed = parseJson(parsed) // old clients encode twice
  const fields = new Map(Object.entries(isObject(parsed) ? parsed : {}))
  for (const [name, value] of Object.entries(params)) fields.set(name, value)
  return message(fields, '')
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
const camel = (name: string) => name.replace(/_(\w)/g, (_, letter: string) => letter.toUpperCase())

function message(fields: ReadonlyMap<string, unknown>, path: string): Message {
  const get = (name: string) => fields.get(name) ?? fields.get(camel(name)) ?? undefined
  const wrong = (name: string, value: unknown, kind: string) =>
    new Failure('mlflow_parameter', {
      problem: `Invalid value ${JSON.stringify(value)} for parameter '${path}${name}' supplied: it must be ${kind}.`,
    })
  const self: Message = {
    has: name => get(name) !== undefined,
    raw: get,
    text(name) {
      const value = get(name)
      if (value === undefined || typeof value === 'string') return value
      throw wrong(name, value, 'a string')
    },
    required(name) {
      const value = self.text(name)
      if (value === undefined || value === '')
        throw new Failure('mlflow_parameter', { problem: `Missing value for required parameter '${path}${name}'.` })
      return value
    },
    integer(name) {
      const value = get(name)
      if (value === undefined) return undefined
      const number = typeof value === 'string' && /^-?\d{1,19}$/.test(value) ? Number(value) : value
      if (typeof number !== 'number' || !Number.isInteger(number)) throw wrong(name, value, 'an integer')
      return number
    },
    number(name) {
      const value = get(name)
      if (value === undefined) return undefined
      const number = typeof value === 'string' && value.trim() !== '' ? (value === 'NaN' ? Number.NaN : Number(value)) : value
      if (typeof number !== 'number' || (Number.isNaN(number) && value !== 'NaN')) throw wrong(name, value, 'a number')
      return number
    },
    boolean(name) {
      const value = get(name)
      if (value === undefined || typeof value === 'boolean') return value
      if (typeof value === 'string' && /^(true|false)$/i.test(value)) return value.toLowerCase() === 'true'
      throw wrong(name, value, 'true or false')
    },
    texts(name) {
      const value = get(name)
      if (value === undefined) return []
      const list = Array.isArray(value) ? value : [value]
      if (list.some(each => typeof each !== 'string')) throw wrong(name, value, 'a list of strings')
      return list as string[]
    },
    message(name) {
      const value = get(name)
      if (!isObject(value)) throw new Failure('mlflow_parameter', { problem: `Missing value for required parameter '${path}${name}'.` })
      return message(new Map(Object.entries(value)), `${path}${name}.`)
    },
    messages(name) {
      const value = get(name)
      if (value === undefined) return []
      if (!Array.isArray(value) || !value.every(isObject)) throw wrong(name, value, 'a list of objects')
      return value.map((each, i) => message(new Map(Object.entries(each)), `${path}${name}[${i}].`))
    },
  }
  return self
}

// ── answers ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** NaN is text there; infinities are the largest double, as MLflow's own server keeps them. */
export const wireNumber = (value: number): number | 'NaN' =>
  Number.isNaN(value) ? 'NaN' : Math.min(Math.max(value, -Number.MAX_VALUE), Number.MAX_VALUE)

/** Unset and empty fields are left out. */
export const compact = <T extends object>(fields: T): T =>
  Object.fromEntries(
    Object.entries(fields).filter(([, value]) => value !== undefined && value !== null && !(Array.isArray(value) && value.length === 0)),
  ) as T

/** {key, value}, where value may be missing. */
export const pairOf = (message: Message) => ({ key: message.required('key'), value: message.text('value') ?? '' })
export const pairs = (record: Readonly<Record<string, string>>) => Object.entries(record).map(([key, value]) => ({ key, value }))

/** ACTIVE_ONLY, DELETED_ONLY, ALL. throws mlflow_parameter */
export function viewOf(word: string | undefined): 'active' | 'deleted' | 'all' {
  const views = { ACTIVE_ONLY: 'active', DELETED_ONLY: 'deleted', ALL: 'all', '1': 'active', '2': 'deleted', '3': 'all' } as const
  const view = word === undefined ? 'active' : Object.hasOwn(views, word) ? views[word as keyof typeof views] : null
  if (!view) throw new Failure('mlflow_parameter', { problem: `Invalid value ${JSON.stringify(word)} for parameter 'view_type' supplied.` })
  return view
}

/** `usual`: where none is given; without one it has to be given. throws mlflow_parameter */
export function limitOf(message: Message, { usual, most }: { usual?: number; most: number }): number {
  const limit = message.integer('max_results') ?? usual ?? 0
  if (limit < 1 || limit > most)
    throw new Failure('mlflow_parameter', {
      problem: `Invalid value ${limit} for parameter 'max_results' supplied: it must be a positive integer, at most ${most}.`,
    })
  return limit
}

/** How our codes are called there; clients branch on these words. */
const words: Partial<Record<FailureCode, string>> = {
  experiment_exists: 'RESOURCE_ALREADY_EXISTS',
  token_required: 'UNAUTHENTICATED',
  token_wrong: 'UNAUTHENTICATED',
  forbidden: 'PERMISSION_DENIED',
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
  const failure = error instanceof Failure ? error : null
  if (failure)
    return { status: failure.status, body: { error_code: wordOf(failure), message: `${failure.message} ${failure.next}`.trim() } }
  const status = (error as { statusCode?: number }).statusCode ?? 500
  if (status < 500) return { status, body: { error_code: 'BAD_REQUEST', message: 'The request cannot be read.' } }
  return { status: 500, body: { error_code: 'INTERNAL_ERROR', message: 'Something in Plinth broke; see the log of the server.' } }
}
