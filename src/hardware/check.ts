/** One line of `plinth doctor`. */
export interface Check {
  name: string
  status: 'ok' | 'warning' | 'problem'
  found: string
  /** What to do; absent where there is nothing to do. */
  next?: string
}
