/**
 * Which build of PyTorch fits the device that a job was given. On Linux the package index has one build, for the current CUDA (about 3 GB, and it
 * computes on processors too); builds for processors alone (about 0.2 GB), older drivers and other vendors are on an index of PyTorch's own.
 * Source of the drivers: NVIDIA, CUDA Toolkit release notes, table 3 (minor version compatibility within a major version).
 */
import { execFile } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { makeFolder, writeFileAtomic } from '../../storage/disk.ts'
import type { Allocation } from '../attempt.ts'
import { byVersion } from './interpreters.ts'
import { environmentsFolder } from './store.ts'

export type LeasedDevice = Allocation['nodes'][number]['devices'][number]

/** Packages that bring PyTorch or its relatives; for others its index is not asked. */
const bringTorch = new Set(
  `torch torchvision torchaudio torchtext torchdata torchmetrics torchgeo torch-geometric torchrl lightning pytorch-lightning fastai timm ultralytics
  accelerate diffusers peft trl sentence-transformers bitsandbytes flash-attn xformers vllm deepspeed kornia monai captum segmentation-models-pytorch
  open-clip-torch openai-whisper facenet-pytorch effdet albumentations-pytorch botorch gpytorch pyro-ppl skorch stable-baselines3 easyocr spacy-transformers
  flair allennlp torchtune litgpt unsloth pytorch-forecasting neuralforecast darts autogluon`.split(/\s+/),
)

/** Newest first; a driver runs what was made for its CUDA or an older one. */
const cudaBuilds: readonly [build: string, driver: string][] = [
  ['cu130', '580.0'],
  ['cu126', '525.60.13'],
  ['cu118', '450.80.2'],
]

/**
 * As PyTorch's index and uv's --torch-backend name it; null: the build of the package index is the right one.
 * `driver`: version of NVIDIA's, where one is known.
 */
export function torchBuild(
  devices: readonly Pick<LeasedDevice, 'vendor'>[],
  { platform, driver }: { platform: NodeJS.Platform; driver: string | null },
): string | null {
  if (platform !== 'linux') return null // on macOS and Windows the package index has builds for the processor and for Metal
  const vendor = devices[0]?.vendor
  if (vendor === undefined) return 'cpu'
  if (vendor === 'nvidia') return driver === null ? null : (cudaBuilds.find(([, needed]) => byVersion(driver, needed) >= 0)?.[0] ?? 'cpu')
  if (vendor === 'amd') return 'rocm7.1'
  if (vendor === 'intel') return 'xpu'
  return 'cpu' // TPU, Gaudi and Neuron come with packages of their own
}

/** What the environment is for, in its content address. */
export const acceleratorTag = (devices: readonly Pick<LeasedDevice, 'vendor'>[]): string => devices[0]?.vendor ?? 'cpu'

export const wantsTorch = (names: readonly string[]): boolean => names.some(name => bringTorch.has(name))

export const torchIndexes = 'https://download.pytorch.org/whl'
export const torchIndex = (build: string, indexes = torchIndexes): string => `${indexes}/${build}`

// ── whether it can be reached ───────────────────────────────────────────────────────────────────────────────────────────────

const Known = z.record(z.string(), z.object({ problem: z.string().nullable(), asked: z.number() }))

/** Milliseconds that an answer is believed: a network that came back should not wait long for it, one that is there stays. */
const believed = { reachable: 60 * 60 * 1000, unreachable: 10 * 60 * 1000 }
const seconds = 3

/**
 * Null where it answers, else what stands in the way. Asked with the interpreter's own client, because that goes through the same proxies and
 * certificates as the installer; the answer is kept for a while, so that not every job waits for it.
 */
export async function indexProblem(url: string, interpreter: string, env: Readonly<Record<string, string>>): Promise<string | null> {
  const file = join(await makeFolder(environmentsFolder()), 'reachable.json')
  const known = Known.safeParse(JSON.parse(await readFile(file, 'utf8').catch(() => '{}')))
  const answers = known.success ? known.data : {}
  const answer = answers[url]
  const age = answer ? Date.now() - answer.asked : Number.POSITIVE_INFINITY
  if (answer && age >= 0 && age < (answer.problem === null ? believed.reachable : believed.unreachable)) return answer.problem
  const problem = await ask(url, interpreter, env)
  await writeFileAtomic(file, JSON.stringify({ ...answers, [url]: { problem, asked: Date.now() } }))
  return problem
}

const client = `
import sys, urllib.request, urllib.error
try:
    urllib.request.urlopen(urllib.request.Request(sys.argv[1], method='HEAD'), timeout=${seconds})
except urllib.error.HTTPError as e:
    print('it answers %d' % e.code)
except urllib.error.URLError as e:
    print(getattr(e.reason, 'strerror', None) or e.reason)
except Exception as e:
    print(e)
`

function ask(url: string, interpreter: string, env: Readonly<Record<string, string>>): Promise<string | null> {
  return new Promise(resolve => {
    // a name that does not resolve is not held to the time limit of the connection
    execFile(
      interpreter,
      ['-c', client, `${url}/`],
      { timeout: (seconds + 1) * 1000, killSignal: 'SIGKILL', env: { ...env } },
      (error, stdout) => {
        if (error) resolve(error.killed ? 'no answer in time' : 'it could not be asked')
        else resolve(stdout.trim().split('\n')[0] || null)
      },
    )
  })
}
