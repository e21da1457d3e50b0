/**
 * From the pipes of processes into the log. They have names, and everybody who holds one holds it for reading and writing: so nobody
 * who prints dies of a lost reader, and a shim that takes over reads on. A full pipe makes who prints wait.
 *
 * Only node: modules are imported: the shim uses it.
 */
import { spawnSync } from 'node:child_process'
import { closeSync, constants, existsSync, openSync, readSync } from 'node:fs'
import { Socket } from 'node:net'
import type { Sink } from './log-writer.ts'

/** throws what mkfifo(1) says */
export function makePipes(paths: readonly string[]): void {
  const missing = paths.filter(path => !existsSync(path))
  if (missing.length === 0) return
  const { error, stderr } = spawnSync('mkfifo', ['-m', '600', ...missing], { encoding: 'utf8' })
  // whoever makes them at the same time is as good
  if (missing.some(path => !existsSync(path))) throw error ?? new Error(stderr.trim())
}

export interface Pump {
  /** What has been printed so far is in the log afterwards. */
  catchUp(): void
  /** The same, and the last line ends. Who prints must have ended. */
  drain(): void
}

// a sink takes what it needs before it returns: one buffer does for all pipes
const buffer = Buffer.allocUnsafe(64 * 1024)
/** Bytes that a pipe may hold (fcntl(2), F_SETPIPE_SZ); more than that has been printed meanwhile. */
const largestPipe = 1 << 20

export function openPump(path: string, sink: Sink): Pump {
  const reader = readPipe(path, bytes => sink.feed(bytes))
  const readOn = (most: number) => {
    const rest = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK)
    try {
      for (let sum = 0, read = 1; read > 0 && sum < most; sum += read) {
        read = readSync(rest, buffer)
        sink.feed(buffer.subarray(0, read))
      }
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EAGAIN') throw error // nothing is left
    } finally {
      closeSync(rest)
    }
  }
  return {
    catchUp: () => readOn(largestPipe),
    drain() {
      readOn(Number.POSITIVE_INFINITY)
      reader.close()
      sink.end()
    },
  }
}

/** Never ends by itself: the pipe is held open for writing here too. */
export function readPipe(path: string, onBytes: (bytes: Buffer) => void): { close(): void } {
  const keeper = openSync(path, constants.O_RDWR)
  const socket = new Socket({
    fd: openSync(path, constants.O_RDONLY | constants.O_NONBLOCK),
    readable: true,
    writable: false,
    onread: {
      buffer,
      callback(length) {
        onBytes(buffer.subarray(0, length))
        return true
      },
    },
  })
  return {
    close() {
      socket.destroy()
      closeSync(keeper)
    },
  }
}

/** For a process to print into: opened anew for each, because what one sets on it (O_NONBLOCK) would hold for all. */
export const openForPrinting = (path: string): number => openSync(path, constants.O_RDWR)
