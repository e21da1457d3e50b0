/**
 * SQLite reads in the thread that asks, and a search of a thousand runs takes it tens of milliseconds in which nobody else would be
 * answered. So what reads much is asked of threads with connections of their own: in write-ahead mode they see everything that was
 * acknowledged, and hold nobody up. They start when they are needed, and end when they are not.
 */
import { availableParallelism } from 'node:os'
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import { JsonText } from '../api/answers.ts'
import type { Db } from '../db/open.ts'
import { Failure, type SentFailure } from '../failure.ts'
import { type Question, type Reads, readHere } from './reads.ts'

/** What goes to a reader, and what comes back; it says null first, when it may be asked. */
export interface Asked {
  question: string
  project: string
  input: unknown
}
export type Read =
  | { json: Uint8Array<ArrayBuffer>; failure?: never }
  | { json?: never; failure: SentFailure }
  | { json?: never; failure?: never; problem: string }

/** Milliseconds without a question after which a reader ends: it holds some 30 MB. */
const idle = 60_000
/** Memory for what lives shortly, in MB: an answer is tens of thousands of short texts, and with less most of the time goes to collecting them. */
const young = 32

/** `path`: the file of the database. The first questions are answered here, while a reader starts. */
export function openReaders(db: Db, path: string, most = Math.min(4, availableParallelism())): Reads {
  const here = readHere(db)
  const readers = new Set<Reader>()
  const waiting: { asked: Asked; done(read: Read | null): void }[] = []
  let closed = false

  const next = () => {
    for (const reader of readers) {
      if (waiting.length === 0) return
      if (!reader.free) continue
      const { asked, done } = waiting.shift()!
      reader.ask(asked, done)
    }
    const starting = [...readers].some(reader => reader.starting)
    if (waiting.length > 0 && !starting && readers.size < most) start()
  }
  const start = () => {
    const reader = startReader(path, next, () => {
      readers.delete(reader)
      // none that could: then here
      if (readers.size === 0) for (const { done } of waiting.splice(0)) done(null)
    })
    readers.add(reader)
  }
  return {
    async ask<Input>(question: Question<Input>, project: string, input: Input) {
      if (!closed && readers.size > 0) {
        const read = await new Promise<Read | null>(done => {
          waiting.push({ asked: { question: question.name, project, input }, done })
          next()
        })
        if (read?.json) return new JsonText(read.json)
        if (read) throw read.failure ? Failure.received(read.failure) : new Error(read.problem)
      } else if (!closed) start()
      return await here.ask(question, project, input)
    },
    async close() {
      closed = true
      await Promise.all([...readers].map(reader => reader.end()))
    },
  }
}

interface Reader {
  readonly starting: boolean
  readonly free: boolean
  /** `done` gets null where the thread ended over it. */
  ask(asked: Asked, done: (read: Read | null) => void): void
  end(): Promise<void>
}

/** `free`: it may be asked. `ended`: it takes no more. */
function startReader(path: string, free: () => void, ended: () => void): Reader {
  const thread = new Worker(new URL(`./reading-thread${extname(import.meta.url)}`, import.meta.url), {
    workerData: path,
    resourceLimits: { maxYoungGenerationSizeMb: young },
  })
  let state: 'starting' | 'free' | 'busy' | 'ending' = 'starting'
  let done: ((read: Read | null) => void) | null = null
  const gone = new Promise<void>(resolve => thread.once('exit', () => resolve()))
  const end = () => {
    state = 'ending'
    thread.ref() // whoever waits for it is kept alive by nothing else
    thread.postMessage(null)
    ended()
    return gone
  }
  const tired = setTimeout(() => {
    if (state === 'free') void end()
    else if (state === 'busy') tired.refresh()
  }, idle).unref()
  const settle = (read: Read | null) => {
    const answer = done
    done = null
    answer?.(read)
  }
  thread.unref()
  thread.on('message', (read: Read | null) => {
    if (state === 'ending') return settle(read)
    state = 'free'
    thread.unref()
    tired.refresh()
    if (read) settle(read)
    free()
  })
  thread.on('error', () => {}) // it exits, and what it was asked is asked elsewhere
  void gone.then(() => {
    clearTimeout(tired)
    if (state !== 'ending') ended()
    settle(null)
  })
  return {
    get starting() {
      return state === 'starting'
    },
    get free() {
      return state === 'free'
    },
    ask(asked, then) {
      state = 'busy'
      done = then
      thread.ref()
      thread.postMessage(asked)
    },
    end,
  }
}
