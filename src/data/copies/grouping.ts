/** From pairs to groups that hold together: every member of a group was compared with its first, so that A like B and B like C does not make C a copy of A. */

export interface Found {
  /** Members beside their first, the medoid: the one with most copies among the others. */
  groups: number[][]
  /** Components that did not hold together: their members are connected, but not all the same picture. */
  loose: number[][]
}

/** `pairs`: verified. `isSame` is asked for pairs that were not compared yet. The order of pairs does not matter. */
export function holdTogether(pairs: readonly (readonly [number, number])[], isSame: (a: number, b: number) => boolean): Found {
  const groups: number[][] = []
  const loose: number[][] = []
  for (const component of components(pairs)) {
    const left = new Set(component)
    let parts = 0
    while (left.size > 0) {
      const medoid = mostConnected(left, pairs)
      const members = [...left].filter(row => row === medoid || isSame(medoid, row))
      for (const row of members) left.delete(row)
      if (members.length > 1) groups.push([medoid, ...members.filter(row => row !== medoid)])
      parts++
    }
    if (parts > 1) loose.push(component)
  }
  return { groups, loose }
}

/** Connected rows, each list in order, the lists by their first. */
export function components(pairs: readonly (readonly [number, number])[]): number[][] {
  const near = adjacency(pairs)
  const seen = new Set<number>()
  const result: number[][] = []
  for (const start of [...near.keys()].sort((a, b) => a - b)) {
    if (seen.has(start)) continue
    const members = [start]
    seen.add(start)
    for (let at = 0; at < members.length; at++) {
      for (const other of near.get(members[at]!)!) {
        if (seen.has(other)) continue
        seen.add(other)
        members.push(other)
      }
    }
    result.push(members.sort((a, b) => a - b))
  }
  return result
}

function adjacency(pairs: readonly (readonly [number, number])[]): Map<number, Set<number>> {
  const near = new Map<number, Set<number>>()
  const link = (a: number, b: number) => near.set(a, (near.get(a) ?? new Set()).add(b))
  for (const [a, b] of pairs) {
    link(a, b)
    link(b, a)
  }
  return near
}

function mostConnected(rows: ReadonlySet<number>, pairs: readonly (readonly [number, number])[]): number {
  const count = new Map([...rows].sort((a, b) => a - b).map(row => [row, 0]))
  for (const [a, b] of pairs) {
    if (!rows.has(a) || !rows.has(b)) continue
    count.set(a, count.get(a)! + 1)
    count.set(b, count.get(b)! + 1)
  }
  return [...count].reduce((best, entry) => (entry[1] > best[1] ? entry : best))[0]
}
