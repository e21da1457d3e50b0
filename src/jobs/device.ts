/** The device that a job runs on, in the words of the contract. */
import type { Device } from '../sdk/shapes.ts'
import type { Allocation } from './attempt.ts'

/** `processorOf`: what a node computes with where no accelerator is leased. `cores`: that it may use on a node. */
export function deviceOf({ nodes }: Allocation, processorOf: (node: string) => string, cores: number): Device {
  const threads = Math.max(1, Math.round(cores))
  const devices = nodes.flatMap(node => node.devices)
  if (devices.length === 0) return { kind: 'cpu', name: processorOf(nodes[0]?.node ?? ''), threads }
  const counts = new Map<string, number>()
  for (const { name, share } of devices) counts.set(name, (counts.get(name) ?? 0) + share)
  const name = [...counts].map(([each, count]) => (count === 1 ? each : `${Math.round(count * 100) / 100} × ${each}`)).join(', ')
  return { kind: devices[0]!.vendor === 'google' ? 'tpu' : 'gpu', name, threads }
}

export const deviceTag = ({ kind, name, threads }: Device): string => `${kind}: ${name}, ${threads} threads`
