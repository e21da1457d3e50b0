/**
 * The language runs are searched in, as MLflow's users write it: `metrics.loss < 0.5 and params.net = 'lite' and tags.owner LIKE 'a%'`.
 * Comparisons joined by AND; no OR, NOT or brackets. Read by hand in one pass: no user text ever becomes a regular expression or SQL.
 */
import { Failure } from '../../failure.ts'

export type Entity = 'metric' | 'param' | 'tag' | 'attribute' | 'dataset'
export type Operator = '>' | '>=' | '<' | '<=' | '=' | '!=' | 'LIKE' | 'ILIKE' | 'IN' | 'NOT IN' | 'IS NULL' | 'IS NOT NULL'
export interface Identifier {
  entity: Entity
  key: string
}
export interface Comparison extends Identifier {
  operator: Operator
  /** A number for metrics and numeric attributes, text otherwise; a list for IN; null for IS NULL. */
  value: number | string | string[] | null
}

/** What may be searched and sorted by; each kind of thing has its own. */
export interface Vocabulary {
  /** How a prefix is spelt → what it means: { metrics: 'metric', metric: 'metric', … }. */
  entities: Readonly<Record<string, Entity>>
  /** Attribute as written → its name; those in `numeric` compare with numbers. */
  attributes: Readonly<Record<string, string>>
  numeric: readonly string[]
  /** Attributes, and entities, that take IN. */
  lists: readonly string[]
  /** Entities that take IS NULL. */
  nullable: readonly Entity[]
}

export const runVocabulary: Vocabulary = {
  entities: {
    metric: 'metric',
    metrics: 'metric',
    param: 'param',
    params: 'param',
    parameter: 'param',
    parameters: 'param',
    tag: 'tag',
    tags: 'tag',
    attribute: 'attribute',
    attributes: 'attribute',
    attr: 'attribute',
    run: 'attribute',
    dataset: 'dataset',
    datasets: 'dataset',
  },
  attributes: {
    run_id: 'run_id',
    run_name: 'run_name',
    'run name': 'run_name',
    'Run name': 'run_name',
    'Run Name': 'run_name',
    status: 'status',
    user_id: 'user_id',
    artifact_uri: 'artifact_uri',
    start_time: 'start_time',
    created: 'start_time',
    Created: 'start_time',
    end_time: 'end_time',
  },
  numeric: ['start_time', 'end_time'],
  lists: ['run_id', 'dataset'],
  nullable: ['tag', 'param'],
}
const datasetKeys = ['name', 'digest', 'context']

