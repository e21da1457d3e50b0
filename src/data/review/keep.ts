/** Which of several copies is the one to keep: the largest and least edited, as far as files tell. */
import type { ReviewPicture } from './queue.ts'

/** Each answers more for the better picture; the first that tells two apart decides, and is the reason given. */
const preferences: readonly { why: string; of(picture: ReviewPicture): number }[] = [
  { why: 'the only one that is whole', of: ({ flags }) => -Number(flags.includes('truncated') || flags.includes('damaged')) },
  { why: 'the largest', of: ({ width, height }) => width * height },
  { why: 'the one in colour', of: ({ flags }) => -Number(flags.includes('grey')) },
  {
    why: 'the one that still says which camera took it',
    of: ({ camera, captured }) => Number(Boolean(camera)) + Number(Boolean(captured)),
  },
  { why: 'the one with the most bytes, so the least compressed', of: ({ bytes }) => bytes ?? 0 },
  {
    why: 'the one whose name is not that of a copy',
    of: ({ path }) => -Number(/copy|kopie|copie|duplicate|\(\d+\)|[ _-]edit/i.test(nameOf(path))),
  },
]

/** The place of the one to keep, and why in words. The same pictures give the same answer in any order of the files. */
export function bestToKeep(pictures: readonly ReviewPicture[]): { index: number; why: string } {
  let left = pictures.map((picture, index) => ({ picture, index }))
  for (const { why, of } of preferences) {
    const best = Math.max(...left.map(({ picture }) => of(picture)))
    const better = left.filter(({ picture }) => of(picture) === best)
    if (better.length === 1) return { index: better[0]!.index, why }
    left = better
  }
  left.sort((a, b) => (a.picture.path < b.picture.path ? -1 : 1))
  return { index: left[0]!.index, why: 'the first by name, for they do not differ' }
}

const nameOf = (path: string) => path.slice(path.lastIndexOf('/') + 1)
