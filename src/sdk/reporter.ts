/** What a recipe needs from whoever tracks its run: the home in this process today, a server over HTTP tomorrow. */
import type { Run } from './shapes.ts'

export interface RunReporter {
  /** The run as last written. */
  readonly run: Run
  /** A folder of the run's own, on this machine's disk: checkpoints, caches, reports. */
  readonly directory: string
  logMetrics(step: number, values: Readonly<Record<string, number>>): void | Promise<void>
  /** Say that a checkpoint covering `step` optimiser steps is safely on disk. */
  recordCheckpoint(step: number): void | Promise<void>
}

/** What a recipe says while it works, for a live line on a terminal or a page. */
export type RecipeEvent =
  | { kind: 'stage'; title: string }
  | { kind: 'progress'; label: string; done: number; total: number; unit: string; note?: string }
  | { kind: 'note'; text: string }
