/** Bounds the memory of decoding, however many pictures are asked for at once: so many pixels at a time, the rest waits in order. */

export function createRoom(capacity: number) {
  let used = 0
  const waiting: { size: number; enter: () => void }[] = []
  const admit = () => {
    while (waiting.length > 0 && (used === 0 || used + waiting[0]!.size <= capacity)) {
      const { size, enter } = waiting.shift()!
      used += size
      enter()
    }
  }
  return {
    /** Runs `work` once there is room for `size`; what is larger than the whole room runs alone. */
    async within<T>(size: number, work: () => Promise<T>): Promise<T> {
      await new Promise<void>(enter => {
        waiting.push({ size, enter })
        admit()
      })
      try {
        return await work()
      } finally {
        used -= size
        admit()
      }
    },
  }
}
