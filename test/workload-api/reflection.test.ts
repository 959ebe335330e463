import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { ServiceDefinition } from '@grpc/grpc-js';
import { loadFileDescriptorSetFromBuffer, loadSync, type PackageDefinition } from '@grpc/proto-loader';
import test from 'ava';
import type { ServerCall } from '../../src/grpc/call.ts';
import type { Message } from '../../src/grpc/message.ts';
import { Reflection } from '../../src/workload-api/reflection.ts';

const PROTO = fileURLToPath(new URL('../../proto/', import.meta.url));
const IMPORTED = join(dirname(createRequire(import.meta.url).resolve('@grpc/reflection/package.json')), 'build', 'proto', 'grpc', 'reflection');
const SOURCES = [join(PROTO, 'workloadapi.proto'), join(PROTO, 'health.proto'), join(IMPORTED, 'v1', 'reflection.proto'), join(IMPORTED, 'v1alpha', 'reflection.proto')];

interface Answer {
  readonly valid_host: string;
  readonly original_request: object;
  readonly list_services_response?: { readonly service: readonly { readonly name: string }[] };
  readonly file_descriptor_response?: { readonly file_descriptor_proto: readonly Buffer[] };
  readonly error_response?: { readonly error_code: number; readonly error_message: string };
}

const service = loadSync(SOURCES[2]!, { keepCase: true, arrays: true })['grpc.reflection.v1.ServerReflection'] as unknown as ServiceDefinition;
const { requestSerialize, responseDeserialize } = service['ServerReflectionInfo']!;

/** One question as bytes, and its answer. */
function ask(question: Buffer): { readonly answer: Answer; readonly bytes: number } {
  const said: Message[] = [];
  const call = { send: (message: Message) => said.push(message) > 0, next: () => undefined } as unknown as ServerCall<undefined>;
  new Reflection().methods<undefined>()[0]![1].handle(call, question);
  return { answer: responseDeserialize(said[0]!.content) as Answer, bytes: said[0]!.bytes.length };
}

const encoded = (question: object): Buffer => requestSerialize(question) as Buffer;

/** Messages, enums and services, as another implementation of protobuf has them; without what only sources say. */
function declared(definition: PackageDefinition): Record<string, unknown> {
  return Object.fromEntries(Object.entries(definition).map(([name, each]) => {
    if ('type' in each) return [name, each.type];
    return [name, Object.values(each as ServiceDefinition).map((method) => [method.path, method.requestStream, method.responseStream])];
  }));
}

test('descriptors.binpb says what the .proto files say, of each message, enum and service', (t) => {
  const made = declared(loadFileDescriptorSetFromBuffer(readFileSync(join(PROTO, 'descriptors.binpb')), { keepCase: true }));
  for (const source of SOURCES) {
    const said = declared(loadSync(source, { keepCase: true }));
    t.true(Object.keys(said).length > 2);
    for (const [name, what] of Object.entries(said)) t.deepEqual(shapeOf(made[name]), shapeOf(what), `${source}: ${name}`);
  }
});

interface Type {
  readonly field?: readonly Record<string, unknown>[];
  readonly value?: readonly { readonly name: string; readonly number: number }[];
}

/** protobufjs spells the types of Google's that it brings itself in its own way. */
function bare(name: string): string {
  return name.replaceAll('_', '').toLowerCase();
}

/** The parts of a descriptor that count on the wire. */
function shapeOf(what: unknown): unknown {
  if (Array.isArray(what)) return what;
  const { field = [], value = [] } = what as Type;
  return { fields: field.map(({ name, number, label, type }) => [number, bare(String(name)), label, type].join(' ')).sort(), values: value.map(({ name, number }) => [name, number]) };
}

test('the services are listed, and files are given with all that they import', (t) => {
  const names = ask(encoded({ list_services: '' })).answer.list_services_response!.service.map(({ name }) => name);
  t.deepEqual(names.sort(), ['SpiffeWorkloadAPI', 'grpc.health.v1.Health', 'grpc.reflection.v1.ServerReflection', 'grpc.reflection.v1alpha.ServerReflection']);
  const filesOf = (question: object): number | undefined => ask(encoded(question)).answer.file_descriptor_response?.file_descriptor_proto.length;
  t.is(filesOf({ file_by_filename: 'workloadapi.proto' }), 2);
  for (const symbol of ['SpiffeWorkloadAPI', '.SpiffeWorkloadAPI', 'SpiffeWorkloadAPI.FetchX509SVID', 'X509SVID', 'X509SVID.hint', 'google.protobuf.Value']) {
    t.true((filesOf({ file_containing_symbol: symbol }) ?? 0) > 0, symbol);
  }
});

test('what is not there is not found, in a text that is bounded', (t) => {
  for (const question of [{ file_by_filename: 'x'.repeat(10_000) }, { file_containing_symbol: 'no.Such' }, { all_extension_numbers_of_type: 'X509SVID' }, { file_containing_extension: { containing_type: 'X509SVID', extension_number: 1 } }]) {
    const { error_response: error } = ask(encoded(question)).answer;
    t.is(error?.error_code, 5);
    t.true(error!.error_message.length < 200);
  }
});

test('a question that is none is told so, and the host and the question come back', (t) => {
  const { answer } = ask(encoded({ host: 'here' }));
  t.deepEqual([answer.valid_host, answer.error_response?.error_code], ['here', 3]);
  t.like(answer.original_request, { host: 'here' });
});

test('of several questions in one request the last one counts: none makes an answer of many files', (t) => {
  const once = encoded({ file_by_filename: 'workloadapi.proto' });
  const asked = ask(Buffer.concat(Array.from({ length: 3_000 }, () => once)));
  t.is(asked.answer.file_descriptor_response?.file_descriptor_proto.length, 2);
  t.true(asked.bytes < ask(once).bytes + 3_001 * once.length, `${asked.bytes} bytes`);
});
