/** Logged models, and the registry. */
import { stages } from '../../models/registered.ts'
import { stored } from '../points.ts'
import { chunks, type Into, isServed } from './into.ts'
import { loggedModelIn, type Owner, type Source, type SourceModel, type SourceRegistered } from './source.ts'
import { takeFiles } from './take-files.ts'

// ── logged models ───────────────────────────────────────────────────────────────────────────────────────────────────────────

export async function takeModel(into: Into, source: Source, model: SourceModel): Promise<void> {
  const { db, project, experiments, count, note } = into
  const experiment = experiments.get(model.experiment)
  if (experiment === undefined) return note(`logged model ${model.id}: its experiment ${model.experiment} is not at the source`)
  const owner: Owner = { kind: 'model', id: model.id, location: model.location }
  const files = await source.files(owner)
  const folder = `${experiment}/models/${model.id}/artifacts`
  const place = `mlflow-artifacts:/${folder}`
  const taken = await db.transaction().execute(async transaction => {
    const { id, name, type, status, message, run, created, updated } = model
    const made = await transaction
      .insertInto('logged_models')
      .values({
        id,
        experiment,
        name,
        type,
        status,
        message,
        run,
        location: files || isServed(model.location) ? place : model.location,
        created,
        updated,
        deleted: model.deleted ? updated : null,
      })
      .onConflict(conflict => conflict.column('id').doNothing())
      .returning('id')
      .executeTakeFirst()
    const row = await transaction
      .selectFrom('logged_models as m')
      .innerJoin('experiments as e', 'e.id', 'm.experiment')
      .select(['m.status', 'm.location', 'e.project'])
      .where('m.id', '=', id)
      .executeTakeFirstOrThrow()
    if (row.project !== project) return false
    if (files && row.location === model.location)
      await transaction.updateTable('logged_models').set({ location: place }).where('id', '=', id).execute()
    if (!made && row.status === 'pending' && status !== 'pending')
      await transaction.updateTable('logged_models').set({ status, message, updated }).where('id', '=', id).execute()
    for (const [table, pairs] of [
      ['logged_model_params', model.params],
      ['logged_model_tags', model.tags],
    ] as const)
      for (const rows of chunks(pairs.map(({ key, value }) => ({ model: id, key, value }))))
        await transaction
          .insertInto(table)
          .values(rows)
          .onConflict(conflict => conflict.doNothing())
          .execute()
    const points = model.metrics.map(({ key, value, timestamp, step, run, datasetName, datasetDigest }) => ({
      ...{ model: id, key, ...stored(value), timestamp, step, run, dataset_name: datasetName, dataset_digest: datasetDigest },
    }))
    for (const rows of chunks(points))
      await transaction
        .insertInto('logged_model_metrics')
        .values(rows)
        .onConflict(conflict => conflict.doNothing())
        .execute()
    count('logged models', { added: made ? 1 : 0 })
    return true
  })
  if (!taken) {
    count('logged models', { here: 0 })
    return note(`logged model ${model.id}: another project has it already`)
  }
  await takeFiles(into, files, owner, folder, place)
}

// ── registry ────────────────────────────────────────────────────────────────────────────────────────────────────────────────

export async function takeRegistered(into: Into, model: SourceRegistered): Promise<void> {
  const { db, project, count, note } = into
  const { name, description, created, updated } = model
  if (/[/:]/.test(name) || name.length > 250) {
    count('registered models', { here: 0 })
    return note(`registered model ${name.slice(0, 250)}: a name with / or : cannot be used in models:/…, so it was left; rename it there`)
  }
  await db.transaction().execute(async transaction => {
    const made = await transaction
      .insertInto('registered_models')
      .values({ project, name, description, created, updated })
      .onConflict(conflict => conflict.doNothing())
      .returning('name')
      .executeTakeFirst()
    count('registered models', { added: made ? 1 : 0 })
    for (const rows of chunks(model.tags.map(({ key, value }) => ({ project, name, key, value }))))
      await transaction
        .insertInto('registered_model_tags')
        .values(rows)
        .onConflict(conflict => conflict.doNothing())
        .execute()
    for (const version of model.versions) {
      const source = movedTo(into, version.source)
      const stage = stages.find(each => each.toLowerCase() === version.stage.toLowerCase()) ?? 'None'
      const row = {
        ...{
          project,
          name,
          version: version.version,
          kind: 'mlflow',
          labels: '[]',
          run: version.run,
          dataset: null,
          bytes: 0,
          digest: '',
          accuracy: null,
        },
        ...{
          created: new Date(version.created).toISOString(),
          updated: version.updated,
          description: version.description,
          user: version.user,
        },
        ...{
          stage,
          source,
          logged_model: loggedModelIn(version.source),
          run_link: version.deleted ? null : version.runLink,
          deleted: version.deleted ? new Date(version.updated).toISOString() : null,
        },
      }
      const added = await transaction
        .insertInto('model_versions')
        .values(row)
        .onConflict(conflict => conflict.columns(['project', 'name', 'version']).doNothing())
        .returning('version')
        .executeTakeFirst()
      const here = await transaction
        .selectFrom('model_versions')
        .select(['source', 'run'])
        .where('project', '=', project)
        .where('name', '=', name)
        .where('version', '=', version.version)
        .executeTakeFirstOrThrow()
      const same = here.source === source && here.run === version.run
      if (!version.deleted) count('model versions', { here: same ? 1 : 0, added: added ? 1 : 0 })
      if (!same) note(`model ${name}: version ${version.version} is another one here, and stays`)
      if (same && !version.deleted)
        for (const rows of chunks(version.tags.map(({ key, value }) => ({ project, name, version: version.version, key, value }))))
          await transaction
            .insertInto('model_version_tags')
            .values(rows)
            .onConflict(conflict => conflict.doNothing())
            .execute()
    }
    const live = new Set(model.versions.filter(({ deleted }) => !deleted).map(({ version }) => version))
    for (const { alias, version } of model.aliases.filter(each => live.has(each.version))) {
      const added = await transaction
        .insertInto('model_aliases')
        .values({ project, name, alias, version })
        .onConflict(conflict => conflict.columns(['project', 'name', 'alias']).doNothing())
        .returning('alias')
        .executeTakeFirst()
      const { version: here } = await transaction
        .selectFrom('model_aliases')
        .select('version')
        .where('project', '=', project)
        .where('name', '=', name)
        .where('alias', '=', alias)
        .executeTakeFirstOrThrow()
      count('aliases', { here: here === version ? 1 : 0, added: added ? 1 : 0 })
      if (here !== version) note(`model ${name}: the alias ${alias} is on version ${here} here (there on ${version}), and stays`)
    }
  })
}

/** A source among files that were copied, where those are now. */
function movedTo({ places, experiments }: Into, source: string): string {
  for (let at = source.replace(/\/+$/, ''); at !== ''; at = at.slice(0, Math.max(0, at.lastIndexOf('/')))) {
    const place = places.get(at)
    if (place) return place + source.replace(/\/+$/, '').slice(at.length)
  }
  // what is gone there: the number of its experiment still means another one here
  const [, experiment = '', rest = ''] = /^mlflow-artifacts:\/+(\d+)(\/.*)?$/i.exec(source) ?? []
  return experiments.has(experiment) ? `mlflow-artifacts:/${experiments.get(experiment)}${rest}` : source
}
