/**
 * Looks at many pictures on all cores. libvips decodes in threads of its own, but the digest of the pixels, the fingerprint and the appearance are
 * as much work again, and in one thread they would hold up all the decoding: so each looker is a thread that does all of it.
 * Pictures enter by the size they claim, so that no more pixels are in memory than one process may hold, however many lookers there are.
 */
import { availableParallelism } from 'node:os'
import { extname } from 'node:path'
import { Worker } from 'node:worker_threads'
import { Failure, type SentFailure } from '../failure.ts'
import { defaultMaxPixels } from '../images/decode.ts'
import { createRoom } from '../images/room.ts'
import { claimedPixels } from '../images/size.ts'
import { lookAt, type SeenPicture } from './facts.ts'

export interface Lookers {
  /** As `lookAt`, which see for what it throws. */
  lookAt(bytes: Uint8Array, content: string): Promise<SeenPicture>
  /** Waits for what is being looked at. */
  close(): Promise<void>
}

/** What goes to a looker, and what comes back. */
export type Look = { number: number; bytes: Uint8Array; content: string }
export type Looked = { number: number; seen?: SeenPicture; failure?: SentFailure; problem?: string }

/** Fewer are looked at sooner than threads are started. */
const worthThreads = 200
/** One is decoded while another is measured. */
const perThread = 2
/** Of a picture that does not say its size where we look for it. */
const unknownPixels = 25e6

/** `pictures`: how many there may be to look at. Threads start with the first of them. */
export function openLookers(pictures: number, threads: number = availableParallelism()): Lookers {
  if (threads < 2 || pictures < worthThreads) return { lookAt, close: async () => {} }
  const room = createRoom(defaultMaxPixels)
  const places = createRoom(perThread * threads)
  const waiting = new Map<number, { done(seen: SeenPicture): void; failed(error: unknown): void; worker: Worker }>()
  const busy = new Map<Worker, number>()
  let number = 0
  let closing = false

  function start(): void {
    for (let each = 0; each < threads; each++) {
      const worker = new Worker(new URL(`./looker${extname(import.meta.url)}`, import.meta.url))
      busy.set(worker, 0)
      worker.on('message', (looked: Looked) => {
        const { done, failed } = waiting.get(looked.number)!
        waiting.delete(looked.number)
        busy.set(worker, busy.get(worker)! - 1)
        if (looked.seen) done(looked.seen)
        else
          failed(
            looked.failure
              ? Failure.received(looked.failure)
              : new Failure('internal', { problem: looked.problem ?? 'a looker said nothing' }),
          )
      })
      const end = (error: unknown) => {
        for (const [key, { failed, worker: own }] of waiting) if (own === worker && waiting.delete(key)) failed(error)
      }
      worker.on('error', end)
      worker.on('exit', () => end(new Failure('internal', { problem: 'a looker went away' })))
    }
  }

  const send = (bytes: Uint8Array, content: string) =>
    new Promise<SeenPicture>((done, failed) => {
      if (closing) return failed(new Failure('internal', { problem: 'a picture was to be looked at after the end' }))
      const worker = [...busy].reduce((least, each) => (each[1] < least[1] ? each : least))[0]
      busy.set(worker, busy.get(worker)! + 1)
      waiting.set(++number, { done, failed, worker })
      const own = new Uint8Array(bytes) // the file itself is still to be copied
      worker.postMessage({ number, bytes: own, content } satisfies Look, [own.buffer])
    })

  return {
    lookAt(bytes, content) {
      if (busy.size === 0) start()
      const pixels = Math.min(defaultMaxPixels, claimedPixels(bytes) ?? unknownPixels)
      return room.within(pixels, () => places.within(1, () => send(bytes, content)))
    },
    async close() {
      closing = true
      const exits = [...busy.keys()].map(worker => new Promise(done => worker.once('exit', done)))
      for (const worker of busy.keys()) worker.postMessage(null)
      await Promise.all(exits)
    },
  }
}
