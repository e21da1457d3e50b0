/** Lines of a job's log, each with the offset that the next one begins at, from chunks of bytes that end anywhere. */
import type { LogLine } from '../sdk/job-log.ts'
import type { LogChunk } from './backend.ts'

export interface LineReader {
  /** `from`: the offset that the chunk was asked for. Whole lines come back; where a chunk ends within one, it is kept for the next chunk. */
  read(from: number, chunk: Pick<LogChunk, 'bytes' | 'next' | 'end'>): LogLine[]
}

export function createLineReader(): LineReader {
  let rest = Buffer.alloc(0)
  return {
    read(from, { bytes, next, end }) {
      const all = rest.length > 0 ? Buffer.concat([rest, bytes]) : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      const first = from - rest.length
      const lines: LogLine[] = []
      let at = 0
      for (let stop = all.indexOf(10); stop >= 0; stop = all.indexOf(10, at)) {
        lines.push(lineOf(all.toString('utf8', at, stop), first + stop + 1))
        at = stop + 1
      }
      rest = Buffer.from(all.subarray(at))
      // a writer that was killed leaves half a line
      if (end && rest.length > 0) {
        lines.push(lineOf(rest.toString('utf8'), next))
        rest = Buffer.alloc(0)
      }
      // what stands for a part that was dropped is shorter than that part
      if (rest.length === 0 && lines.length > 0) lines.at(-1)!.next = next
      return lines
    },
  }
}

function lineOf(line: string, next: number): LogLine {
  const [, time, stream, text] = /^(\d{1,15}) ([oep]) (.*)$/s.exec(line) ?? []
  return text === undefined
    ? { next, time: 0, stream: 'o', text: line }
    : { next, time: Number(time), stream: stream as LogLine['stream'], text }
}
