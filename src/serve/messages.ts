/** What the gateway and a model host say to each other over the host's channel. Plain data; pictures travel as bytes. */
import type { SentFailure } from '../failure.ts'
import type { Explanation, Prediction } from '../sdk/index.ts'

export type ToHost =
  | { kind: 'open'; path: string; model: string; threads: number }
  /** `formats`: pictures from strangers, or the examples of this machine's owner. */
  | { kind: 'predict'; id: number; picture: Uint8Array; formats: 'upload' | 'local' }
  /** The same with why. */
  | { kind: 'explain'; id: number; picture: Uint8Array; formats: 'upload' | 'local' }
  /** A picture made small for a page, written anew so that nothing of the original's bytes reaches a browser. */
  | { kind: 'thumbnail'; id: number; picture: Uint8Array; side: number }

export type FromHost =
  | { kind: 'ready'; model: OpenedModel }
  | { kind: 'refused'; failure: SentFailure }
  | { kind: 'answer'; id: number; prediction: Prediction; batch: number; explanation?: Explanation }
  | { kind: 'picture'; id: number; bytes: Uint8Array }
  | { kind: 'failed'; id: number; failure: SentFailure }

export interface OpenedModel {
  labels: string[]
  threshold: number
  /** Null where a picture is called unknown by its probability alone. */
  unknown: { threshold: number; falseAlarmRate: number } | null
  backbone: string
  imageSize: number
  created: string
  golden: { pictures: number; largestDifference: number }
}
