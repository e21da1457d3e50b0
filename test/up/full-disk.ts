/** For operate.test.ts, on a small disk: the server while the disk is full, and once there is room again. */
import { appendFileSync, existsSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { startControlPlane } from '../../src/control-plane.ts'
import { createLog, fileSink } from '../../src/monitoring/log.ts'
import { openHome } from '../../src/track/home.ts'

const disk = process.argv[2]!
const path = join(disk, 'home')
const ballast = join(disk, 'ballast')
/** To its last byte. */
const fill = () => {
  for (const chunk of [65536, 4096, 512, 1])
    try {
      for (;;) appendFileSync(ballast, Buffer.alloc(chunk, 7))
    } catch {}
}

const open = async () => {
  const home = await openHome(path)
  const log = createLog(await fileSink(join(disk, 'log'), { every: 1 }))
  return { home, log, server: await startControlPlane(home, { host: '127.0.0.1', port: 0, log }) }
}
let { home, log, server } = await open()
const ask = async (method: string, route: string, body?: object | string) => {
  const json = typeof body === 'object'
  const response = await fetch(new URL(route, server.url), {
    method,
    headers: { authorization: `Bearer ${server.token}`, ...(json && { 'content-type': 'application/json' }) },
    ...(body !== undefined && { body: json ? JSON.stringify(body) : body }),
  })
  const text = await response.text()
  let code: unknown = null
  try {
    const answer = JSON.parse(text)
    code = answer.error?.code ?? answer.error_code ?? null
  } catch {}
  return { status: response.status, code, text }
}
const brief = ({ status, code }: { status: number; code: unknown }) => [status, code]
const { run } = JSON.parse((await ask('POST', '/api/runs', {})).text)
const metrics = (step: number) =>
  Array.from({ length: 200 }, (_, i) => ({ key: `a long name of a metric ${i}`, value: step, timestamp: step, step }))
const log1 = (step: number) => ask('POST', `/api/runs/${run}/log`, { metrics: metrics(step) })
const file = (name: string) => ask('PUT', `/api/2.0/mlflow-artifacts/artifacts/0/${run}/artifacts/${name}`, 'x'.repeat(100_000))
const point = { run_id: run, key: 'loss', value: 1, timestamp: 1, step: 1 }
const mlflow = (step: number) =>
  ask('POST', '/api/2.0/mlflow/runs/log-batch', {
    run_id: run,
    metrics: metrics(step).map(({ key, value }) => ({ ...point, key, value, step })),
  })

await log1(0)
fill()
let refused = await log1(1)
for (let step = 2; refused.status === 200 && step < 200; step++) refused = await log1(step)
const full = {
  log: brief(refused),
  mlflow: brief(await mlflow(300)),
  file: brief(await file('big')),
  said: refused.text.includes(disk),
  read: (await ask('GET', `/api/runs/${run}`)).status,
  history: (await ask('GET', `/api/runs/${run}/metrics?key=${encodeURIComponent('a long name of a metric 1')}`)).status,
  list: (await ask('GET', '/api/experiments')).status,
  health: (await ask('GET', '/healthz')).status,
  metrics: (await ask('GET', '/metrics')).status,
  left: existsSync(join(path, 'artifacts', '0')),
}
await server.close()
await home.close()
await log.close()
rmSync(ballast)
await (await openHome(path)).close() // puts the reserve back
fill()
;({ home, log, server } = await open())
const started = (await ask('GET', `/api/runs/${run}`)).status
rmSync(ballast)
const again = { log: brief(await log1(1000)), mlflow: brief(await mlflow(1001)), file: brief(await file('big')) }
await server.close()
await home.close()
console.log(JSON.stringify({ full, started, again }))
