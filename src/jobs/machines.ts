/** The machines of all engines, asked seldom: a vendor's tool may take a second. */
import type { Backend } from './backend.ts'
import type { EngineNode } from './demand.ts'

export interface Machines {
  /** At most so many milliseconds old. An engine that cannot be asked has those that it had. */
  current(age: number): Promise<EngineNode[]>
  /** What failed may have failed with its machine: the next look asks. */
  mayHaveChanged(): void
  /** The processor of a node, for people. */
  processorOf(engine: string, node: string): string
  /** How many cores a node has. */
  coresOf(engine: string, node: string): number
}

export function createMachines(
  engines: readonly Backend[],
  { tick, onError }: { tick(): number; onError(error: unknown): void },
): Machines {
  let known: EngineNode[] = []
  let asked = Number.NEGATIVE_INFINITY
  return {
    async current(age) {
      if (tick() - asked < age) return known
      const lists = await Promise.all(
        engines.map(async engine => {
          try {
            return (await engine.nodes()).map(node => ({ ...node, engine: engine.name }))
          } catch (error) {
            onError(error)
            return known.filter(node => node.engine === engine.name)
          }
        }),
      )
      known = lists.flat()
      asked = tick()
      return known
    },
    mayHaveChanged() {
      asked = Number.NEGATIVE_INFINITY
    },
    coresOf: (engine, name) => known.find(node => node.engine === engine && node.name === name)?.cpus ?? 1,
    processorOf: (engine, name) => known.find(node => node.engine === engine && node.name === name)?.processor ?? name,
  }
}
