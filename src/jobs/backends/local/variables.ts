/**
 * The environment of every process of an attempt: what SkyPilot, torchrun, TensorFlow, JAX and Plinth's own client look for. Pure.
 *
 * Only node: modules are imported: the shim uses it.
 */
import { delimiter, isAbsolute, join } from 'node:path'
import type { Allocation, Attempt, PreparedEnvironment } from '../../attempt.ts'
import { cookieName, processName } from './processes.ts'

/** One process of the run, of the `count` that start together. */
export interface Rank {
  index: number
  count: number
  node: number
  /** Its place on its node, and how many there are on each. */
  local: number
  perNode: number
}

/** Ports of this machine that the processes of one attempt meet at. */
export interface Ports {
  torch: number
  jax: number
  /** One for each process. */
  tensorflow: readonly number[]
}

type Device = Allocation['nodes'][number]['devices'][number]
type Variables = Record<string, string>

/** How each vendor's runtime is told what it may see. NVIDIA and AMD see nothing where nothing was leased; the others are told only what was. */
const visible: Record<string, (ids: readonly string[]) => Variables> = {
  nvidia: ids => ({ CUDA_VISIBLE_DEVICES: ids.join(), CUDA_DEVICE_ORDER: 'PCI_BUS_ID' }),
  // ROCm's builds of frameworks read the CUDA name too
  amd: ids => ({ HIP_VISIBLE_DEVICES: numbers(ids).join(), CUDA_VISIBLE_DEVICES: numbers(ids).join() }),
  intel: ids => ({ ZE_AFFINITY_MASK: numbers(ids).join() }),
  habana: ids => ({ HABANA_VISIBLE_MODULES: numbers(ids).join() }),
  aws: ids => ({ NEURON_RT_VISIBLE_CORES: numbers(ids).join() }),
  google: ids => ({
    TPU_VISIBLE_CHIPS: numbers(ids).join(),
    ...(ids.length < 4 && { TPU_CHIPS_PER_HOST_BOUNDS: ids.length === 1 ? '1,1,1' : '1,2,1', TPU_HOST_BOUNDS: '1,1,1' }),
  }),
}
/** `amd:1` and `amd-1` are number 1; a vendor's own id stays as it is. */
const numbers = (ids: readonly string[]) => ids.map(id => /^[a-z]+[:-](\d+)$/.exec(id)?.[1] ?? id)

export function deviceVariables(devices: readonly Device[]): Variables {
  const ids = Map.groupBy(devices, ({ vendor }) => vendor)
  let variables: Variables = { CUDA_VISIBLE_DEVICES: '', CUDA_DEVICE_ORDER: 'PCI_BUS_ID', HIP_VISIBLE_DEVICES: '' }
  // NVIDIA last: where both are leased, the CUDA name is its
  for (const vendor of [...ids.keys()].sort()) variables = { ...variables, ...visible[vendor]?.(ids.get(vendor)!.map(({ id }) => id)) }
  return variables
}

/** Set by a process above that speaks of itself, or by us for each process: none of it is handed down. */
const ofSomebodyElse =
  /^(PLINTH_|MLFLOW_|SKYPILOT_|SLURM_|PET_|TORCHELASTIC_|npm_|JAX_COORDINATOR|JAX_NUM_PROCESSES|JAX_PROCESS_ID|(RANK|LOCAL_RANK|WORLD_SIZE|LOCAL_WORLD_SIZE|GROUP_RANK|NODE_RANK|NNODES|MASTER_ADDR|MASTER_PORT|TF_CONFIG|CUDA_VISIBLE_DEVICES|HIP_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES|NODE_OPTIONS|NODE_COMPILE_CACHE|NODE_TEST_CONTEXT|NODE_CHANNEL_FD|OMP_NUM_THREADS|INIT_CWD|OLDPWD|PWD|SHLVL|_)$)/
const looksSecret = /PASSWORD|PASSWD|SECRET|(^|_)(TOKEN|CREDENTIALS?|API_?KEY|ACCESS_KEY|PRIVATE_KEY)($|_)|AUTH$/i

