/** How far a long step is: a live line on a terminal, a line now and then in a log. */
import { formatSeconds } from '../sdk/index.ts'
import { cut } from './text.ts'

export interface Progress {
  /** `done` so far, and a word on how it goes (`loss 0.31`). */
  update(done: number, note?: string): void
  /** Ends the line; with a text, that stays in its place, otherwise count and time do. */
  end(text?: string): void
}

const redrawEvery = 100 // milliseconds, on a terminal
const printEvery = 15_000 // milliseconds, in a log

/** `line` null: nothing is shown. */
export function startProgress(label: string, total: number | null, unit: string, line: LiveLine | null): Progress {
  const silent = { update: () => {}, end: () => {} }
  if (!line) return silent
  const terminal = line.stream.isTTY === true
  const started = performance.now()
  const rate = createRate(started)
  let shown = terminal ? Number.NEGATIVE_INFINITY : started
  let done = 0
  let ended = false

  const describe = (note = '') => {
    const perSecond = rate.perSecond()
    const left = total !== null && perSecond > 0 && done < total ? formatSeconds((total - done) / perSecond) : ''
    const count = total === null ? `${done}` : `${done}/${total}`
    const parts = [`${count}${unit && ` ${unit}`}`, perSecond > 0 ? `${formatRate(perSecond)}/s` : '', left && `${left} left`, note]
    const bar = terminal && total ? `${drawBar(done / total)} ` : ''
    return `${label}  ${bar}${parts.filter(Boolean).join(' · ')}`
  }

  return {
    update(now, note) {
      if (ended) return
      done = now
      const time = performance.now()
      rate.see(done, time)
      if (time - shown < (terminal ? redrawEvery : printEvery)) return
      shown = time
      if (terminal) line.draw(describe(note))
      else line.stream.write(`${describe(note)}\n`)
    },
    end(text) {
      if (ended) return
      ended = true
      line.clear()
      const took = (performance.now() - started) / 1000
      line.stream.write(`${text ?? `${label}  ${done}${unit && ` ${unit}`} in ${formatSeconds(took)}`}\n`)
    },
  }
}

/** Units a second, as it has been over the last few seconds: an average from the start would hide that it slows down. */
export function createRate(start: number) {
  let [count, time, smooth] = [0, start, 0]
  return {
    see(done: number, now: number) {
      const seconds = (now - time) / 1000
      if (seconds < 0.05 || done < count) return
      const weight = smooth === 0 ? 1 : 1 - Math.exp(-seconds / 5)
      smooth += weight * ((done - count) / seconds - smooth)
      count = done
      time = now
    },
    perSecond: () => smooth,
  }
}

const drawBar = (part: number): string => {
  const filled = Math.round(Math.min(1, Math.max(0, part)) * 12)
  return '█'.repeat(filled) + '░'.repeat(12 - filled)
}

const formatRate = (perSecond: number): string => (perSecond >= 10 ? perSecond.toFixed(0) : perSecond.toFixed(1))

/** The one line at the bottom of a terminal that is drawn over; printing anything else takes it away and puts it back. */
export class LiveLine {
  readonly stream: NodeJS.WriteStream
  #text = ''

  constructor(stream: NodeJS.WriteStream) {
    this.stream = stream
  }

  draw(text: string) {
    // one column less than there are: a terminal may wrap when the last one is filled
    this.#text = cut(text, (this.stream.columns || 80) - 1)
    this.stream.write(`\r\u001b[2K${this.#text}`)
  }

  clear() {
    if (this.#text) this.stream.write('\r\u001b[2K')
    this.#text = ''
  }

  around(print: () => void) {
    const text = this.#text
    this.clear()
    print()
    if (text) this.draw(text)
  }
}
