import { isIP } from 'node:net'
import { resolve } from 'node:path'
import { setFlagsFromString } from 'node:v8'
import { home as homePath } from '../config.ts'
import { checkReach, openHome, serverLog, startControlPlane } from '../control-plane.ts'
import { Failure } from '../failure.ts'
import { common, defineCommand } from './command.ts'
import { databaseOf, databaseOptions } from './database.ts'
import { installService } from './service.ts'

export default defineCommand({
  name: 'up',
  summary: 'start the server that tracks runs and keeps models for a team',
  details: `One process on one port: the API of Plinth and the REST API of MLflow over this home. It always wants a token; the owner's is in
the file token in the home. Ctrl-C stops it; nothing that was answered is lost.

Only this machine can reach it. For others, give it a certificate, or put a proxy that speaks TLS in front and say --behind-proxy.

Its records are in the home, or in PostgreSQL (--database), which the home remembers. The password belongs in a file (--database-file) or
in PLINTH_DATABASE, never in the command line, which every user of a machine can read.`,
  options: {
    port: { ...common.port, default: 6420 },
    host: { type: 'string', default: '127.0.0.1', summary: 'the address to listen on' },
    'behind-proxy': { type: 'boolean', summary: 'a proxy that speaks TLS stands in front' },
    proxy: {
      type: 'string',
      value: 'ADDRESSES',
      summary: 'proxies whose X-Forwarded headers are believed: addresses or networks, by commas',
    },
    'tls-certificate': { type: 'string', value: 'FILE', summary: 'speak HTTPS with this certificate (PEM)' },
    'tls-key': { type: 'string', value: 'FILE', summary: 'and this key' },
    ...databaseOptions,
    'rate-limit': {
      type: 'integer',
      minimum: 1,
      maximum: 1_000_000,
      default: 25_000,
      summary: 'requests a second that one token may make',
    },
    'wrong-tokens': {
      type: 'integer',
      minimum: 1,
      maximum: 100_000,
      default: 30,
      summary: 'wrong tokens a minute that are taken from one address',
    },
    'jobs-by': {
      type: 'string',
      choices: ['owner', 'editors'],
      default: 'owner',
      summary: 'who may run jobs, which are programs of the user that it runs as and can read the owner’s token',
    },
    'log-file': { type: 'string', value: 'FILE', summary: 'write the log there instead of stderr; it is turned over every 16 MB' },
    'install-service': { type: 'boolean', summary: 'write a systemd unit that runs it with these options, and say how to start it' },
    force: { type: 'boolean', summary: 'with --install-service: replace a unit that is another one' },
  },
  examples: [
    'plinth up',
    'plinth up --port 5000 --json',
    'plinth up --host 0.0.0.0 --tls-certificate plinth.crt --tls-key plinth.key',
    'plinth up --database-file ~/.plinth-database --install-service',
  ],
  async run({ installService: install, force, ...options }, { out, say, result, signal, json, quiet }) {
    const { port, host, behindProxy } = options
    const database = databaseOf('up', options)
    const proxies = options.proxy?.split(',').map(each => each.trim())
    const wrong = proxies?.find(each => !isNetwork(each))
    if (wrong !== undefined)
      throw new Failure('usage', { problem: `--proxy: ${wrong} is neither an address nor a network.`, command: 'up' })
    const tls = tlsOf(options)
    checkReach({ host, behindProxy, ...(tls && { tls }) })
    if (install) {
      // the home remembers the database, so that the unit holds no password
      if (database !== undefined) await (await openHome({ database })).close()
      const words = [
        ...['--port', String(port), '--host', host],
        ...(behindProxy ? ['--behind-proxy'] : []),
        ...(options.proxy ? ['--proxy', options.proxy] : []),
        ...['--rate-limit', String(options.rateLimit), '--wrong-tokens', String(options.wrongTokens), '--jobs-by', options.jobsBy],
        ...(tls ? ['--tls-certificate', tls.certificate, '--tls-key', tls.key] : []),
        ...(options.logFile ? ['--log-file', resolve(options.logFile)] : []),
      ]
      const installed = installService({ words, home: homePath(), force })
      out(`${installed.changed ? 'Wrote' : 'Unchanged:'} ${installed.path}`)
      out(`It runs plinth up ${words.join(' ')}`)
      out(`as ${installed.user === '0' ? 'root' : `user ${installed.user}`}, over the home ${homePath()}.`)
      if (installed.user === '0') say('Root is more than it needs: docs/operate.md gives it a user of its own.')
      out('Start it, now and whenever the machine starts, with:')
      for (const command of installed.next) out(`  ${command}`)
      return result(installed)
    }
    const log = await serverLog({ file: options.logFile, quiet })
    const home = await openHome({ database })
    try {
      const server = await startControlPlane(home, {
        ...{ host, port, behindProxy, log, jobsBy: options.jobsBy, limits: { requests: options.rateLimit, failures: options.wrongTokens } },
        ...(proxies && { proxies }),
        ...(tls && { tls }),
      })
      setFlagsFromString('--semi-space-growth-factor=2') // see main.ts
      result({ url: server.url, token: server.token })
      if (!json) {
        out(`Plinth answers at ${server.url}`)
        say(`The owner's token is in ${resolve(home.path, 'token')}. Ctrl-C stops it.`)
      }
      if (!signal.aborted) await new Promise<void>(done => signal.addEventListener('abort', () => done(), { once: true }))
      await server.close()
    } finally {
      await home.close()
      await log.close()
    }
  },
})

/** 10.0.0.2, 10.0.0.0/8, fd00::/8 */
function isNetwork(text: string): boolean {
  const [, address = '', bits] = /^([^/]+)(?:\/(\d{1,3}))?$/.exec(text) ?? []
  const version = isIP(address)
  return version !== 0 && (bits === undefined || Number(bits) <= (version === 4 ? 32 : 128))
}

function tlsOf({ tlsCertificate, tlsKey }: { tlsCertificate: string | undefined; tlsKey: string | undefined }) {
  if (tlsCertificate !== undefined && tlsKey !== undefined) return { certificate: resolve(tlsCertificate), key: resolve(tlsKey) }
  if (tlsCertificate === undefined && tlsKey === undefined) return undefined
  throw new Failure('usage', { problem: '--tls-certificate and --tls-key belong together.', command: 'up' })
}
