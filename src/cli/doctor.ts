import { Failure } from '../failure.ts'
import { doctorGroups, examineMachine, listenForBandwidth, measureBandwidth } from '../machine.ts'
import { defineCommand } from './command.ts'
import type { Context } from './output.ts'
import { shellWord } from './text.ts'

export default defineCommand({
  name: 'doctor',
  where: 'anywhere',
  summary: 'show what this machine offers, what is usable, and what to do about the rest',
  details:
    'A tick means: fine. "!" means: something is missing or slower than it could be, and the line below says what to do. "✗" means: Plinth cannot ' +
    'work like this. With --json the whole inventory is printed, with where each part was read. A file hardware.yaml in the home (or the one that ' +
    'PLINTH_HARDWARE names) adds fake devices and leaves real ones out.\n\n' +
    'Between two machines: plinth doctor --listen ADDRESS on one, and on the other what it prints.',
  options: {
    listen: { type: 'string', value: 'ADDRESS', summary: 'wait on an address of this machine to be sent to, and say how fast it came' },
    port: { type: 'integer', minimum: 0, maximum: 65535, default: 0, summary: 'the port for --listen; 0 takes a free one' },
    send: { type: 'string', value: 'ADDRESS:PORT', summary: 'send to a machine that listens, and say how fast it came' },
    word: { type: 'string', summary: 'the word that the listening machine printed' },
    from: { type: 'string', value: 'ADDRESS', summary: 'the address of this machine to send from' },
  },
  examples: ['plinth doctor', 'plinth doctor --json', 'plinth doctor --listen 10.0.0.1'],
  async run({ listen, port, send, word, from }, context) {
    if (listen !== undefined) return listenOn(listen, port, context)
    if (send !== undefined) return sendTo(send, word, from ?? null, context)
    const { out, style, result, signal } = context
    const { checks, inventory, device } = await examineMachine()
    signal.throwIfAborted()
    const marks = { ok: style('green', '✓'), warning: style('yellow', '!'), problem: style('red', '✗') }
    for (const group of doctorGroups) {
      const mine = checks.filter(check => check.group === group)
      if (mine.length > 0) out(style('bold', group[0]!.toUpperCase() + group.slice(1)))
      for (const { name, status, found, next } of mine) {
        out(`${marks[status]} ${name.padEnd(13)} ${found}`)
        if (next) out(`                ${style('dim', `→ ${next}`)}`)
      }
    }
    const [problems, warnings] = (['problem', 'warning'] as const).map(wanted => checks.filter(({ status }) => status === wanted))
    out()
    out(verdict(problems!.length, warnings!.length))
    result({ checks, device, inventory })
    return problems!.length > 0 ? 1 : 0
  },
})

function verdict(problems: number, warnings: number): string {
  const count = (n: number, word: string) => `${n} ${n === 1 ? word : `${word}s`}`
  if (problems > 0) return `${count(problems, 'problem')} to solve first: the lines with ✗ say how.`
  const ready = 'Plinth can work here: plinth quickstart trains and serves a model within minutes.'
  return warnings > 0 ? `${ready} ${count(warnings, 'line')} with ! ${warnings === 1 ? 'says' : 'say'} what could be better.` : ready
}

async function listenOn(host: string, port: number, { out, result, signal }: Context): Promise<void> {
  const listener = await listenForBandwidth(host, { port })
  signal.addEventListener('abort', listener.close)
  const where = host.includes(':') ? `[${host}]:${listener.port}` : `${host}:${listener.port}`
  out('Run this on the other machine within two minutes:')
  out(`  plinth doctor --send ${shellWord(where)} --word ${listener.word}`)
  const measured = await listener.measured.catch(error => {
    signal.throwIfAborted()
    throw error
  })
  out(`${rate(measured.rate)} from ${measured.from} (measured)`)
  result(measured)
}

async function sendTo(address: string, word: string | undefined, from: string | null, { out, result }: Context): Promise<void> {
  const [, host = '', port = ''] = /^\[?([^\]]+?)\]?:(\d{1,5})$/.exec(address) ?? []
  if (!host) throw new Failure('usage', { problem: `--send wants ADDRESS:PORT, not "${address}".`, command: 'doctor' })
  if (!word) throw new Failure('usage', { problem: '--send needs --word WORD, which the listening machine printed.', command: 'doctor' })
  const measured = await measureBandwidth({ host, port: Number(port), word }, { from })
  out(`${rate(measured.rate)} to ${address} (measured)`)
  result(measured)
}

const rate = (bits: number) => (bits >= 1e9 ? `${(bits / 1e9).toFixed(1)} Gbit/s` : `${Math.round(bits / 1e6)} Mbit/s`)
