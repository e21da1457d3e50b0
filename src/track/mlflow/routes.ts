/** MLflow's REST API, whole: what its clients and pages ask, and a clear no to the rest. */
import type { ForeignRoute } from '../../api/route.ts'
import type { Db } from '../../db/open.ts'
import { Failure } from '../../failure.ts'
import type { Objects } from '../../storage/objects.ts'
import type { RunLog } from '../log.ts'
import { type Reads, readHere } from '../reads.ts'
import { artifactRoutes } from './artifacts.ts'
import { datasetRoutes } from './datasets.ts'
import { experimentRoutes } from './experiments.ts'
import { historyRoutes } from './history.ts'
import { landingRoute } from './landing.ts'
import { loggedModelRoutes } from './logged-models.ts'
import { registryRoutes } from './registry.ts'
import { runRoutes } from './runs.ts'
import { asMlflowError, mlflowRoute } from './wire.ts'

/** `home`: its folder, where model files are and who serves them is written; `models`: those files, by their digest. */
export const mlflowRoutes = ({ db, log, objects, models, home, reads = readHere(db) }: MlflowParts): ForeignRoute[] => [
  // clients ask for it before they log traces: 3.4 and newer would have to take them
  { method: 'GET', path: '/version', right: 'public', body: 'none', answer: () => '3.3.0', failed: asMlflowError },
  ...mlflowRoute('GET', '/mlflow/server-info', 'viewer', () => serverInfo, '3.0'),
  ...experimentRoutes(db),
  ...runRoutes(db, log, reads),
  ...historyRoutes(reads),
  ...datasetRoutes(db),
  ...artifactRoutes(db, objects, models),
  ...loggedModelRoutes(db),
  ...registryRoutes(db, home),
  ...traceRoutes,
  landingRoute,
  ...otherwise,
]

interface MlflowParts {
  db: Db
  log: RunLog
  objects: Objects
  models: Objects
  home: string
  reads?: Reads
}

const serverInfo = {
  store_type: 'SqlStore',
  workspaces_enabled: false,
  trace_archival_enabled: false,
  multipart_uploads_enabled: false,
  multipart_downloads_enabled: false,
  features_enabled: { gateway: false },
}

/** No traces are kept, so there are none to find; a program that sends one is told, and goes on. */
const traceRoutes: ForeignRoute[] = [
  ...mlflowRoute('POST', '/mlflow/traces/search', 'viewer', () => ({}), '3.0'),
  ...mlflowRoute('GET', '/mlflow/traces', 'viewer', () => ({})),
  ...(['2.0', '3.0'] as const).flatMap(version =>
    mlflowRoute(
      'POST',
      '/mlflow/traces',
      'editor',
      () => {
        throw new Failure('mlflow_not_kept', { problem: 'Traces are not kept here.' })
      },
      version,
    ),
  ),
]

/** What somebody asked for who asks for a route like these. */
const leftOut: readonly (readonly [RegExp, string])[] = [
  [/\/traces\b/, 'traces are'],
  [/\/3\.0\/mlflow\/datasets\b/, 'evaluation datasets are'],
  [/\/scorers?\b/, 'scorers and judges are'],
  [/\/webhooks\b/, 'webhooks are'],
  [/\/gateway\b/, 'the AI gateway is'],
  [/\/workspaces\b/, 'workspaces (a project is one) are'],
  [/\/(issues|jobs|prompt-optimization|assistant|demo|label-schemas|review-queues)\b/, "MLflow's agents and reviews are"],
]

/** Never "does not exist", which clients take for a missing thing: this word tells them to try another version of a call. */
const otherwise: ForeignRoute[] = ['/api/2.0/*', '/api/3.0/*', '/ajax-api/*'].flatMap(path =>
  (['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const).map(
    (method): ForeignRoute => ({
      ...{ method, path, right: 'viewer', body: 'none', failed: asMlflowError },
      answer: ({ raw }) => {
        const path = (raw.url ?? '').split('?', 1)[0]!.slice(0, 200)
        const [, left] = leftOut.find(([pattern]) => pattern.test(path)) ?? []
        throw new Failure('mlflow_route_not_found', { method, path, because: left === undefined ? '' : `: ${left} not part of Plinth` })
      },
    }),
  ),
)
