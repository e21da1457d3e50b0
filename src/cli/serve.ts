import { type Home, openHome, startEndpoint } from '../server.ts'
import { common, defineCommand } from './command.ts'
import type { Context } from './output.ts'

export default defineCommand({
  name: 'serve',
  summary: 'answer pictures over HTTP with a model, and a page to try it',
  details: `MODEL is a name, name@version, or the path of an ONNX file made by Plinth. Before it listens, it makes the golden predictions
in the file again and refuses if they differ. On loopback it is open; on any other address every request needs a token.`,
  arguments: { model: { summary: 'a model: name, name@version or file' } },
  options: {
    port: { ...common.port, default: 8080 },
    host: { type: 'string', default: '127.0.0.1', summary: 'the address to listen on' },
    threads: common.threads,
  },
  examples: ['plinth serve clothes', 'plinth serve clothes@2 --port 9000', 'curl --data-binary @photo.jpg localhost:8080/predict'],
  async run({ model, port, host, threads }, context) {
    const home = await openHome()
    try {
      await serveUntilStopped(home, model, { port, host, threads, announce: true }, context)
    } finally {
      await home.close()
    }
  },
})

/** Serves until Ctrl-C or SIGTERM, finishes the requests under way, and says how fast it was. */
export async function serveUntilStopped(
  home: Home,
  model: string,
  {
    announce = false,
    ...options
  }: { port: number; host?: string; threads?: number | undefined /** Its address as the command's JSON. */; announce?: boolean },
  { out, say, result, signal }: Context,
): Promise<void> {
  const { server, name, example } = await startEndpoint(home, model, { ...options, onNotice: say })
  if (announce) result({ url: server.url, model: name, token: server.tokenIsNew ? server.token : null })
  out(`\nServing ${name} on ${server.url}`)
  if (server.tokenIsNew) out(`Token, shown once: ${server.token}`)
  const authorization = server.token ? `-H "authorization: Bearer ${server.tokenIsNew ? server.token : '$PLINTH_TOKEN'}" ` : ''
  out(`Try it: open ${server.url} or   curl ${authorization}-F image=@${example ?? 'photo.jpg'} ${server.url}/predict`)
  out('Ctrl-C stops it.')
  if (!signal.aborted) await new Promise<void>(resolve => signal.addEventListener('abort', () => resolve(), { once: true }))
  const stats = await server.close()
  out(describeStats(stats))
}

export const describeStats = ({ predictions, p50, p95 }: { predictions: number; p50: number | null; p95: number | null }): string =>
  predictions === 0
    ? 'Stopped. Nobody asked.'
    : `Stopped after ${predictions} predictions: half were answered within ${p50?.toFixed(1)} ms, 95 % within ${p95?.toFixed(1)} ms.`
