/** Names that a person types for a class: sound as a label everywhere, and as the name of a folder. */
import { Failure } from '../../failure.ts'

export const longestLabel = 100

/** Composed and trimmed. throws review_label_invalid */
export function checkLabel(typed: string): string {
  const label = typed.normalize('NFC').trim()
  const refuse = (problem: string) => new Failure('review_label_invalid', { label: label.slice(0, 60), problem })
  if (label === '') throw refuse('it is empty')
  if (label.length > longestLabel) throw refuse(`it has ${label.length} characters, at most ${longestLabel} are allowed`)
  if (!label.isWellFormed() || /[\p{Cc}\p{Zl}\p{Zp}\u202a-\u202e\u2066-\u2069]/u.test(label))
    throw refuse('it holds characters that cannot be seen')
  if (/[/\\]/.test(label) || /^\.+$/.test(label)) throw refuse('a folder could not be called so')
  return label
}
