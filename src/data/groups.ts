/** Joins pictures that must stay together, whatever the reason: same pixels, or a name the user gave. */

/**
 * `keys[i]`: the names of the bands picture i wears; pictures that share one, directly or through others, end up in one group.
 * Returns for each picture the first of its group's keys in order of first appearance of `keys`, or null where it is alone.
 */
export function joinGroups(keys: readonly (readonly string[])[]): (string | null)[] {
  const parent = keys.map((_, index) => index)
  const root = (index: number): number => {
    while (parent[index] !== index) {
      parent[index] = parent[parent[index]!]!
      index = parent[index]!
    }
    return index
  }
  const first = new Map<string, number>()
  for (const [index, own] of keys.entries()) {
    for (const key of own) {
      const other = first.get(key)
      if (other === undefined) first.set(key, index)
      else {
        const [a, b] = [root(index), root(other)]
        parent[Math.max(a, b)] = Math.min(a, b)
      }
    }
  }
  const size = new Map<number, number>()
  for (const index of keys.keys()) size.set(root(index), (size.get(root(index)) ?? 0) + 1)
  return keys.map((_, index) => (size.get(root(index))! > 1 ? keys[root(index)]![0]! : null))
}
