// Drives a chainrule server with @grpc/grpc-js: submits a job, watches it to its end, predicts, explains.
//
// node client.js ADDRESS reflection
// node client.js ADDRESS protos FOLDER...     the .proto files below these folders, and nothing else
//
// Standard input: {"spec": a JobSpec, "rows": [[number, …], …]}. Standard output: one line of JSON.
'use strict';
const grpc = require('@grpc/grpc-js');
const loader = require('@grpc/proto-loader');
const { GrpcReflection } = require('grpc-js-reflection-client');

const OPTIONS = { keepCase: true, longs: Number, enums: String, defaults: true, oneofs: true };
const FILES = ['chainrule/v1/job_service.proto', 'chainrule/v1/model_service.proto', 'google/rpc/error_details.proto'];
const DEADLINE_MS = 60_000;

async function byReflection(address) {
  const reflection = new GrpcReflection(address, grpc.credentials.createInsecure(), {}, 'v1');
  const services = await reflection.listServices();
  const found = {};
  for (const name of services.filter(name => name.startsWith('chainrule.v1.') || name === 'grpc.health.v1.Health')) {
    const described = await reflection.getDescriptorBySymbol(name);
    found[name] = at(described.getPackageObject(OPTIONS), name);
  }
  return found;
}

function byProtos(folders) {
  const loaded = grpc.loadPackageDefinition(loader.loadSync(FILES, { ...OPTIONS, includeDirs: folders }));
  return Object.fromEntries(
    ['chainrule.v1.JobService', 'chainrule.v1.ModelService'].map(name => [name, at(loaded, name)]));
}

const at = (loaded, path) => path.split('.').reduce((part, name) => part[name], loaded);

const call = (client, method, request) => new Promise((resolve, reject) =>
  client[method](request, { deadline: Date.now() + DEADLINE_MS }, (error, answer) =>
    error ? reject(error) : resolve(answer)));

const stream = (client, method, request) => new Promise((resolve, reject) => {
  const answers = [];
  client[method](request, { deadline: Date.now() + DEADLINE_MS })
    .on('data', answer => answers.push(answer)).on('error', reject).on('end', () => resolve(answers));
});

// protobufjs has google.protobuf.Value built in, with its fields in camel case whatever keepCase says; from reflection
// they come as they are written. What it doesn't know it leaves out.
const value = each => ({ number_value: each, numberValue: each });

async function refusal(client, method, request) {
  try {
    await call(client, method, request);
  } catch (error) {
    const [details] = error.metadata.get('grpc-status-details-bin');
    return { code: grpc.status[error.code], message: error.details, details: details.toString('latin1') };
  }
  throw new Error(`${method} was not refused`);
}

async function main() {
  const [address, how, ...folders] = process.argv.slice(2);
  const { spec, rows } = JSON.parse(require('fs').readFileSync(0, 'utf8'));
  const kinds = how === 'reflection' ? await byReflection(address) : byProtos(folders);
  const made = name => new kinds[name](address, grpc.credentials.createInsecure());
  const jobs = made('chainrule.v1.JobService'), models = made('chainrule.v1.ModelService');
  const found = { services: Object.keys(kinds).sort() };
  if ('grpc.health.v1.Health' in kinds)
    found.health = (await call(made('grpc.health.v1.Health'), 'Check', { service: 'chainrule.v1.JobService' })).status;
  found.refused = await refusal(jobs, 'CreateJob', { spec: { ...spec, training: { ...spec.training, epochs: 0 } } });
  found.estimate = (await call(jobs, 'CreateJob', { spec, validate_only: true })).estimate;
  const { job } = await call(jobs, 'CreateJob', { spec });
  const seen = await stream(jobs, 'WatchJob', { job_id: job.job_id });
  found.states = [...new Set(seen.map(each => each.job.state))];
  found.result = seen.at(-1).job.result;
  found.listed = (await call(jobs, 'ListJobs', { page_size: 1, states: ['JOB_STATE_SUCCEEDED'] })).jobs
    .map(each => each.job_id === job.job_id);
  // More workers than there are: it stays in the queue.
  const large = (await call(jobs, 'CreateJob', { spec: { ...spec, training: { ...spec.training, min_workers: 8 } } })).job;
  found.paused = [];
  for (const method of ['PauseJob', 'PauseJob', 'ResumeJob', 'CancelJob'])
    found.paused.push((await call(jobs, method, { job_id: large.job_id })).job.state);
  const lists = rows.map(row => ({ values: row.map(value) }));
  found.predictions = (await call(models, 'Predict', { job_id: job.job_id, rows: lists })).predictions
    .map(each => each.value);
  const { nodes } = await call(models, 'Explain', { job_id: job.job_id, row: 0 });
  found.last_node = nodes.at(-1);
  const parts = await stream(jobs, 'DownloadModel', { job_id: job.job_id });
  found.model_bytes = parts.reduce((sum, part) => sum + part.content.length, 0);
  console.log(JSON.stringify(found));
  process.exit(0);
}

main().catch(error => {
  console.error(error);
  process.exit(1);
});
