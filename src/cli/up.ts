import { openHome, startControlPlane } from '../control-plane.ts'
import { common, defineCommand } from './command.ts'

export default defineCommand({
  name: 'up',
  summary: 'start the server that tracks runs and keeps models for a team',
  details: `One process on one port: the API of Plinth and the REST API of MLflow over this home. It always wants a token; the owner's is in
the file token in the home. Ctrl-C stops it; nothing that was answered is lost.`,
  options: {
    port: { ...common.port, default: 6420 },
    host: { type: 'string', default: '127.0.0.1', summary: 'the address to listen on' },
  },
  examples: ['plinth up', 'plinth up --port 5000 --json'],
  async run({ port, host }, { out, result, signal }) {
    const home = await openHome()
    try {
      const server = await startControlPlane(home, { host, port })
      result({ url: server.url, token: server.token })
      out(`Plinth answers at ${server.url}`)
      out('Ctrl-C stops it.')
      if (!signal.aborted) await new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }))
      await server.close()
    } finally {
      await home.close()
    }
  },
})
