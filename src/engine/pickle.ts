/**
 * Reads Python pickles of protocol 2 as data and executes nothing. Of pickle's 68 opcodes it knows the ones that torch.save
 * writes for a dictionary of weights; a name is looked up in the caller's table and a call is answered by the caller's function,
 * so that nothing is ever imported. Everything else in the file, however it got there, is refused.
 *
 * Source of the format: CPython, Lib/pickletools.py. Every loop here is bounded by the length of the bytes, and no value is
 * walked recursively: a nest of references or a list that holds itself costs what its bytes cost.
 */
import { Failure } from '../failure.ts'

/** What a pickle can make here. Lists and tuples are kept apart because torch tells them apart. */
export type PickleValue = null | boolean | number | bigint | string | PickleTuple | PickleList | PickleDictionary | PickleObject
export class PickleTuple {
  readonly items: readonly PickleValue[]
  readonly depth: number
  constructor(items: readonly PickleValue[]) {
    this.items = items
    this.depth = 1 + items.reduce<number>((deepest, item) => Math.max(deepest, depthOf(item)), 0)
  }
}
export class PickleList {
  readonly items: PickleValue[] = []
  depth = 1
}
/** A dict or an OrderedDict. Keys are texts or whole numbers; `__proto__` is a key like any other. */
export class PickleDictionary {
  readonly entries = new Map<string | number, PickleValue>()
  depth = 1
}
/** Something the host made: a name it knows, a storage, a tensor. */
export class PickleObject<T = unknown> {
  readonly value: T
  constructor(value: T) {
    this.value = value
  }
}

/** What the caller allows. Each function throws `refused(…)` for what it does not know. */
export interface PickleHost {
  global(module: string, name: string): PickleObject
  call(callable: PickleObject, argumentsOf: PickleTuple): PickleValue
  persistent(id: PickleTuple): PickleObject
}

export const refused = (problem: string) => new Failure('torch_file_refused', { problem })
export const malformed = (problem: string) => new Failure('torch_file_malformed', { problem })
/** Foreign text in a message: short, on one line, visibly foreign. */
export const quoted = (text: string) => JSON.stringify(text.length > 80 ? `${text.slice(0, 77)}…` : text)

const limits = { string: 1 << 16, line: 1 << 10, longBytes: 16, depth: 64, marks: 64, stack: 1 << 18, memo: 1 << 20 }

const depthOf = (value: PickleValue): number =>
  value instanceof PickleTuple || value instanceof PickleList || value instanceof PickleDictionary ? value.depth : 0

/**
 * One pickle that starts at `start`.
 * @returns its value and the offset behind its STOP.
 * @throws torch_file_refused for anything outside the small language, torch_file_malformed for broken bytes
 */
