import { readFileSync } from 'node:fs';
import type { Method, ServerCall } from '../grpc/call.ts';
import { Message } from '../grpc/message.ts';
import { bytesField, messageField, readFields, textOf, varintField, type Field } from '../grpc/protobuf.ts';
import { Status } from '../grpc/status.ts';

/** A FileDescriptorSet of everything in proto/, what it imports, and reflection itself; `make descriptors` makes it. */
const DESCRIPTORS = new URL('../../proto/descriptors.binpb', import.meta.url);

const VERSIONS = ['grpc.reflection.v1', 'grpc.reflection.v1alpha'] as const;

/** The members of `ServerReflectionRequest.message_request`; host is none. */
const QUESTIONS: ReadonlySet<number> = new Set([3, 4, 5, 6, 7]);

const NO_HOST = Buffer.alloc(0);

interface File {
  readonly name: string;
  readonly bytes: Buffer;
  readonly dependencies: readonly string[];
  readonly services: readonly string[];
  /** Full names of all that is in it. */
  readonly symbols: ReadonlySet<string>;
}

/** Server reflection, v1 and v1alpha (Workload Endpoint §6: SHOULD). It is for a person with a tool: nothing is read before one asks. */
export class Reflection {
  #read: ReadonlyMap<string, File> | undefined;

  /** The methods by path. */
  methods<C>(): [path: string, method: Method<C>][] {
    return VERSIONS.map((version) => [
      `/${version}.ServerReflection/ServerReflectionInfo`,
      { kind: 'exchange', handle: (call, request) => this.#answer(call, request) },
    ]);
  }

  get #files(): ReadonlyMap<string, File> {
    this.#read ??= new Map([...readFields(readFileSync(DESCRIPTORS))].map(({ bytes }) => readFile(bytes)).map((file) => [file.name, file]));
    return this.#read;
  }

  /** The next question is taken when this answer is on its way. */
  #answer<C>(call: ServerCall<C>, request: Buffer): void {
    const original = messageField(2, Buffer.from(request));
    // They exclude each other: of several the last one counts, so that no request has more than one answer.
    const fields = [...readFields(request)];
    const host = fields.findLast(({ number }) => number === 1);
    const question = fields.findLast(({ number }) => QUESTIONS.has(number));
    const answer = question === undefined ? errorAnswer(Status.invalidArgument, 'no question that is known') : this.#answerTo(question);
    call.send(new Message(Buffer.concat([host === undefined ? NO_HOST : bytesField(1, host.bytes), original, answer])), () => call.next());
  }

  /** The part of `ServerReflectionResponse` that answers one question of `ServerReflectionRequest`. */
  #answerTo(question: Field): Buffer {
    const files = [...this.#files.values()];
    switch (question.number) {
      case 3:
        return this.#fileAnswer(this.#files.get(textOf(question)), question);
      case 4:
        return this.#fileAnswer(files.find(({ symbols }) => symbols.has(textOf(question).replace(/^\./, ''))), question);
      case 5:
      case 6:
        return errorAnswer(Status.notFound, 'there are no extensions');
      default:
        return messageField(6, Buffer.concat(files.flatMap(({ services }) => services).map((name) => messageField(1, bytesField(1, name)))));
    }
  }

  /** The file and all that it needs, each once. */
  #fileAnswer(file: File | undefined, question: Field): Buffer {
    if (file === undefined) return errorAnswer(Status.notFound, `unknown: ${textOf(question).slice(0, 128)}`);
    const needed = new Set([file]);
    for (const each of needed) {
      for (const name of each.dependencies) {
        const dependency = this.#files.get(name);
        if (dependency !== undefined) needed.add(dependency);
      }
    }
    return messageField(4, Buffer.concat([...needed].map(({ bytes }) => messageField(1, bytes))));
  }
}

function errorAnswer(code: number, text: string): Buffer {
  return messageField(7, Buffer.concat([varintField(1, code), bytesField(2, text)]));
}

/** The parts of `FileDescriptorProto` that questions are about. */
function readFile(bytes: Buffer): File {
  const [name = ''] = textsOf(bytes, 1);
  const [scope = ''] = textsOf(bytes, 2);
  const services = partsOf(bytes, 6).map((service) => joined(scope, nameOf(service)));
  const methods = partsOf(bytes, 6).flatMap((service) => partsOf(service, 2).map((method) => joined(joined(scope, nameOf(service)), nameOf(method))));
  const symbols = new Set([...services, ...methods, ...partsOf(bytes, 4).flatMap((message) => symbolsOf(message, scope)), ...partsOf(bytes, 5).map((each) => joined(scope, nameOf(each)))]);
  return { name, bytes, dependencies: textsOf(bytes, 3), services, symbols };
}

/** Of a `DescriptorProto`: itself, its fields, and what is declared in it. */
function symbolsOf(message: Buffer, scope: string): readonly string[] {
  const own = joined(scope, nameOf(message));
  const members = [...partsOf(message, 2), ...partsOf(message, 4), ...partsOf(message, 8)].map((member) => joined(own, nameOf(member)));
  return [own, ...members, ...partsOf(message, 3).flatMap((nested) => symbolsOf(nested, own))];
}

function partsOf(message: Buffer, number: number): readonly Buffer[] {
  return [...readFields(message)].filter((field) => field.number === number).map(({ bytes }) => bytes);
}

function textsOf(message: Buffer, number: number): readonly string[] {
  return partsOf(message, number).map((bytes) => bytes.toString('utf8'));
}

/** The name is field 1 of every descriptor. */
function nameOf(descriptor: Buffer): string {
  return textsOf(descriptor, 1)[0] ?? '';
}

function joined(scope: string, name: string): string {
  return scope === '' ? name : `${scope}.${name}`;
}