/** throws search_invalid */
export function parseFilter(filter: string, vocabulary: Vocabulary = runVocabulary): Comparison[] {
  if (filter === '') return []
  const tokens = tokenise(filter)
  if (tokens.length === 0) throw invalid('it is empty but for spaces')
  const comparisons: Comparison[] = []
  let at = 0
  const peek = () => tokens[at]
  const next = () => tokens[at++]
  while (at < tokens.length) {
    const identifier = identifierOf(next()!, vocabulary)
    comparisons.push(comparison(identifier))
    const joint = next()
    if (joint && !isWord(joint, 'and')) throw invalid(`after a comparison comes AND, not ${shown(joint)}`)
  }
  return comparisons

  function comparison(identifier: Identifier): Comparison {
    const first = next()
    if (!first) throw invalid(`${identifier.key} is compared with nothing`)
    if (isWord(first, 'is')) {
      const not = peek() && isWord(peek()!, 'not') && next()
      const last = next()
      if (!last || !isWord(last, 'null')) throw invalid('IS is followed by NULL or NOT NULL')
      if (!vocabulary.nullable.includes(identifier.entity))
        throw invalid(`IS NULL is for ${vocabulary.nullable.map(name => `${name}s`).join(' and ')} only`)
      return { ...identifier, operator: not ? 'IS NOT NULL' : 'IS NULL', value: null }
    }
    const not = isWord(first, 'not')
    if (not || isWord(first, 'in')) {
      if (not) {
        const second = next()
        if (!second || !isWord(second, 'in')) throw invalid('NOT is followed by IN')
      }
      const takesLists =
        vocabulary.lists.includes(identifier.entity) || (identifier.entity === 'attribute' && vocabulary.lists.includes(identifier.key))
      if (!takesLists) throw invalid(`${identifier.key} does not take IN`)
      return { ...identifier, operator: not ? 'NOT IN' : 'IN', value: list() }
    }
    const operator = isWord(first, 'like')
      ? 'LIKE'
      : isWord(first, 'ilike')
        ? 'ILIKE'
        : first.kind === 'operator'
          ? (first.text as Operator)
          : null
    const value = next()
    if (!operator || !value) throw invalid(`${shown(first)} does not compare`)
    const isNumber = identifier.entity === 'metric' || (identifier.entity === 'attribute' && vocabulary.numeric.includes(identifier.key))
    if (isNumber) {
      if (operator === 'LIKE' || operator === 'ILIKE') throw invalid(`${identifier.key} is a number and has no ${operator}`)
      if (value.kind !== 'word' || !number.test(value.text))
        throw invalid(`${identifier.key} is compared with a number, not ${shown(value)}`)
      return { ...identifier, operator, value: Number(value.text) }
    }
    if (!['=', '!=', 'LIKE', 'ILIKE'].includes(operator)) throw invalid(`${identifier.key} is text and has no ${operator}`)
    if (value.kind !== 'string') throw invalid(`${identifier.key} is compared with text in quotes, not ${shown(value)}`)
    return { ...identifier, operator, value: value.text }
  }

  function list(): string[] {
    const values: string[] = []
    if (next()?.kind !== '(') throw invalid('IN is followed by a list in brackets')
    for (;;) {
      const value = next()
      if (value?.kind !== 'string') throw invalid('a list holds texts in quotes, at least one')
      values.push(value.text)
      const end = next()
      if (end?.kind === ')') return values
      if (end?.kind !== ',') throw invalid('a list is separated by commas and closed by a bracket')
      if (peek()?.kind === ')') {
        next()
        return values
      }
    }
  }
}

export interface Order extends Identifier {
  descending: boolean
}

/** `metrics.loss DESC`, `start_time`. throws search_invalid */
export function parseOrder(text: string, vocabulary: Vocabulary = runVocabulary): Order {
  const [first, direction, ...rest] = tokenise(text)
  if (!first || rest.length > 0) throw invalid(`${JSON.stringify(text)} is not a field and a direction`)
  const descending = direction !== undefined && isWord(direction, 'desc')
  if (direction && !descending && !isWord(direction, 'asc')) throw invalid(`${shown(direction)} is no direction; there are ASC and DESC`)
  const identifier = identifierOf(first, vocabulary)
  if (identifier.entity === 'dataset') throw invalid('datasets cannot be sorted by')
  return { ...identifier, descending }
}

function identifierOf(token: Token, { entities, attributes }: Vocabulary): Identifier {
  if (token.kind !== 'word' && token.kind !== 'identifier') throw invalid(`${shown(token)} is no name of a field`)
  const { text, quotedFrom = Number.POSITIVE_INFINITY } = token
  const dot = text.indexOf('.')
  const prefixed = dot > 0 && dot < quotedFrom
  const prefix = prefixed ? text.slice(0, dot) : 'attribute'
  const key = prefixed ? text.slice(dot + 1) : text
  const entity = prefixed ? (Object.hasOwn(entities, prefix) ? entities[prefix] : undefined) : 'attribute'
  if (!entity) throw invalid(`there is no ${prefix}; there are ${[...new Set(Object.keys(entities))].join(', ')}`)
  if (key === '') throw invalid(`${prefix} needs a name behind the point`)
  if (entity === 'attribute') {
    const name = Object.hasOwn(attributes, key) ? attributes[key] : undefined
    if (!name) throw invalid(`there is no attribute ${key}; there are ${[...new Set(Object.values(attributes))].join(', ')}`)
    return { entity, key: name }
  }
  if (entity === 'dataset' && !datasetKeys.includes(key)) throw invalid(`a dataset has ${datasetKeys.join(', ')}, but no ${key}`)
  return { entity, key }
}

