/** Hides secrets in text. */

/** Replaces each of the values; the longest first, so that one that is part of another leaves nothing of it. Values under four characters stay. */
export function masking(values: readonly string[]): (text: string) => string {
  const known = [...new Set(values)].filter(value => value.length >= 4).toSorted((a, b) => b.length - a.length)
  return text => known.reduce((shown, value) => shown.replaceAll(value, '***'), text)
}
