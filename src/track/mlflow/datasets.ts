/** Which datasets runs of some experiments said they used, for the filter of MLflow's pages. */
import type { ForeignRoute } from '../../api/route.ts'
import type { Db } from '../../db/open.ts'
import { compact, mlflowRoute, wrongParameter } from './wire.ts'

export const datasetRoutes = (db: Db): ForeignRoute[] =>
  mlflowRoute('POST', '/mlflow/experiments/search-datasets', 'viewer', async (message, { project }) => {
    const experiments = message.texts('experiment_ids')
    if (experiments.length === 0) throw wrongParameter('SearchDatasets request must specify at least one experiment_id.')
    if (experiments.length > 20)
      throw wrongParameter(
        `SearchDatasets request cannot specify more than 20 experiment_ids. Received ${experiments.length} experiment_ids.`,
      )
    if (experiments.some(id => !/^\d{1,15}$/.test(id))) message.wrong('experiment_ids', 'Experiment IDs must be valid integers.')
    const rows = await db
      .selectFrom('logged_datasets as d')
      .innerJoin('run_inputs as i', 'i.dataset', 'd.id')
      .innerJoin('experiments as e', 'e.id', 'd.experiment')
      .select(['d.experiment', 'd.name', 'd.digest', 'i.context'])
      .distinct()
      .where('e.project', '=', project)
      .where('d.experiment', 'in', experiments.map(Number))
      .orderBy('d.name')
      .limit(1000)
      .execute()
    return compact({
      dataset_summaries: rows.map(({ experiment, name, digest, context }) =>
        compact({ experiment_id: String(experiment), name, digest, context }),
      ),
    })
  })
