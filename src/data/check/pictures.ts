/** The files of a manifest, read a second time: for thumbnails, for calibration, for features. From the folder or zip itself, so that nothing need be copied. */
import { Failure } from '../../failure.ts'
import type { Manifest, ManifestRow } from '../../sdk/shapes.ts'
import { type Facts, openFacts, type SeenPicture } from '../facts.ts'
import { openSource } from '../open-source.ts'
import { sha256 } from '../source.ts'

export interface PictureFiles {
  /** Exactly the bytes that the manifest was made of. throws file_unreadable where they have changed since */
  bytes(row: ManifestRow): Promise<Uint8Array>
  close(): Promise<void>
}

/** `source`: what `manifest` was imported from. */
export async function openPictureFiles(source: string, { rows }: Manifest, signal?: AbortSignal): Promise<PictureFiles> {
  const opened = await openSource(source, signal)
  // rows of an archive lack the folder around everything
  const first = rows[0]?.path
  const found = first === undefined ? undefined : opened.files.find(file => file.path === first || file.path.endsWith(`/${first}`))
  const around = found && first !== undefined ? found.path.slice(0, found.path.length - first.length) : ''
  const files = new Map(opened.files.map(file => [file.path, file]))
  const changed = new Failure('file_unreadable', { reason: 'it changed while it was checked' })
  return {
    async bytes(row) {
      const file = files.get(around + row.path)
      if (!file) throw changed
      const bytes = await file.read()
      if (sha256(bytes) !== row.content) throw changed
      return bytes
    },
    close: () => opened.close(),
  }
}

/** The cache of facts in `folder`, or, where nothing can be written, memory: a check needs no right to write anything. */
export async function openFactsOrForget(folder: string): Promise<Facts> {
  return await openFacts(folder).catch(error => {
    if (error instanceof Failure && ['read_only', 'not_permitted', 'disk_full', 'path_in_the_way'].includes(error.code))
      return factsInMemory()
    throw error
  })
}

function factsInMemory(): Facts {
  const known = new Map<string, SeenPicture>()
  return {
    get: content => known.get(content) ?? null,
    grey: content => known.get(content)!.grey,
    put: facts => void known.set(facts.content, facts),
    close: () => known.clear(),
  }
}