export function readPickle(bytes: Uint8Array, start: number, host: PickleHost): { value: PickleValue; end: number } {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const stack: PickleValue[] = []
  const marks: number[] = []
  const memo = new Map<number, PickleValue>()
  let at = start

  const take = (count: number): number => {
    if (count > bytes.length - at) throw malformed('it ends in the middle of a pickle')
    at += count
    return at - count
  }
  const byte = () => bytes[take(1)]!
  const push = (value: PickleValue) => {
    if (stack.length >= limits.stack) throw refused('a pickle in it stacks up too many values')
    if (depthOf(value) > limits.depth) throw refused(`a pickle in it is nested deeper than ${limits.depth}`)
    stack.push(value)
  }
  /** Nothing below the newest mark may be touched before the mark is taken. */
  const pop = (): PickleValue => {
    if (stack.length <= (marks.at(-1) ?? 0)) throw malformed('a pickle in it takes more than it gave')
    return stack.pop()!
  }
  const top = (): PickleValue => {
    const value = pop()
    stack.push(value)
    return value
  }
  const popMark = (): PickleValue[] => {
    const mark = marks.pop()
    if (mark === undefined) throw malformed('a pickle in it ends a group that never began')
    return stack.splice(mark)
  }
  const tuple = (count: number) => {
    const items = Array.from({ length: count }, pop).reverse()
    push(new PickleTuple(items))
  }
  const text = (length: number, encoding: 'utf-8' | 'latin1'): string => {
    if (length > limits.string) throw refused('a text in it is longer than 64 KiB')
    const from = take(length)
    try {
      return new TextDecoder(encoding, { fatal: true, ignoreBOM: true }).decode(bytes.subarray(from, at))
    } catch (error) {
      if (error instanceof TypeError) throw malformed('a text in it is not UTF-8')
      throw error
    }
  }
  const line = (): string => {
    const end = bytes.subarray(at, at + limits.line).indexOf(10)
    if (end < 0) throw malformed('a name in it does not end')
    const value = text(end, 'utf-8')
    take(1)
    return value
  }
  const remember = (index: number) => {
    if (memo.size >= limits.memo) throw refused('a pickle in it remembers too many values')
    memo.set(index, top())
  }
  const recall = (index: number) => {
    const value = memo.get(index)
    if (value === undefined) throw malformed('a pickle in it recalls what it never remembered')
    push(value)
  }
  const setItems = (flat: readonly PickleValue[]) => {
    const dictionary = top()
    if (!(dictionary instanceof PickleDictionary)) throw refused('a pickle in it sets items of something that is not a dictionary')
    if (flat.length % 2) throw malformed('a dictionary in it has a key without a value')
    for (let i = 0; i < flat.length; i += 2) setItem(dictionary, flat[i]!, flat[i + 1]!)
  }
  const append = (items: readonly PickleValue[]) => {
    const list = top()
    if (!(list instanceof PickleList)) throw refused('a pickle in it appends to something that is not a list')
    for (const item of items) {
      list.items.push(item)
      deepen(list, item)
    }
  }

  for (;;) {
    const opcode = byte()
    switch (opcode) {
      case 0x80: {
        // PROTO
        const protocol = byte()
        if (protocol !== 2) throw refused(`it is written in pickle protocol ${protocol}, and only 2 is read`)
        break
      }
      case 0x2e: {
        // STOP
        const value = pop()
        if (stack.length || marks.length) throw malformed('a pickle in it leaves values behind')
        return { value, end: at }
      }
      case 0x28: // MARK
        if (marks.length >= limits.marks) throw refused(`a pickle in it is nested deeper than ${limits.marks}`)
        marks.push(stack.length)
        break

      case 0x4e:
        push(null)
        break // NONE
      case 0x88:
        push(true)
        break // NEWTRUE
      case 0x89:
        push(false)
        break // NEWFALSE
      case 0x4b:
        push(byte())
        break // BININT1
      case 0x4d:
        push(view.getUint16(take(2), true))
        break // BININT2
      case 0x4a:
        push(view.getInt32(take(4), true))
        break // BININT
      case 0x8a:
        push(long(bytes, take, byte()))
        break // LONG1
      case 0x47:
        push(view.getFloat64(take(8), false))
        break // BINFLOAT
      case 0x58:
        push(text(view.getUint32(take(4), true), 'utf-8'))
        break // BINUNICODE
      case 0x55:
        push(text(byte(), 'latin1'))
        break // SHORT_BINSTRING, Python 2
      case 0x54:
        push(text(view.getUint32(take(4), true), 'latin1'))
        break // BINSTRING, Python 2

      case 0x29:
        tuple(0)
        break // EMPTY_TUPLE
      case 0x85:
        tuple(1)
        break // TUPLE1
      case 0x86:
        tuple(2)
        break // TUPLE2
      case 0x87:
        tuple(3)
        break // TUPLE3
      case 0x74:
        push(new PickleTuple(popMark()))
        break // TUPLE
      case 0x5d:
        push(new PickleList())
        break // EMPTY_LIST
      case 0x61:
        append([pop()])
        break // APPEND
      case 0x65:
        append(popMark())
        break // APPENDS
      case 0x7d:
        push(new PickleDictionary())
        break // EMPTY_DICT
      case 0x73: {
        // SETITEM
        const value = pop()
        setItems([pop(), value])
        break
      }
      case 0x75:
        setItems(popMark())
        break // SETITEMS

      case 0x71:
        remember(byte())
        break // BINPUT
      case 0x72:
        remember(view.getUint32(take(4), true))
        break // LONG_BINPUT
      case 0x68:
        recall(byte())
        break // BINGET
      case 0x6a:
        recall(view.getUint32(take(4), true))
        break // LONG_BINGET

      case 0x63: {
        // GLOBAL
        const module = line()
        push(host.global(module, line()))
        break
      }
      case 0x52: {
        // REDUCE
        const argumentsOf = pop()
        const callable = pop()
        if (!(callable instanceof PickleObject)) throw refused('a pickle in it calls something that is not a function')
        if (!(argumentsOf instanceof PickleTuple)) throw malformed('a pickle in it calls a function without a tuple of arguments')
        push(host.call(callable, argumentsOf))
        break
      }
      case 0x51: {
        // BINPERSID
        const id = pop()
        if (!(id instanceof PickleTuple)) throw refused('a pickle in it refers to outside data by something that is not a tuple')
        push(host.persistent(id))
        break
      }
      case 0x62: {
        // BUILD: state dictionaries carry version numbers this way, which nobody here needs
        const state = pop()
        if (!(top() instanceof PickleDictionary) || !(state instanceof PickleDictionary))
          throw refused('a pickle in it changes the inside of an object')
        break
      }
      default:
        throw refused(`a pickle in it uses the opcode ${opcodeName(opcode)}`)
    }
  }
}

/** Also used for `OrderedDict([[key, value], …])`, as Python 2 wrote it. */
export function setItem(dictionary: PickleDictionary, key: PickleValue, value: PickleValue) {
  if (typeof key !== 'string' && typeof key !== 'number') throw refused('a dictionary in it has a key that is neither a text nor a number')
  if (dictionary.entries.has(key)) throw refused(`a dictionary in it has the key ${quoted(String(key))} twice`)
  dictionary.entries.set(key, value)
  deepen(dictionary, value)
}

function deepen(container: PickleList | PickleDictionary, item: PickleValue) {
  container.depth = Math.max(container.depth, 1 + depthOf(item))
  if (container.depth > limits.depth) throw refused(`a pickle in it is nested deeper than ${limits.depth}`)
}

/** Little-endian two's complement; a number where it fits one exactly. */
function long(bytes: Uint8Array, take: (count: number) => number, length: number): number | bigint {
  if (length > limits.longBytes) throw refused('a whole number in it is longer than 16 bytes')
  const from = take(length)
  let value = 0n
  for (let i = 0; i < length; i++) value |= BigInt(bytes[from + i]!) << BigInt(8 * i)
  value = BigInt.asIntN(8 * length, value)
  return value >= Number.MIN_SAFE_INTEGER && value <= Number.MAX_SAFE_INTEGER ? Number(value) : value
}

/** The ones that hostile files are made of, by name, so that the message says what was tried. */
const opcodeName = (opcode: number): string => {
  const known: Record<number, string> = {
    105: 'INST',
    111: 'OBJ',
    129: 'NEWOBJ',
    146: 'NEWOBJ_EX',
    147: 'STACK_GLOBAL',
    130: 'EXT1',
    131: 'EXT2',
    132: 'EXT4',
    80: 'PERSID',
    151: 'NEXT_BUFFER',
  }
  return known[opcode] ?? `0x${opcode.toString(16).padStart(2, '0')}`
}
