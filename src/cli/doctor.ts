import { device, examineMachine } from '../server.ts'
import { defineCommand } from './command.ts'

export default defineCommand({
  name: 'doctor',
  where: 'anywhere',
  summary: 'show what this machine offers, what is usable, and what to do about the rest',
  async run(_, { out, style, result }) {
    const checks = await examineMachine()
    const marks = { ok: style('green', '✓'), warning: style('yellow', '!'), problem: style('red', '✗') }
    for (const { name, status, found, next } of checks) {
      out(`${marks[status]} ${name.padEnd(10)} ${found}`)
      if (next) out(`             ${style('dim', next)}`)
    }
    result({ checks, device: device() })
    return checks.some(check => check.status === 'problem') ? 1 : 0
  },
})
