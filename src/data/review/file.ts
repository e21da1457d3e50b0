/** Verdicts from a file, for scripts: one JSON object a line, `{"path":"cat/1.jpg","verdict":"relabel","to":["dog"]}`. All lines hold, or none. */
import { z } from 'zod'
import { Failure } from '../../failure.ts'
import { type Manifest, ReviewVerdict } from '../../sdk/shapes.ts'
import { checkLabel } from './labels.ts'

/** What else a verdict holds is taken from the dataset where the line leaves it out; lines that `--list --json` or a manifest gave are taken too. */
const VerdictLine = z
  .strictObject({
    path: z.string(),
    verdict: z.enum(['keep', 'relabel', 'drop']),
    to: z.union([z.string().transform(label => [label]), z.array(z.string()).min(1)]).optional(),
    reason: ReviewVerdict.shape.reason.default('other'),
    pixels: z.string().optional(),
    from: z.array(z.string()).optional(),
    at: z.iso.datetime().optional(),
  })
  .refine(({ verdict, to }) => (verdict === 'relabel') === (to !== undefined), '"to" goes with "relabel" and with nothing else')
  .refine(({ verdict, reason }) => verdict !== 'relabel' || reason !== 'copy', 'a new label is no answer to the reason "copy"')

/** throws verdicts_invalid with the number of the line */
export function parseVerdicts(text: string, { rows }: Pick<Manifest, 'rows'>, now = new Date()): ReviewVerdict[] {
  const rowOf = new Map(rows.map(row => [row.path, row]))
  const verdicts = text
    .replace(/^\ufeff/, '')
    .split(/\r?\n/)
    .flatMap((source, index): ReviewVerdict[] => {
      if (source.trim() === '') return []
      const refuse = (problem: string) => new Failure('verdicts_invalid', { line: index + 1, problem })
      const { data, error } = VerdictLine.safeParse(jsonOf(source, refuse))
      if (error) throw refuse(firstIssue(error))
      const row = rowOf.get(data.path)
      if (!row) throw refuse(`the dataset has no picture ${JSON.stringify(data.path.slice(0, 200))}`)
      if (data.pixels !== undefined && data.pixels !== row.pixels) throw refuse('the picture at that path is another one by now')
      const { path, verdict, to, reason, from, at } = data
      const labels = to?.map(label => checked(label, refuse))
      return [
        { path, pixels: row.pixels, verdict, from: from ?? row.labels, ...(labels && { to: labels }), reason, at: at ?? now.toISOString() },
      ]
    })
  if (verdicts.length === 0) throw new Failure('verdicts_invalid', { line: 1, problem: 'there is not one verdict in the file' })
  return verdicts
}

function jsonOf(text: string, refuse: (problem: string) => Failure): unknown {
  try {
    return JSON.parse(text)
  } catch {
    throw refuse('it is not JSON')
  }
}

function checked(label: string, refuse: (problem: string) => Failure): string {
  try {
    return checkLabel(label)
  } catch (error) {
    throw error instanceof Failure
      ? refuse(`${JSON.stringify(label.slice(0, 60))} is no name for a class: ${error.details['problem']}`)
      : error
  }
}

function firstIssue({ issues }: z.ZodError): string {
  const { path, message } = issues[0]!
  return path.length > 0 ? `${path.join('.')}: ${message}` : message
}