/** What a job takes over from the server: where programs are and how they reach the network, and nothing that looks like a secret. */
export const inheritedVariables = (all: NodeJS.ProcessEnv): Variables =>
  Object.fromEntries(
    Object.entries(all).flatMap(([name, value]) =>
      value === undefined || ofSomebodyElse.test(name) || looksSecret.test(name) ? [] : [[name, value]],
    ),
  )

/** Where checkpoints lie: the same folder for every attempt of the job. `jobFolder`: the one that holds the attempts' folders. */
export function checkpointFolder({ spec }: Pick<Attempt, 'spec'>, jobFolder: string): string {
  const dir = spec.checkpoint?.dir
  if (dir === undefined) return join(jobFolder, 'checkpoints')
  return isAbsolute(dir) ? dir : join(spec.workdir ?? jobFolder, dir)
}

/** For processes of the phases before `run`, `rank` is null. Later lines win over earlier ones. */
export function variablesOf({
  attempt,
  folder,
  inherited,
  prepared,
  secrets,
  rank,
  ports,
  process,
}: {
  attempt: Attempt
  folder: string
  inherited: Variables
  prepared: Pick<PreparedEnvironment, 'envs' | 'path'> | null
  secrets: Variables
  rank: Rank | null
  ports: Ports | null
  process: string
}): Variables {
  const { spec, allocation } = attempt
  const node = allocation.nodes[rank?.node ?? 0]!
  const perNode = rank?.perNode ?? 1
  const threads = Math.max(1, Math.floor(node.cpus / perNode))
  const variables: Variables = {
    ...inherited,
    PYTHONUNBUFFERED: '1',
    // one program that did not say how many cores it needs takes what is idle; several would take it from each other
    ...((spec.resources.cpus !== null || spec.nodes * perNode > 1) && { OMP_NUM_THREADS: String(threads) }),
    ...prepared?.envs,
    ...(rank && ports && rankVariables(attempt, rank, ports)),
    ...attempt.envs,
    ...spec.envs,
    ...secrets,
    ...deviceVariables(node.devices),
    PLINTH_ATTEMPT: String(attempt.attempt),
    PLINTH_JOB: String(attempt.job),
    PLINTH_CHECKPOINT_DIR: checkpointFolder(attempt, join(folder, '..')),
    PLINTH_OUTPUT_DIR: join(folder, 'outputs'),
    [cookieName]: attempt.cookie,
    [processName]: process,
  }
  if (prepared?.path.length) variables['PATH'] = [...prepared.path, variables['PATH']].filter(Boolean).join(delimiter)
  return variables
}

/** All nodes are this machine. */
const address = '127.0.0.1'

function rankVariables({ job, allocation, spec }: Attempt, rank: Rank, ports: Ports): Variables {
  const nodes = allocation.nodes.length
  const devices = allocation.nodes[rank.node]!.devices.length
  return {
    SKYPILOT_NODE_RANK: String(rank.node),
    SKYPILOT_NUM_NODES: String(nodes),
    SKYPILOT_NODE_IPS: Array.from({ length: nodes }, () => address).join('\n'),
    SKYPILOT_NUM_GPUS_PER_NODE: String(devices),
    SKYPILOT_TASK_ID: `plinth-job-${job}`,
    MASTER_ADDR: address,
    MASTER_PORT: String(ports.torch),
    NODE_RANK: String(rank.node),
    NNODES: String(nodes),
    PET_NNODES: String(nodes),
    PET_NPROC_PER_NODE: String(Math.max(1, devices)),
    PET_NODE_RANK: String(rank.node),
    PET_MASTER_ADDR: address,
    PET_MASTER_PORT: String(ports.torch),
    TF_CONFIG: JSON.stringify({
      cluster: { worker: ports.tensorflow.map(port => `${address}:${port}`) },
      task: { type: 'worker', index: rank.index },
    }),
    JAX_COORDINATOR_ADDRESS: `${address}:${ports.jax}`,
    JAX_NUM_PROCESSES: String(rank.count),
    JAX_PROCESS_ID: String(rank.index),
    // only the launcher that starts one process for each accelerator speaks for the script's own ranks
    ...(spec.launcher === 'per-accelerator' && {
      RANK: String(rank.index),
      WORLD_SIZE: String(rank.count),
      LOCAL_RANK: String(rank.local),
      LOCAL_WORLD_SIZE: String(rank.perNode),
      GROUP_RANK: String(rank.node),
    }),
  }
}
