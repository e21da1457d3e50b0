/** Durations as people read them, the same in commands, plans and reports. */

/** `0.4 s`, `12 s`, `3 min`, `3 min 05 s`, `2 h 10 min`. */
export function formatSeconds(seconds: number): string {
  if (seconds < 9.95) return `${seconds.toFixed(1)} s`
  const whole = Math.round(seconds)
  if (whole < 60) return `${whole} s`
  const pair = (large: number, unit: string, small: number, part: string) =>
    small === 0 ? `${large} ${unit}` : `${large} ${unit} ${String(small).padStart(2, '0')} ${part}`
  if (whole < 3600) return pair(Math.floor(whole / 60), 'min', whole % 60, 's')
  const minutes = Math.round(seconds / 60)
  return pair(Math.floor(minutes / 60), 'h', minutes % 60, 'min')
}

/** A forecast with no more digits than it deserves: `40 s`, `1 min 30 s`, `7 min`, `1 h 30 min`. */
export function formatForecast(seconds: number): string {
  const step = seconds < 10 ? 1 : seconds < 60 ? 5 : seconds < 300 ? 15 : seconds < 5400 ? 60 : 600
  return formatSeconds(Math.max(Math.round(seconds / step) * step, 1)).replace('.0 s', ' s')
}
