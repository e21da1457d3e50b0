/** What the server knows about itself: counts and times, as numbers for its owner and as text for Prometheus. */

/** Upper bounds in seconds. */
const BUCKETS = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30]
/** Newest answers from which the percentiles are taken. */
const KEPT = 4096

export interface ServerStats {
  requests: number
  /** Requests to POST /predict that were answered with a prediction. */
  predictions: number
  /** Requests refused or failed, of any kind. */
  failures: number
  /** Milliseconds from a whole request to its answer, over the newest 4,096 predictions; null before the first. */
  p50: number | null
  p95: number | null
  seconds: number
}

export function createMetrics() {
  const started = performance.now()
  const counts = new Map<string, number>()
  const buckets = BUCKETS.map(() => 0)
  const newest = new Float64Array(KEPT)
  let predictions = 0
  let totalSeconds = 0
  let requests = 0
  let failures = 0
  let batches = 0

  return {
    /** `route` is one of ours, never text from outside: it becomes a label. */
    answered(route: string, status: number): void {
      const key = `route="${route}",status="${status}"`
      counts.set(key, (counts.get(key) ?? 0) + 1)
      requests++
      if (status >= 400) failures++
    },
    predicted(milliseconds: number, batch: number): void {
      newest[predictions++ % KEPT] = milliseconds
      totalSeconds += milliseconds / 1000
      batches += 1 / batch
      for (const [i, bound] of BUCKETS.entries()) if (milliseconds / 1000 <= bound) buckets[i]!++
    },
    stats(): ServerStats {
      const sorted = newest.slice(0, Math.min(predictions, KEPT)).sort()
      const percentile = (p: number) => (sorted.length ? sorted[Math.min(sorted.length - 1, Math.ceil(p * sorted.length) - 1)]! : null)
      return { requests, predictions, failures, p50: percentile(0.5), p95: percentile(0.95), seconds: (performance.now() - started) / 1000 }
    },
    /** Prometheus' text format 0.0.4. */
    text(model: string, host: { ready: boolean; waiting: number; running: number; restarts: number; pid: number | undefined }): string {
      const name = model.replace(/[\\"\n]/g, c => (c === '\n' ? '\\n' : `\\${c}`))
      return [
        '# HELP plinth_requests_total Requests answered.',
        '# TYPE plinth_requests_total counter',
        ...[...counts].map(([labels, n]) => `plinth_requests_total{${labels}} ${n}`),
        '# HELP plinth_predict_seconds Time from a whole request to its answer.',
        '# TYPE plinth_predict_seconds histogram',
        ...BUCKETS.map((bound, i) => `plinth_predict_seconds_bucket{model="${name}",le="${bound}"} ${buckets[i]}`),
        `plinth_predict_seconds_bucket{model="${name}",le="+Inf"} ${predictions}`,
        `plinth_predict_seconds_sum{model="${name}"} ${totalSeconds}`,
        `plinth_predict_seconds_count{model="${name}"} ${predictions}`,
        '# HELP plinth_batches_total Runs of the network.',
        '# TYPE plinth_batches_total counter',
        `plinth_batches_total{model="${name}"} ${Math.round(batches)}`,
        '# HELP plinth_waiting Requests that wait for the model.',
        '# TYPE plinth_waiting gauge',
        `plinth_waiting{model="${name}"} ${host.waiting}`,
        '# HELP plinth_running Requests that are with the model.',
        '# TYPE plinth_running gauge',
        `plinth_running{model="${name}"} ${host.running}`,
        '# HELP plinth_model_ready 1 when the model answers.',
        '# TYPE plinth_model_ready gauge',
        `plinth_model_ready{model="${name}"} ${Number(host.ready)}`,
        '# HELP plinth_model_restarts_total Times the model was started again.',
        '# TYPE plinth_model_restarts_total counter',
        `plinth_model_restarts_total{model="${name}"} ${host.restarts}`,
        '# HELP plinth_host_pid Process that runs the model.',
        '# TYPE plinth_host_pid gauge',
        `plinth_host_pid{model="${name}"} ${host.pid ?? 0}`,
        '',
      ].join('\n')
    },
  }
}
