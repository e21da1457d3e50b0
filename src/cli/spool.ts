/** The verbs of `spool`: what trainings logged and no server has heard of yet. */
import { home, serverToken } from '../config.ts'
import { listSpools, sendSpools } from '../control-plane.ts'
import { defineCommand } from './command.ts'

const details = `What a training logs is written into the folder spool of the home before it is sent. A living training sends it itself; what a
dead one left is taken up by plinth up.`

export const list = defineCommand({
  name: 'spool list',
  summary: 'list what trainings logged and the server does not have yet',
  where: 'anywhere',
  details,
  async run(_, { out, table, result }) {
    const spools = await listSpools(home())
    if (spools.length === 0) out('Nothing is waiting: the server has all of it.')
    else
      table(
        [
          'run',
          'experiment',
          'name',
          'writer',
          { title: 'lines left', align: 'right' },
          { title: 'refused', align: 'right' },
          'written',
          'server',
        ],
        spools.map(spool => [
          spool.run.slice(0, 8),
          spool.experiment ?? '',
          spool.name ?? '',
          spool.alive ? 'at work' : (spool.end ?? 'gone'),
          String(spool.lines),
          spool.refused ? String(spool.refused) : '',
          new Date(spool.written).toISOString().slice(0, 16).replace('T', ' '),
          spool.url ?? 'of this home',
        ]),
      )
    result({ spools })
  },
})

export const send = defineCommand({
  name: 'spool send',
  summary: 'send what dead trainings left, now',
  where: 'anywhere',
  details: `${details}

For another server than that of this home it needs the token that it was logged with: of plinth login, or in PLINTH_TOKEN. Sending twice changes nothing.`,
  arguments: { run: { summary: 'the id of the run, or its first letters; otherwise all', optional: true } },
  options: { url: { type: 'string', value: 'URL', summary: 'the server to send to; otherwise the one that each was meant for' } },
  examples: ['plinth spool send', 'plinth spool send 3f2a91c0'],
  async run({ run, url }, { out, result }) {
    const token = serverToken()
    const spools = await sendSpools(home(), {
      ...(run !== undefined && { run }),
      ...(url !== undefined && { url }),
      ...(token && { token }),
    })
    if (spools.length === 0) out('Nothing was waiting for this.')
    for (const { run, problem } of spools)
      out(problem ? `${run.slice(0, 8)}  ${problem.message} ${problem.next}` : `${run.slice(0, 8)}  sent`)
    result({ spools })
    return spools.some(({ problem }) => problem !== null) ? 1 : 0
  },
})