// ── tokens ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

interface Token {
  /** A word also holds numbers; an identifier had quotes in it; a string is only quotes. */
  kind: 'word' | 'identifier' | 'string' | 'operator' | '(' | ')' | ','
  text: string
  /** Where in `text` the quoted part of an identifier begins: points in it separate nothing. */
  quotedFrom?: number
}
const operators = ['>=', '<=', '!=', '=', '>', '<']
const number = /^-?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?$/i
/** No one types so much; it bounds the work. */
const longest = 100_000

function tokenise(text: string): Token[] {
  if (text.length > longest) throw invalid('it is too long')
  if (text.includes('\0')) throw invalid('the character NUL is in no name and no value')
  const tokens: Token[] = []
  for (let at = 0; at < text.length; ) {
    const letter = text[at]!
    if (/\s/.test(letter)) at++
    else if (letter === '(' || letter === ')' || letter === ',') {
      tokens.push({ kind: letter, text: letter })
      at++
    } else if (letter === ';') throw invalid('there is only one condition at a time: “;” has no place')
    else if (text.startsWith('--', at) || text.startsWith('/*', at)) throw invalid('comments have no place')
    else {
      const operator = operators.find(each => text.startsWith(each, at))
      if (operator) {
        if (/^[=<>!]/.test(text.slice(at + operator.length)))
          throw invalid(`the comparisons are ${operators.join(' ')}, LIKE, ILIKE and IN`)
        tokens.push({ kind: 'operator', text: operator })
        at += operator.length
      } else {
        const token = wordAt(text, at)
        tokens.push(token)
        at = token.end
      }
    }
  }
  return tokens
}

/** A word up to a space or an operator; parts of it, or all of it, may be in quotes. */
function wordAt(text: string, from: number): Token & { end: number } {
  let at = from
  let read = ''
  let quotedFrom: number | undefined
  let quotes = 0
  while (at < text.length && !/[\s(),;=<>!]/.test(text[at]!)) {
    const letter = text[at]!
    if (letter !== "'" && letter !== '"' && letter !== '`') {
      read += letter
      at++
      continue
    }
    const end = closing(text, at)
    quotedFrom ??= read.length
    read += text.slice(at + 1, end)
    at = end + 1
    quotes++
    // the end of a quotation is the end of the word
    if (quotedFrom === 0 || at >= text.length || /[\s(),;=<>!]/.test(text[at]!)) break
    throw invalid('a quotation ends a name')
  }
  if (at === from) throw invalid(`${JSON.stringify(text[at])} has no place`)
  const whole = quotedFrom === 0
  const kind = whole && text[from] !== '`' ? 'string' : quotes > 0 ? 'identifier' : 'word'
  return { kind, text: read, end: at, ...(quotedFrom !== undefined && { quotedFrom }) }
}

/** Quotes are taken off and nothing else: a doubled or escaped quote stays doubled or escaped, as MLflow has it. */
function closing(text: string, open: number): number {
  const quote = text[open]!
  for (let at = open + 1; at < text.length; at++) {
    if (text[at] === '\\' && quote !== '`') at++
    else if (text[at] === quote) {
      if (text[at + 1] !== quote) return at
      at++
    }
  }
  throw invalid('a quotation is not closed')
}

const isWord = (token: Token, word: string) => token.kind === 'word' && token.text.toLowerCase() === word
const shown = ({ text }: Token) => JSON.stringify(text.slice(0, 60))
const invalid = (problem: string) => new Failure('search_invalid', { problem })
