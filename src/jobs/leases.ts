/** Machines and what of them is leased, as the contract shows them. */

import type { Db } from '../db/open.ts'
import type { calls } from '../sdk/calls/jobs.ts'
import type { OutputOf } from '../sdk/contract.ts'
import type { Allocation } from './attempt.ts'
import type { Backend } from './backend.ts'
import type { EngineNode } from './demand.ts'
import type { Controller } from './loop.ts'
import { activeJobs } from './store.ts'

type Shown = OutputOf<typeof calls.listNodes>['nodes']

export async function nodesShown(
  db: Db,
  { controller, backends }: { controller: Controller | null; backends: ReadonlyMap<string, Backend> },
): Promise<Shown> {
  const nodes: EngineNode[] = controller ? await controller.nodes() : []
  if (!controller) for (const [engine, backend] of backends) nodes.push(...(await backend.nodes()).map(node => ({ ...node, engine })))
  const leases = controller
    ? await controller.leased()
    : (await activeJobs(db))
        .filter(({ ended }) => ended === null)
        .map(({ engine, allocation }) => ({ engine, allocation: JSON.parse(allocation) as Allocation }))
  return nodes.map(node => {
    const own = leases
      .filter(({ engine }) => engine === node.engine)
      .flatMap(({ allocation }) => allocation.nodes.filter(each => each.node === node.name))
    const sum = (of: (part: (typeof own)[number]) => number) => own.reduce((total, part) => total + of(part), 0)
    return {
      name: node.name,
      engine: node.engine,
      usable: node.usable,
      cpus: { total: node.cpus, leased: sum(({ cpus }) => cpus) },
      memory: { total: node.memory, leased: sum(({ memory }) => memory) },
      devices: node.devices.map(({ id, vendor, name, memory, why }) => ({
        ...{ id, vendor, name, memory, why },
        leased: sum(({ devices }) => devices.filter(device => device.id === id).reduce((total, { share }) => total + share, 0)),
      })),
    }
  })
}
