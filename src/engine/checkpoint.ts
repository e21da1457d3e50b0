/** A trainer's state on disk: one safetensors file, readable by any tool, with step and manifest in its metadata. */
import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import { Failure } from '../failure.ts'
import { storageFailure, writeFileAtomic } from '../storage/disk.ts'
import { readSafetensors, writeSafetensors } from './safetensors.ts'
import type { TrainerState } from './trainer.ts'

/** The file is the old checkpoint or the new one, whole; also after a kill or a power cut. `manifest`: anything JSON can say. */
export async function writeCheckpoint(path: string, { step, tensors }: TrainerState, manifest: unknown): Promise<void> {
  await writeFileAtomic(path, writeSafetensors(tensors, { step: String(step), manifest: JSON.stringify(manifest) }))
}

/** null where there is no file. @throws checkpoint_damaged */
export async function readCheckpoint<T>(path: string): Promise<{ state: TrainerState; manifest: T } | null> {
  const bytes = await readFile(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code === 'ENOENT') return null
    throw storageFailure(error, path)
  })
  if (!bytes) return null
  try {
    const { tensors, metadata } = readSafetensors(bytes)
    const step = z.coerce.number().int().min(0).parse(metadata.get('step'))
    return { state: { step, tensors }, manifest: JSON.parse(metadata.get('manifest') ?? '') as T }
  } catch (error) {
    throw new Failure('checkpoint_damaged', { path }, { cause: error })
  }
}
