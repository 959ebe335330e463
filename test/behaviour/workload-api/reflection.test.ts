import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Client, credentials, type ServiceDefinition } from '@grpc/grpc-js';
import { loadFileDescriptorSetFromBuffer, loadSync, type PackageDefinition } from '@grpc/proto-loader';
import test, { type ExecutionContext } from 'ava';
import { startTestAgent } from '../../support/agent.ts';

const REFLECTION = join(dirname(createRequire(import.meta.url).resolve('@grpc/reflection/package.json')), 'build', 'proto', 'grpc', 'reflection');
const PUBLISHED = fileURLToPath(new URL('../../../proto/workloadapi.proto', import.meta.url));
const VERSIONS = ['v1', 'v1alpha'] as const;

interface Answer {
  readonly list_services_response?: { readonly service: readonly { readonly name: string }[] };
  readonly file_descriptor_response?: { readonly file_descriptor_proto: readonly Buffer[] };
  readonly error_response?: { readonly error_code: number };
}

/** Asks one question, without any header. */
async function ask(t: ExecutionContext, version: (typeof VERSIONS)[number], question: object): Promise<Answer> {
  const agent = await startTestAgent();
  const client = new Client(`unix:${agent.socketPath}`, credentials.createInsecure(), { 'grpc.use_local_subchannel_pool': 1 });
  t.teardown(async () => {
    client.close();
    await agent.stop();
  });
  const proto = loadSync(join(REFLECTION, version, 'reflection.proto'), { keepCase: true, defaults: false, arrays: true });
  const method = (proto[`grpc.reflection.${version}.ServerReflection`] as unknown as ServiceDefinition)['ServerReflectionInfo']!;
  const call = client.makeBidiStreamRequest<object, Answer>(method.path, method.requestSerialize, method.responseDeserialize as (bytes: Buffer) => Answer);
  call.write(question);
  try {
    for await (const answer of call) return answer as Answer;
  } finally {
    call.on('error', () => undefined);
    call.cancel();
  }
  throw new Error('no answer came');
}

for (const version of VERSIONS) {
  test(`WE-30: reflection ${version} lists the Workload API and health, without the security header`, async (t) => {
    const answer = await ask(t, version, { list_services: '*' });
    const names = (answer.list_services_response?.service ?? []).map(({ name }) => name);
    t.true(names.includes('SpiffeWorkloadAPI'), String(names));
    t.true(names.includes('grpc.health.v1.Health'));
    t.deepEqual(names.filter((name) => !name.startsWith('grpc.')), ['SpiffeWorkloadAPI'], 'WE-28, WA-05: one service of its own, in no package');
  });

  test(`WE-27, WA-04: by reflection ${version} the Workload API has the published methods and fields and no other`, async (t) => {
    const answer = await ask(t, version, { file_containing_symbol: 'SpiffeWorkloadAPI' });
    const files = answer.file_descriptor_response?.file_descriptor_proto ?? [];
    const served = loadFileDescriptorSetFromBuffer(descriptorSet(files), { keepCase: true });
    const published = loadSync(PUBLISHED, { keepCase: true });
    t.deepEqual(methodsOf(served), methodsOf(published));
    t.is(Object.keys(methodsOf(served)).length, 7);
    for (const name of Object.keys(published).filter((key) => key !== 'SpiffeWorkloadAPI' && !key.startsWith('google.'))) {
      t.deepEqual(fieldsOf(served, name), fieldsOf(published, name), name);
    }
  });

  test(`reflection ${version} says that it does not know a symbol`, async (t) => {
    t.is((await ask(t, version, { file_containing_symbol: 'no.Such' })).error_response?.error_code, 5);
  });
}

/** `FileDescriptorSet`: field 1, each of them length-delimited. */
function descriptorSet(files: readonly Buffer[]): Buffer {
  return Buffer.concat(files.flatMap((file) => [Buffer.from([0x0a]), varint(file.length), file]));
}

function varint(value: number): Buffer {
  const bytes: number[] = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 0x80) return Buffer.from([...bytes, rest]);
    bytes.push((rest & 0x7f) | 0x80);
  }
}

function methodsOf(definition: PackageDefinition): Record<string, readonly [boolean, boolean]> {
  const service = definition['SpiffeWorkloadAPI'] as unknown as ServiceDefinition;
  return Object.fromEntries(Object.entries(service).map(([name, method]) => [name, [method.requestStream, method.responseStream]]));
}

function fieldsOf(definition: PackageDefinition, name: string): string[] {
  const { type } = definition[name] as unknown as { type: { field: readonly { name: string; number: number; label: string; type: string }[] } };
  return type.field.map((field) => [field.number, field.name, field.type, field.label].join(' ')).sort();
}
