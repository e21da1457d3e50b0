/** What the control plane knows about itself, as text for Prometheus (its text format 0.0.4). */
import { monitorEventLoopDelay } from 'node:perf_hooks'

/** Upper bounds in seconds. */
const bounds = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10]

export interface Gauge {
  name: string
  help: string
  kind: 'gauge' | 'counter'
  values: readonly { labels?: Readonly<Record<string, string>>; value: number }[]
}

export interface ServerMetrics {
  /** `route` is the pattern of one of ours, never text from outside: it becomes a label. */
  answered(request: { method: string; route: string; status: number; milliseconds: number }): void
  /** With what is only known when somebody asks. */
  text(more: readonly Gauge[]): string
  close(): void
}

interface Timed {
  labels: string
  buckets: number[]
  count: number
  seconds: number
}

export function createServerMetrics(): ServerMetrics {
  const counts = new Map<string, number>()
  const times = new Map<string, Timed>()
  const lag = monitorEventLoopDelay({ resolution: 20 })
  lag.enable()
  return {
    answered({ method, route, status, milliseconds }) {
      const labels = labelled({ method, route })
      const key = `${labels},${labelled({ status: String(status) })}`
      counts.set(key, (counts.get(key) ?? 0) + 1)
      const timed = times.get(labels) ?? { labels, buckets: bounds.map(() => 0), count: 0, seconds: 0 }
      times.set(labels, timed)
      timed.count++
      timed.seconds += milliseconds / 1000
      const first = bounds.findIndex(bound => milliseconds / 1000 <= bound)
      if (first >= 0) timed.buckets[first]!++
    },
    text(more) {
      const memory = process.memoryUsage()
      const { user, system } = process.cpuUsage()
      const own: Gauge[] = [
        gauge('process_resident_memory_bytes', 'Memory of the process.', memory.rss),
        gauge('process_heap_bytes', 'JavaScript objects of the process.', memory.heapUsed),
        { ...gauge('process_cpu_seconds_total', 'Processor time used.', (user + system) / 1e6), kind: 'counter' },
        gauge('process_start_time_seconds', 'When the process started, since 1970.', (Date.now() - performance.now()) / 1000),
        {
          name: 'plinth_event_loop_lag_seconds',
          help: 'How late the event loop was since the last look.',
          kind: 'gauge',
          values: [50, 99, 100].map(p => ({
            labels: { quantile: String(p / 100) },
            value: lag.count > 0 ? Math.max(0, lag.percentile(p) / 1e9 - 0.02) : 0,
          })),
        },
      ]
      lag.reset()
      return [
        '# HELP plinth_http_requests_total Requests answered.',
        '# TYPE plinth_http_requests_total counter',
        ...[...counts].map(([labels, n]) => `plinth_http_requests_total{${labels}} ${n}`),
        '# HELP plinth_http_request_seconds Time to the end of the answer.',
        '# TYPE plinth_http_request_seconds histogram',
        ...[...times.values()].flatMap(histogram),
        ...[...more, ...own].flatMap(written),
        '',
      ].join('\n')
    },
    close: () => void lag.disable(),
  }
}

const gauge = (name: string, help: string, value: number): Gauge => ({ name, help, kind: 'gauge', values: [{ value }] })

function histogram({ labels, buckets, count, seconds }: Timed): string[] {
  let below = 0
  return [
    ...bounds.map((bound, i) => {
      below += buckets[i]!
      return `plinth_http_request_seconds_bucket{${labels},le="${bound}"} ${below}`
    }),
    `plinth_http_request_seconds_bucket{${labels},le="+Inf"} ${count}`,
    `plinth_http_request_seconds_sum{${labels}} ${seconds}`,
    `plinth_http_request_seconds_count{${labels}} ${count}`,
  ]
}

const written = ({ name, help, kind, values }: Gauge): string[] => [
  `# HELP ${name} ${help}`,
  `# TYPE ${name} ${kind}`,
  ...values.map(({ labels, value }) => `${name}${labels ? `{${labelled(labels)}}` : ''} ${value}`),
]

const labelled = (labels: Readonly<Record<string, string>>) =>
  Object.entries(labels)
    .map(([name, value]) => `${name}="${value.replace(/[\\"\n]/g, c => (c === '\n' ? '\\n' : `\\${c}`))}"`)
    .join(',')
