/** One-cycle learning rate: a cosine up to the peak, then a cosine down to nearly nothing (Smith & Topin 2018, arXiv 1708.07120). */
export interface OneCycle {
  steps: number
  peak: number
  /** Share of the steps spent going up. */
  warmUp: number
  /** The first step runs at peak / startDivisor, the last at peak / startDivisor / endDivisor. */
  startDivisor: number
  endDivisor: number
}

/** The rate for optimiser step `step`, counted from 0. Same formula as PyTorch's OneCycleLR with anneal_strategy 'cos'. */
export function oneCycle({ steps, peak, warmUp, startDivisor, endDivisor }: OneCycle, step: number): number {
  const start = peak / startDivisor
  const end = start / endDivisor
  const top = Math.max(warmUp * steps - 1, 0)
  const last = Math.max(steps - 1, 1)
  if (step <= top) return top === 0 ? peak : cosine(start, peak, step / top)
  return cosine(peak, end, Math.min((step - top) / (last - top), 1))
}

const cosine = (from: number, to: number, share: number) => to + ((from - to) / 2) * (1 + Math.cos(Math.PI * share))
