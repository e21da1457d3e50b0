/** One line of `plinth doctor`. */
export interface Check {
  group: (typeof groups)[number]
  name: string
  status: 'ok' | 'warning' | 'problem'
  found: string
  /** What to do; absent where there is nothing to do. */
  next?: string
}

/** In the order they are told. */
export const groups = ['this machine', 'accelerators', 'room for files', 'network', 'for jobs', 'Plinth'] as const
