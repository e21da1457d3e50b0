/** Pictures made small for the page: a few at a time, the ones asked for lately kept. */
import { thumbnail } from '../../images/encode.ts'

/** Decoded at once; the decoder bounds the pixels itself. */
const together = 3
const keptBytes = 64 * 2 ** 20

/** Answers WebP within a square of `side` pixels, by the digest of the file. throws blob_missing, blob_damaged, image_… */
export function createThumbnails(blobs: {
  get(content: string): Promise<Uint8Array>
}): (content: string, side: number) => Promise<Uint8Array> {
  const kept = new Map<string, Uint8Array>()
  const underWay = new Map<string, Promise<Uint8Array>>()
  const waiting: (() => void)[] = []
  let bytes = 0
  let busy = 0

  async function make(content: string, side: number, key: string): Promise<Uint8Array> {
    if (busy >= together) await new Promise<void>(resolve => waiting.push(resolve))
    busy++
    try {
      const small = await thumbnail(await blobs.get(content), side)
      kept.set(key, small)
      bytes += small.length
      for (const [oldest, { length }] of kept) {
        if (bytes <= keptBytes) break
        kept.delete(oldest)
        bytes -= length
      }
      return small
    } finally {
      busy--
      underWay.delete(key)
      waiting.shift()?.()
    }
  }

  return async (content, side) => {
    const key = `${content} ${side}`
    const found = kept.get(key)
    if (found) {
      kept.delete(key)
      kept.set(key, found) // asked for last
      return found
    }
    const making = underWay.get(key) ?? make(content, side, key)
    underWay.set(key, making)
    return making
  }
}
